# mypy: disable-error-code="no-untyped-def"
"""How the kernels are compiled: once on a machine, with a notice, and without the interpreter's lock."""

from __future__ import annotations

import sys
from typing import Any

from numba import njit
from numba.core.event import Listener, register

__all__ = ["exact", "inline", "jit", "kernel"]

_PARTS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
jit = njit(fastmath=True, **_PARTS)
inline = njit(fastmath=True, forceinline=True, **_PARTS)
exact = njit(fastmath=False, forceinline=True, **_PARTS)
"""For sums whose order matters; said explicitly, since callees inherit what they leave open."""

_KERNELS: set[Any] = set()


def kernel(function):
    """Compiled once on a machine: kept on disk beside its file, or in the user's cache directory."""
    _KERNELS.add(function)
    try:
        return njit(nogil=True, fastmath=True, error_model="numpy", no_cfunc_wrapper=True, cache=True)(function)
    except RuntimeError:  # neither can be written to
        return njit(nogil=True, fastmath=True, error_model="numpy", no_cfunc_wrapper=True)(function)


class _Notice(Listener):
    """Says, once, that kernels are being compiled, since that takes a while."""

    said = False

    def on_start(self, event):
        if event.data["dispatcher"].py_func in _KERNELS and not self.said:
            self.said = True
            print(
                "qbp: compiling the native engine, once on this machine (about 15 s) ...", file=sys.stderr, flush=True
            )

    def on_end(self, event):
        pass


register("numba:compile", _Notice())
