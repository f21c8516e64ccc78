"""The folder of a run: what `qbp.storage.folder` keeps, with the config of a run."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from qbp.errors import ConfigError, did_you_mean
from qbp.runs.config import Config, Hybrid, is_file, load
from qbp.storage.folder import RunFolder

__all__ = ["CONFIG", "TWIN", "check_data_file", "claim", "read_config", "run_folder", "simulated"]

CONFIG, TWIN = "config.yaml", "twin"
DATA, DIGEST = "data", "data.json"


def run_folder(path: Path) -> RunFolder:
    """Return the folder of a run, which is compared by its config with every default filled in."""
    return RunFolder(path, CONFIG, read=lambda file: plain(load(file, trust=True), path))


def claim(path: Path, config: Config, resume: bool) -> RunFolder:
    """Claim the folder of a run, with a copy of its data file if the config wants one, and what that holds.

    Raises:
        ConfigError: as `RunFolder.claim`; or the data file is another one than when the run began.
    """
    run = run_folder(path)
    files = {}
    if is_file(config.data.name) and config.copy_data:
        files[f"{DATA}/{Path(config.data.name).name}"] = Path(config.data.name)
    run.claim(plain(config, path), resume=resume, files=files)
    if is_file(config.data.name):
        if not (path / DIGEST).exists():
            run.write(DIGEST, {"sha256": _digest(config.data.name)})
        check_data_file(config, path)
    return run


def check_data_file(config: Config, path: Path) -> None:
    """Raise `ConfigError` where the data file of a run is not what it was trained on."""
    if not is_file(config.data.name) or not (path / DIGEST).exists():
        return
    if not Path(config.data.name).is_file():
        raise ConfigError(
            f"Run {path} needs its data, but there is no {config.data.name}: put it there, or train with "
            "`copy_data: true`, which keeps a copy in the run"
        )
    if RunFolder(path).load(DIGEST).get("sha256") != _digest(config.data.name):
        raise ConfigError(f"{config.data.name} is not what run {path} was trained on: it has changed since")


def _digest(name: str) -> str:
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()


def plain(config: Config, path: Path) -> dict[str, Any]:
    """Return a config as plain data, every key spelled out; a data file by its path from the folder of the run."""
    values: dict[str, Any] = config.model_dump(mode="json")
    if is_file(config.data.name):
        name = Path(config.data.name)
        if config.copy_data:
            relative = f"{DATA}/{name.name}"
        else:
            relative = Path(os.path.relpath(os.path.realpath(name), os.path.realpath(path))).as_posix()
        values["data"]["name"] = relative
    return values


def simulated(config: Config) -> Config:
    """Return the config with the simulator as its backend: what a run is built with to be drawn, whatever it names."""
    if not isinstance(config.model, Hybrid):
        return config
    simulator = {"backend": "auto", "diff_method": "best", "shots": None}
    return config.model_copy(update={"model": config.model.model_copy(update=simulator)})


def read_config(path: Path, trust: bool = False) -> Config:
    """Return a run's config.

    Args:
        path: the run's.
        trust: as in `qbp.runs.config.load`; not asked for where nothing is built from the config.

    Raises:
        ConfigError: there is no such run.
    """
    if not (path / CONFIG).is_file():
        near = did_you_mean(path.name, [other.name for other in path.parent.glob("*") if (other / CONFIG).exists()])
        raise ConfigError(f"{path} is no run of `qbp train`: it has no {CONFIG}{near}")
    return load(path / CONFIG, trust=trust)
