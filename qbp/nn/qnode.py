"""PennyLane functions and QNodes as sources of a layer: what may be taken over, and what has to run itself."""

from __future__ import annotations

import contextlib
import functools
import inspect
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from qbp.circuit.tracing import Circuit, trace
from qbp.circuit.tracing.pennylane_tapes import original_device
from qbp.errors import ArgumentError, CircuitError, MissingPackageError
from qbp.executors import Executor, backend, capabilities_of
from qbp.executors.pennylane_device import PennyLaneDevice, portable
from qbp.gradients.rules import RULES

__all__ = [
    "FunctionSource",
    "SignatureError",
    "as_qnode",
    "as_torchlayer",
    "changes_circuit",
    "check_signature",
    "check_torch",
    "executor_of",
    "is_function",
    "keeps_device",
    "qnode_behind",
    "shot_copies",
    "without_shots",
]


class SignatureError(ArgumentError, TypeError):
    """A function's signature does not fit; PennyLane raises a TypeError here."""


@dataclass
class FunctionSource:
    """The function that a layer traces, or the QNode that it runs. Copies share it; unpicklable ones get lost."""

    function: Any
    weight_shapes: Mapping[str, Any] | None
    options: dict[str, Any]

    def trace(self, n_inputs: int | None, input_arg: str) -> Circuit:
        if self.function is None:
            raise CircuitError(
                f"The layer was not used with {n_inputs} inputs before it was pickled, "
                "and its function cannot be pickled"
            )
        return trace(self.function, self.weight_shapes, n_inputs=n_inputs, input_arg=input_arg, **self.options)

    def __deepcopy__(self, memo: dict[int, Any]) -> FunctionSource:
        return self

    def __getstate__(self) -> dict[str, Any]:
        function = self.function
        qnode = qnode_behind(function)
        if qnode is not None and qnode is function and portable(qnode.device) is not qnode.device:
            function = qnode.update(device=portable(qnode.device))
        try:
            pickle.dumps(function)
            return self.__dict__ | {"function": function}
        except (pickle.PicklingError, AttributeError, TypeError):
            return self.__dict__ | {"function": None}


def is_function(source: Any) -> bool:
    """Whether the source is called to find out its circuit: a PennyLane function, QNode or template."""
    return callable(source) and not isinstance(source, (str, Circuit)) and type(source).__name__ != "QuantumCircuit"


def qnode_behind(source: Any) -> Any:
    """The PennyLane QNode that a source is, or that it wraps as `functools.wraps` or `functools.partial` do; else
    None. PennyLane is not imported for it."""
    while source is not None and not inspect.isclass(source):
        if all(hasattr(type(source), name) for name in ("compile_pipeline", "construct", "interface")):
            return source
        source = source.func if isinstance(source, functools.partial) else getattr(source, "__wrapped__", None)
    return None


def as_qnode(function: Callable[..., Any]) -> Any:
    """A plain function as a QNode on PennyLane's simulator."""
    import pennylane as qml

    return qml.QNode(function, qml.device("default.qubit", seed=None))


