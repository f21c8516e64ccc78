"""Executors: where a program runs. One file each; the conformance suite of `qbp.testing` is what they are held to.

An executor is called as ``executor(program, angles, amplitudes=None) -> (B, M)``. One that can give the
vector-Jacobian product in a single backward pass (the adjoint rule) also has `forward` and `vjp`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from qbp.angles import Angles
from qbp.program import Program

__all__ = ["AdjointExecutor", "Executor", "Gradients"]


@dataclass(frozen=True)
class Gradients:
    """The vector-Jacobian product of a circuit: one tensor for each of its arguments, None where it was not asked for.

    Attributes:
        batched: (B, Kb).
        shared: (Ks,), summed over the batch.
        amplitudes: (B, 2^N), real or complex as the amplitudes are (torch's convention for complex gradients).
    """

    batched: Tensor | None = None
    shared: Tensor | None = None
    amplitudes: Tensor | None = None


@runtime_checkable
class Executor(Protocol):
    """Runs programs.

    Attributes:
        name: what a user writes to get it (``backend="native"``), and what `QuantumLayer.backend` says.
        exact: whether equal angles always give equal, noiseless outputs.
        shots: how many times each circuit is sampled, or None where expectation values are exact.
    """

    name: str
    exact: bool
    shots: int | None

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Tensor:
        """Outputs (B, M), of the dtype and device of the angles."""
        ...


@runtime_checkable
class AdjointExecutor(Executor, Protocol):
    """An executor that has the adjoint rule."""

    def forward(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> tuple[Tensor, Any]:
        """Outputs (B, M), and whatever `vjp` wants to find again."""
        ...

    def vjp(
        self,
        program: Program,
        angles: Angles,
        amplitudes: Tensor | None,
        saved: Any,
        grad: Tensor,
        needs: tuple[bool, bool, bool] = (True, True, True),
    ) -> Gradients:
        """Gradients of ``sum(grad * outputs)`` with respect to batched angles, shared angles and amplitudes.

        Args:
            saved: the second result of `forward` for the same arguments; used once.
            grad: (B, M).
            needs: which of the three are wanted.
        """
        ...
