"""A few random rows with a model's outputs: what a file is checked by, and what a hostile one may cost at most."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from qbp.circuit.stored_graphs import size_of
from qbp.errors import ConfigError
from qbp.executors.dense import Dense
from qbp.nn.flow import exact_copy, guessed_rows, imitated, tensors_in
from qbp.nn.layer import QuantumLayer
from qbp.nn.seeding import seeded
from qbp.nn.traced import TracedModule

__all__ = ["check_rows", "check_traced", "rows_of"]

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How far outputs of the rows in a file may be from what they were, relative to the largest; of other dtypes 0.05."""

MOST_WORK = 2**20
"""What one row may take for rows to be kept or checked: weights of linear layers, amplitudes times rotations."""

MOST_NUMBERS = 2**24
"""What modules of other classes may compute of a few rows."""


def rows_of(model: nn.Module) -> dict[str, Any] | None:
    """Random rows and what the model makes of them, None where that is much work; None for rows too where no shape is
    found that the model takes."""
    x = guessed_rows(model)
    if x is None or _work(model) > MOST_WORK:
        return x if x is None else {"inputs": x, "outputs": None}
    try:
        outputs = _outputs(model, x)
    except Exception:  # circuits take other rows than their stand-ins
        return {"inputs": x, "outputs": None}
    return {"inputs": x, "outputs": outputs if all(bool(t.isfinite().all()) for t in outputs) else None}


def check_rows(model: nn.Module, rows: Any, path: str) -> None:
    """Raise a ConfigError unless a model gives the outputs that the file has; one with modules of other classes must
    have rows, and what it computes of them is bounded."""
    traced = is_traced(model)
    if rows is None and not traced:
        return
    x, expected = rows["inputs"], rows["outputs"]
    if x.ndim < 2 or len(x) > 3 or x.numel() > 2**16:
        raise ConfigError(f"The model in {path} is damaged: it takes no such rows")
    if traced:
        with _Bounded():
            _imitation(model, x, training=False)
    if expected is None or _work(model) > MOST_WORK:
        return
    expected = [expected] if isinstance(expected, Tensor) else expected  # as version 2 had them
    if (far := _distance(expected, _outputs(model, x))) > 1:
        raise ConfigError(
            f"The model in {path} gives other outputs than it did when it was saved ({far:.3g} times the tolerance)"
        )


def check_traced(model: nn.Module, traced: nn.Module, rows: Any) -> None:
    """Raise a ConfigError unless what `torch.fx` traced of a model gives the same as the model, in both modes.

    Circuits are not run: something as wide comes out of their layers.
    """
    if not is_traced(traced):
        return
    if rows is None:
        raise ConfigError(
            "A model file can hold modules of your own if the model takes rows of numbers, but no shape "
            "was found that it takes"
        )
    for training in (False, True):
        expected, got = (_imitation(each, rows["inputs"], training) for each in (model, traced))
        if _distance(expected, got) > 1:
            mode = "training" if training else "evaluation"
            raise ConfigError(
                f"A model file cannot hold the model: what torch.fx traces of it gives other outputs in {mode}"
            )


def is_traced(model: nn.Module) -> bool:
    """Whether some of its modules are of another class than files know."""
    return any(isinstance(module, TracedModule) for module in model.modules())


def _imitation(model: nn.Module, x: Tensor, training: bool) -> list[Tensor]:
    imitation = imitated(model).train(training)
    with torch.no_grad(), seeded(0, model):
        return tensors_in(imitation(x.clone()))


def _distance(expected: list[Tensor], got: list[Tensor]) -> float:
    """The largest difference, in tolerances; infinite for other shapes."""
    if [t.shape for t in expected] != [t.shape for t in got]:
        return math.inf
    far = 0.0
    for a, b in zip(expected, got, strict=True):
        if a.numel():
            within = TOLERANCES.get(b.dtype, 0.05) * max(1.0, float(a.abs().max()))
            difference = float((a - b).abs().max()) / within
            far = math.inf if math.isnan(difference) else max(far, difference)
    return far


def _outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """What a model gives in evaluation, its circuits computed by the dense executor: exact, and on no device."""
    with torch.no_grad(), seeded(0, model):
        return tensors_in(exact_copy(model, Dense())(x))


def _work(module: nn.Module, memo: dict[int, int] | None = None) -> int:
    """What a row takes, roughly, each module as often as it is called."""
    memo = {} if memo is None else memo
    if id(module) in memo:
        return memo[id(module)]
    work = 1 + sum(parameter.numel() for parameter in module._parameters.values() if parameter is not None)
    if isinstance(module, QuantumLayer):
        circuit = module.traced
        program, combination = circuit.program, circuit.combination
        words = sum(len(getattr(m, "terms", (0,))) for m in program.measurements)
        work = (64 + 2 ** min(program.n_qubits, 40)) * (len(program.ops) + words)
        maps = [circuit.angle_map] if combination is None else [circuit.angle_map, combination.coefficients]
        work += sum(size_of(graph) for each in maps for graph in each.graphs)
        work += 0 if combination is None else len(combination.entries)
    elif isinstance(module, TracedModule):
        paths = [step.target for step in module.evaluating if step.op == "module"]
        work += sum(_work(module.get_submodule(path), memo) for path in paths)
    else:
        work += sum(_work(child, memo) for child in module._modules.values() if child is not None)
    memo[id(module)] = work
    return work


class _Bounded(TorchDispatchMode):
    """Refuses to compute more than so many numbers: what each function would give is worked out first."""

    def __init__(self) -> None:
        super().__init__()
        self.left = MOST_NUMBERS

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not func._schema.is_mutable:
            meta = tree_map_only(Tensor, lambda t: t.to("meta"), (args, kwargs))
            takes_device = any(a.name == "device" for a in func._schema.arguments)
            shapes = func(*meta[0], **{**meta[1], **({"device": torch.device("meta")} if takes_device else {})})
            self.left -= sum(t.numel() for t in tensors_in(shapes))
            if self.left < 0:
                raise ConfigError(f"A model file may compute at most {MOST_NUMBERS} numbers of a few rows")
        return func(*args, **kwargs)
