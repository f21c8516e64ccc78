"""The forward pass of a module of any class as steps, and steps as plain data and back.

Nothing of torch is patched for it: parameters and submodules of a copy give way to proxies of `torch.fx` for one call.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node, Proxy
from torch.fx.proxy import GraphAppendingTracer

from qbp.circuit.stored_graphs import COMPLEX, DTYPES
from qbp.circuit.stored_values import as_dict, as_list, as_text, as_whole, check_axes, shown
from qbp.errors import ConfigError
from qbp.nn.traced import ATTRIBUTES, METHODS, Ref, Step, functions

__all__ = ["Call", "Trace", "Untraceable", "calls_of", "from_data", "to_data", "trace"]

MOST_STEPS = 10_000
_WORDS = "none tanh floor trunc mean sum ij xy reflect constant replicate circular valid same fro nuc amax amin"
WORDS = frozenset(_WORDS.split())
EQUATION = re.compile(r"[A-Za-z,.\-> ]{1,200}")  # of an einsum
_TYPES = DTYPES | COMPLEX | {str(d): d for d in (torch.bfloat16, torch.float16, torch.int16, torch.int8, torch.uint8)}


class Call(NamedTuple):
    """How a module is called: with so many arguments by place, and with these by name."""

    n_args: int
    names: tuple[str, ...] = ()


class Trace(NamedTuple):
    """What a forward pass does.

    Attributes:
        evaluating, training: the steps in each mode.
        constants: tensors that are no parameter and no buffer, by the names that the steps give them.
        calls: how the modules within it are called, by their paths.
    """

    evaluating: tuple[Step, ...]
    training: tuple[Step, ...]
    constants: Mapping[str, Tensor]
    calls: Mapping[str, Call]


def calls_of(*passes: Sequence[Step]) -> dict[str, Call]:
    """How the modules within one are called by its steps."""
    steps = (step for steps in passes for step in steps if step.op == "module")
    return {step.target: Call(len(step.args), tuple(step.kwargs)) for step in steps}


class Untraceable(Exception):
    """What a forward pass does that no steps can say."""


def trace(module: nn.Module, call: Call) -> Trace:
    """The steps of a module's forward pass.

    Args:
        module: of any class; a copy, since its forward may change it.
        call: how it is called. Arguments that are not given are what they are by default.

    Raises:
        Untraceable: the steps depend on values, are others each time, or use what no file can hold.
    """
    modes = []
    for training in (False, False, True, True):
        module.train(training)
        modes.append(_one_pass(module, call))
    first, again, other, and_again = modes
    if not (_same(first, again) and _same(other, and_again)):
        raise Untraceable("does something else each time")
    if twice := [path for path in first.calls.keys() & other.calls.keys() if first.calls[path] != other.calls[path]]:
        raise Untraceable(f"calls {twice[0]} in two ways")
    steps = other.steps
    constants = dict(first.constants)
    if not _same(first, other):
        renamed = {name: f"training{name}" for name in other.constants}
        steps = tuple(step._replace(target=renamed.get(step.target, step.target)) for step in steps)
        constants |= {renamed[name]: value for name, value in other.constants.items()}
    return Trace(first.steps, steps, constants, {**other.calls, **first.calls})


def _same(one: _Pass, other: _Pass) -> bool:
    if one.steps != other.steps or len(one.constants) != len(other.constants):
        return False
    pairs = zip(one.constants.values(), other.constants.values(), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


# ---- one pass --------------------------------------------------------------------------------------------------------


class _Pass(NamedTuple):
    steps: tuple[Step, ...]
    constants: Mapping[str, Tensor]
    calls: Mapping[str, Call]


class _Tracer(GraphAppendingTracer):
    """Appends to a graph, and keeps tensors that are constants."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.constants: dict[str, Tensor] = {}

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, nn.Parameter):
            raise Untraceable("reads a parameter that none of its modules has")
        if isinstance(a, Tensor):
            name = next((n for n, value in self.constants.items() if value is a), f"_constant_{len(self.constants)}")
            self.constants[name] = a
            return self.create_node("get_attr", name, (), {})
        return super().create_arg(a)


def _one_pass(module: nn.Module, call: Call) -> _Pass:
    graph = Graph()
    tracer = _Tracer(graph)
    calls: dict[str, Call] = {}
    args, kwargs = _arguments(module, call, tracer)
    proxies, undo = _put_proxies(module, tracer, calls)
    try:
        result = type(module).forward(module, *args, **kwargs)
        tracer.create_node("output", "output", (tracer.create_arg(result),), {})
        _check_kept(module, proxies)
        steps = _steps(graph)
    except Untraceable:
        raise
    except Exception as error:  # whatever a forward raises of proxies: values are asked for, or torch cannot say it
        said = str(error).strip().splitlines()
        raise Untraceable(f"cannot be traced by torch.fx ({(said or [type(error).__name__])[0][:120]})") from error
    finally:
        for put_back in reversed(undo):
            put_back()
    return _Pass(steps, tracer.constants, calls)


