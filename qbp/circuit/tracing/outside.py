"""What a circuit's function cannot be watched for: clocks, files, the environment, things that change unseen."""

from __future__ import annotations

import array
import builtins
import contextvars
import datetime
import functools
import json
import os
import pathlib
import pickle
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch

__all__ = ["BUFFERS", "CONTAINERS", "is_installed", "obstacle_of", "reads_elsewhere"]

BUFFERS = (bytearray, array.array, memoryview)
CONTAINERS = (list, tuple, set, frozenset, deque, Mapping, np.ndarray, *BUFFERS)
"""Things whose contents are remembered."""

_LIBRARIES = {*sys.stdlib_module_names, "numpy", "pennylane", "pennylane_lightning", "qbp", "qiskit", "scipy", "torch"}
_READERS = {
    *(open, builtins.eval, builtins.exec, builtins.input, os.getenvb, os.listdir, os.stat, os.path.exists),
    *(time.time, time.time_ns, time.monotonic, time.perf_counter, time.localtime, time.gmtime, time.strftime),
    *(datetime.date.today, datetime.datetime.now, datetime.datetime.today, json.load, pickle.load, torch.load),
    *(np.load, np.loadtxt, np.genfromtxt, np.fromfile, np.memmap, threading.get_ident, threading.current_thread),
}
_PATH_READERS = {"read_text", "read_bytes", "open", "exists", "is_file", "is_dir", "iterdir", "glob", "rglob", "stat"}
_UNSEEN = (contextvars.ContextVar, threading.local, weakref.ProxyType, weakref.CallableProxyType)


@functools.cache
def is_installed(package: str) -> bool:
    """Whether a package is one of the libraries, or was installed: its functions are not looked into."""
    if package in _LIBRARIES:
        return package != "__main__"
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return not {"site-packages", "dist-packages"}.isdisjoint(pathlib.PurePath(file).parts)


def reads_elsewhere(value: Any) -> bool:
    """Whether a function reads a clock, a file, or text that is code."""
    try:
        return callable(value) and not isinstance(value, ModuleType) and value in _READERS
    except TypeError:  # no hash
        return False


def obstacle_of(thing: Any, loads: set[str]) -> str | None:
    """Why a thing cannot be watched, as the end of a sentence; None where it can, or where it cannot change.

    Args:
        thing: any object but containers and modules of torch.
        loads: the names of attributes that the code loads.
    """
    if isinstance(thing, _UNSEEN):
        return f"reads a {type(thing).__name__}"
    if isinstance(thing, pathlib.Path):
        return "reads files" if loads & _PATH_READERS else None
    package = (type(thing).__module__ or "").split(".")[0]
    holds = any(hasattr(type(thing), name) for name in ("__getitem__", "__array__"))
    if holds and is_installed(package) and package not in _LIBRARIES:  # a table of pandas, an array of another library
        return f"reads a {type(thing).__name__}, whose changes cannot be seen"
    return None
