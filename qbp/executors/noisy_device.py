"""A fake backend's device with all of its noise: exact, at once and differentiable, or through jobs as a rehearsal."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Program
from qbp.errors import ArgumentError
from qbp.executors import Capabilities, Executor, Gradients, Results
from qbp.executors.noisy import WithNoise
from qbp.executors.qiskit_primitive import QiskitPrimitive
from qbp.executors.qiskit_primitive.noise import NoisyCircuit
from qbp.jobs.jobs import run_unrecorded

__all__ = ["NoisyDevice", "OnDevice"]


class NoisyDevice(QiskitPrimitive):
    """Executor with the noise of a fake backend.

    Without shots, and without a ledger, outputs are exact: of the transpiled circuit with all of the device's noise,
    readout errors too, and with adjoint gradients. With shots, with a ledger, from amplitudes, and where outputs see
    many qubits and become many words, it is what `QiskitPrimitive` is.
    """

    _engine: WithNoise | None = None
    _engines: dict[Program, WithNoise | None] | None = None

    @property
    def noise(self) -> str:
        """The device whose noise it is."""
        return self.name

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(exact=False, adjoint=True) if self._is_exact else super().capabilities

    @property
    def _is_exact(self) -> bool:
        return self.shots is None and self.runner is run_unrecorded and self.transpiles

    @property
    def engine(self) -> WithNoise:
        """What runs exact circuits."""
        if self._engine is None:
            self._engine = OnDevice(self)
        return self._engine

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_engine": None, "_engines": None}

    def has_adjoint(self, program: Program) -> bool:
        """Whether outputs are exact, and come from here rather than from Aer."""
        return self._is_exact and self._exact(program) is not None

    def _exact(self, program: Program) -> WithNoise | None:
        """What has exact outputs of a program: all words of at most `MOST_QUBITS`, or of as many as each output sees;
        or those words that the measured ones become, on any number of qubits. None where there is too much of both."""
        self._engines = {} if self._engines is None else self._engines
        if program not in self._engines:
            self._engines[program] = None if program.amplitudes else self._find_exact(program)
        return self._engines[program]

    def _find_exact(self, program: Program) -> WithNoise | None:
        from qbp.executors.native import ways
        from qbp.executors.propagation import PauliPropagation
        from qbp.executors.qiskit_primitive import fake_devices

        most = fake_devices.MOST_QUBITS
        if len(self.compiled(program).active) <= most or self.engine.circuit(program).n_seen <= most:
            return self.engine
        if all(PauliPropagation.fits(part, ways.MOST_STEPS) for part, _ in self.engine.circuit(program).parts):
            return OnDevice(self, PauliPropagation(max_words=None))
        return None

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Results:
        """Outputs (B, M), and their standard errors where they are sampled."""
        engine = self._exact(program) if self._is_exact else None
        if engine is not None:
            return engine(program, angles)
        results = super().__call__(program, angles, amplitudes)
        return Results(results.values) if self._is_exact else results

    def forward(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> tuple[Results, Any]:
        """Outputs (B, M), and what `vjp` wants to find again."""
        return self._engine_of(program).forward(program, angles)

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
        return self._engine_of(program).vjp(program, angles, None, saved, grad, needs)

    def _engine_of(self, program: Program) -> WithNoise:
        engine = self._exact(program)
        assert engine is not None
        return engine


class OnDevice(WithNoise):
    """Executor of circuits with the noise of a fake backend, of any width that its engine runs.

    Args:
        device: what transpiles them.
        engine: what runs programs with channels; None for the native engine.
    """

    def __init__(self, device: NoisyDevice, engine: Executor | None = None):
        super().__init__(device.name, engine)
        self.device = device

    def noisy(self, program: Program) -> NoisyCircuit:
        """The program as the device runs it."""
        if program.amplitudes:
            raise ArgumentError("Argument `noise` must not be a device's for circuits from amplitudes as trajectories")
        circuit: NoisyCircuit = self.device.primitive.noisy(self.device.compiled(program))
        return circuit
