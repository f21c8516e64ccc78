"""Any circuit with the noise of a device or of a noise model, exactly, with adjoint gradients.

The circuit is written in the gates of the device, every gate is followed by its error, and the Pauli executor runs what
that makes. The angles of the gates are sums of the circuit's own, and so are the gradients.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.noise_model import NoiseModel
from qbp.circuit.program import Channel, Program, Rotation
from qbp.executors import Capabilities, Draws, Executor, Gradients, Results, backend, capabilities_of
from qbp.executors.qiskit_primitive.noise import NoisyCircuit, noisy_circuit

__all__ = ["Extrapolated", "NoisyRuns", "WithNoise"]

_MOST = 64  # circuits that are kept


class NoisyRuns:
    """Runs of one noisy circuit.

    Args:
        circuit: the circuit.
        n_batched: how many of the program's angles, the first, differ between samples.
    """

    def __init__(self, circuit: NoisyCircuit, n_batched: int):
        mixed = (circuit.scale[:, :n_batched] != 0).any(1)
        order = np.concatenate([np.flatnonzero(mixed), np.flatnonzero(~mixed)]).tolist()
        self.parts = [(_renumbered(part, order), list(columns)) for part, columns in circuit.parts]
        self.constants = torch.from_numpy(circuit.constants)
        every = list(range(len(circuit.constants)))
        self.is_plain = [columns for _, columns in self.parts] == [every] and not circuit.constants.any()
        scale, offset = torch.from_numpy(circuit.scale[order]), torch.from_numpy(circuit.offset[order])
        n_mixed = int(mixed.sum())
        self.of_batched, self.of_shared = scale[:n_mixed, :n_batched], scale[:n_mixed, n_batched:]
        self.shared, self.offsets = scale[n_mixed:, n_batched:], offset.split([n_mixed, len(order) - n_mixed])
        self._cast: dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def _matrices(self, like: Tensor) -> tuple[Tensor, ...]:
        key = like.dtype, like.device
        if key not in self._cast:
            parts = (self.of_batched, self.of_shared, self.shared, *self.offsets, self.constants)
            self._cast[key] = tuple(part.to(like) for part in parts)
        return self._cast[key]

    def angles(self, angles: Angles) -> Angles:
        """Those of the gates."""
        batched, shared = angles.batched.detach(), angles.shared.detach().reshape(-1)
        of_batched, of_shared, all_shared, first, second, _ = self._matrices(batched)
        return Angles(batched @ of_batched.T + (of_shared @ shared + first), all_shared @ shared + second)

    def outputs(self, parts: Sequence[Tensor]) -> Tensor:
        """(B, M), of the outputs of the parts."""
        if self.is_plain:
            return parts[0]
        constants = self._matrices(parts[0])[-1] if parts else self.constants
        total = constants.repeat(len(parts[0]), 1)
        for (_, columns), part in zip(self.parts, parts, strict=True):
            total[:, columns] += part
        return total

    def stds(self, parts: Sequence[Tensor | None]) -> Tensor | None:
        """Standard errors (B, M) from those of the parts, which err independently."""
        errors = [part for part in parts if part is not None]
        if not errors or self.is_plain:
            return errors[0] if errors else None
        total = errors[0].new_zeros(len(errors[0]), len(self.constants))
        for (_, columns), part in zip(self.parts, errors, strict=True):
            total[:, columns] += part**2
        return total.sqrt()

    def gradients(self, batched: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
        """Of the program's angles, from those of the gates."""
        of_batched, of_shared, all_shared, *_ = self._matrices(batched)
        return batched @ of_batched, batched.sum(0) @ of_shared + shared @ all_shared

    def draws(self, draws: Draws) -> Draws:
        """The same of what gradients are the sum of."""
        of_batched, of_shared, all_shared, *_ = self._matrices(draws.gradients)
        batched, shared = draws.gradients.split([len(of_batched), len(all_shared)], 1)
        each = torch.cat([batched @ of_batched, batched @ of_shared + shared @ all_shared], 1)
        return draws._replace(gradients=each)


def _renumbered(program: Program, order: Sequence[int]) -> Program:
    """The program whose angle k is the angle ``order[k]`` of before."""
    index = {old: new for new, old in enumerate(order)}
    ops = tuple(
        replace(op, angle=index[op.angle]) if isinstance(op, Rotation) and op.angle is not None else op
        for op in program.ops
    )
    return replace(program, ops=ops)


