"""Neural networks: circuits as torch modules, models made of them, and what these cost."""

from qbp.nn.layer import QuantumLayer
from qbp.nn.models import BoundedAngle, hybrid, matched_mlp, mlp, n_parameters, renew
from qbp.nn.robustness import Normalized, Quantized, extrapolated, fluctuating
from qbp.nn.saving import load_model, save_model

__all__ = [
    "BoundedAngle",
    "Normalized",
    "Quantized",
    "QuantumLayer",
    "extrapolated",
    "fluctuating",
    "hybrid",
    "load_model",
    "matched_mlp",
    "mlp",
    "n_parameters",
    "renew",
    "save_model",
]
