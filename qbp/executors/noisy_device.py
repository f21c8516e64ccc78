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
        return super().__getstate__() | {"_engine": None}

    def has_adjoint(self, program: Program) -> bool:
        """Whether outputs are exact, and come from here rather than from Aer: of at most `MOST_QUBITS`, or where each
        sees no more, or few words reach them."""
        from qbp.executors.native.ways import way_of
        from qbp.executors.pauli.apart import seen_at_most
        from qbp.executors.qiskit_primitive.fake_devices import MOST_QUBITS

        if not self._is_exact or program.amplitudes:
            return False
        if len(self.compiled(program).active) <= MOST_QUBITS:
            return True
        parts = [part for part, _ in self.engine.circuit(program).parts]
        return all(seen_at_most(part) <= MOST_QUBITS or way_of(part) == "pauli-propagation" for part in parts)

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Results:
        """Outputs (B, M), and their standard errors where they are sampled."""
        if self.has_adjoint(program):
            return self.engine(program, angles)
        results = super().__call__(program, angles, amplitudes)
        return Results(results.values) if self._is_exact else results

    def forward(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> tuple[Results, Any]:
        """Outputs (B, M), and what `vjp` wants to find again."""
        return self.engine.forward(program, angles)

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
        return self.engine.vjp(program, angles, None, saved, grad, needs)


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
