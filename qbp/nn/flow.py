"""How tensors flow through a model, seen by running it: what reads what, how often, and what is read elsewhere too.

The order in which modules were registered says nothing about that: a module may stand in two places, be called twice,
or be read by a skip connection, a second head or a function of torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qbp.executors import Executor, backend
from qbp.gradients.autograd import choose_diff_method
from qbp.nn.copying import copied
from qbp.nn.layer import QuantumLayer
from qbp.nn.seeding import seeded

__all__ = [
    "ROWS",
    "Flow",
    "Step",
    "exact_copy",
    "flow_of",
    "guessed_rows",
    "imitated",
    "replaced",
    "tensors_in",
    "whole_modules",
]

ROWS = 3  # not 1, which BatchNorm refuses in training, nor 2, the commonest width of an output


@dataclass(frozen=True)
class Step:
    """A module, or a function of torch, at work once.

    Attributes:
        name: of the module, as of `named_modules`; None for a function.
        what: the module (of a copy of the model) or the function.
        arguments: what a function got, by place and by name.
        reads, gives: numbers of the tensors.
    """

    name: str | None
    what: Callable[..., Any]
    arguments: tuple[tuple[Any, ...], Mapping[str, Any]]
    reads: tuple[int, ...]
    gives: tuple[int, ...]


@dataclass(frozen=True)
class Flow:
    """What `flow_of` saw.

    Attributes:
        steps: in order of time.
        inputs, outputs: numbers of the tensors that the model got and gave.
        shapes: of each tensor, by its number.
        read_outside: names of modules whose parameters something else reads.
    """

    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shapes: Mapping[int, tuple[int, ...]]
    read_outside: frozenset[str]

    def calls(self, name: str) -> list[Step]:
        """The steps of a module."""
        return [step for step in self.steps if step.name == name]

    def readers(self, number: int) -> list[Step]:
        """What reads a tensor; a step that reads it twice is there twice."""
        return [step for step in self.steps for read in step.reads if read == number]

    def last(self, kinds: tuple[type, ...]) -> dict[str, nn.Module]:
        """The modules of some kinds that the outputs come from by way of no other one of them."""
        modules: dict[str, nn.Module] = {}
        givers = {number: step for step in self.steps for number in step.gives}
        left, seen = list(self.outputs), set[int]()
        while left:
            number = left.pop()
            if number in seen or (step := givers.get(number)) is None:
                continue
            seen.add(number)
            if step.name is not None and isinstance(step.what, kinds):
                modules[step.name] = step.what  # type: ignore[assignment]
            else:
                left += step.reads
        return modules


def flow_of(model: nn.Module, x: Tensor, *, training: bool = False) -> Flow:
    """Run a copy of a model on some rows and see how its tensors flow.

    Leaves that torch and qbp define are one step each; what other modules do is seen function by function. Circuits are
    not run: something as wide comes out of their layers.

    Args:
        model: the model; it stays as it is.
        x: rows (B, ...).
        training: the mode to run it in.

    Returns:
        The flow.

    Example:
        >>> flow = flow_of(nn.Sequential(nn.Linear(2, 3), nn.Tanh()), torch.zeros(3, 2))
        >>> [step.name for step in flow.readers(flow.calls("0")[0].gives[0])]
        ['1']
    """
    observed = imitated(model).train(training)
    owners = {id(p): name for name, m in observed.named_modules() for p in m._parameters.values() if p is not None}
    recorder = _Recorder(owners)
    for name, module in observed.named_modules():
        if _is_leaf(module):
            module.register_forward_pre_hook(partial(recorder.enter, name), with_kwargs=True)
            module.register_forward_hook(partial(recorder.leave, name), with_kwargs=True)
    x = x.clone()
    inputs = (recorder.give(x),)
    with torch.no_grad(), seeded(0, observed), recorder:
        outputs = observed(x)
    given = tuple(recorder.number(t) for t in tensors_in(outputs))
    return Flow(tuple(recorder.steps), inputs, given, recorder.shapes, frozenset(recorder.read_outside))


def _is_leaf(module: nn.Module) -> bool:
    if any(True for _ in module.children()) or _has_hooks(module):
        return False
    place = type(module).__module__
    return isinstance(module, QuantumLayer) or place.startswith(("torch.nn.modules.", "qbp."))


# What is asked of a tensor without reading it, as far as other widths go.
_ASKED = {
    *(getattr(Tensor, name).__get__ for name in ("dtype", "device", "ndim", "requires_grad", "is_leaf", "grad_fn")),
    *(getattr(Tensor, name) for name in ("dim", "__len__", "is_floating_point", "is_complex", "is_contiguous")),
}


@dataclass(eq=False)
class _Recorder(TorchFunctionMode):
    """Notes every function of torch, but for what modules do that are one step."""

    owners: Mapping[int, str]
    steps: list[Step] = field(default_factory=list)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    read_outside: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self._numbers: dict[int, int] = {}
        self._alive: list[Tensor] = []  # so that no two have the same id
        self._entered: list[tuple[int, ...]] = []  # what the modules that are at work read

    def number(self, tensor: Tensor) -> int:
        return self._numbers[id(tensor)] if id(tensor) in self._numbers else self.give(tensor)

    def give(self, tensor: Tensor) -> int:
        """A new number, also for a tensor that was changed in place."""
        self._alive.append(tensor)
        number = self._numbers[id(tensor)] = len(self._alive)
        self.shapes[number] = tuple(tensor.shape)
        return number

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._entered or func in _ASKED:
            return func(*args, **kwargs)
        tensors = tensors_in((args, kwargs))
        reads = tuple(map(self.number, tensors))
        self.read_outside |= {self.owners[id(t)] for t in tensors if id(t) in self.owners}
        result = func(*args, **kwargs)
        gives = tuple(map(self.give, tensors_in(result)))
        if reads or gives:
            self.steps.append(Step(None, func, (args, kwargs), reads, gives))
        return result

    def enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._entered.append(())  # from here on nothing is noted
        self._entered[-1] = tuple(map(self.number, tensors_in((args, kwargs))))

    def leave(self, name: str, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        gives = tuple(map(self.give, tensors_in(result)))
        reads = self._entered.pop()
        if not self._entered:
            self.steps.append(Step(name, module, ((), {}), reads, gives))


def tensors_in(thing: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples, mappings and data classes, in order."""
    if isinstance(thing, Tensor):
        return [thing]
    if isinstance(thing, Mapping):
        thing = tuple(thing.values())
    elif is_dataclass(thing) and not isinstance(thing, type):
        thing = tuple(vars(thing).values())
    return [t for part in thing for t in tensors_in(part)] if isinstance(thing, list | tuple) else []


