"""The pages of docs/: their examples run, and the files and functions that they name are there."""

from __future__ import annotations

import ast
import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
ENGINE = ROOT / "qbp" / "executors" / "native"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page: Path):
    failures, _ = doctest.testfile(str(page), module_relative=False)
    assert not failures


def test_the_engine_is_as_its_page_says():
    text = (ROOT / "docs" / "engine.md").read_text()
    files = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(files) > 5
    for name in files:
        assert (ENGINE / name).exists() or (ROOT / name).exists(), f"there is no {name}"
    for module, function in re.findall(r"`([\w/]+)\.(\w+)`", text):
        if (ENGINE / f"{module}.py").exists():
            tree = ast.parse((ENGINE / f"{module}.py").read_text())
            names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
            assert function in names or function == "py", f"{module}.py has no {function}"
    undescribed = {path.relative_to(ENGINE).as_posix() for path in ENGINE.rglob("*.py")} - files
    assert not undescribed, f"say what {sorted(undescribed)} is for"
