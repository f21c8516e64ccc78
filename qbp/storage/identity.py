"""What a value is, as text that can be kept and compared: functions by code and closure, tensors by their numbers."""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Identity", "identity"]

DEEPEST, MOST = 60, 100_000
PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range, slice, np.generic)
SPELLED = (*PLAIN, torch.dtype, torch.device)  # their repr says all
UNSAID = frozenset(("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__"))
UNSAID |= {"__firstlineno__", "__static_attributes__"}  # of Python 3.13


class Identity(NamedTuple):
    """A value as text, and what in it cannot be compared."""

    text: str
    opaque: tuple[str, ...]


def identity(value: Any, names: Mapping[int, str] | None = None) -> Identity:
    """Say what a function, or another object, is: the same text means that it does the same.

    Functions and classes of Python, qbp and installed packages are their names; those of the user's own are their
    code, with their defaults, what they close over and the global names that they use. Tensors and arrays are their
    numbers, other objects their attributes.

    Args:
        value: the value.
        names: by `id` what is to be called by a name, and not looked into.

    Returns:
        `text`, a name with a digest of all that a name does not say; `opaque`, the types of what cannot be looked into.

    Example:
        >>> identity(torch.optim.SGD).text
        'torch.optim.sgd.SGD'
        >>> momentum = lambda m: functools.partial(torch.optim.SGD, momentum=m)
        >>> identity(momentum(0.9)) == identity(momentum(0.9)), identity(momentum(0.9)) == identity(momentum(0.1))
        (True, False)
    """
    if isinstance(value, str):
        return Identity(value, ())
    name = _name(value)
    if isinstance(value, type | FunctionType | BuiltinFunctionType) and _says_all(value):
        return Identity(name, ())
    walk = _Walk(names or {})
    walk.visit(value)
    return Identity(f"{name}#{walk.digest.hexdigest()[:16]}", tuple(dict.fromkeys(walk.opaque)))


