"""PennyLane functions and QNodes as sources of a layer: what may be taken over, and the QNode that has to run
itself."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from qbp.circuit.lock import LOCK
from qbp.circuit.tracing import Circuit, trace
from qbp.circuit.tracing.pennylane import takes_batch
from qbp.errors import ArgumentError, CircuitError
from qbp.executors import Executor, backend
from qbp.gradients.rules import RULES

__all__ = [
    "FunctionSource",
    "SignatureError",
    "check_signature",
    "executor_of",
    "is_function",
    "is_qnode",
    "is_transformed",
    "run_qnode",
    "shot_copies",
]


class SignatureError(ArgumentError, TypeError):
    """A function's signature does not fit; PennyLane raises a TypeError here."""


@dataclass
class FunctionSource:
    """The function that a layer traces, or the QNode that it runs. Copies share it; unpicklable ones get lost.

    `runs_batches` says for a number of inputs whether a QNode that runs itself may be given whole batches.
    """

    function: Any
    weight_shapes: Mapping[str, Any] | None
    options: dict[str, Any]
    runs_batches: dict[int, bool] = field(default_factory=dict)

    def trace(self, n_inputs: int, input_arg: str) -> Circuit:
        if self.function is None:
            raise CircuitError(
                f"The layer was not used with {n_inputs} inputs before it was pickled, "
                "and its function cannot be pickled"
            )
        return trace(self.function, self.weight_shapes, n_inputs=n_inputs, input_arg=input_arg, **self.options)

    def __deepcopy__(self, memo: dict[int, Any]) -> FunctionSource:
        return self

    def __getstate__(self) -> dict[str, Any]:
        try:
            pickle.dumps(self.function)
            return dict(self.__dict__)
        except (pickle.PicklingError, AttributeError, TypeError):
            return self.__dict__ | {"function": None}


def is_function(source: Any) -> bool:
    """Whether the source is called to find out its circuit: a PennyLane function, QNode or template."""
    return callable(source) and not isinstance(source, (str, Circuit)) and type(source).__name__ != "QuantumCircuit"


def is_qnode(source: Any) -> bool:
    """Whether the source is a PennyLane QNode, without importing PennyLane."""
    return all(hasattr(source, name) for name in ("device", "func", "diff_method", "compile_pipeline"))


def is_transformed(qnode: Any) -> bool:
    """Whether a QNode does more than its function says: user transforms, or several numbers of shots."""
    return len(qnode.compile_pipeline) > 0 or bool(shot_copies(qnode))


def shot_copies(qnode: Any) -> int:
    """How many results a QNode with a list of shots gives, 0 without such a list."""
    shots = qnode.shots
    return shots.num_copies if shots.has_partitioned_shots else 0


EXACT_SIMULATORS = {"default.qubit", "reference.qubit"} | {
    f"lightning.{k}" for k in ("qubit", "kokkos", "gpu", "amdgpu")
}
"""Devices whose QNodes without shots run on the native engine."""

BACKPROP = ("default.qubit", "default.mixed", "reference.qubit")
"""Devices that torch differentiates: PennyLane has no part in the backward pass."""


def executor_of(
    source: Any, spec: str | Executor, shots: int | None, diff_method: str, generator: torch.Generator | None
) -> tuple[Executor, str]:
    """The executor, and the rule asked for (a QNode's own where the layer's is "best")."""
    if spec == "auto" and diff_method == "backprop":
        spec = "dense"
    if not is_qnode(source):
        return backend(spec, shots=shots, generator=generator), diff_method
    own_shots = source.shots.total_shots
    if spec != "auto":
        own = own_shots if isinstance(spec, str) else None  # an executor says itself how often it samples
        return backend(spec, shots=shots or own, generator=generator), diff_method
    if diff_method == "best" and source.diff_method in ("adjoint", *RULES):
        diff_method = source.diff_method
    if own_shots is None and shots is None and source.device.name in EXACT_SIMULATORS:
        return backend("native"), diff_method
    from qbp.executors.pennylane_device import PennyLaneDevice

    labels = tuple(source.device.wires) if source.device.wires else None
    return PennyLaneDevice(source.device, shots=shots or own_shots, generator=generator, wires=labels), diff_method


def check_signature(source: Any, weight_shapes: Mapping[str, Any] | None, input_arg: str) -> None:
    """Raise unless the function takes its data and each of its weights by name."""
    if inspect.isclass(source):
        return
    parameters = inspect.signature(getattr(source, "func", source)).parameters
    kinds = {p.kind for p in parameters.values()}
    name, given = input_arg, set(weight_shapes or {})
    interface = getattr(source, "interface", "torch")
    if interface not in ("auto", "torch"):
        raise ArgumentError(f"Invalid interface {interface!r}: the QNode's interface must be 'auto' or 'torch'")
    if name not in parameters:
        raise SignatureError(f"QNode must include an argument with name {name} for inputting data")
    if name in given:
        raise ArgumentError(f"{name} argument should not have its dimension specified in weight_shapes")
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        raise SignatureError("Cannot have a variable number of positional arguments")
    if inspect.Parameter.VAR_KEYWORD not in kinds and given | {name} != set(parameters):
        differ = sorted((given | {name}) ^ set(parameters))
        raise ArgumentError(
            f"Must specify a shape for every non-input parameter in the QNode, and no other, in weight_shapes: {differ}"
        )


