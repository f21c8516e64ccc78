"""How claims are measured: a module each, with `Options`, `cells` and `train` (see `qbp.trials.cell`)."""

from __future__ import annotations

from typing import Any

from qbp.trials.protocols import comparison

__all__ = ["PROTOCOLS"]

PROTOCOLS: dict[str, Any] = {"comparison": comparison}
"""Every protocol by its name."""
