"""Hybrid models as scikit-learn's estimators: in pipelines, grid searches and cross-validation."""

from qbp.estimators.quantum import QuantumClassifier, QuantumRegressor

__all__ = ["QuantumClassifier", "QuantumRegressor"]
