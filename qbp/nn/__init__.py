"""Neural networks: circuits as torch modules, models made of them, and what these cost."""

from qbp.nn.conversion import convert
from qbp.nn.drop_in import TorchConnector, TorchLayer
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import BoundedAngle, hybrid, matched_mlp, mlp, n_parameters, renew
from qbp.nn.robustness import Normalized, Quantized, extrapolated, fluctuating
from qbp.nn.saving import load_model, save_model

__all__ = [
    "BoundedAngle",
    "Normalized",
    "Quantized",
    "QuantumLayer",
    "TorchConnector",
    "TorchLayer",
    "convert",
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
