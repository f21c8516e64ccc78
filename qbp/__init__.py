"""qbp: variational quantum circuits as differentiable layers inside PyTorch models.

Shapes, everywhere: `B` batch, `I` inputs, `P` weights, `K` angles, `M` outputs, `N` qubits, `S` circuits (parameter
sets). Angles are in radians. Wire 0 is the most significant bit of a basis state, as in PennyLane.

Example:
    >>> import torch, qbp
    >>> layer = qbp.QuantumLayer("strongly_entangling", n_qubits=4, n_layers=2)
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Tanh(), layer, torch.nn.Linear(4, 2))
    >>> model(torch.zeros(32, 8)).shape
    torch.Size([32, 2])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qbp import _moved, data
from qbp._version import __version__
from qbp.analysis.diagnosis import diagnose
from qbp.analysis.fisher import gradient_variance, jacobian, quantum_fisher
from qbp.circuit.noise_model import GateError, NoiseModel
from qbp.circuit.tracing import Circuit, trace
from qbp.comparison.comparing import Comparison, compare, load_comparison
from qbp.compression.distillation import distill
from qbp.compression.pruning import prune
from qbp.errors import QbpError
from qbp.executors import backend
from qbp.executors.qiskit_primitive.options import Options
from qbp.hardware.noise_tables import error_bars, noise_table
from qbp.hardware.planning import plan
from qbp.hardware.transfer import on_backend
from qbp.jobs.cost import Budget, Cost
from qbp.nn.conversion import convert
from qbp.nn.drop_in import TorchConnector, TorchLayer
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import hybrid, mlp
from qbp.nn.saving import load_model, save_model
from qbp.nn.summaries import summary
from qbp.runs.prediction import predict
from qbp.testing import gradcheck
from qbp.training.checkpoint import History, load_checkpoint
from qbp.training.fitting import evaluate, fit
from qbp.training.learning_rate import lr_range_test
from qbp.training.options import Training

if TYPE_CHECKING:
    from qbp.estimators import QuantumClassifier, QuantumRegressor
    from qbp.runs.search import sweep

__all__ = [
    "Budget",
    "Circuit",
    "Comparison",
    "Cost",
    "GateError",
    "History",
    "NoiseModel",
    "Options",
    "QbpError",
    "QuantumClassifier",
    "QuantumLayer",
    "QuantumRegressor",
    "TorchConnector",
    "TorchLayer",
    "Training",
    "__version__",
    "backend",
    "compare",
    "convert",
    "data",
    "diagnose",
    "distill",
    "draw",
    "error_bars",
    "evaluate",
    "fit",
    "gradcheck",
    "gradient_variance",
    "hybrid",
    "jacobian",
    "load_checkpoint",
    "load_comparison",
    "load_model",
    "lr_range_test",
    "mlp",
    "noise_table",
    "on_backend",
    "plan",
    "predict",
    "prune",
    "quantum_fisher",
    "save_model",
    "summary",
    "sweep",
    "trace",
]

_moved.lead_on()

WINGS = (
    "storage",
    "workers",
    "circuit",
    "data",
    "jobs",
    "executors",
    "gradients",
    "nn",
    "testing",
    "training",
    "estimators",
    "hardware",
    "analysis",
    "comparison",
    "compression",
    "runs",
    "trials",
    "report",
    "cli",
)
"""The packages of qbp from the ground up: each imports only from those before it."""

LATER = {"QuantumClassifier": "qbp.estimators", "QuantumRegressor": "qbp.estimators", "sweep": "qbp.runs.search"}
LATER |= {"draw": "qbp.report.drawing"}
"""Names whose packages are slow to import, with their modules."""


def __getattr__(name: str) -> Any:
    """A wing is imported when it is first asked for; so is what needs a package that is slow to import."""
    if name in WINGS:
        return import_module(f"qbp.{name}")
    if name in LATER:
        return getattr(import_module(LATER[name]), name)
    raise AttributeError(f"module 'qbp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *WINGS})
