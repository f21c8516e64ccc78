"""The pages of docs/ and README: their examples run, and the files, anchors and functions that they name are there."""

from __future__ import annotations

import ast
import doctest
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import qbp

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LINKED = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "circuits/README.md"))]
ENGINE = ROOT / "qbp" / "executors" / "native"
RUN = [ROOT / "README.md", *PAGES]
QUICK = ("simulator.md",)
INSTEAD = {'"ibm:ibm_': '"ibm:fake_', "seeds=10": "seeds=5, budget=1"}  # the loopback server's devices; minutes
EXTRAS = {"sweeps.md": ("optuna",), "tracking.md": ("tensorboard", "mlflow", "sqlalchemy")}  # else they are skipped
ELSEWHERE = ("cluster.md",)  # needs a cluster: `tests/workers/test_ray.py` has one


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page: Path):
    failures, _ = doctest.testfile(str(page), module_relative=False)
    assert not failures


# ---- code blocks -----------------------------------------------------------------------------------------------------


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of every block that is no doctest."""
    for match in re.finditer(r"^```(python|sh)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        if not match[2].startswith(">>>"):
            yield match[1], match[2]


def _commands(block: str, folder: Path) -> None:
    """Run the lines of a shell block that are commands of qbp's; installation is for the tests of packaging."""
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["qbp"]:
            code = "from qbp.cli import main; main()"
            done = subprocess.run([sys.executable, "-c", code, *words[1:]], cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=() if page.name in QUICK else pytest.mark.slow)
        for page in RUN
        if page.name not in ELSEWHERE and any(True for _ in blocks(page))
    ],
)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One after the other, in a folder of their own; what goes to a quantum computer goes to the loopback server."""
    from contextlib import ExitStack

    for package in EXTRAS.get(page.name, ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    with ExitStack() as stack:
        if '"ibm:' in text:
            pytest.importorskip("qiskit_aer")
            from ibm_server import IBMServer

            accounts = pytest.importorskip("qiskit_ibm_runtime.accounts.management")
            monkeypatch.setattr(accounts, "_DEFAULT_ACCOUNT_CONFIG_JSON_FILE", str(tmp_path / "accounts.json"))
            names = sorted(set(re.findall(r'"ibm:(?:ibm_)?(\w+)"', text)) - {"NAME"})
            server = stack.enter_context(IBMServer(backends=[f"fake_{name}" for name in names], engine="exact"))
            stack.enter_context(server.client_environment())
        namespace: dict = {"__name__": page.stem}
        for language, block in blocks(page):
            if language == "sh" and page.name not in ("README.md", "hardware.md"):  # those list commands
                _commands(block, tmp_path)
            elif language == "python":
                for given, instead in INSTEAD.items():
                    block = block.replace(given, instead)
                exec(compile(block, f"{page.name}: {block[:40]!r}", "exec"), namespace)


# ---- links -----------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """What headings are called in links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), f"{page.name}: there is no {path}"
            assert page.name == "README.md" or there.is_file(), f"{page.name}: the site has no folders, as {path}"
            assert not anchor or anchor in anchors(there), f"{page.name}: {there.name} has no #{anchor}"


def test_every_page_is_in_the_site():
    """In one of its lists, so that readers come to it."""
    listed = {
        line.strip().removesuffix(".md")
        for page in PAGES
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if line and not line.startswith(":")
    }
    assert {page.stem for page in PAGES} - listed == {"index"}
    assert {f"../notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")} <= listed


# ---- reference -------------------------------------------------------------------------------------------------------


def test_the_reference_has_every_public_name():
    described = set(re.findall(r"^\.\. auto\w+:: qbp\.(?:\w+\.)?(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE))
    assert set(qbp.__all__) - described == {"__version__", "data"}


def test_tables_of_the_site_hold_every_key_and_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import generated

    from qbp.cli import app
    from qbp.runs.schema import SECTIONS, Compare, Config

    configs, commands = generated.configs(), generated.commands()
    for section in (Config, Compare, *SECTIONS.values()):
        for key in section.model_fields:
            assert f"| `{key}` |" in configs
    for command in app.registered_commands:
        assert f"## `qbp {command.name or command.callback.__name__}`" in commands
    assert "TorchLayer, default.qubit" in generated.speed()
    assert "`strongly_entangling`" in generated.choices()


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_nb")
    pytest.importorskip("pydata_sphinx_theme")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(tmp_path / "doctrees")]
    done = subprocess.run(
        [*command, "-c", "docs", ".", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "docs" / "index.html").exists()
    pages = [path for path in (tmp_path / "site").rglob("*.html") if "_static" not in path.parts]
    for page in pages:
        for target in re.findall(r'href="([^"#?:]+)[#?]?[^":]*"', page.read_text()):
            assert (page.parent / target).exists(), f"{page}: there is no {target}"


# ---- the engine's page -----------------------------------------------------------------------------------------------


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
