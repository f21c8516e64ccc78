"""Search: which config is best by validation, tried by Optuna's samplers and pruners on any executor."""

from qbp.runs.search.sweeping import SweepResult, load_sweep, sweep

__all__ = ["SweepResult", "load_sweep", "sweep"]