def run_qnode(source: FunctionSource, inputs: Tensor, weights: Mapping[str, Tensor], input_arg: str) -> Tensor:
    """The QNode itself: a batch at once where it was seen to be right, else sample after sample, which always is.

    One thread at a time, since PennyLane notes the gates of all threads in one place.

    Returns:
        Outputs (*, M), or (*) of one bare expectation value; with a list of shots one such tensor for each, stacked.
    """
    qnode, lead, n_inputs = source.function, inputs.shape[:-1], inputs.shape[-1]
    if qnode is None:
        raise CircuitError("The layer's QNode runs itself, and could not be pickled with the layer")
    if n_inputs not in source.runs_batches:
        source.runs_batches[n_inputs] = _runs_batches(qnode, n_inputs, weights, input_arg)
    flat = inputs.reshape(lead.numel(), n_inputs)
    run = _run_batch if source.runs_batches[n_inputs] and len(flat) else _run_rows
    with LOCK:
        if qnode.diff_method in ("best", "backprop") and qnode.device.name in BACKPROP:
            stacked = run(qnode, flat, weights, input_arg)
        else:
            names = list(weights)

            def outputs(x: Tensor, *values: Tensor) -> Tensor:
                return run(qnode, x, dict(zip(names, values, strict=True)), input_arg)

            stacked = _Locked.apply(outputs, flat, *weights.values())
    shaped = stacked.to(inputs.dtype).reshape(len(stacked), *lead, *stacked.shape[2:])
    return shaped if shot_copies(qnode) else shaped[0]


class _Locked(torch.autograd.Function):
    """A function of tensors whose backward pass runs PennyLane, too: one thread at a time.

    Gradients that will be differentiated again are those of the function run once more.
    """

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        with LOCK, torch.enable_grad():
            ctx.leaves = [
                t.detach().requires_grad_(need) for t, need in zip(tensors, ctx.needs_input_grad[1:], strict=True)
            ]
            ctx.outputs, ctx.function = function(*ctx.leaves), function
        ctx.save_for_backward(*tensors)
        return ctx.outputs.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        again = torch.is_grad_enabled()
        with LOCK:
            leaves = ctx.saved_tensors if again else ctx.leaves
            outputs = ctx.function(*leaves) if again else ctx.outputs
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            gradients = iter(
                torch.autograd.grad(outputs, wanted, grad, retain_graph=True, create_graph=again, allow_unused=True)
                if outputs.requires_grad
                else [None] * len(wanted)
            )
        return (None, *(next(gradients) if leaf.requires_grad else None for leaf in leaves))


def _runs_batches(qnode: Any, n_inputs: int, weights: Mapping[str, Tensor], input_arg: str) -> bool:
    """Whether the QNode gives for a batch what it gives for each row, tried with numbers.

    Only exact simulators that torch differentiates are asked: PennyLane has no other gradients of batches.
    """
    exact = qnode.device.name in ("default.qubit", "default.mixed") and qnode.shots.total_shots is None
    if not exact or qnode.diff_method not in ("best", "backprop"):
        return False
    n_rows = 1 if n_inputs != 2 else 2  # twice that is another number than that of inputs
    rows = torch.randn(n_rows, n_inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = torch.nn.functional.normalize(torch.cat([rows, -rows]), dim=1)  # for amplitudes; both signs for branches
    numbers = {name: weight.detach().to(rows) for name, weight in weights.items()}
    alone = _run_rows(qnode, rows, numbers, input_arg)
    try:
        together = _run_batch(qnode, rows, numbers, input_arg)
    except Exception:  # whatever the user's code raises, when it is not meant for batches
        return False
    return together.shape == alone.shape and torch.allclose(together, alone, atol=1e-8)


def _run_batch(qnode: Any, rows: Tensor, weights: Mapping[str, Tensor], input_arg: str) -> Tensor:
    """Outputs (1, B, M), or (1, B)."""
    result = qnode(**{input_arg: rows}, **weights)
    together = result if isinstance(result, Tensor) else torch.hstack([r.reshape(len(rows), -1) for r in result])
    return together[None]


def _run_rows(qnode: Any, rows: Tensor, weights: Mapping[str, Tensor], input_arg: str) -> Tensor:
    """Outputs (copies, B, M), or (copies, B): one copy for each number of shots."""
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    batched = takes_batch(qnode.func, rows.shape[1], shapes, input_arg)
    copies = shot_copies(qnode)
    results = []
    for x in rows if len(rows) else rows.new_zeros(1, rows.shape[1]):  # an empty batch has the shape of one sample
        result = qnode(**{input_arg: x[None] if batched else x}, **weights)
        results.append(torch.stack([_flatten(part, batched) for part in (result if copies else [result])]))
    return torch.stack(results, dim=1)[:, : len(rows)]


def _flatten(result: Any, batched: bool) -> Tensor:
    """What a QNode gives for one sample, or for a batch of one, as (M,); one bare result keeps its own axes."""
    if isinstance(result, Tensor):
        return result[0] if batched and result.ndim and len(result) == 1 else result
    return torch.hstack([r.reshape(-1) for r in result])
