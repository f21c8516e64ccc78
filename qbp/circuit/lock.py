"""The lock for whatever reads or changes state that PennyLane or torch keep for the whole process.

While a circuit is traced, torch.fx replaces methods of `torch.nn.Module`, and PennyLane notes each gate that any thread
makes. A PennyLane device makes gates of its own while it runs. So one thread at a time traces, or runs a device.
"""

from __future__ import annotations

import os
from threading import RLock

__all__ = ["LOCK"]

LOCK = RLock()

if hasattr(os, "register_at_fork"):  # a child process must not inherit a lock that a thread of its parent holds
    os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)