@functools.cache
def as_torchlayer(kind: Any) -> Any:
    """The class of a layer made from a QNode: PennyLane's functions, as `pennylane.specs`, ask for their own class.

    All that a layer does stays that of `kind`; of PennyLane's class nothing but the name is used.
    """
    from pennylane.measurements import Shots
    from pennylane.qnn import TorchLayer

    def shots(layer: Any) -> Any:
        """Of what runs the circuit, in PennyLane's own type."""
        return layer.qnode.shots if layer.executor is None else Shots(capabilities_of(layer.executor).shots)

    own: dict[str, Any] = {"shots": property(shots), "_is_torchlayer": True}
    own |= {name: getattr(kind, name) for name in ("__repr__", "__setattr__", "__str__")}
    own |= {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    own["__reduce_ex__"] = lambda layer, protocol: (_blank, (kind,), layer.__getstate__())  # no module has this class
    return type(kind.__name__, (kind, TorchLayer), own)


def check_torch() -> None:
    """Raise unless PennyLane was imported where there is torch: else its `TorchLayer` is no module to be one of."""
    from pennylane.qnn import torch as pennylanes

    if not pennylanes.TORCH_IMPORTED:
        raise MissingPackageError("TorchLayer requires PyTorch, but PennyLane was imported where there is none")


def _blank(kind: Any) -> Any:
    with contextlib.suppress(ImportError):  # unpickled where there is no PennyLane
        kind = as_torchlayer(kind)
    return kind.__new__(kind)


def without_shots(qnode: Any) -> Any:
    """The QNode with exact expectation values."""
    import pennylane as qml

    return qml.set_shots(qnode, None)


EXACT_SIMULATORS = {
    "pennylane.devices.default_qubit.DefaultQubit",
    "pennylane.devices.default_mixed.DefaultMixed",
    "pennylane.devices.reference_qubit.ReferenceQubit",
    "pennylane_lightning.lightning_qubit.lightning_qubit.LightningQubit",
    "pennylane_lightning.lightning_kokkos.lightning_kokkos.LightningKokkos",
    "pennylane_lightning.lightning_gpu.lightning_gpu.LightningGPU",
    "pennylane_lightning.lightning_amdgpu.lightning_amdgpu.LightningAMDGPU",
}
"""Devices that compute what a circuit says, and nothing else: without shots the native engine takes their place."""


def _is_exactly(thing: Any, classes: set[str]) -> bool:
    """Whether its class is one of these, not a subclass, and no method was replaced on the thing itself."""
    kind = type(thing)
    replaced = any(callable(getattr(kind, name, None)) for name in vars(thing) if not name.startswith("__"))
    return f"{kind.__module__}.{kind.__qualname__}" in classes and not replaced


def changes_circuit(source: Any) -> str | None:
    """What a QNode does besides its function, as the end of a sentence; None where that is nothing."""
    qnode = qnode_behind(source)
    if qnode is None:
        return None
    if source is not qnode:
        return "is wrapped by other code"
    if not _is_exactly(qnode, {"pennylane.workflow.qnode.QNode"}):
        return f"is a {type(qnode).__name__}, not PennyLane's own QNode"
    return None


def keeps_device(source: Any) -> bool:
    """Whether a QNode runs on its own device unless another backend is named: qbp does not know all that it does."""
    qnode = qnode_behind(source)
    if qnode is None:
        return False
    own_gradient = not isinstance(qnode.diff_method, str | None) or (
        qnode.gradient_kwargs and qnode.diff_method in ("spsa", "finite-diff")
    )
    device, transformed = original_device(qnode.device)
    misread = getattr(device, "readout_err", None)
    sampled = bool(qnode.shots.total_shots and (transformed or misread))  # its device would do it a second time
    return bool(shot_copies(qnode) or own_gradient or sampled) or not _is_exactly(device, EXACT_SIMULATORS)


def shot_copies(qnode: Any) -> int:
    """How many results a QNode with a list of shots gives, 0 without such a list."""
    shots = qnode.shots
    return shots.num_copies if shots.has_partitioned_shots else 0


def executor_of(
    source: Any, spec: Any, shots: int | None, diff_method: str, generator: torch.Generator | None
) -> tuple[Executor, str]:
    """The executor, and the rule asked for (a QNode's own where the layer's is "best")."""
    if spec == "auto" and diff_method == "backprop":
        spec = "dense"
    qnode = qnode_behind(source)
    if qnode is None:
        return backend(spec, shots=shots, generator=generator), diff_method
    own_shots = qnode.shots.total_shots
    if spec != "auto":
        own = own_shots if isinstance(spec, str) else None  # an executor says itself how often it samples
        return backend(spec, shots=shots or own, generator=generator), diff_method
    if diff_method == "best" and qnode.diff_method in ("adjoint", *RULES):
        diff_method = qnode.diff_method
    if own_shots is None and shots is None:
        return backend("native"), diff_method
    labels = tuple(qnode.device.wires) if qnode.device.wires else None
    return PennyLaneDevice(qnode.device, shots=shots or own_shots, generator=generator, wires=labels), diff_method


def check_signature(source: Any, weight_shapes: Mapping[str, Any] | None, input_arg: str) -> None:
    """Raise unless the function takes its data and each of its weights by name."""
    if inspect.isclass(source):
        return
    qnode = qnode_behind(source)
    parameters = inspect.signature(source.func if source is qnode else source).parameters
    kinds = {p.kind for p in parameters.values()}
    name, given = input_arg, set(weight_shapes or {})
    interface = getattr(qnode, "interface", "torch")
    if interface not in ("auto", "torch"):
        raise ArgumentError(f"Invalid interface {interface!r}: the QNode's interface must be 'auto' or 'torch'")
    if name not in parameters:
        raise SignatureError(f"QNode must include an argument with name {name} for inputting data")
    if name in given:
        raise ArgumentError(f"{name} argument should not have its dimension specified in weight_shapes")
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        raise SignatureError("Cannot have a variable number of positional arguments")
    optional = set() if qnode is source else {n for n, p in parameters.items() if p.default is not p.empty}
    if (
        inspect.Parameter.VAR_KEYWORD not in kinds
        and not given | {name} <= set(parameters) <= given | {name} | optional
    ):
        differ = sorted((given | {name}) ^ set(parameters))
        raise ArgumentError(
            f"Must specify a shape for every non-input parameter in the QNode, and no other, in weight_shapes: {differ}"
        )
