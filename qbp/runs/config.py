"""Configs of `qbp train` and `compare`: what a YAML file may say, and what it says wrong, by key and line."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

import yaml
from pydantic import ValidationError

from qbp.data.files import SUFFIXES
from qbp.errors import ArgumentError, ConfigError, did_you_mean
from qbp.executors import check_trusted
from qbp.runs.schema import SECTIONS, Compare, Config, Data, Distill, Hybrid, Mlp, Prune, Section, Sweep
from qbp.storage.markup import Origin, read_text, read_yaml

__all__ = [
    "Compare",
    "Config",
    "Data",
    "Distill",
    "Hybrid",
    "Mlp",
    "Prune",
    "Sweep",
    "changed",
    "checked",
    "dump",
    "load",
    "meant",
    "naming_inherited",
    "packaged",
    "read",
    "run_name",
    "trusted",
]

PACKAGED = Path(__file__).parents[1] / "configs"


FOLDERS: dict[type[Section], Path] = {Config: PACKAGED, Compare: PACKAGED / "compare"}
Kind = TypeVar("Kind", Config, Compare)


def packaged(kind: type[Section] = Config) -> tuple[str, ...]:
    """Return the names of the configs of a kind that come with qbp."""
    return tuple(sorted(path.stem for path in FOLDERS[kind].glob("*.yaml")))


@overload
def load(config: str | Path, overrides: Sequence[str] = (), *, trust: bool = ...) -> Config: ...
@overload
def load(config: str | Path, overrides: Sequence[str] = (), *, kind: type[Kind], trust: bool = ...) -> Kind: ...
def load(config: str | Path, overrides: Sequence[str] = (), *, kind: type[Any] = Config, trust: bool = False) -> Any:
    """Read and check a config.

    Args:
        config: the path of a YAML file, or the name of a config that comes with qbp (see `packaged`); as a `Compare`
            also those of a `Config`, whose data and model are then what is compared.
        overrides: "key=value" with a dotted key, as in "train.lr=0.02"; the value is read as YAML.
        kind: what it configures, `Config` or `Compare`.
        trust: whether the file may name a backend that has to be imported ("package.module:Thing"), that is a plugin
            of PennyLane's, or that uses your account ("ibm:NAME"); overrides may.

    Returns:
        The config with every default filled in.

    Raises:
        ConfigError: no such file; not YAML; a key is unknown, missing or twice there; a value is wrong; a backend
            wants `trust`.
    """
    path = _path_of(config, kind)
    values, lines = read(path)
    data = values.get("data")
    one_set = isinstance(data, dict) and isinstance(data.get("name"), str)
    as_train = kind is Compare and ("model" in values or one_set)
    named = "name" in values or any(override.partition("=")[0].strip() == "name" for override in overrides)
    values.setdefault("name", run_name(path))
    for override in overrides:
        keys = _override(values, override)
        lines = {key: line for key, line in lines.items() if key[: len(keys)] != keys} | {keys: 0}
    loaded = trusted(checked(values, path, lines, Config if as_train else kind), path, lines, trust)
    if isinstance(loaded, Config):
        loaded._origin = Origin(str(path), lines)
    return _comparison(loaded, loaded.name if named else f"{loaded.name}-compare") if as_train else loaded


def checked(
    values: Mapping[str, Any],
    path: Path,
    lines: Mapping[Key, int],
    kind: type[Any],
    *,
    above: Key = (),
    sections: Mapping[str, type[Section]] | None = None,
) -> Any:
    """Return a file's values as a section.

    Args:
        values: the values.
        path: the file, for what is said of it.
        lines: the line of every key of the file; 0 for one that was overridden.
        kind: the section.
        above: the keys in the file that the section is below.
        sections: sections within it by the name of their key, besides those of `qbp.runs.schema`.

    Raises:
        ConfigError: a key is unknown or missing, or a value is wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        said = [_explain(each, kind, {**SECTIONS, **(sections or {})}) for each in error.errors()]
        named = [((*above, *key), what) for key, what in said]
        wrong = [f"{_at(path, lines, key)}key `{'.'.join(key)}` {what}" for key, what in named]
        inherited = {key[0] for key, _ in named if lines.get(key)} & {
            key[0] for key, line in lines.items() if line == 0
        }
        for section in sorted(inherited):
            changes = [key for key, line in lines.items() if line == 0 and key[0] == section]
            news = ", ".join(f"{key[-1]}: {_of(values, key)}" for key in changes)
            whole = shlex.join(("--set", f"{section}={{{news}}}"))
            wrong.append(
                f"What an override does not change stays as the file has it; {whole} replaces all of `{section}`"
            )
        raise ConfigError("\n".join(wrong)) from error


