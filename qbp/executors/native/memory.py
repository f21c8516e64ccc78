"""Buffers that threads keep."""

from __future__ import annotations

import threading

import numpy as np
import torch

__all__ = ["MAX_BUFFER", "buffer", "empty", "given_back", "lent"]

MAX_BUFFER = 2**27
"""Bytes of a buffer that a thread keeps."""


_LENT: dict[np.dtype, np.ndarray] = {}  # dict.pop is atomic


class _Local(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[np.dtype, np.ndarray] = {}


_LOCAL = _Local()
_TORCH = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}


def empty(n: int, dtype: np.dtype) -> np.ndarray:
    """An array that starts at a cache line, as torch's do; a small one is made sooner than that would pay."""
    if n < 2**12:
        return np.empty(n, dtype)
    return torch.empty(n, dtype=_TORCH[dtype]).numpy()


def buffer(n: int, dtype: np.dtype) -> np.ndarray:
    """This thread's buffer, grown where it is too small; very large ones are not kept."""
    old = _LOCAL.buffers.get(dtype)
    if old is not None and len(old) >= n:
        return old
    new = empty(n, dtype)
    if new.nbytes <= MAX_BUFFER:
        _LOCAL.buffers[dtype] = new
    return new


def lent(n: int, dtype: np.dtype) -> np.ndarray:
    """An array to be given back: new pages of memory can take longer than what is done with them."""
    old = _LENT.pop(dtype, None)
    return old[:n] if old is not None and len(old) >= n else empty(n, dtype)


def given_back(array: np.ndarray) -> None:
    """Keep what was `lent` for the next one; very large arrays are not kept."""
    whole = array if array.base is None or not isinstance(array.base, np.ndarray) else array.base
    if whole.nbytes <= MAX_BUFFER:
        _LENT[array.dtype] = whole
