"""The folder of one piece of work: claimed once, gone on with by the same config, every file whole at any moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qbp.errors import ConfigError
from qbp.storage.atomic import sweep, write_atomic
from qbp.storage.markup import read_text, read_yaml
from qbp.storage.provenance import versions

__all__ = ["RESULT", "VERSIONS", "RunFolder", "differences", "flat"]

RESULT, VERSIONS = "result.json", "versions.json"
Plain = dict[str, Any]


def _read_yaml(path: Path) -> Plain:
    content: Plain = read_yaml(read_text(path, "file"), str(path))[1]
    return content


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, of one of its stages, of a comparison or of a submission.

    Attributes:
        path: the folder.
        config: the name of the file that says what work it is for.
        what: what the work is called.
        again: what a user does where new work finds the folder taken.
        read: how the config is read, with every default filled in.

    Example:
        >>> import tempfile
        >>> folder = RunFolder(Path(tempfile.mkdtemp()) / "xor")
        >>> folder.claim({"seed": 0}, resume=False)
        >>> folder.finish({"accuracy": 1.0})
        >>> folder.claim({"seed": 0}, resume=True)
        >>> folder.is_finished, folder.result()
        (True, {'accuracy': 1.0})
    """

    path: Path
    config: str = "config.yaml"
    what: str = "run"
    again: str = "go on with it (`--resume`), or give the new run another name (`--name`)"
    read: Callable[[Path], Plain] = _read_yaml

    def claim(self, config: Mapping[str, Any], *, resume: bool, files: Mapping[str, Path] | None = None) -> None:
        """Claim the folder for new work, or check that it holds work of the same config.

        Args:
            config: what the work is, as plain data.
            resume: whether work that is there may be gone on with.
            files: what is copied into new work, by the name that it gets.

        Raises:
            ConfigError: the folder is taken, or holds other work.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.path.mkdir()  # by one process only, whichever comes first
        except FileExistsError:
            if not resume:
                raise ConfigError(f"{self.what.capitalize()} {self.path} is already there: {self.again}") from None
            sweep(self.path)
        if (self.path / self.config).exists():
            if changed := differences(self.read(self.path / self.config), config):
                raise ConfigError(
                    f"{self.path} holds a {self.what} of another config (there / here): {'; '.join(changed)}. "
                    f"To go on, give the same config; or give the new {self.what} another name"
                )
        else:
            self._check_empty({Path(name).parts[0] for name in files or ()})
            for name, source in (files or {}).items():  # before the config: who finds that finds these
                write_atomic(self.path / name, source.read_bytes())
            self._write_config(config)
        if not (self.path / VERSIONS).exists():
            self.write(VERSIONS, versions())

    def _check_empty(self, files: set[str]) -> None:
        names = {path.name for path in self.path.iterdir() if path.suffix != ".tmp"}  # another begins, too
        others = sorted(names - files)
        if others:
            raise ConfigError(f"{self.path} is no {self.what} to resume: it has {others[0]}, but no {self.config}")

    def _write_config(self, config: Mapping[str, Any]) -> None:
        if self.config.endswith(".json"):
            self.write(self.config, config)
            return
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        write_atomic(self.path / self.config, text.encode())

    @property
    def is_finished(self) -> bool:
        """Whether there is a result, which is the last file to be written."""
        return (self.path / RESULT).exists()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result: the work is done."""
        self.write(RESULT, result)

    def result(self) -> Plain:
        """Return what `finish` wrote.

        Raises:
            ConfigError: the file is missing or damaged.
        """
        result: Plain = self.load(RESULT)
        return result

    def write(self, name: str, content: Any) -> None:
        """Write a JSON file of the folder, atomically."""
        write_atomic(self.path / name, (json.dumps(content, indent=2) + "\n").encode())

    def load(self, name: str, missing: Any = None) -> Any:
        """Read a JSON file of the folder; `missing` where there is none, if it is given.

        Raises:
            ConfigError: the file is missing or damaged.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            if missing is not None and isinstance(error, FileNotFoundError):
                return missing
            raise ConfigError(f"Cannot read {self.path / name}: {error}") from error


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return what two configs do not have in common.

    Example:
        >>> differences({"train": {"lr": 0.01}, "seed": 0}, {"train": {"lr": 0.02}, "seed": 0})
        ['train.lr: 0.01 / 0.02']
    """
    flat_one, flat_other = (dict(flat(json.loads(json.dumps(config)))) for config in (one, other))
    keys = [key for key in {**flat_one, **flat_other} if flat_one.get(key) != flat_other.get(key)]
    return [f"{key}: {flat_one.get(key)} / {flat_other.get(key)}" for key in keys]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all values of nested mappings, by dotted keys."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
