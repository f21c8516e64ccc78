"""Backends that a user brings as objects: PennyLane's devices; Qiskit's simulators, backends and primitives.

They run as they are, with their noise, shots, seeds and methods: nothing plain takes their place.
"""

from __future__ import annotations

from typing import Any

import torch

from qbp.errors import ArgumentError

__all__ = ["executor_of_object", "is_object"]


def _classes(thing: Any) -> set[str]:
    """What it is, without importing the libraries that these classes are of."""
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(thing).__mro__}


def _is_device(thing: Any) -> bool:
    return "pennylane.devices.device_api.Device" in _classes(thing)


def _is_of_qiskit(thing: Any) -> bool:
    ends = ("BackendV2", "BaseEstimatorV2", "BaseSamplerV2")
    return any(name.startswith("qiskit.") and name.endswith(ends) for name in _classes(thing))


def is_object(thing: Any) -> bool:
    """Whether a backend is a device, a simulator or a primitive, rather than an executor."""
    return not isinstance(thing, str) and (_is_device(thing) or _is_of_qiskit(thing))


def executor_of_object(
    thing: Any, shots: int | None = None, generator: torch.Generator | None = None, options: Any = None
) -> Any:
    """The executor that runs programs on a user's object.

    Args:
        thing: a PennyLane device, or Qiskit's `BackendV2`, estimator or sampler (of version 2).
        shots: how often each circuit is sampled, instead of what the object says.
        generator: source of seeds, where the object has none of its own.
        options: how Qiskit's circuits are transpiled.

    Raises:
        ArgumentError: the object is one of IBM's computers, which run by name, with a ledger and a budget; or has a
            list of shots.
    """
    if _is_of_qiskit(thing):
        from qbp.executors.noisy_device import NoisyDevice
        from qbp.executors.qiskit_primitive import QiskitPrimitive
        from qbp.executors.qiskit_primitive.users import Fake, primitive_of

        primitive = primitive_of(thing)
        shots = primitive.default_shots if shots is None else shots
        kind = NoisyDevice if isinstance(primitive, Fake) else QiskitPrimitive
        return kind(primitive, shots=shots, options=options, generator=generator)
    from qbp.executors.pennylane_device import PennyLaneDevice

    if thing.shots.has_partitioned_shots:
        raise ArgumentError(f"Argument `backend` must be a device with one number of shots, but is {thing!r}")
    own = thing.shots.total_shots
    wires = tuple(thing.wires) if thing.wires else None
    name = f"{thing.name} (object)"
    return PennyLaneDevice(thing, shots=own if shots is None else shots, generator=generator, wires=wires, name=name)
