"""YAML that someone else wrote: bounded in size, in depth and in what its aliases unfold to, and never run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from qbp.errors import ConfigError

__all__ = ["Origin", "read_text", "read_yaml"]

_MOST_BYTES = 200_000
_MOST_DEPTH = 32
_MOST_NODES = 20_000  # with every alias unfolded
_MOST_DIGITS = 40


@dataclass(frozen=True)
class Origin:
    """Where the keys of a config stand, 0 for a line that was given elsewhere; no part of what the config says."""

    path: str = field(default="", compare=False)
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict, compare=False)


def read_text(path: Path, what: str = "config") -> str:
    """Read a small text file.

    Raises:
        ConfigError: it is not there, too large, or not UTF-8.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():  # a pipe is waited for, a device has no end
            raise ConfigError(f"Cannot read {what} {path}: it is no file")
        if size > _MOST_BYTES:
            raise ConfigError(f"Cannot read {what} {path}: it has {size} bytes, more than {_MOST_BYTES}")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {what} {path}: {error}") from error


def read_yaml(text: str, place: str) -> tuple[yaml.Node | None, Any]:
    """Read YAML of plain values.

    Args:
        text: the YAML.
        place: what errors call it, as in "runs/xor/config.yaml".

    Returns:
        The tree of its nodes, which know their lines, and its values.

    Raises:
        ConfigError: it is not YAML, too deep, or larger than a config can be once its aliases are unfolded.
    """
    try:
        _check_depth(text, place)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _check_nodes(root, place)
        return root, yaml.safe_load(text)
    except ConfigError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{place}, line {mark.line + 1}" if mark else place
        raise ConfigError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    except (ValueError, ArithmeticError, RecursionError, TypeError, LookupError, AttributeError) as error:
        # what PyYAML makes of a value that is not what its tag says: a date that is none, `!!int` without digits
        raise ConfigError(f"{place}: a value that cannot be read: {str(error)[:200]}") from error


def _check_depth(text: str, place: str) -> None:
    """Count the open brackets of what the parser sees, before anything follows them down."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_DEPTH:
            line = event.start_mark.line + 1
            raise ConfigError(f"{place}, line {line}: more than {_MOST_DEPTH} mappings and lists inside each other")


def _check_nodes(root: yaml.Node, place: str) -> None:
    """Count the nodes with every alias unfolded, looking at each node once."""
    sizes: dict[int, int] = {}
    inside: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in inside:
            raise ConfigError(f"{place}, line {node.start_mark.line + 1}: a value that contains itself")
        if id(node) not in sizes:
            inside.add(id(node))
            sizes[id(node)] = 1 + sum(map(size, _children(node)))
            inside.discard(id(node))
            _check_integer(node, place)
        return sizes[id(node)]

    if size(root) > _MOST_NODES:
        raise ConfigError(f"{place}: more than {_MOST_NODES} values once its aliases are unfolded")


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _check_integer(node: yaml.Node, place: str) -> None:
    """No integer of thousands of digits: reading and writing one takes Python for ever."""
    if node.tag == "tag:yaml.org,2002:int" and len(node.value) > _MOST_DIGITS:
        raise ConfigError(f"{place}, line {node.start_mark.line + 1}: an integer of {len(node.value)} digits")