class WithNoise:
    """Executor with the noise of a noise model.

    Args:
        noise: the noise; of a device its name.
        engine: what runs programs with channels; None for the native engine.
    """

    shots = None

    def __init__(self, noise: NoiseModel | str, engine: Executor | None = None):
        self.name = "noise model" if engine is None else engine.name
        self.noise, self.engine, self.times = noise, engine or backend("native"), 1
        self._circuits: OrderedDict[Program, NoisyCircuit] = OrderedDict()
        self._runs: OrderedDict[tuple[Program, int], NoisyRuns] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_circuits": OrderedDict(), "_runs": OrderedDict()}

    @property
    def capabilities(self) -> Capabilities:
        errors = capabilities_of(self.engine).standard_errors
        return Capabilities(exact=False, adjoint=True, standard_errors=errors)

    def noisy(self, program: Program) -> NoisyCircuit:
        """The program with its noise."""
        assert isinstance(self.noise, NoiseModel)
        return noisy_circuit(program, self.noise)

    def amplified(self, times: int) -> WithNoise:
        """The same with every error so many times."""
        other = copy.copy(self)
        other.times, other._circuits, other._runs = times, OrderedDict(), OrderedDict()
        return other

    def has_adjoint(self, program: Program) -> bool:
        """Whether it has the adjoint rule for a program."""
        return True

    def circuit(self, program: Program) -> NoisyCircuit:
        """The program as it is run; the last ones are kept."""
        if program not in self._circuits:
            self._circuits[program] = _repeated(self.noisy(program), self.times)
            while len(self._circuits) > _MOST:
                self._circuits.popitem(last=False)
        return self._circuits[program]

    def runs(self, program: Program, n_batched: int) -> NoisyRuns:
        """Of the program; the last ones are kept."""
        key = (program, n_batched)
        if key not in self._runs:
            self._runs[key] = NoisyRuns(self.circuit(program), n_batched)
            while len(self._runs) > _MOST:
                self._runs.popitem(last=False)
        return self._runs[key]

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Results:
        """Outputs (B, M), of the dtype and device of the angles."""
        return self.forward(program, angles, amplitudes)[0]

    def forward(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> tuple[Results, Any]:
        """Outputs (B, M), and what `vjp` wants to find again."""
        runs = self.runs(program, angles.batched.shape[1])
        of_gates = runs.angles(angles)
        engine: Any = self.engine
        saved = [engine.forward(part, of_gates, amplitudes) for part, _ in runs.parts]
        if not saved:
            return Results(runs.constants.to(angles.batched).repeat(angles.n_samples, 1)), (runs, of_gates, saved)
        values, stds = zip(*(results[:2] for results, _ in saved), strict=True)
        return Results(runs.outputs(values), runs.stds(stds)), (runs, of_gates, saved)

    def vjp(
        self,
        program: Program,
        angles: Angles,
        amplitudes: Tensor | None,
        saved: Any,
        grad: Tensor,
        needs: tuple[bool, bool, bool] = (True, True, True),
    ) -> Gradients:
        """Gradients of ``sum(grad * outputs)``; see `AdjointExecutor`."""
        runs, of_gates, parts = saved
        batched, shared = torch.zeros_like(of_gates.batched), torch.zeros_like(of_gates.shared)
        of_amplitudes, draws = None, list[Draws]()
        engine: Any = self.engine
        for (part, columns), (_, kept) in zip(runs.parts, parts, strict=True):
            wanted = (True, True, needs[2])
            of_part = grad if runs.is_plain else grad[:, columns].contiguous()
            back = engine.vjp(part, of_gates, amplitudes, kept, of_part, wanted)
            batched, shared = batched + back.batched, shared + back.shared
            draws += map(runs.draws, back.draws)
            if back.amplitudes is not None:
                of_amplitudes = back.amplitudes if of_amplitudes is None else of_amplitudes + back.amplitudes
        g_batched, g_shared = runs.gradients(batched, shared)
        return Gradients(
            g_batched if needs[0] else None,
            g_shared.reshape(angles.shared.shape) if needs[1] else None,
            of_amplitudes if needs[2] else None,
            tuple(draws),
        )


def _repeated(circuit: NoisyCircuit, times: int) -> NoisyCircuit:
    """The circuit with every channel so many times."""
    if times == 1:
        return circuit
    parts = []
    for program, columns in circuit.parts:
        repeats = (times if isinstance(op, Channel) else 1 for op in program.ops)
        ops = tuple(op for op, n in zip(program.ops, repeats, strict=True) for _ in range(n))
        parts.append((replace(program, ops=ops), columns))
    return replace(circuit, parts=tuple(parts))


class Extrapolated:
    """Executor whose outputs are extrapolated to no noise, by the polynomial through those of amplified noise.

    Args:
        executor: what has the noise.
        factors: how often each error is applied, one run for each.
        name: what a layer's `backend` says.
    """

    shots = None

    def __init__(self, executor: WithNoise, factors: tuple[int, ...], name: str):
        self.name, self.noise, self.factors = name, executor.noise, factors
        self.runs = [executor.amplified(factor) for factor in factors]
        self.capabilities = executor.capabilities
        self.weights = [float(np.prod([j / (j - k) for j in factors if j != k])) for k in factors]  # Lagrange's, at 0

    def has_adjoint(self, program: Program) -> bool:
        """Whether it has the adjoint rule for a program."""
        return not program.amplitudes or self.runs[0].has_adjoint(program)

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Results:
        """Outputs (B, M), of the dtype and device of the angles."""
        return self.forward(program, angles, amplitudes)[0]

    def forward(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> tuple[Results, Any]:
        """Outputs (B, M), and what `vjp` wants to find again."""
        each = [run.forward(program, angles, amplitudes) for run in self.runs]
        parts = (w * results.values for w, (results, _) in zip(self.weights, each, strict=True))
        squares = [(w * r.stds) ** 2 for w, (r, _) in zip(self.weights, each, strict=True) if r.stds is not None]
        stds = torch.stack(squares).sum(0).sqrt() if squares else None
        return Results(torch.stack([*parts]).sum(0), stds), [saved for _, saved in each]

    def vjp(
        self,
        program: Program,
        angles: Angles,
        amplitudes: Tensor | None,
        saved: Any,
        grad: Tensor,
        needs: tuple[bool, bool, bool] = (True, True, True),
    ) -> Gradients:
        """Gradients of ``sum(grad * outputs)``; see `AdjointExecutor`."""
        each = [
            run.vjp(program, angles, amplitudes, kept, w * grad, needs)
            for run, w, kept in zip(self.runs, self.weights, saved, strict=True)
        ]
        columns = zip(*(back[:3] for back in each), strict=True)
        batched, shared, amps = (None if parts[0] is None else torch.stack([*parts]).sum(0) for parts in columns)
        return Gradients(batched, shared, amps)
