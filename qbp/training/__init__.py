"""Training: fit a model, evaluate it, go on after a kill."""

from qbp.training.checkpoint import History, load_checkpoint
from qbp.training.fitting import evaluate, fit, lr_range_test

__all__ = ["History", "evaluate", "fit", "load_checkpoint", "lr_range_test"]
