"""What a result depends on besides its config: versions, machine, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from qbp._version import __version__

__all__ = ["processor", "versions"]

PACKAGES = ("numpy", "scipy", "torch", "pennylane", "qiskit", "numba", "scikit-learn", "safetensors")


def versions() -> dict[str, Any]:
    """Return what a result depends on besides its config: versions, machine, the working directory's commit."""
    return {
        "python": platform.python_version(),
        "qbp": __version__,
        **{name: metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": processor(),
        "processors": os.cpu_count(),
        "commit": _commit(),
    }


def processor() -> str:
    """Return the name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