# ---- rows to run a model on ------------------------------------------------------------------------------------------


def guessed_rows(model: nn.Module) -> Tensor | None:
    """Random rows (B, ...) that a model can be run on; None where no shape is found that suits it."""
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    draws = torch.Generator().manual_seed(0)
    model = imitated(model).eval()
    for shape in dict.fromkeys(_shapes(model)):
        x = torch.randn(ROWS, *shape, generator=draws, dtype=torch.float64)
        x = nn.functional.normalize(x.flatten(1)).reshape(x.shape).to(first)  # amplitudes must have norm 1
        x = (x > 0).to(first) if _wants_bits(model) else x
        try:
            with torch.no_grad(), seeded(0, model):
                outputs = tensors_in(model(x.clone()))
        except Exception:  # whatever a model raises of rows that do not suit it
            continue
        if any(t.ndim and len(t) == ROWS for t in outputs):
            return x
    return None


def _wants_bits(model: nn.Module) -> bool:
    """Whether a circuit embeds some of its inputs as basis states."""
    return any(circuit.bits for layer in _layers(model) for circuit in layer._circuits.values())


def _shapes(model: nn.Module) -> Iterator[tuple[int, ...]]:
    """Shapes of a row, the likeliest first."""
    for module in model.modules():
        if isinstance(module, QuantumLayer):
            yield from ((n,) for n in (module.n_inputs, *reversed(module._circuits)) if n is not None)
        for name in ("in_features", "num_features"):
            if isinstance(width := getattr(module, name, None), int) and width > 0:
                yield (width,)
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            n_axes = 1 if isinstance(module, nn.Conv1d) else 2
            yield from ((module.in_channels, *(n,) * n_axes) for n in range(1, 65))
    yield from ((n,) for n in range(1, 1025))


