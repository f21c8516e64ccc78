"""Where pickled layers of qbp 0.1.0 find their classes; to be removed after 0.2."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["MOVED", "lead_on"]

MOVED = {
    "qbp.angles": "qbp.circuit.angles",
    "qbp.expectation": "qbp.gradients.autograd",
    "qbp.layer": "qbp.nn.layer",
    "qbp.models": "qbp.nn.models",
    "qbp.onchip": "qbp.gradients.stateful",
    "qbp.program": "qbp.circuit.program",
    "qbp.qnode": "qbp.nn.qnode",
    "qbp.trace.circuit": "qbp.circuit.tracing.circuit",
    "qbp.weights": "qbp.nn.weights",
}


class _Moved(ModuleType):
    """A module under its old name, imported under the new one when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what tools ask of any module
            raise AttributeError(name)
        return getattr(import_module(MOVED[self.__name__]), name)


def lead_on() -> None:
    """Let the old names be imported; as attributes of `qbp` they are gone."""
    for name in MOVED:
        sys.modules.setdefault(name, _Moved(name))
