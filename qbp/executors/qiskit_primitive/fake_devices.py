"""Fake backends: devices whose noise is known, so that jobs of theirs can be answered here.

What a job reads is drawn from the exact distribution of each group of observables, noise and readout errors included.
It comes from the expectation values of all Pauli words (`qbp.executors.pauli`) where a circuit uses few qubits, and
from Aer elsewhere.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from qbp.circuit.angles import Angles
from qbp.circuit.noise_model import NoiseModel
from qbp.errors import ArgumentError, did_you_mean
from qbp.executors.noisy import NoisyRuns
from qbp.executors.qiskit_primitive.isa import Compiled
from qbp.executors.qiskit_primitive.local import MAX_DENSITY_QUBITS, Aer, require
from qbp.executors.qiskit_primitive.noise import NoisyCircuit, device_noise, noisy_device_circuit
from qbp.jobs.jobs import Results, Work

__all__ = ["MOST_QUBITS", "FakeDevice", "couplings_of", "fake_device", "twin_of"]

MOST_QUBITS = 10
"""Of a circuit on the device that is run by the expectation values of all Pauli words, 4^N; more run on Aer."""


class FakeDevice(Aer):
    """A fake backend's device: its jobs are answered exactly, or sampled from the exact distribution."""

    def __init__(self, backend: Any, *, noise: bool = True, name: str):
        super().__init__(backend, noise=noise, name=name)
        self._models: dict[tuple[int, ...], NoiseModel] = {}
        self._circuits: WeakKeyDictionary[Compiled, NoisyCircuit] = WeakKeyDictionary()
        self._runs: WeakKeyDictionary[Compiled, dict[int, NoisyRuns]] = WeakKeyDictionary()

    def __reduce__(self) -> Any:
        return fake_device, (self.name[5:], self.noise)

    def noisy(self, compiled: Compiled, *, joint: bool = False) -> NoisyCircuit:
        """A circuit with the noise of its qubits; see `noisy_device_circuit`."""
        active = compiled.active
        if active not in self._models:
            self._models[active] = device_noise(self.backend.target, active)
        return noisy_device_circuit(compiled, self._models[active], active, joint=joint)

    def run(self, work: Work) -> Results:
        """The outputs."""
        compiled = work.payload.compiled
        n_active = len(compiled.active)
        if work.payload.shots is None and self.noise and n_active > MAX_DENSITY_QUBITS:
            raise ArgumentError(
                f"Argument `shots` must be given for a circuit on {n_active} noisy qubits of {self.name!r}, whose "
                f"outputs see up to {self.noisy(compiled).n_seen}: without sampling the limit is {MAX_DENSITY_QUBITS} "
                f"qubits, or outputs that see at most {MOST_QUBITS}, or become few words; or give "
                f"`noise={self.name!r}, backend='trajectories'`"
            )
        return super().run(work)

    def outcomes(self, compiled: Compiled, values: np.ndarray) -> list[np.ndarray]:
        """For each group the probabilities of what is read, (S, 2^wires)."""
        if not self.noise or len(compiled.active) > MOST_QUBITS:
            return super().outcomes(compiled, values)
        from qbp.executors.pauli import Pauli

        if compiled not in self._circuits:
            self._circuits[compiled], self._runs[compiled] = self.noisy(compiled, joint=True), {}
        every = np.zeros((len(values), compiled.program.n_angles))
        every[:, compiled.angles] = values
        n_batched = 1 + int(np.flatnonzero((every != every[:1]).any(0)).max(initial=-1))
        if n_batched not in self._runs[compiled]:
            self._runs[compiled][n_batched] = NoisyRuns(self._circuits[compiled], n_batched)
        runs, angles = self._runs[compiled][n_batched], torch.from_numpy(every)
        of_gates = runs.angles(Angles(angles[:, :n_batched], angles[0, n_batched:]))
        return [Pauli()(part, of_gates).values.numpy() for part, _ in runs.parts]


def fake_device(name: str, noise: bool = True) -> FakeDevice:
    """The fake backend "manila" or "FakeManilaV2", built once."""
    return _fake(name.removeprefix("Fake").removeprefix("fake_").removesuffix("V2").lower(), noise)


@lru_cache(maxsize=16)
def _fake(name: str, noise: bool) -> FakeDevice:
    twins = _twins(f"fake:{name}")
    if name not in twins:
        raise ArgumentError(
            f"Argument `backend` must be 'fake:' and one of {', '.join(sorted(twins))}, but is 'fake:{name}'"
            f"{did_you_mean(name, twins)}"
        )
    return FakeDevice(twins[name](), noise=noise, name=f"fake:{name}")


@lru_cache(maxsize=16)
def twin_of(device: str) -> Any:
    """The fake twin of "ibm_torino", a `BackendV2`; None where there is none."""
    kind = _twins(f"ibm:{device}").get(device.partition("_")[2] or device)
    return None if kind is None else kind()


def couplings_of(device: str) -> Any:
    """The couplings of "fake:torino" or "ibm:ibm_torino", a Qiskit `CouplingMap`.

    Raises:
        ArgumentError: no fake backend has that name.
    """
    kind, _, name = device.partition(":")
    backend = fake_device(name).backend if kind == "fake" else twin_of(name) if kind == "ibm" else None
    if backend is None:
        raise ArgumentError(
            "Argument `coupling_map` must be pairs of wires, a Qiskit CouplingMap, or the name of a device that has a "
            f"fake twin, as 'fake:torino' or 'ibm:ibm_torino', but is {device!r}"
        )
    return backend.coupling_map


def _twins(backend: str) -> dict[str, Any]:
    """The classes of fake backends by the names of their devices."""
    provider = require("qiskit_ibm_runtime.fake_provider", backend)
    return {
        key.removeprefix("Fake").removesuffix("V2").lower(): value
        for key, value in vars(provider).items()
        if key.startswith("Fake") and hasattr(value, "run") and hasattr(value, "target")
    }
