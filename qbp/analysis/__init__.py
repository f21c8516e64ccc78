"""Analysis: what a circuit can express, and why a model does not learn."""

from qbp.analysis.diagnosis import diagnose
from qbp.analysis.fisher import gradient_variance, jacobian, quantum_fisher

__all__ = ["diagnose", "gradient_variance", "jacobian", "quantum_fisher"]
