"""What a circuit's function reads from outside: a trace is right as long as that stays what it was."""

from __future__ import annotations

import argparse
import builtins
import contextlib
import dis
import functools
import inspect
import os
import random
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import CellType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qbp.circuit.tracing.outside import BUFFERS, CONTAINERS, is_installed, obstacle_of, reads_elsewhere

__all__ = ["TRAINED", "Watch"]

TRAINED = "reads a tensor from outside that is trained"
_NOTHING = object()
_PLAIN = (int, float, complex, str, bytes, bool, type(None))
_RANDOM = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
_LARGEST = 10_000  # things that are looked at
_COMPARED = 4096  # numbers of a tensor that are compared: `.data` and NumPy change them without a new version


class Watch:
    """What a function and those that it calls read: globals, closures, attributes, contents of containers, tensors.

    Found by reading code: from the function's globals, closure, defaults and own arguments to the attributes whose
    names the code loads. Functions of libraries are not looked into, nor are those of installed packages but the
    function's own.

    Args:
        function: the function.
        parts: what else the circuit is made of, as the functions of a QNode's transforms.

    Attributes:
        obstacle: what cannot be watched, in words; None where everything can.
    """

    def __init__(self, function: Callable[..., Any], *parts: Any):
        self.obstacle: str | None = None
        self._names: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        self._cells: dict[int, tuple[CellType, Any]] = {}
        self._versions: dict[int, tuple[Tensor, int, int]] = {}
        self._numbers: dict[int, tuple[np.ndarray, bytes]] = {}
        self._contents: dict[int, tuple[Any, Any]] = {}
        self._loads: set[str] = set()
        self._asked: set[str] = set()
        self._seen: dict[int, Any] = {}
        self._own = (getattr(inspect.unwrap(function), "__module__", None) or "").split(".")[0]
        n_loads = -1
        while n_loads != len(self._loads):  # names that are loaded later count for what was seen earlier
            n_loads = len(self._loads)
            self._seen = {}
            for part in (function, *parts):
                self._look(part)
        self._alive = tuple(self._seen.values())  # so that an id stays that of one thing
        self._checks, self._held = tuple(self._names.values()), tuple(self._cells.values())

    def __deepcopy__(self, memo: dict[int, Any]) -> Watch:
        return self

    def is_current(self) -> bool:
        """Whether everything is what it was."""
        for mapping, name, value in self._checks:
            if mapping.get(name, _NOTHING) is not value and not _equal(mapping.get(name, _NOTHING), value):
                return False
        for cell, value in self._held:
            if cell.cell_contents is not value and not _equal(cell.cell_contents, value):
                return False
        if self._versions:
            for tensor, version, place in self._versions.values():
                if tensor._version != version or tensor.data_ptr() != place:
                    return False
            for numbers, was in self._numbers.values():
                if numbers.tobytes() != was:
                    return False
        if self._contents:
            for thing, contents in self._contents.values():
                if _contents(thing) != contents:
                    return False
        return True

    def settle(self) -> None:
        """Forget what has changed since: the function itself changes it, which must not make a difference."""
        self._checks = tuple(c for c in self._checks if _equal(c[0].get(c[1], _NOTHING), c[2]))
        self._held = tuple((cell, value) for cell, value in self._held if _equal(cell.cell_contents, value))
        self._versions = {k: v for k, v in self._versions.items() if v[0]._version == v[1]}
        self._numbers = {k: v for k, v in self._numbers.items() if v[0].tobytes() == v[1] and k in self._versions}
        self._contents = {k: (thing, was) for k, (thing, was) in self._contents.items() if _contents(thing) == was}

    # ---- looking -----------------------------------------------------------------------------------------------------

    def _look(self, thing: Any) -> None:
        """Note what of `thing` can change, and go on to what it holds."""
        if isinstance(thing, _PLAIN) or id(thing) in self._seen or len(self._seen) > _LARGEST:
            return
        self._seen[id(thing)] = thing
        if isinstance(thing, Tensor):
            self._look_at_tensor(thing)
        elif isinstance(thing, _RANDOM) or isinstance(getattr(thing, "__self__", None), _RANDOM):
            self.obstacle = self.obstacle or "draws random numbers"
        elif isinstance(thing, Iterator):
            self.obstacle = self.obstacle or f"reads on in a {type(thing).__name__}"
        elif isinstance(thing, FunctionType):
            self._look_at_function(thing)
        elif isinstance(thing, MethodType):
            self._look(thing.__self__)
            self._look(thing.__func__)
        elif isinstance(thing, functools.partial):
            for part in (thing.func, *thing.args, *thing.keywords.values()):
                self._look(part)
        elif reads_elsewhere(thing):
            self.obstacle = (
                self.obstacle or f"calls {getattr(thing, '__name__', thing)}, which reads what is not watched"
            )
        elif isinstance(thing, types.BuiltinFunctionType) and not isinstance(thing.__self__, ModuleType | type(None)):
            self._look(thing.__self__)  # a method of a container, say
        elif isinstance(thing, weakref.ReferenceType):
            self._look(thing())
        elif isinstance(thing, CONTAINERS):
            if not isinstance(thing, tuple | frozenset):
                self._contents[id(thing)] = thing, _contents(thing)
            values = thing.values() if isinstance(thing, Mapping) else ()  # a tuple may have a field of that name
            for part in [] if isinstance(thing, (np.ndarray, *BUFFERS)) else [*thing, *values]:
                self._look(part)
        elif isinstance(thing, nn.Module):
            self._look_at_object(thing)
        elif not inspect.isclass(thing) and (obstacle := obstacle_of(thing, self._loads)):
            self.obstacle = self.obstacle or obstacle
        elif not self._is_of_library(thing) or _has_attributes(thing):
            self._look_at_object(thing)
            self._look(vars(thing).get("__wrapped__") if _has_attributes(thing) else None)  # as `functools.cache` makes

    def _look_at_function(self, function: FunctionType) -> None:
        if self._is_of_library(function):
            if hasattr(function, "__wrapped__"):
                self._look(function.__wrapped__)
            return
        chains = self._read(function.__code__)
        names = {chain[0] for chain in chains}
        if names & {"globals", "locals", "vars"}:
            names |= self._asked
        for name in names:
            if not name.startswith("@"):  # pytest's, where it rewrites an `assert`
                self._note(function.__globals__, name)
        for chain in chains:
            self._look_along(function.__globals__, chain)
        if function.__defaults__:
            self._names[id(function), "__defaults__"] = _Slots(function), "__defaults__", function.__defaults__
        for name in self._loads & set(vars(function)) - {"__wrapped__"}:
            self._note(vars(function), name)
        for cell in function.__closure__ or ():
            value = getattr(cell, "cell_contents", _NOTHING)
            if value is not _NOTHING:
                self._cells[id(cell)] = cell, value
                self._look(value)
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self._look(default)

    def _look_at_tensor(self, tensor: Tensor) -> None:
        self._versions[id(tensor)] = tensor, tensor._version, tensor.data_ptr()
        if tensor.requires_grad:
            self.obstacle = self.obstacle or TRAINED
        if tensor.is_cpu and tensor.numel() <= _COMPARED:
            with contextlib.suppress(RuntimeError, TypeError):  # a dtype that NumPy does not have
                numbers = tensor.detach().numpy()
                self._numbers[id(tensor)] = numbers, numbers.tobytes()

    def _look_along(self, names: Mapping[str, Any], chain: tuple[str, ...]) -> None:
        """Note what a library's attribute is, as `os.environ`, and which function reads what cannot be watched."""
        value = names.get(chain[0], vars(builtins).get(chain[0], _NOTHING))
        for attribute in (None, *chain[1:]):
            if attribute is not None:
                if not (isinstance(value, ModuleType) or inspect.isclass(value)) or not self._is_of_library(value):
                    return
                value = inspect.getattr_static(value, attribute, _NOTHING)
                value = getattr(value, "__func__", value) if isinstance(value, staticmethod) else value
            if reads_elsewhere(value):
                self.obstacle = self.obstacle or f"calls {'.'.join(chain)}, which reads what is not watched"
            elif isinstance(value, FunctionType) and value.__module__ == "os" and "environ" in value.__code__.co_names:
                self._look(os.environ)
            elif isinstance(value, CONTAINERS) and attribute is not None and not isinstance(value, tuple | frozenset):
                self._look(value)

    def _read(self, code: CodeType) -> set[tuple[str, ...]]:
        """The globals that code reads, each with the attributes of it that it loads, with those of functions inside;
        notes all attributes that it loads."""
        chains: set[tuple[str, ...]] = set()
        chain: tuple[str, ...] = ()
        for instruction in dis.get_instructions(code):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                chain = (str(instruction.argval),)
                chains.add(chain)
            elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
                self._loads.add(str(instruction.argval))
                chain = (*chain, str(instruction.argval)) if chain else ()
                chains |= {chain} if chain else set()
            elif instruction.opname != "CACHE":
                chain = ()
            if isinstance(instruction.argval, str) and instruction.opname == "LOAD_CONST":
                self._asked.add(instruction.argval)  # of getattr(thing, "name", default)
                self._loads.add(instruction.argval)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                chains |= self._read(constant)
        return chains

    def _look_at_object(self, thing: Any) -> None:
        """The attributes of an object, a class or a module that the code loads."""
        kind = thing if inspect.isclass(thing) else type(thing)
        own = getattr(thing, "__dict__", {})
        places = [own, *(own.get(part, {}) for part in ("_parameters", "_buffers", "_modules"))]
        for name in [n for n in self._loads if not n.startswith("__")]:
            place = next((p for p in places if isinstance(p, Mapping) and name in p), None)
            if place is not None:
                self._note(place, name)
                continue
            base = (
                next((b for b in kind.__mro__ if name in vars(b)), None) if not isinstance(thing, ModuleType) else None
            )
            if base is not None and isinstance(vars(base)[name], MemberDescriptorType):  # of __slots__
                self._note(_Slots(thing), name)
            elif base is not None and not self._is_of_library(base):
                self._note(vars(base), name)
                if isinstance(own, dict):
                    self._names[id(own), name] = own, name, _NOTHING  # it may come to hide that of the class
            elif name in self._asked and isinstance(own, dict):
                self._names[id(own), name] = own, name, _NOTHING  # it may come
        if not isinstance(thing, ModuleType) and not inspect.isclass(thing):
            for name in ("__call__", "__getitem__", "__iter__", "__len__", "__getattr__"):
                base = next((b for b in kind.__mro__ if name in vars(b)), None)
                if base is not None and not self._is_of_library(base):
                    self._look(vars(base)[name])

    def _note(self, mapping: Any, name: str) -> None:
        value = mapping.get(name, _NOTHING)
        if value is _NOTHING:
            return
        if isinstance(value, ModuleType):
            if not self._is_of_library(value):
                self._look(value)
            return
        if isinstance(value, property | staticmethod | classmethod | functools.cached_property):
            self._look(getattr(value, "fget", None) or getattr(value, "func", None) or getattr(value, "__func__", None))
            return
        if not (callable(value) and self._is_of_library(value)) or isinstance(value, nn.Module):
            self._names[id(mapping), name] = mapping, name, value
        self._look(value)

    def _is_of_library(self, thing: Any) -> bool:
        kind = thing if isinstance(thing, ModuleType | FunctionType) or inspect.isclass(thing) else type(thing)
        name = kind.__name__ if isinstance(kind, ModuleType) else getattr(kind, "__module__", None)
        package = (name or "builtins").split(".")[0]
        return package != self._own and is_installed(package)


