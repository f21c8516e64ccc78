"""Gradients: vector-Jacobian products of circuits, and torch's side of them."""

from qbp.gradients.rules import RULES
from qbp.gradients.stateful import GCANS, STATEFUL, GradientPruning, GuidedSPSA, prepare

__all__ = ["GCANS", "RULES", "STATEFUL", "GradientPruning", "GuidedSPSA", "prepare"]
