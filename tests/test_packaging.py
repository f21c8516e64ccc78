"""What is installed: the wheel's content, that it works by itself, and that README, pins and ranges agree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import qbp

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    assert path.name == f"qbp-{qbp.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        yield archive


def below(folder: str, pattern: str) -> set[str]:
    return {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob(pattern)}


def test_the_wheel_holds_code_and_data_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "qbp").rglob("*.py")}
    circuits = {f"qbp/circuits/{name}" for name in below("circuits", "*")}
    configs = {f"qbp/configs/{name}" for name in below("qbp/configs", "*.yaml")}
    claims = {f"qbp/trials/claims/{name}" for name in below("qbp/trials/claims", "*.yaml")}
    assert any(name.endswith(".qasm") for name in circuits)
    assert configs and claims
    about = f"qbp-{qbp.__version__}.dist-info"
    licences = {f"{about}/licenses/LICENSE", f"{about}/licenses/qbp/datasets/README.md"}
    assert names == modules | circuits | configs | claims | licences | {
        "qbp/py.typed",
        "qbp/report/style.css",
        "qbp/report/templates/blocks.html",
        "qbp/report/templates/circuit.svg",
        "qbp/report/templates/drawing.svg",
        "qbp/report/templates/page.html",
        "qbp/datasets/mnist5k.npz",
        "qbp/datasets/README.md",
        f"{about}/METADATA",
        f"{about}/WHEEL",
        f"{about}/RECORD",
        f"{about}/entry_points.txt",
    }
    assert sum(info.file_size for info in wheel.infolist()) < 4_000_000


def test_the_wheel_works_by_itself(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    code = """
import pathlib, sys
import qbp.runs.config, qbp.circuit.qasm.writer
site = pathlib.Path(sys.argv[1])
assert pathlib.Path(qbp.runs.config.__file__).is_relative_to(site)
assert qbp.runs.config.load("digits").name == "digits"
assert qbp.circuit.qasm.writer.circuits_dir() == site / "qbp" / "circuits"
assert qbp.circuit.qasm.writer.load(qbp.circuit.qasm.writer.available()[0]).n_qubits
from qbp import data
assert len(data.load("mnist", n_samples=100)[0]) == 75
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    subprocess.run(
        [sys.executable, "-P", "-c", code, str((tmp_path / "site").resolve())],
        cwd=tmp_path,
        env=environment,
        check=True,
    )


def test_the_metadata_say_what_pyproject_says(wheel: zipfile.ZipFile) -> None:
    about = message_from_bytes(wheel.read(f"qbp-{qbp.__version__}.dist-info/METADATA"))
    assert about["License-Expression"] == "Apache-2.0"
    assert set(about["Requires-Python"].split(",")) == {">=3.11", "<3.14"}
    assert set(about.get_all("Provides-Extra") or []) == set(PROJECT["optional-dependencies"])
    assert b"qbp = qbp.cli:main" in wheel.read(f"qbp-{qbp.__version__}.dist-info/entry_points.txt")
    assert "Typing :: Typed" in (about.get_all("Classifier") or [])


def test_the_version_is_one(wheel: zipfile.ZipFile) -> None:
    """In qbp/_version.py, and nowhere else."""
    assert "version" not in PROJECT and PROJECT["dynamic"] == ["version"]
    about = message_from_bytes(wheel.read(f"qbp-{qbp.__version__}.dist-info/METADATA"))
    assert about["Version"] == qbp.__version__
    sources = [ROOT / "pyproject.toml", *(ROOT / "qbp").rglob("*.py")]
    named = [path.name for path in sources if re.search(r"^(__version__|version) = ", path.read_text(), re.MULTILINE)]
    assert named == ["_version.py"]


def test_the_licence_is_apache_2_in_full() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert text.lstrip().startswith("Apache License\n                           Version 2.0, January 2004")
    assert "END OF TERMS AND CONDITIONS" in text
    assert len(text.split()) > 1500


def requirements() -> dict[str, list[Requirement]]:
    groups = {"base": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    parsed = {name: [Requirement(line) for line in lines] for name, lines in groups.items()}
    return {name: [r for r in group if r.name != "qbp"] for name, group in parsed.items()}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, Version]:
    lines = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] != "#"]
    versions = {}
    for line in lines:
        (pin,) = line.specifier
        assert pin.operator == "==" and line.marker is None, line
        versions[canonical(line.name)] = Version(pin.version)
    assert len(versions) == len(lines)
    return versions


def test_every_requirement_is_pinned_inside_its_range_and_every_range_has_a_lower_bound() -> None:
    pinned = pins()
    for group in requirements().values():
        for requirement in group:
            assert pinned[canonical(requirement.name)] in requirement.specifier, requirement
            assert any(bound.operator == ">=" for bound in requirement.specifier), requirement


def test_the_pins_are_what_is_installed_here() -> None:
    """Only where the environment was made with the constraints, as the README's command does."""
    from importlib.metadata import PackageNotFoundError, version

    wanted = [requirement.name for name in ("base", "test") for requirement in requirements()[name]]
    installed = {}
    for name in wanted:
        try:
            installed[name] = Version(version(name)).base_version
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed")
    assert installed == {name: pins()[canonical(name)].base_version for name in wanted}


def readme_commands() -> list[str]:
    block = re.search(r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert block is not None
    return [line for line in block[1].splitlines() if line and not line.startswith("#")]


def test_the_readme_opens_with_two_commands_that_install_with_the_pins() -> None:
    job, tests = readme_commands()
    assert re.search(r"/qbp train \w+$", job)
    assert re.search(r"-e '\.\[test\]' && \S+/pytest -q -n auto$", tests)
    for command in (job, tests):
        assert "-c constraints.txt" in command
        assert command.startswith("python3 -m venv ")


@pytest.mark.parametrize("name", ["ruff", "mypy", "pytest"])
def test_continuous_integration_runs_the_checks_through_the_readmes_command(name: str) -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert name in script
    assert "README.md" in script
    assert "pip install" not in script  # only the README says how
    assert "http" not in script


def test_importing_the_command_line_loads_nothing_heavy_but_torch() -> None:
    heavy = ("pennylane", "qiskit", "matplotlib", "numba", "sklearn", "scipy", "pydantic")
    code = f"import sys, qbp.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
