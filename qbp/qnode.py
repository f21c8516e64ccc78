"""PennyLane functions and QNodes as sources of a layer: what may be taken over, and the QNode that has to run
itself."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qbp.errors import ArgumentError, CircuitError
from qbp.executors import Executor, backend
from qbp.gradients import RULES
from qbp.trace import Circuit, trace
from qbp.trace.pennylane import takes_batch

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
    """The function that a layer traces when it meets a new number of inputs. Copies share it; unpicklable ones get
    lost."""

    function: Any
    weight_shapes: Mapping[str, Any] | None
    options: dict[str, Any]

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


def executor_of(
    source: Any, spec: str | Executor, shots: int | None, diff_method: str, generator: torch.Generator | None
) -> tuple[Executor, str]:
    """The executor, and the rule asked for (a QNode's own where the layer's is "best")."""
    if spec == "auto" and diff_method == "backprop":
        spec = "dense"
    if not is_qnode(source) or spec != "auto":
        return backend(spec, shots=shots, generator=generator), diff_method
    if diff_method == "best" and source.diff_method in ("adjoint", *RULES):
        diff_method = source.diff_method
    own_shots = source.shots.total_shots
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


def run_qnode(qnode: Any, inputs: Tensor, weights: Mapping[str, Tensor], input_arg: str) -> Tensor:
    """The QNode itself, sample after sample: right for functions of one sample and of a batch, on any device.

    Returns:
        Outputs (*, M), or (*) of one bare expectation value; with a list of shots one such tensor for each, stacked.
    """
    flat = inputs.reshape(inputs.shape[:-1].numel(), inputs.shape[-1])
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    batched = takes_batch(qnode.func, flat.shape[1], shapes, input_arg)
    copies = shot_copies(qnode)
    rows = []
    for x in flat if len(flat) else flat.new_zeros(1, flat.shape[1]):  # an empty batch has the shape of one sample
        result = qnode(**{input_arg: x[None] if batched else x}, **weights)
        rows.append(torch.stack([_flatten(part, batched) for part in (result if copies else [result])]))
    stacked = torch.stack(rows, dim=1)[:, : len(flat)].to(inputs.dtype)
    shaped = stacked.reshape(len(stacked), *inputs.shape[:-1], *stacked.shape[2:])
    return shaped if copies else shaped[0]


def _flatten(result: Any, batched: bool) -> Tensor:
    """What a QNode gives for one sample, or for a batch of one, as (M,); one bare result keeps its own axes."""
    if isinstance(result, Tensor):
        return result[0] if batched and result.ndim and len(result) == 1 else result
    return torch.hstack([r.reshape(-1) for r in result])