def trusted(section: Any, path: Path, lines: Mapping[Key, int], trust: bool, above: Key = ()) -> Any:
    """Return a section of data sets and models with whole paths of data files, once its backends are trusted."""
    for key, backend in _backends(section):
        key = (*above, *key)
        if not any(lines.get(key[:k]) == 0 for k in range(1, len(key) + 1)):
            check_trusted(backend, _at(path, lines, key).removesuffix(": "), trust)
    return _found(section, path.parent, lines)


def run_name(path: Path) -> str:
    """The name of a run whose config gives none: the file's, as far as a name may have its letters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._") or "run"


def _path_of(config: str | Path, kind: type[Any]) -> Path:
    """The file of a config that may be named."""
    path = Path(config)
    if path.is_file():
        return path
    kinds = (Compare, Config) if kind is Compare else (kind,)
    names = {name: FOLDERS[each] / f"{name}.yaml" for each in reversed(kinds) for name in packaged(each)}
    if str(config) not in names:
        raise ConfigError(
            f"Config {str(config)!r} is neither a file nor one of {', '.join(names)}{meant(str(config), names)}"
        )
    return names[str(config)]


def _of(values: Mapping[str, Any], key: Key) -> str:
    """A value in YAML's words."""
    value: Any = values
    for part in key:
        value = value[part]
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("\n...\n").strip()


@contextmanager
def naming_inherited(config: Config) -> Iterator[None]:
    """Let an error also say which values are the file's, and stayed where overrides changed others."""
    try:
        yield
    except ArgumentError as error:
        path, lines = config._origin.path, config._origin.lines
        named = set(re.findall(r"`(\w+)`", str(error)))
        keys = [key for key, line in lines.items() if line and len(key) == 2 and key[1] in named]
        if not keys or 0 not in lines.values():
            raise
        plain = config.model_dump(mode="json")
        said = [f"`{'.'.join(key)}` is {_of(plain, key)} in {path}, line {lines[key]}" for key in keys]
        raise ArgumentError(f"{error}\n{', '.join(said)}: what an override does not change stays") from error


def _comparison(config: Config, name: str) -> Compare:
    """What a config of `qbp train` compares: its model on its data, by its section `compare`."""
    return Compare(
        name=name,
        data={Path(config.data.name).stem: config.data},
        models={config.model.kind: config.model},
        train=config.train,
        **dict(config.compare or {}),
    )


def _found(config: Any, folder: Path, lines: Mapping[Key, int]) -> Any:
    """The config with whole paths of data files: from the config's folder, or else from the working directory."""

    def whole(section: Data, key: Key) -> Data:
        if not is_file(section.name):
            return section
        is_override = any(lines.get(key[:k]) == 0 for k in range(1, len(key) + 1))
        beside = folder / section.name
        path = beside if beside.exists() and not is_override else Path(section.name)
        if not path.exists() and not is_override:
            path = beside  # where it is missed
        return section.model_copy(update={"name": os.path.realpath(path)})

    if isinstance(config, Config):
        return config.model_copy(update={"data": whole(config.data, ("data", "name"))})
    return config.model_copy(
        update={"data": {name: whole(data, ("data", name, "name")) for name, data in config.data.items()}}
    )


def is_file(name: str) -> bool:
    """Whether the `name` of a data section is that of a file."""
    return name.endswith(tuple(SUFFIXES))


def _backends(config: Any) -> list[tuple[Key, str]]:
    """The backends that a config names, with their keys."""
    named: list[tuple[Key, str]] = []
    if not isinstance(config, Config):
        models: dict[Key, Any] = {("models", name): model for name, model in config.models.items()}
    else:
        models = {("model",): config.model}
        if config.distill is not None:
            models[("distill", "student")] = config.distill.student
        named += [] if config.sweep is None else _searched_backends(config.sweep)
    return named + [((*key, "backend"), model.backend) for key, model in models.items() if isinstance(model, Hybrid)]


def _searched_backends(sweep: Sweep) -> list[tuple[Key, str]]:
    """The backends among which a sweep chooses."""
    backends: list[tuple[Key, str]] = []
    for key in {"model.backend", "model"} & set(sweep.search):
        choices: Any = sweep.search[key] if isinstance(sweep.search[key], tuple) else ()
        for choice in choices:
            backend = choice.get("backend") if isinstance(choice, dict) else choice
            if isinstance(backend, str):
                backends.append((("sweep", "search", key), backend))
    return backends


