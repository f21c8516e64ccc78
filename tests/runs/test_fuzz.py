"""Configs and tables that were damaged or made to hurt: they are read, or refused by qbp's own errors, soon."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qbp import data
from qbp.errors import QbpError
from qbp.runs import config

CONFIGS = [path.read_bytes() for path in sorted(config.PACKAGED.rglob("*.yaml"))]
TABLES = [
    "\n".join(["size,kind,y", *(f"{k * 0.37:.2f},{'uvw'[k % 3]},{k % 2}" for k in range(40))]).encode(),
    "\n".join(["größe;b;y", *(f"{k},5;{k} %;{'ab'[k % 2]}" for k in range(40))]).encode(),
    "\n".join(f"{k}\t{k * k}\t{k / 3}" for k in range(40)).encode(),
    "\n".join(['"a","b","y"', *(f'"{k}","x ""y"", z","{k % 3}"' for k in range(40))]).encode("utf-16"),
]
WORDS = [
    *(b'NA ? null nan inf -inf 1e999 12% 1,5 1,234 "" \' ; \t \n \r \0 \xff \xe4 \xef\xbb\xbf \xff\xfe'.split(b" ")),
    *(b"- [ ] { } : # & * &a *a <<: !!python/object:os.system !!int ? | > % @ ` true ~ os:system ../../x".split(b" ")),
    *(b"0 -1 1.5 4294967296 99999999999999999999999 0x7fffffffffffffffffff 1:2:3 2001-99-99 .inf .nan".split(b" ")),
    b"9" * 5000,
    b"[" * 200,
    b"{a: " * 200,
    b"x" * 140_000,
    "\u2028\u0085ä\ud7ff".encode(),
]


def mutated(text: bytes, rng: np.random.Generator) -> bytes:
    """A text with one to four changes: bytes, slices and words that hurt."""
    for _ in range(int(rng.integers(1, 5))):
        at, to = sorted(map(int, rng.integers(0, len(text) + 1, 2)))
        to = min(to, at + 40)
        word = WORDS[int(rng.integers(len(WORDS)))]
        text = (
            text[:at] + bytes([int(rng.integers(256))]) + text[at + 1 :],
            text[:at] + text[to:],
            text[:at] + word + text[at:],
            text[:at] + word + text[to:],
            text[:to] + text[at:to] * int(rng.integers(1, 20)) + text[to:],
            text[:at],
        )[int(rng.integers(6))] or b"a"
    return text


def too_long(*_: object) -> None:
    raise TimeoutError("it takes more than 20 s")


def fuzz(texts: list[bytes], path: Path, read: Callable[[Path], object], count: int) -> None:
    """Read `count` mutations: only errors of qbp's own end one, none takes long, none imports anything."""
    rng, refused = np.random.default_rng(0), 0
    path.write_bytes(texts[0])
    read(path)
    before, handler = set(sys.modules), signal.signal(signal.SIGALRM, too_long)
    try:
        for k in range(count):
            path.write_bytes(text := mutated(texts[k % len(texts)], rng))
            signal.alarm(20)
            try:
                read(path)
            except QbpError as error:
                refused += 1
                assert 0 < len(str(error)) < 5000
            except Exception as error:
                raise AssertionError(f"mutation {k}: {type(error).__name__}: {error}, of {text[:2000]!r}") from error
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert set(sys.modules) == before
    assert count // 10 < refused < count, "mutations that are all alike test nothing"


def read_config(path: Path) -> None:
    text = path.read_bytes()
    kind = config.Compare if b"models:" in text else config.Config
    config.load(path, kind=kind)


def read_table(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.load(path)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_configs(tmp_path, count):
    fuzz(CONFIGS, tmp_path / "config.yaml", read_config, count)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_tables(tmp_path, count):
    fuzz(TABLES, tmp_path / "table.csv", read_table, count)
