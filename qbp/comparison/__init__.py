"""Comparison: whether the quantum part is doing anything, beside matched classical controls."""

from qbp.comparison.comparing import Comparison, compare, load_comparison

__all__ = ["Comparison", "compare", "load_comparison"]
