"""Nested state (numbers, text, tensors) as one safetensors file, written atomically; loading runs no code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from qbp.errors import ConfigError
from qbp.storage.atomic import write_atomic

__all__ = ["VERSION", "load_state", "save_state"]

VERSION = 1


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write nested dicts and lists of tensors and plain values to ONE safetensors file, atomically.

    Tensors become entries named by their path ("model/0.weight"); the rest is JSON in the file's metadata.

    Raises:
        ConfigError: a value is neither a tensor nor plain data.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    plain = json.dumps({"version": VERSION, "state": _pack(state, "", tensors)})
    write_atomic(Path(path), save(tensors, metadata={"qbp": plain}))  # one key: their order would be random


def load_state(path: str | Path) -> dict[str, Any]:
    """Read what `save_state` wrote. Runs no code of the file.

    Raises:
        ConfigError: the file is missing, damaged or not a checkpoint of qbp.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {}).get("qbp", "{}"))
            if content.get("version") != VERSION:
                raise ConfigError(f"{path} is not a qbp checkpoint of version {VERSION}")
            state: dict[str, Any] = _unpack(content["state"], file.get_tensor)
            return state
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"Cannot read checkpoint {path}: {error}") from error


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
