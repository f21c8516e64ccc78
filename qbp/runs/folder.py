"""The folder of a run: what `qbp.storage.folder` keeps, with the config of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qbp.errors import ConfigError
from qbp.runs.config import Config, Hybrid, load
from qbp.storage.folder import RunFolder

__all__ = ["CONFIG", "TWIN", "read_config", "run_folder", "simulated"]

CONFIG, TWIN = "config.yaml", "twin"


def run_folder(path: Path) -> RunFolder:
    """Return the folder of a run, which is compared by its config with every default filled in."""
    return RunFolder(path, CONFIG, read=lambda file: plain(load(file, trust=True)))


def plain(config: Config) -> dict[str, Any]:
    """Return a config as plain data, every key spelled out."""
    return config.model_dump(mode="json")


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
        raise ConfigError(f"{path} is no run of `qbp train`: it has no {CONFIG}")
    return load(path / CONFIG, trust=trust)
