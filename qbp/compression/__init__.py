"""Compression: smaller models, by pruning neurons and gates and by distillation."""

from qbp.compression.distillation import distill
from qbp.compression.experiment import compression, cost_of, quality_of, summary
from qbp.compression.pruning import prune

__all__ = ["compression", "cost_of", "distill", "prune", "quality_of", "summary"]