def dump(config: Config) -> str:
    """Return a config as YAML, every key spelled out; `load` of it gives an equal config."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def changed(config: Config, values: Mapping[str, Any]) -> Config:
    """Return a config with other values for some keys, by their dotted names.

    Raises:
        ConfigError: a key is unknown, or a value is wrong.

    Example:
        >>> changed(load("xor"), {"train.lr": 0.5}).train.lr
        0.5
    """
    plain: dict[str, Any] = config.model_dump(mode="json")
    for dotted, value in values.items():
        *sections, last = dotted.split(".")
        inner = plain
        for section in sections:
            below = inner.get(section)
            inner[section] = inner = below if isinstance(below, dict) else {}
        inner[last] = value
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        said = [_explain(each, Config, SECTIONS) for each in error.errors()]
        raise ConfigError("\n".join(f"Key `{'.'.join(key)}` {what}" for key, what in said)) from error


Key = tuple[str, ...]


def read(path: Path) -> tuple[dict[str, Any], dict[Key, int]]:
    """Read a file: its values, and the line of every key (`load` adds 0 for a key that was overridden)."""
    root, values = read_yaml(read_text(path), str(path))
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}: a config must be a mapping, as in `data: {{name: mnist}}`")
    lines: dict[Key, int] = {}
    _locate(path, root, (), lines, set())
    return values, lines


def _locate(path: Path, node: yaml.MappingNode, above: Key, lines: dict[Key, int], seen: set[int]) -> None:
    """Note the line of every key below `node`, and refuse keys that are twice there (YAML takes the last)."""
    seen.add(id(node))  # an alias can make a node contain itself
    for key_node, value_node in node.value:
        key, line = (*above, str(key_node.value)), key_node.start_mark.line + 1
        if key in lines:
            raise ConfigError(f"{path}, line {line}: key `{'.'.join(key)}` is already there, in line {lines[key]}")
        lines[key] = line
        if isinstance(value_node, yaml.MappingNode) and id(value_node) not in seen:
            _locate(path, value_node, key, lines, seen)


def _override(values: dict[str, Any], override: str) -> Key:
    dotted, equals, text = override.partition("=")
    keys = tuple(dotted.strip().split("."))
    if not equals or not all(keys):
        raise ConfigError(f"Override {override!r} must look like `train.lr=0.02`")
    try:
        value = read_yaml(text, "Override")[1]
    except ConfigError as error:
        raise ConfigError(f"Override {override[:80]!r} has a value that is not YAML: {text[:80]!r}") from error
    *sections, last = keys
    for section in sections:
        inner = values.get(section)
        values[section] = inner = dict(inner) if isinstance(inner, dict) else {}
        values = inner
    values[last] = value
    return keys


# In YAML's words what pydantic says in Python's.
WORDS = {
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "tuple_type": "must be a list",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
}


def _explain(error: Any, whole: type[Section], sections: Mapping[str, type[Section]]) -> tuple[Key, str]:
    """Return the key that pydantic's error is about, and what is wrong with it."""
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    key = _key(error["loc"])
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        key, given = (*key, "kind"), given.get("kind")
        kind, context = (
            ("choice", {"allowed": context["expected_tags"].replace("'", "").split(", ")})
            if "invalid" in kind
            else ("missing", {})
        )
    if kind == "missing":
        return key, "is missing"
    if kind == "extra_forbidden":
        inside = error["loc"][:-1]
        keys = list((_section_of(inside, whole, sections) if inside else whole).model_fields)
        return key, f"is unknown (known here: {', '.join(keys)}){meant(key[-1], keys)}"
    if kind == "choice":
        allowed = [_yaml(choice) for choice in context["allowed"]]
        return key, f"must be one of {', '.join(allowed)}, but is {_yaml(given)}{meant(given, allowed)}"
    wanted = error["msg"].replace("Input should be", "must be").replace("String should", "must")
    return key, f"{WORDS.get(kind, wanted)}, but is {_yaml(given)}"


def _section_of(
    location: Sequence[str | int], whole: type[Section], sections: Mapping[str, type[Section]]
) -> type[Section]:
    """Return what a location is in: the branch of a union that pydantic names, or the section of that key."""
    named = [sections[str(key)] for key in (location[0], location[-1]) if key in sections]
    return named[-1] if named else whole


def _key(location: Sequence[str | int]) -> Key:
    # pydantic names the branch of a union after its key
    branch = [
        (k > 0 and location[k - 1] in ("model", "student")) or (k > 1 and location[k - 2] == "models")
        for k in range(len(location))
    ]
    return tuple(str(part) for part, named in zip(location, branch, strict=True) if not named)


def meant(word: Any, choices: Iterable[str]) -> str:
    """Return a question for the nearest of the choices, where one is near."""
    return did_you_mean(str(word), choices)


def _yaml(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    text = text if not isinstance(value, str) else value or "''"
    return text if len(text) <= 60 else text[:57] + "..."


def _at(path: Path, lines: Mapping[Key, int], key: Key) -> str:
    while key and key not in lines:
        key = key[:-1]
    if key and lines[key] == 0:
        return "Override: "
    return f"{path}, line {lines[key]}: " if key else f"{path}: "
