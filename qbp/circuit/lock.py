"""The lock for whatever reads or changes state that PennyLane or torch keep for the whole process.

While a circuit is traced, torch.fx replaces methods of `torch.nn.Module`, and PennyLane notes each gate that any thread
makes. A PennyLane device makes gates of its own while it runs. So one thread at a time traces, or runs a device.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import numpy as np
import torch

__all__ = ["LOCK", "as_if_not_called", "random_states"]

LOCK = RLock()

if hasattr(os, "register_at_fork"):  # a child process must not inherit a lock that a thread of its parent holds
    os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)


def random_states() -> tuple[Any, ...]:
    """The states of Python's, NumPy's and torch's global random numbers."""
    numpy: Any = np.random.get_state(legacy=False)
    return random.getstate(), numpy["state"]["key"].tobytes(), numpy["state"]["pos"], torch.get_rng_state().tolist()


@contextmanager
def as_if_not_called() -> Iterator[None]:
    """Lock, and put the global random numbers back: trying out a user's function must not use them up.

    Transforms of `torch.func` around the call (vmap, grad), and `torch.jit.trace`, are no part of it.
    """
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

    with LOCK, temporarily_clear_interpreter_stack():
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        jit = torch._C._get_tracing_state()
        torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch._C._set_tracing_state(jit)  # type: ignore[attr-defined]
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])
