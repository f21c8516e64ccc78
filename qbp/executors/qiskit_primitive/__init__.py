"""Programs on Qiskit: exact, on Aer, with a fake backend's noise, and on IBM's quantum computers.

Every call is one piece of work: all parameter sets of a batch, and of its gradient rule, as one PUB
(`Capabilities.one_job` says so to autograd). Sets that are equal are run once.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Program, Rotation
from qbp.executors import Capabilities, Results
from qbp.executors.qiskit_primitive.circuit import constants, used_angles
from qbp.executors.qiskit_primitive.isa import Compiled, compile_program
from qbp.executors.qiskit_primitive.options import DEFAULT_SHOTS, Options
from qbp.executors.qiskit_primitive.preparation import preparation_angles, prepared
from qbp.jobs.jobs import Primitive, Runner, Work, run_unrecorded

_COMPILING = threading.Lock()  # layers of one model often have the same circuit


def _forget_compiling() -> None:
    """In a forked process: a thread of its parent's may have held the lock, and is not there to let go of it."""
    global _COMPILING
    _COMPILING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_compiling)

__all__ = ["Options", "Payload", "QiskitPrimitive", "qiskit_backend"]


@dataclass(frozen=True)
class Payload:
    """What a primitive needs beside the values.

    Attributes:
        compiled: the transpiled circuit with its layout and what is measured.
        options: how it is run.
        shots: of each circuit, None for exact.
        seed: of what a simulator samples.
    """

    compiled: Compiled
    options: Options
    shots: int | None
    seed: int | None


class Device(Primitive, Protocol):
    """A primitive that circuits are transpiled for.

    Attributes:
        backend: Qiskit's, or None where circuits run as they are.
        calibration: when it was; circuits are transpiled anew for another one.
        ignores: which options it ignores.
        noise: whether results have errors without being sampled.
        size: how many qubits it has; None where that is not known without asking.
    """

    backend: Any
    calibration: str
    ignores: tuple[str, ...]
    noise: bool
    size: int | None

    def bill(self, payload: Payload, n_circuits: int) -> tuple[int, int, float]:
        """Circuits that a job executes, shots of each, and quantum seconds."""
        ...


