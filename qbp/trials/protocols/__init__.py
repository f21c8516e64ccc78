"""How claims are measured: a module each, with `Options`, `cells` and `train` (see `qbp.trials.cell`)."""

from __future__ import annotations

from typing import Any

from qbp.trials.protocols import comparison, growth, loss_curve, noise_aware, onchip, relational, truncated

__all__ = ["PROTOCOLS"]

PROTOCOLS: dict[str, Any] = {
    "comparison": comparison,
    "growth": growth,
    "loss_curve": loss_curve,
    "noise_aware": noise_aware,
    "onchip": onchip,
    "relational": relational,
    "truncated": truncated,
}
"""Every protocol by its name."""