def _arguments(module: nn.Module, call: Call, tracer: _Tracer) -> tuple[list[Proxy], dict[str, Proxy]]:
    """Proxies of what the module is called with."""
    parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    by_place = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = [p.name for p in by_place[: call.n_args]]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        names += [f"arg{k}" for k in range(len(names), call.n_args)]
    if len(names) < call.n_args:
        raise Untraceable(f"takes {len(names)} arguments, not {call.n_args}")

    def proxy(name: str) -> Proxy:
        return tracer.create_proxy("placeholder", name, (), {}, name=name)

    return [proxy(name) for name in names], {name: proxy(name) for name in call.names}


def _check_kept(module: nn.Module, proxies: Mapping[str, Any]) -> None:
    """A forward that puts something in the place of a buffer has state, which steps have not."""
    for path, proxy in proxies.items():
        prefix, _, key = path.rpartition(".")
        part = module.get_submodule(prefix)
        if proxy is not (part._parameters if key in part._parameters else part._buffers).get(key):
            raise Untraceable(f"changes its {path}")


def _put_proxies(
    module: nn.Module, tracer: _Tracer, calls: dict[str, Call]
) -> tuple[dict[str, Any], list[Callable[[], Any]]]:
    """Let parameters, buffers and submodules give proxies; returns these, and what undoes it."""
    proxies: dict[str, Any] = {}
    undo: list[Callable[[], Any]] = []
    for prefix, part in module.named_modules():
        for tensors in (part._parameters, part._buffers):
            old = dict(tensors)
            undo.append(partial(tensors.update, old))
            for key, tensor in old.items():
                if tensor is not None:
                    path = f"{prefix}.{key}".lstrip(".")
                    tensors[key] = proxies[path] = tracer.create_proxy("get_attr", path, (), {})
        if part is not module:
            part.forward = partial(_note_call, prefix, tracer, calls)
            undo.append(partial(delattr, part, "forward"))
    return proxies, undo


def _note_call(path: str, tracer: _Tracer, calls: dict[str, Call], *args: Any, **kwargs: Any) -> Proxy:
    call = Call(len(args), tuple(kwargs))
    if calls.setdefault(path, call) != call:
        raise Untraceable(f"calls {path} in two ways")
    return tracer.create_proxy("call_module", path, args, kwargs)


# ---- steps of a graph ------------------------------------------------------------------------------------------------


def _steps(graph: Graph) -> tuple[Step, ...]:
    used = [node for node in graph.nodes if node.op != "get_attr" or node.users]  # a call may do more than give a value
    if len(used) > MOST_STEPS:
        raise Untraceable(f"takes more than {MOST_STEPS} steps")
    numbers = {node: k for k, node in enumerate(used)}
    names = {function: name for name, function in reversed(list(functions().items()))}
    return tuple(_step(node, numbers, names) for node in used)


def _step(node: Node, numbers: Mapping[Node, int], names: Mapping[Any, str]) -> Step:
    args, kwargs = _plain(node.args, numbers), _plain(node.kwargs, numbers)
    if node.op == "placeholder":
        return Step("input", str(node.target), (), {})
    if node.op == "output":
        return Step("output", "", args, {})
    if node.op == "get_attr":
        return Step("tensor", str(node.target), (), {})
    if node.op == "call_module":
        return Step("module", str(node.target), args, kwargs)
    if node.op == "call_function" and node.target is getattr and args[1] in ATTRIBUTES:
        return Step("attribute", args[1], args[:1], {})
    if node.op == "call_method" and node.target in METHODS and "out" not in kwargs:
        return Step("method", str(node.target), args, kwargs)
    if node.op == "call_function" and node.target in names and "out" not in kwargs:
        return Step("function", names[node.target], args, kwargs)
    target = args[1] if node.target is getattr else getattr(node.target, "__name__", node.target)
    raise Untraceable(f"uses {target!r}, which a file cannot hold")


def _plain(value: Any, numbers: Mapping[Node, int]) -> Any:
    if isinstance(value, Node):
        return Ref(numbers[value])
    if isinstance(value, list | tuple):  # fx has list and tuple types of its own
        return (list if isinstance(value, list) else tuple)(_plain(item, numbers) for item in value)
    if isinstance(value, Mapping):
        return {key: _plain(item, numbers) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(_plain(part, numbers) for part in (value.start, value.stop, value.step)))
    return value