class QiskitPrimitive:
    """Executor on one of Qiskit's primitives.

    Args:
        primitive: what runs the work, a `Device`.
        shots: how many times each circuit is sampled, for each group of observables; None for what simulators give
            without sampling.
        options: how circuits are transpiled, measured and mitigated.
        generator: source of the seeds of what simulators sample; None for torch's global one.
        runner: how work is run: `qbp.jobs.jobs.run_unrecorded`, or what keeps a ledger.
        directory: where transpiled circuits are kept for a resumed run.

    Attributes:
        transpiles: whether circuits are transpiled for the device; not where jobs are only counted.
        one_job: whether a training step is to be one job, its shifted circuits included; by default where jobs are paid
            for.
    """

    transpiles = True

    def __init__(
        self,
        primitive: Any,
        *,
        shots: int | None = None,
        options: Options | None = None,
        generator: torch.Generator | None = None,
        runner: Runner = run_unrecorded,
        directory: Path | None = None,
    ):
        self.primitive, self.options, self.generator = primitive, options or Options(), generator
        self.runner, self.directory = runner, directory
        self.shots = self.options.shots_of(shots)
        if self.shots is None and primitive.paid:
            self.shots = DEFAULT_SHOTS
        self.options.warn_ignored(f"Backend {primitive.name!r}", primitive.ignores)
        self.one_job: bool = primitive.paid
        self._compiled: dict[tuple[Program, str], Compiled] = {}

    @property
    def name(self) -> str:
        return self.primitive.name

    @property
    def capabilities(self) -> Capabilities:
        exact = self.shots is None and not self.primitive.noise
        return Capabilities(exact, self.shots, one_job=self.one_job, standard_errors=True)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_compiled": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> QiskitPrimitive:
        return self  # what it holds belongs to the device, not to a model

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Results:
        """Outputs (B, M), their standard errors, and which rows were run once for all of them."""
        if not angles.n_samples:
            nothing = angles.batched.new_zeros(0, program.n_outputs)
            return Results(nothing, nothing, sources=torch.zeros(0, dtype=torch.int64))
        values = angles.full().detach().double().cpu().numpy()
        scale = 1.0
        if amplitudes is not None:
            states = amplitudes.detach().cpu().numpy()
            states = states.astype(complex if np.iscomplexobj(states) else float)
            norms = np.linalg.norm(states, axis=1, keepdims=True)
            program = prepared(program, np.iscomplexobj(states))
            values, scale = np.concatenate([values, preparation_angles(states / norms)], axis=1), norms**2
        outputs, stds, which = self.run(program, values)
        mean, std = (torch.from_numpy(array * scale).to(angles.batched) for array in (outputs, stds))
        return Results(mean, std, sources=torch.from_numpy(which))

    def run(self, program: Program, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Outputs and standard errors, (S, M) both, for angles (S, K), and which different set each of them is."""
        offset = constants(program)
        compiled = self.compiled(program)
        if not compiled.n_groups:
            outputs = np.repeat(offset[None], len(values), axis=0)
            return outputs, np.zeros_like(outputs), np.zeros(len(values), dtype=int)
        used = used_angles(compiled.program)  # not the transpiler's: it could not be planned for without the device
        distinct, which = _distinct(values[:, list(used)])
        distinct = distinct[:, [used.index(angle) for angle in compiled.angles]]
        parts = [self.runner(self.primitive, work) for work in self.works(compiled, distinct)]
        outputs = np.concatenate([part.values for part in parts]) + offset
        return outputs[which], np.concatenate([part.stds for part in parts])[which], which

    def compiled(self, program: Program) -> Compiled:
        """The program for the device, transpiled once; without the ops that no measurement sees."""
        key = (program, self.primitive.calibration if self.transpiles else "")
        with _COMPILING:
            if key not in self._compiled:
                self._compiled[key] = self._compile(program)
            return self._compiled[key]

    def _compile(self, program: Program) -> Compiled:
        """Ops outside the measurements' light cone go, but angles keep their numbers."""
        small, kept = program.lightcone()
        ops = tuple(
            replace(op, angle=kept[op.angle]) if isinstance(op, Rotation) and op.angle is not None else op
            for op in small.ops
        )
        visible = replace(program, ops=ops)
        device = self.primitive.backend if self.transpiles else None
        compiled = compile_program(visible, device, self.options, self.directory)
        if compiled.measures_probs and self.primitive.paid:
            self.options.warn_ignored(
                "A circuit that measures probabilities", ("resilience_level", "zne_noise_factors")
            )
        return compiled

    def works(self, compiled: Compiled, values: np.ndarray) -> list[Work]:
        """The jobs for different parameter sets (S, k): one, or as many as the service's limit asks for."""
        payload = Payload(compiled, self.options, self.shots, None)
        circuits, shots, _ = self.primitive.bill(payload, compiled.n_groups)
        per_job = max(1, self.options.max_executions // max(1, circuits * shots))
        seed = None if self.shots is None else int(torch.randint(2**31, (), generator=self.generator))
        payload = replace(payload, seed=seed)
        works = []
        for start in range(0, len(values), per_job):
            if seed is not None:  # parts that sampled alike would err alike
                payload = replace(payload, seed=seed + start)
            works.append(self._work(payload, values[start : start + per_job]))
        return works

    def _work(self, payload: Payload, values: np.ndarray) -> Work:
        values = np.ascontiguousarray(values)
        what = (self.name, payload.compiled.program, self.shots, self.options.told())
        digest = hashlib.sha256(repr(what).encode() + values.tobytes()).hexdigest()
        return Work(digest, values, payload, *self.primitive.bill(payload, len(values) * payload.compiled.n_groups))


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different rows in the order of their first appearance, and which of them each row is."""
    if not values.shape[1]:
        return values[:1], np.zeros(len(values), dtype=int)
    _, first, which = np.unique(values, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return values[first[order]], rank[which.ravel()]


def qiskit_backend(
    spec: str,
    *,
    shots: int | None = None,
    options: Options | None = None,
    generator: torch.Generator | None = None,
    runner: Runner = run_unrecorded,
    directory: Path | None = None,
) -> QiskitPrimitive:
    """The executor of "qiskit", "aer", "fake:NAME" or "ibm:NAME"."""
    from qbp.executors.qiskit_primitive import local

    kind, _, name = spec.partition(":")
    if kind == "ibm":
        from qbp.executors.qiskit_primitive.client import IBM

        primitive: Any = IBM(name, fractional_gates=options is not None and options.fractional_gates)
    elif kind == "fake":
        from qbp.executors.qiskit_primitive.fake_devices import fake_device

        primitive = fake_device(name)
    else:
        primitive = local.Statevector() if kind == "qiskit" else local.Aer()
    return QiskitPrimitive(
        primitive, shots=shots, options=options, generator=generator, runner=runner, directory=directory
    )
