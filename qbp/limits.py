"""How large a thing may be: what would not fit is refused before it is begun, with what it would take."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

from qbp.errors import ArgumentError

__all__ = ["MOST_GATES", "check_gates", "check_memory", "physical_memory"]

MOST_GATES = 100_000
"""Gates of a circuit built from a name, a number of qubits and one of layers: more would take hours to trace."""

_CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may take, where there is one
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def physical_memory() -> int:
    """Bytes of memory that this process may take: the machine's, or less where a container or `ulimit` says so."""
    try:
        limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):  # not there on Windows
        limits = [2**40]
    with contextlib.suppress(OSError, ValueError):  # no container, or "max"
        limits.append(int(_CGROUP.read_text()))
    with contextlib.suppress(ImportError, OSError):  # not there on Windows
        import resource

        limits += [most for most in resource.getrlimit(resource.RLIMIT_AS) if most != resource.RLIM_INFINITY]
    return min(limits)


def check_memory(what: str, n_bytes: float, n_qubits: int = 0, most: int | None = None, instead: str = "") -> None:
    """Raise `ArgumentError` if something takes more memory than there is.

    Args:
        what: the thing, in the plural, as in "30 qubits with 4 outputs".
        n_bytes: what it takes, times ``2^n_qubits``, which may be far beyond any number of bytes.
        n_qubits: see there.
        most: bytes that there are; None for `physical_memory`.
        instead: what else to do, after a colon or so.

    Raises:
        ArgumentError: it does not fit; the message says what it takes and what there is.
    """
    there_are = physical_memory() if most is None else most
    if math.log2(max(n_bytes, 1)) + n_qubits > math.log2(there_are):
        raise ArgumentError(f"{what} take {_size(n_bytes, n_qubits)}, but there are {_size(there_are)}{instead}")


def check_gates(n_gates: int, what: str) -> None:
    """Raise `ArgumentError` if a circuit would have more gates than `MOST_GATES`."""
    if n_gates > MOST_GATES:
        many = f"{n_gates:,}" if n_gates < 10**15 else f"about 10^{math.floor(math.log10(n_gates))}"
        raise ArgumentError(f"{what} would have at least {many} gates, but a circuit may have at most {MOST_GATES:,}")


def _size(n_bytes: float, exponent: int = 0) -> str:
    """Bytes as a person reads them: "1.5 GiB", and "2^1030 bytes" where no unit is large enough."""
    bits = math.log2(max(n_bytes, 1)) + exponent
    if bits >= 10 * len(_UNITS):
        return f"2^{math.ceil(bits)} bytes"
    unit = int(bits // 10)
    return f"{n_bytes * 2.0 ** (exponent - 10 * unit):.1f} {_UNITS[unit]}"
