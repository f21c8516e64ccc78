"""Nested state (numbers, text, tensors) as one safetensors file, written atomically; loading runs no code."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from qbp.errors import ConfigError
from qbp.storage.atomic import write_atomic

__all__ = ["VERSION", "load_state", "save_state"]

VERSION = 1
LONGEST = 2**22
"""Characters of what is not a tensor: Python needs up to 30 times as many bytes for it."""


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write nested dicts and lists of tensors and plain values to ONE safetensors file, atomically.

    Tensors become entries named by their path ("model/0.weight"); the rest is JSON in the file's metadata.

    Raises:
        ConfigError: a value is neither a tensor nor plain data, or there is too much that is no tensor.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    try:
        plain = json.dumps({"version": VERSION, "state": _pack(state, "", tensors)})
    except RecursionError as error:
        raise ConfigError(f"{path} cannot hold a state that is nested so deep") from error
    if len(plain) > LONGEST:
        raise ConfigError(f"{path} can hold {LONGEST} characters beside tensors, but these are {len(plain)}")
    write_atomic(Path(path), save(tensors, metadata={"qbp": plain}))  # one key: their order would be random


def load_state(path: str | Path) -> dict[str, Any]:
    """Read what `save_state` wrote. Runs no code of the file.

    Raises:
        ConfigError: the file is missing, damaged or not a checkpoint of qbp.
    """
    from safetensors import SafetensorError, safe_open

    if Path(path).exists() and not Path(path).is_file():  # a pipe is waited for, a device has no end
        raise ConfigError(f"Cannot read checkpoint {path}: it is no file")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("qbp", "{}")
            if len(text) > LONGEST:
                raise ConfigError(f"{path} is not a qbp checkpoint: it holds {len(text)} characters beside tensors")
            content = json.loads(text)
            if not isinstance(content, dict) or content.get("version") != VERSION:
                raise ConfigError(f"{path} is not a qbp checkpoint of version {VERSION}")
            # A copy lies in memory as torch's own tensors do: of others the last bits of a sum may differ.
            read = cache(lambda name: file.get_tensor(name).clone())  # one that is named twice is read once
            state = _unpack(content["state"], read)
    except ConfigError:  # a ValueError, too
        raise
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"Cannot read checkpoint {path}: {error}") from error
    except (ValueError, TypeError, LookupError, RuntimeError) as error:  # RecursionError is a RuntimeError
        raise ConfigError(f"Cannot read checkpoint {path}: it is damaged ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise ConfigError(f"Cannot read checkpoint {path}: it holds no state")
    return state


def _pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().clone().contiguous()  # a copy: safetensors refuses shared memory
        return {"tensor": path}
    if isinstance(value, dict):  # as pairs: an optimiser's state has integers for keys
        return {"dict": [[key, _pack(item, f"{path}/{key}".lstrip("/"), tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(item, f"{path}/{k}", tensors) for k, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"A checkpoint cannot hold {path}, a {type(value).__name__}: tensors and plain values only")


def _unpack(value: Any, tensor: Callable[[str], Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensor(value["tensor"])
        return {key: _unpack(item, tensor) for key, item in value["dict"]}
    return [_unpack(item, tensor) for item in value] if isinstance(value, list) else value
