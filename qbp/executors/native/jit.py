# mypy: disable-error-code="no-untyped-def"
"""How the kernels are compiled: once on a machine, with a notice, and without the interpreter's lock."""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

from numba import njit
from numba.core.event import Listener, register

__all__ = ["exact", "inline", "jit", "kernel"]

_PARTS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
jit = njit(fastmath=True, **_PARTS)
inline = njit(fastmath=True, forceinline=True, **_PARTS)
exact = njit(fastmath=False, forceinline=True, **_PARTS)
"""For sums whose order matters; said explicitly, since callees inherit what they leave open."""

_FILES = ("atomics", "jit", "kernels", "lanes", "one_state", "passes", "turns")  # whose code becomes part of kernels
_SOURCES = sha256(b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in _FILES)).hexdigest()
_KERNELS: set[Any] = set()


def kernel(function):
    """Compiled once on a machine: kept on disk beside its file, or in the user's cache directory.

    Numba compiles again when the kernel's own file changes. That also the files of what it calls count, it learns from
    a closure that holds a digest of all of them.
    """
    code = function.__code__.replace(co_freevars=("sources",))
    function = FunctionType(code, function.__globals__, function.__name__, None, (CellType(_SOURCES),))
    _KERNELS.add(function)
    options = {"nogil": True, "fastmath": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither can be written to
        return njit(**options)(function)


class _Notice(Listener):
    """Says, once, that kernels are being compiled, since that takes a while."""

    said = False

    def on_start(self, event):
        if event.data["dispatcher"].py_func in _KERNELS and not self.said:
            self.said = True
            print(
                "qbp: compiling the native engine, up to half a minute; kept on this machine ...",
                file=sys.stderr,
                flush=True,
            )

    def on_end(self, event):
        pass


register("numba:compile", _Notice())
