"""What a layer's `noise` may be, and what it makes of the layer's circuit or of what runs it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qbp.circuit.noise_model import NoiseModel
from qbp.circuit.tracing import Circuit, trace
from qbp.circuit.tracing.pennylane_tapes import noisy_function
from qbp.errors import ArgumentError, CircuitError
from qbp.executors import Executor
from qbp.executors import backend as make_backend
from qbp.executors.objects import is_object
from qbp.executors.pennylane_device import measurements, operation
from qbp.nn.qnode import is_function

__all__ = ["circuit_with_noise", "executor_with_noise", "is_of_pennylane", "noise_of", "source_with_noise"]


def is_of_pennylane(noise: Any) -> bool:
    """Whether it is PennyLane's noise model, which becomes channels in the circuit."""
    return hasattr(noise, "model_map") and hasattr(noise, "meas_map")


def executor_with_noise(noise: Any, backend: Any, shots: int | None, generator: Any) -> Executor:
    """What runs circuits with noise.

    Args:
        noise: "fake:NAME" or a backend of Qiskit's, for a device's own; a `NoiseModel`, or Aer's.
        backend: what the layer was asked to run on; "auto", "native", "pauli", or trajectories.
        shots, generator: as of the layer.

    Raises:
        ArgumentError: if it is no noise, or does not go together with the backend.
    """
    engine = None
    if str(getattr(backend, "name", backend)).partition(":")[0] == "trajectories":
        engine = make_backend(backend, shots=shots, generator=generator)
    elif backend not in ("auto", "native", "pauli"):
        raise ArgumentError(
            "Argument `backend` must be 'auto', 'native', 'pauli' or 'trajectories' where `noise` is given, but is "
            f"{backend!r}"
        )
    if (isinstance(noise, str) and noise.startswith("fake:")) or is_object(noise):
        device = make_backend(noise, shots=shots, generator=generator)
        if engine is None:
            return device
        from qbp.executors.noisy_device import NoisyDevice, OnDevice

        if not isinstance(device, NoisyDevice):
            raise ArgumentError(f"Argument `noise` must be of a fake backend for trajectories, but is {noise!r}")
        return OnDevice(device, engine)
    if type(noise).__module__.startswith("qiskit_aer."):
        from qbp.executors.qiskit_primitive.noise import noise_of_aer

        noise = noise_of_aer(noise)
    if not isinstance(noise, NoiseModel):
        raise ArgumentError(
            "Argument `noise` must be 'fake:NAME', a qbp.NoiseModel, or a noise model of Qiskit Aer or PennyLane, but "
            f"is {noise!r}"
        )
    from qbp.executors.noisy import WithNoise
    from qbp.executors.sampled import Sampled

    executor = WithNoise(noise, engine)
    return executor if shots is None else Sampled(executor, shots, generator)


def noise_of(executor: Any) -> Any:
    """The noise with which an executor runs every circuit; None for none."""
    inner = getattr(executor, "executor", executor)
    noise = getattr(inner, "noise", None)
    return noise if isinstance(noise, str | NoiseModel) else None


def source_with_noise(source: Any, noise: Any) -> Any:
    """A PennyLane function or QNode with PennyLane's noise model; other sources as they are (`circuit_with_noise`)."""
    return noisy_function(source, noise) if is_function(source) and not isinstance(source, type) else source


def circuit_with_noise(circuit: Circuit, noise: Any) -> Circuit:
    """A circuit in which PennyLane's noise model sees the gates, which are Clifford gates and Pauli rotations."""
    program, labels = circuit.program, tuple(range(circuit.n_qubits))
    if program.amplitudes:
        raise CircuitError("PennyLane's noise models go with circuits that start from amplitudes in functions only")

    def function(inputs: Tensor, **weights: Tensor) -> list[Any]:
        flat = torch.cat([inputs.new_zeros(0), *(weight.reshape(-1) for weight in weights.values())])
        angles = circuit.angle_map(inputs[None], flat)
        columns = [*angles.batched[0], *angles.shared]
        for op in program.ops:
            operation(op, columns, labels)
        return measurements(program, labels)

    shapes = circuit.weight_shapes
    noisy = trace(noisy_function(function, noise), shapes, n_inputs=circuit.n_inputs, n_qubits=circuit.n_qubits)
    return replace(noisy, is_scalar=circuit.is_scalar, combination=circuit.combination)
