"""Training: fit a model, evaluate it, go on after a kill."""

from qbp.training.checkpoint import History, load_checkpoint
from qbp.training.fitting import evaluate, fit
from qbp.training.learning_rate import lr_range_test
from qbp.training.options import Training

__all__ = ["History", "Training", "evaluate", "fit", "load_checkpoint", "lr_range_test"]
