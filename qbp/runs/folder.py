"""The folder of a run: claimed once, resumed by the same config, every file whole at any moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qbp.errors import ConfigError
from qbp.runs import config as configs
from qbp.runs.config import Config
from qbp.storage.atomic import write_atomic
from qbp.storage.provenance import versions

__all__ = ["CONFIG", "RESULT", "TWIN", "VERSIONS", "claim", "read_config", "read_result", "write_json"]

CONFIG, RESULT, VERSIONS, TWIN = "config.yaml", "result.json", "versions.json", "twin"


def read_config(folder: Path) -> Config:
    """Return a run's config.

    Raises:
        ConfigError: there is no such run.
    """
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} is no run of `qbp train`: it has no {CONFIG}")
    return configs.load(folder / CONFIG)


def read_result(folder: Path) -> dict[str, Any]:
    """Return what `train` wrote.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    try:
        result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        return result
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read {folder / RESULT}: {error}") from error


def claim(config: Config, folder: Path, resume: bool) -> None:
    """Claim the directory for a new run, or check that it holds one of the same config.

    Raises:
        ConfigError: the directory is taken, or holds a run of another config.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()  # by one process only, whichever comes first
    except FileExistsError:
        if not resume:
            raise ConfigError(
                f"Run {folder} is already there: go on with it (`--resume`), or give the new run another name "
                "(`--name`)"
            ) from None
    if (folder / CONFIG).exists():
        if changed := configs.differences(read_config(folder), config):
            raise ConfigError(
                f"Run {folder} cannot be resumed with another config (there / here): {'; '.join(changed)}"
            )
    else:
        if others := sorted(path.name for path in folder.iterdir() if path.name != f"{CONFIG}.tmp"):
            raise ConfigError(f"{folder} is no run to resume: it has {others[0]}, but no {CONFIG}")
        write_atomic(folder / CONFIG, configs.dump(config).encode())
    if not (folder / VERSIONS).exists():
        write_json(folder / VERSIONS, versions())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())