class _Slots:
    """The attributes of an object without a dictionary, as one."""

    def __init__(self, thing: Any):
        self.thing = thing

    def get(self, name: str, default: Any) -> Any:
        return getattr(self.thing, name, default)


def _has_attributes(thing: Any) -> bool:
    """Whether an object of a library keeps what users put into it, as `types.SimpleNamespace` does."""
    kinds = types.SimpleNamespace, argparse.Namespace, types.FunctionType, functools._lru_cache_wrapper
    return isinstance(thing, kinds)


def _equal(a: Any, b: Any) -> bool:
    """Whether plain values are equal, and other things the same."""
    return a is b or (type(a) is type(b) and isinstance(a, _PLAIN) and a == b)


def _contents(thing: Any) -> Any:
    """What a container holds, as something to compare: plain values, and which others."""
    if isinstance(thing, BUFFERS):
        return bytes(thing)
    if isinstance(thing, np.ndarray):
        return thing.shape, thing.dtype.str, thing.tobytes() if thing.dtype != object else repr(thing)
    if isinstance(thing, Mapping):
        return [(_item(key), _item(value)) for key, value in thing.items()]
    items = [_item(part) for part in thing]
    return set(items) if isinstance(thing, set) else items


def _item(thing: Any) -> Any:
    return (type(thing), thing) if isinstance(thing, _PLAIN) else id(thing)
