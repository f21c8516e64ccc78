"""Hardware: the same model on a quantum computer, its bill before and its noise after."""

from qbp.hardware.noise_tables import error_bars, noise_table
from qbp.hardware.planning import plan
from qbp.hardware.transfer import on_backend, send, session, spent

__all__ = ["error_bars", "noise_table", "on_backend", "plan", "send", "session", "spent"]