class _Walk:
    """A digest over everything that can be reached from a value."""

    def __init__(self, names: Mapping[int, str]):
        self.names, self.digest = names, hashlib.sha256()
        self.seen: dict[int, tuple[int, Any]] = {}  # with the value: an id is only unique while it lives
        self.opaque: list[str] = []
        self.depth = 0

    def add(self, *words: object) -> None:
        self.digest.update(f"{words!r}\n".encode("utf-8", "surrogatepass"))

    def visit(self, value: Any) -> None:
        if id(value) in self.names:
            self.add("named", self.names[id(value)])
        elif isinstance(value, SPELLED):
            self.add(type(value).__name__, value)
        elif id(value) in self.seen:
            self.add("again", self.seen[id(value)][0])
        elif self.depth >= DEEPEST or len(self.seen) >= MOST:
            self.opaque.append("more than can be looked through")
        else:
            self.seen[id(value)] = len(self.seen), value
            self.depth += 1
            self._look(value)
            self.depth -= 1

    def _look(self, value: Any) -> None:
        """What a value consists of."""
        self.add(_name(type(value)))
        if isinstance(value, ModuleType):
            self.add(value.__name__)
        elif isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, MethodType):
            self._all((value.__func__, value.__self__))
        elif isinstance(value, BuiltinFunctionType):
            self.add(_name(value))
            self.visit(value.__self__)
        elif isinstance(value, functools.partial):
            self._all((value.func, value.args, value.keywords))
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, CodeType):
            self._code(value)
        elif isinstance(value, CellType):
            self._cell(value)
        elif isinstance(value, Tensor):
            self._tensor(value)
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self.add(value.dtype.str, value.shape)
            self.digest.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, Mapping):
            pairs = sorted(value.items(), key=lambda pair: repr(pair[0])) if _all_plain(value) else value.items()
            self._all(part for pair in pairs for part in pair)
        elif isinstance(value, list | tuple):
            self.add(len(value))
            self._all(value)
        elif isinstance(value, set | frozenset):
            self.add(sorted(identity(part, self.names).text for part in value))
        elif isinstance(value, staticmethod | classmethod):
            self.visit(value.__func__)
        elif isinstance(value, property):
            self._all((value.fget, value.fset))
        else:
            self._object(value)

    def _all(self, values: Iterable[Any]) -> None:
        for value in values:
            self.visit(value)

    def _function(self, function: FunctionType) -> None:
        self.add(_name(function))
        if not _is_installed(function.__module__):
            self.visit(function.__code__)
            self._all((function.__defaults__, function.__kwdefaults__))
            namespace = function.__globals__
            for name in sorted(_globals_of(function.__code__)):
                if name in namespace:
                    self.add(name)
                    self.visit(namespace[name])
        self._all(function.__closure__ or ())
        if own := {key: value for key, value in vars(function).items() if key != "__wrapped__"}:
            self.visit(own)

    def _code(self, code: CodeType) -> None:
        self.add(code.co_code, code.co_names, code.co_varnames, code.co_flags)
        self._all(code.co_consts)

    def _cell(self, cell: CellType) -> None:
        try:
            self.visit(cell.cell_contents)
        except ValueError:  # empty
            self.add("empty")

    def _class(self, kind: type) -> None:
        self.add(_name(kind))
        if _is_installed(kind.__module__):
            return
        self._all(kind.__bases__)
        for name, value in sorted(vars(kind).items()):
            if name not in UNSAID:
                self.add(name)
                self.visit(value)

    def _tensor(self, tensor: Tensor) -> None:
        self.add(str(tensor.dtype), tuple(tensor.shape), tensor.requires_grad)
        try:
            plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
            self.digest.update(plain.view(torch.uint8).numpy().tobytes())
        except (RuntimeError, NotImplementedError, TypeError):  # no numbers, as on the device "meta"
            self.opaque.append(_name(type(tensor)))

    def _object(self, value: Any) -> None:
        self.visit(type(value))
        if hasattr(value, "__wrapped__"):  # as of `functools.lru_cache`
            self.visit(value.__wrapped__)
        kind: Any = type(value)
        reduces = kind.__reduce_ex__ is not object.__reduce_ex__ or kind.__reduce__ is not object.__reduce__
        attributes = _attributes(value)
        if attributes and not reduces:
            self.visit(attributes)
            return
        try:  # as `pickle` takes it apart
            reduce = copyreg.dispatch_table.get(type(value))
            parts = reduce(value) if reduce is not None else value.__reduce_ex__(2)
        except Exception:
            self.opaque.append(_name(type(value)))
            return
        parts = parts if isinstance(parts, tuple) else (parts,)
        self._all(parts[:3])
        self._all(list(items) for items in parts[3:5] if items is not None)


def _attributes(value: Any) -> dict[str, Any]:
    attributes = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in UNSAID and hasattr(value, name):
                attributes[name] = getattr(value, name)
    if isinstance(value, nn.Module):  # what is hooked on goes by numbers that another process gives otherwise
        return {key: list(v.values()) if "_hooks" in key and v else v for key, v in attributes.items()}
    return attributes


def _globals_of(code: CodeType) -> set[str]:
    """The global names that code uses, those of the functions inside it too."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_globals_of(inside) for inside in code.co_consts if isinstance(inside, CodeType)))


def _says_all(value: Any) -> bool:
    """Whether a function or a class is known by its name."""
    of_object = isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, ModuleType | type(None))
    decorated = (
        getattr(sys.modules.get(value.__module__ or ""), value.__qualname__, None) is value
    )  # the version says all
    closes = getattr(value, "__closure__", None) and not decorated
    return _is_installed(value.__module__) and not closes and not of_object


def _all_plain(values: Iterable[Any]) -> bool:
    return all(isinstance(value, PLAIN) for value in values)


def _name(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(named, '__module__', None) or 'builtins'}.{named.__qualname__}"


@functools.cache
def _is_installed(module: str | None) -> bool:
    """Whether a module is Python's, qbp's or an installed package's, which versions tell apart."""
    root = (module or "builtins").partition(".")[0]
    if root == "__main__":  # the user's, also in a notebook, whose `__main__` may be a file of an installed package
        return False
    if root in sys.stdlib_module_names or root == "qbp":
        return True
    file = getattr(sys.modules.get(root), "__file__", None)
    places = {sysconfig.get_path(key) for key in ("purelib", "platlib")}
    return file is not None and any(Path(file).is_relative_to(place) for place in places)
