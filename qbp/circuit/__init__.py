"""Circuits: a circuit is data, a function of a flat matrix of angles, from whatever source."""

from qbp.circuit.program import Expval, Probs, Program
from qbp.circuit.tracing import Circuit, trace

__all__ = ["Circuit", "Expval", "Probs", "Program", "trace"]
