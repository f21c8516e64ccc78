# mypy: disable-error-code="no-untyped-def"
"""How the kernels are compiled: once on a machine, with a notice, and without the interpreter's lock."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

from numba import njit
from numba.core.event import Listener, register

__all__ = ["exact", "inline", "jit", "kernel", "wait_for_compiler"]

_PARTS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
jit = njit(fastmath=True, **_PARTS)
inline = njit(fastmath=True, forceinline=True, **_PARTS)
exact = njit(fastmath=False, forceinline=True, **_PARTS)
"""For sums whose order matters; said explicitly, since callees inherit what they leave open."""

# Whose code becomes part of kernels.
_FILES = ("atomics", "batch", "conventions", "fixed_point", "jit", "passes", "simd", "single")
_SOURCES = sha256(b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in _FILES)).hexdigest()
_HERE = Path(__file__).parent
_KERNELS: set[Any] = set()


def kernel(function):
    """Compiled once on a machine: kept on disk beside its file, or in the user's cache directory.

    Numba compiles again when the kernel's own file changes. That also the files of what it calls count, it learns from
    a closure that holds a digest of all of them, and of all that lies beside a kernel elsewhere.
    """
    code = function.__code__.replace(co_freevars=("sources",))
    folder = Path(code.co_filename).parent
    beside = b"" if folder == _HERE else b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    sources = sha256(_SOURCES.encode() + beside).hexdigest() if beside else _SOURCES
    function = FunctionType(code, function.__globals__, function.__name__, None, (CellType(sources),))
    _KERNELS.add(function)
    options = {"nogil": True, "fastmath": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither can be written to
        return njit(**options)(function)


class _Start(Listener):
    """When a kernel begins to be compiled: says so, once, and has the one that comes next compiled beside it."""

    said = False

    def on_start(self, event):
        function = event.data["dispatcher"].py_func
        if function not in _KERNELS:
            return
        if not self.said:
            self.said = True
            print(
                "qbp: compiling the native engine, up to 20 seconds; kept on this machine ...",
                file=sys.stderr,
                flush=True,
            )
        native = function.__module__.startswith("qbp.executors.native.")
        if native and function.__name__ == "forward" and event.data["dispatcher"].stats.cache_path and _can_spawn():
            float32 = "float32" in str(event.data["args"])
            _compile_beside(function.__module__.rpartition(".")[2], "float32" if float32 else "float64")

    def on_end(self, event):
        pass


register("numba:compile", _Start())


# ---- two processors --------------------------------------------------------------------------------------------------
# Compiling holds the interpreter's lock, so that threads would not help; what another process leaves on disk does.

_BESIDE: list[subprocess.Popen] = []


def _can_spawn() -> bool:
    """Whether there is a second processor, and a Python that is nothing but Python."""
    is_python = Path(sys.executable or "").name.startswith("python") and not getattr(sys, "frozen", False)
    n_processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return is_python and n_processors > 1


def _compile_beside(module: str, dtype: str) -> None:
    code = f"from qbp.executors.native import compile_backward; compile_backward({module!r}, {dtype!r})"
    paths = [str(Path(__file__).parents[4]), os.environ.get("PYTHONPATH", "")]
    silent: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    with suppress(OSError):  # then this process compiles it, too
        env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        _BESIDE.append(subprocess.Popen([sys.executable, "-c", code], env=env, **silent))


def wait_for_compiler() -> None:
    """Until what is compiled beside this process is done: once it is on disk, it need not be compiled here."""
    while _BESIDE:
        with suppress(IndexError):  # another thread was faster
            _BESIDE.pop().wait()


@atexit.register
def _stop() -> None:
    for process in _BESIDE:
        process.kill()