# ---- copies ----------------------------------------------------------------------------------------------------------


def replaced(
    model: nn.Module, make: Callable[[QuantumLayer], nn.Module], memo: dict[int, Any] | None = None
) -> nn.Module:
    """A copy of a model in which something else stands in the place of each quantum layer, wherever that is used.

    Args:
        model: the model.
        make: called once for each layer, with a copy of it; what other modules share with it, its stand-in may keep.
        memo: as of `copy.deepcopy`: what is in there is not copied.
    """
    memo = {} if memo is None else memo
    for layer in _layers(model):
        memo[id(layer)] = make(copied(layer, memo))
    return copied(model, memo)


def exact_copy(model: nn.Module, executor: Executor | None = None) -> nn.Module:
    """A copy, in evaluation mode, whose circuits run on the native engine, or on another executor: no shots, no noise,
    no device to pay for.

    A QNode that runs itself still does.
    """
    runs_on = backend("native") if executor is None else executor

    def exact(layer: QuantumLayer) -> QuantumLayer:
        if layer.executor is not None:
            layer._executor, layer._rule = runs_on, None
            layer._diff_method = choose_diff_method(layer._executor, "best", layer.traced.program)
        return layer

    return replaced(model, exact, _executors(model)).eval()


def imitated(model: nn.Module) -> nn.Module:
    """A copy whose quantum layers give something of the right shape at once, whatever they would run on."""

    def imitate(layer: QuantumLayer) -> QuantumLayer:
        if layer.executor is not None:
            layer.forward = partial(_imitate, layer.traced.is_scalar, layer.n_outputs or 0)  # type: ignore[method-assign]
        return layer

    return replaced(model, imitate, _executors(model))


def _imitate(is_scalar: bool, n_outputs: int, x: Tensor) -> Tensor:
    phases = torch.arange(float(n_outputs), device=x.device)
    outputs = torch.sin(x.sum(-1, keepdim=True) + phases).to(x.dtype if x.is_floating_point() else phases.dtype)
    return outputs[..., 0] if is_scalar else outputs


def _layers(model: nn.Module) -> list[QuantumLayer]:
    return [module for module in model.modules() if isinstance(module, QuantumLayer)]


def _executors(model: nn.Module) -> dict[int, Any]:
    """A memo for `replaced` that leaves alone what circuits run on, which may be connected to a service."""
    return {id(layer.executor): layer.executor for layer in _layers(model) if layer.executor is not None}


# ---- modules that can be changed -------------------------------------------------------------------------------------


def whole_modules(model: nn.Module) -> set[str]:
    """Names of the modules that compute what their class says from parameters that are theirs alone.

    Not among them: modules with hooks (as of `torch.nn.utils.prune`), with a `forward` of their own, with
    parametrizations, and with weights that are tied to those of another module.
    """
    kept = [t for m in model.modules() for t in m._parameters.values() if t is not None and t.numel()]
    holders = Counter(map(_storage, kept))
    return {
        name
        for name, module in model.named_modules()
        if not _has_hooks(module)
        and "forward" not in vars(module)
        and not hasattr(module, "parametrizations")
        and all(t is None or not t.numel() or holders[_storage(t)] == 1 for t in module._parameters.values())
        and not (isinstance(module, QuantumLayer) and not type(module).forward.__module__.startswith("qbp.nn."))
    }


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
