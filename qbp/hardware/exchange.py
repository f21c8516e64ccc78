"""Another executor in the place of those of a model's quantum layers."""

from __future__ import annotations

from typing import Any

from torch import nn

from qbp import executors
from qbp.errors import ArgumentError, CircuitError
from qbp.executors import Executor
from qbp.executors.qiskit_primitive import QiskitPrimitive
from qbp.executors.qiskit_primitive.options import DEFAULT_SHOTS
from qbp.nn.copying import copied
from qbp.nn.layer import QuantumLayer

__all__ = ["check_size", "copy_to_move", "executors_for", "layers_of", "rehearsing"]


def copy_to_move(model: nn.Module) -> nn.Module:
    """A copy of a model; what its circuits run on is not copied, but replaced afterwards."""
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"Argument `model` must be a torch.nn.Module, but is a {type(model).__name__}")
    memo: dict[int, Any] = {id(layer.executor): layer.executor for layer in layers_of(model)}
    return copied(model, memo)


def layers_of(model: nn.Module) -> list[QuantumLayer]:
    """The quantum layers of a model, at least one, whose circuits can run elsewhere."""
    layers = [module for module in model.modules() if isinstance(module, QuantumLayer)]
    if not layers:
        raise ArgumentError("Argument `model` must hold a QuantumLayer, but has none")
    for layer in layers:
        if layer.executor is None:
            raise ArgumentError("Argument `model` holds a QNode that runs itself: its circuit cannot run elsewhere")
    return layers


def executors_for(layers: list[QuantumLayer], backend: str | Executor, shots: int | None, options: Any) -> list[Any]:
    """One for each layer; they share what connects them to a service."""
    of_layers: list[Any] = []
    for layer in layers:
        if of_layers and isinstance(of_layers[0], QiskitPrimitive):
            another = type(of_layers[0])  # as exact as the first
            of_layers.append(another(of_layers[0].primitive, shots=shots, options=options, generator=layer._generator))
        else:
            of_layers.append(executors.backend(backend, shots=shots, generator=layer._generator, options=options))
        if isinstance(of_layers[-1], QiskitPrimitive):
            of_layers[-1].one_job = True  # a rehearsal takes the jobs that a quantum computer would
    return of_layers


def rehearsing(executor: Any) -> bool:
    """Whether an executor's jobs rehearse those of a device; if so it takes as many shots as that would."""
    if not executor.name.startswith("fake:"):
        return False
    executor.shots = executor.shots or DEFAULT_SHOTS
    return True


def check_size(layer: QuantumLayer, executor: QiskitPrimitive) -> None:
    """Raise `CircuitError` where a circuit has more qubits than the device, as far as that is known without asking."""
    size = executor.primitive.size
    n_qubits = 0 if layer.n_inputs is None else layer.traced.n_qubits
    if size is not None and n_qubits > size:
        raise CircuitError(f"A circuit of {n_qubits} qubits does not fit on {executor.name!r}, which has {size}")
