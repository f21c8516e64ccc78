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

from qbp import data
from qbp.compare import Comparison, compare, load_comparison
from qbp.cost import Budget, Cost
from qbp.diagnose import diagnose
from qbp.distill import distill
from qbp.errors import QbpError
from qbp.executors import backend
from qbp.executors.qiskit_primitive.options import Options
from qbp.hardware import on_backend, plan
from qbp.information import gradient_variance, jacobian, quantum_fisher
from qbp.layer import QuantumLayer
from qbp.models import hybrid, mlp
from qbp.noise import error_bars, noise_table
from qbp.prune import prune
from qbp.store import load_model, save_model
from qbp.testing import gradcheck
from qbp.trace import Circuit, trace
from qbp.train import History, evaluate, fit, load_checkpoint, lr_range_test

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "Circuit",
    "Comparison",
    "Cost",
    "History",
    "Options",
    "QbpError",
    "QuantumLayer",
    "__version__",
    "backend",
    "compare",
    "data",
    "diagnose",
    "distill",
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
    "prune",
    "quantum_fisher",
    "save_model",
    "trace",
]