# ---- plain data ------------------------------------------------------------------------------------------------------


def to_data(steps: Sequence[Step]) -> list[Any]:
    """Steps as plain data.

    Raises:
        Untraceable: a step has an argument that a file cannot hold.
    """
    return [
        [step.op, step.target, _value_to_data(step.args), [[k, _value_to_data(v)] for k, v in step.kwargs.items()]]
        for step in steps
    ]


def _value_to_data(value: Any) -> Any:
    if isinstance(value, Ref):
        return {"step": value.step}
    if isinstance(value, tuple):
        return {"tuple": [_value_to_data(item) for item in value]}
    if isinstance(value, list):
        return [_value_to_data(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": [[key, _value_to_data(item)] for key, item in value.items()]}
    if isinstance(value, slice):
        return {"slice": [_value_to_data(part) for part in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, torch.dtype) and str(value) in _TYPES:
        return {"dtype": str(value)}
    if isinstance(value, torch.device):
        return {"device": value.type}
    if isinstance(value, bool) or value is None or (isinstance(value, int) and abs(value) < 2**63):
        return value
    if isinstance(value, float):
        return value
    if isinstance(value, str) and (value in WORDS or EQUATION.fullmatch(value)):
        return value
    raise Untraceable(f"uses {repr(value)[:80]}, which a file cannot hold")


def from_data(data: Any) -> tuple[Step, ...]:
    """Steps of data that anybody may have written.

    Raises:
        ConfigError: they are not what `to_data` gives.
    """
    entries = as_list(data, "steps")
    if not 1 <= len(entries) <= MOST_STEPS:
        raise ConfigError(f"A model file must have 1 to {MOST_STEPS} steps, but has {len(entries)}")
    return tuple(_step_of(entry, k, k == len(entries) - 1) for k, entry in enumerate(entries))


def _step_of(entry: Any, number: int, last: bool) -> Step:
    op, target, args, kwargs = as_list(entry, "a step")
    allowed: dict[str, Callable[[str], bool]] = {
        "input": str.isidentifier,
        "attribute": ATTRIBUTES.__contains__,
        "method": METHODS.__contains__,
        "function": functions().__contains__,
        "module": bool,
        "tensor": bool,
        "output": lambda text: not text,
    }
    if not isinstance(op, str) or op not in allowed or not allowed[op](as_text(target)) or last is not (op == "output"):
        raise ConfigError(f"A model file cannot hold the step {shown(op)} {shown(target)}")
    values = _value(args, number)
    named = {as_text(key): _value(value, number) for key, value in (as_list(pair, "an argument") for pair in kwargs)}
    if not isinstance(values, tuple) or "out" in named or (not values and op not in ("input", "tensor", "module")):
        raise ConfigError(f"A model file cannot hold such arguments of {shown(target)}")
    return Step(op, target, values, named)


def _value(value: Any, number: int) -> Any:
    """A value of the arguments of a step, which may use the steps before it."""
    if isinstance(value, list):
        check_axes(value)
        return [_value(item, number) for item in value]
    if isinstance(value, dict):
        ((kind, inner),) = as_dict(value, "an argument").items()
        return _KINDS[as_text(kind)](inner, number)
    if isinstance(value, str) and value not in WORDS and not EQUATION.fullmatch(value):
        raise ConfigError(f"A model file cannot hold a step with {shown(value)}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError("An integer in a model file must be below 2^63")
    return value


def _dtype(name: Any, number: int) -> torch.dtype:
    if not isinstance(name, str) or name not in _TYPES:
        raise ConfigError(f"A dtype in a model file must be one of {', '.join(_TYPES)}, but is {shown(name)}")
    return _TYPES[name]


def _device(name: Any, number: int) -> torch.device:
    return torch.device("cuda" if name == "cuda" and torch.cuda.is_available() else "cpu")


def _tuple(items: Any, number: int) -> tuple[Any, ...]:
    check_axes(as_list(items, "arguments"))
    return tuple(_value(item, number) for item in items)


_KINDS: dict[str, Callable[[Any, int], Any]] = {
    "step": lambda step, number: Ref(as_whole(step, "a step", 0, number - 1)),
    "tuple": _tuple,
    "slice": lambda parts, number: slice(*_tuple(parts, number)),
    "dict": lambda pairs, number: {as_text(key): _value(value, number) for key, value in as_list(pairs, "a dict")},
    "ellipsis": lambda _, number: Ellipsis,
    "dtype": _dtype,
    "device": _device,
}
