"""One function on many arguments: what a worker that dies was at is run again, and nothing else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from qbp.errors import ArgumentError, MissingPackageError
from qbp.workers import check_executor, pool


def note(argument: tuple[str, int]) -> int:
    """Note who ran it; argument 2 kills its process the first time, and a negative one every time."""
    folder, k = argument
    Path(folder, f"{k}-{os.getpid()}").touch()
    if k < 0 or (k == 2 and len(list(Path(folder).glob("2-*"))) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return k * k


def raising(k: int) -> int:
    if k == 1:
        raise KeyError("one")
    return k


def test_a_process_that_is_killed_costs_its_argument_only(tmp_path):
    with pool(note, workers=2) as each:
        first = dict(each([(str(tmp_path), k) for k in range(8)]))
        again = dict(each([(str(tmp_path), k) for k in range(10, 13)]))  # of the same processes
    assert first == {k: k * k for k in range(8)} and again == {k: (10 + k) ** 2 for k in range(3)}
    runs = [path.name.split("-") for path in tmp_path.iterdir()]
    assert sorted(k for k, _ in runs) == sorted(map(str, [0, 1, 2, 2, 3, 4, 5, 6, 7, 10, 11, 12]))
    assert len({process for _, process in runs}) == 3  # two, and the one in place of the killed one


@pytest.mark.slow
def test_what_always_kills_its_process_is_told(tmp_path):
    with pytest.raises(ArgumentError, match="a process ended by itself"), pool(note, workers=2) as each:
        dict(each([(str(tmp_path), -1), (str(tmp_path), 0)]))
    assert len(list(tmp_path.glob("-1-*"))) == 3


@pytest.mark.slow
def test_an_error_is_the_functions_own():
    for workers in (1, 2):
        with pytest.raises(KeyError, match="one"), pool(raising, workers=workers) as each:
            dict(each([0, 1, 2]))


def test_names_are_checked(monkeypatch):
    with pytest.raises(ArgumentError, match=r"must be 'processes', 'ray' or 'ray:ADDRESS'.*did you mean `ray`"):
        check_executor("rai")
    for wrong in ("processes:4", None, 3):
        with pytest.raises(ArgumentError, match="executor"):
            check_executor(wrong)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'qbp\[ray\]'"):
        check_executor("ray:auto")
