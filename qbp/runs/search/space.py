"""What a sweep chooses from: keys of a config, and the values that they may have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from qbp.errors import ConfigError
from qbp.runs.config import Config, Sweep, changed

__all__ = ["check_space", "labels_of", "number_of"]

Space = Mapping[str, Any]

FIXED = ("name", "seed", "sweep", "prune", "distill", "twin", "copy_data", "tracking")
"""Sections that a sweep leaves as they are."""
ROWS = ("name", "classes", "n_samples", "noise", "test_size", "target", "options")
"""Keys of `data` that say which rows are to be predicted: trials that differ there cannot be compared."""


def check_space(config: Config, sweep: Sweep) -> None:
    """Refuse keys and values that a config cannot have, before anything is trained.

    Raises:
        ConfigError: a key is unknown or must stay as it is, two overlap, or a value is wrong.
    """
    keys = list(sweep.search)
    for key in keys:
        section, _, rest = key.partition(".")
        if section in FIXED or (section == "data" and rest.partition(".")[0] in ("", *ROWS)):
            raise ConfigError(
                f"Key `sweep.search.{key}`: a sweep cannot choose `{key}`, since its trials must have the same rows to "
                "learn from and to predict, and nothing else to do"
            )
        if below := [other for other in keys if other.startswith(f"{key}.")]:
            raise ConfigError(f"Keys `sweep.search.{key}` and `sweep.search.{below[0]}` overlap: take one of them out")
        values = sweep.search[key]
        for value in values if isinstance(values, tuple) else (values["low"], values["high"]):
            try:
                changed(config, {key: value})
            except ConfigError as error:
                raise ConfigError(f"Key `sweep.search.{key}` cannot be tried: {error}") from error


def labels_of(choices: tuple[Any, ...]) -> list[str]:
    """Return names for choices, each its own.

    Example:
        >>> labels_of(("cosine", None, 16, [8, 8]))
        ['cosine', 'null', '16', '[8, 8]']
    """
    labels = [choice if isinstance(choice, str) else json.dumps(choice) for choice in choices]
    return labels if len(set(labels)) == len(labels) else [json.dumps(choice) for choice in choices]


def number_of(choices: tuple[Any, ...], value: Any) -> int:
    """Return which of the choices a value is, also one that was read from JSON."""
    return [json.dumps(choice) for choice in choices].index(json.dumps(value))
