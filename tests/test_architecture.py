"""The house rules: who may import whom, how long a module may be, and what `import qbp` may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import qbp

PACKAGE = Path(__file__).parent.parent / "qbp"

# The wings from the ground up, one line each: a wing imports from those above it in this table, and never in a circle.
WINGS = (
    "errors limits _moved _version",
    "storage",
    "workers",
    "circuit",
    "data",
    "jobs",
    "executors",
    "gradients",
    "nn",
    "testing",
    "training",
    "estimators",
    "hardware",
    "analysis",
    "comparison",
    "compression",
    "runs",
    "trials",
    "report",
    "cli",
    "__main__",
)
FLOOR = {name: i for i, line in enumerate(WINGS) for name in line.split()}

# Where packages that are slow to import, or that not everybody has, may be imported at all; and where at the top.
CONFINED = {
    "numba": {f"executors/{name}" for name in ("native", "pauli", "propagation", "trajectories")},
    "pennylane": {
        "circuit/tracing/pennylane",
        "circuit/tracing/pennylane_gates",
        "circuit/tracing/pennylane_tapes",
        "executors/pennylane_device",
        "nn/qnode",
        "nn/translation",
        *(f"trials/protocols/{name}" for name in ("loss_curve", "noise_aware", "onchip")),
        "cli",
    },
    "qiskit": {
        *(
            "circuit/tracing/qiskit",
            "circuit/tracing/qiskit_channels",
            "circuit/tracing/qiskit_conditions",
            "circuit/tracing/qiskit_gates",
            "circuit/qasm",
        ),
        *("executors/qiskit_primitive", "nn/qiskit_networks", "nn/translation", "cli"),
    },
    "matplotlib": {"report"},
    "ray": {"workers/ray_cluster"},
    "optuna": {"runs/search"},
    "mlflow": {"training/tracking"},
}
LAZY_ONLY = (
    "pennylane",
    "qiskit",
    "qiskit_aer",
    "qiskit_ibm_runtime",
    "matplotlib",
    "sklearn",
    "scipy",
    "pandas",
    "pyarrow",
    "statsmodels",
    "ray",
    "optuna",
    "mlflow",
    "tensorboard",
)
AT_THE_TOP = {"estimators": "sklearn"}  # a wing whose classes are those of a slow package: nothing else imports it
LONGEST = 400  # lines, but for kernels
KERNELS = tuple(f"{name}/kernels/" for name in sorted(CONFINED["numba"]))  # may be longer


@cache
def modules() -> dict[str, ast.Module]:
    """The syntax tree of every module by its path without suffix, as in "executors/dense"."""
    return {
        p.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__"): ast.parse(p.read_text())
        for p in paths()
    }


def paths() -> list[Path]:
    """Every file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def is_no_import(node: ast.AST) -> bool:
    """Whether it is for types only, or what a module does when it is run as a program."""
    return isinstance(node, ast.If) and any(s in ast.dump(node.test) for s in ("TYPE_CHECKING", "__main__"))


def imports(tree: ast.AST, top_only: bool = False) -> set[str]:
    """Dotted names of what is imported, but for types only; of functions too unless `top_only`."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif is_no_import(node):
            names |= set().union(*(imports(child, top_only) for child in node.orelse))
        elif not (top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            names |= imports(node, top_only)
    return names


def edges() -> set[tuple[str, str]]:
    """Pairs (importer, imported) of modules, as in ("circuit/program", "circuit/gates")."""
    return {
        (name, target)
        for name, tree in modules().items()
        if name != "__init__"
        for dotted in imports(tree)
        if dotted.startswith("qbp.") and (target := module_of(dotted)) not in (None, name)
    }


def module_of(dotted: str) -> str | None:
    """The module that a dotted name is, or is defined in; None for names of `qbp` itself."""
    parts = dotted.split(".")[1:]
    while parts and "/".join(parts) not in modules():
        parts.pop()
    return "/".join(parts) or None


def upwards(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those that import from a wing of a larger number."""
    return {(a, b) for a, b in pairs if FLOOR[a.split("/")[0]] < FLOOR[b.split("/")[0]]}


def sort(pairs: set[tuple[str, str]]) -> list[str]:
    """Modules, those that are imported first; CycleError names a circle. A wing's face, which only hands names on to
    users, belongs to no circle."""
    graph: dict[str, set[str]] = {}
    for a, b in pairs:
        if a not in WINGS:
            graph.setdefault(a, set()).add(b)
    return list(TopologicalSorter(graph).static_order())


def test_every_module_has_its_wing():
    unknown = {name.split("/")[0] for name in modules()} - set(FLOOR) - {"__init__"}
    assert not unknown, f"give {sorted(unknown)} a place in WINGS"
    packages = [line for line in WINGS if f"{line}/__init__.py" in {p.relative_to(PACKAGE).as_posix() for p in paths()}]
    assert packages == list(qbp.WINGS)


def test_imports_go_one_way():
    climbs = upwards(edges())
    assert not climbs, f"{sorted(climbs)} go upwards"


def test_no_circles():
    sort(edges())


def test_planted_imports_are_noticed():
    planted = ("circuit/gates", "executors/dense")
    assert upwards(edges() | {planted}) == {planted}
    assert upwards({("cli/train", "errors"), ("nn/layer", "nn/models")}) == set()
    with pytest.raises(CycleError):
        sort(edges() | {("circuit/gates", "circuit/program")})


@pytest.mark.parametrize("wing", qbp.WINGS)
def test_a_wing_says_what_it_is(wing: str):
    """A newcomer reads one line."""
    line = (ast.get_docstring(modules()[wing]) or "").split("\n")[0]
    assert line.endswith(".") and 30 < len(line) < 110, line


def test_wings_are_there_without_being_imported():
    """And no function hides a module, at no floor."""
    names = [name.replace("/", ".") for name in modules() if name not in ("__init__", "__main__")]
    code = f"""
import types
import qbp
for wing in qbp.WINGS:
    assert isinstance(getattr(qbp, wing), types.ModuleType), wing
    assert wing in dir(qbp)
assert set(qbp.__all__) < set(dir(qbp)) and not [n for n in dir(qbp) if n.startswith("_") and n != "__version__"]
import importlib
for name in {names!r}:
    importlib.import_module("qbp." + name)
for name in {names!r}:
    thing = qbp
    for part in name.split("."):
        thing = getattr(thing, part)
    assert isinstance(thing, types.ModuleType), f"qbp.{{name}} is {{thing!r}}"
"""
    subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=True)


@pytest.mark.parametrize("package", CONFINED)
def test_confined(package: str):
    allowed = CONFINED[package]
    for name, tree in modules().items():
        users = {dotted for dotted in imports(tree) if dotted.split(".")[0].split("_")[0] == package}
        inside = any(name == place or name.startswith(place + "/") for place in allowed)
        assert not users or inside, f"qbp/{name}.py imports {sorted(users)}; only {sorted(allowed)} may"


@pytest.mark.parametrize("name", modules())
def test_slow_packages_are_imported_inside_functions(name: str):
    lazy = [package for package in LAZY_ONLY if package != AT_THE_TOP.get(name.split("/")[0])]
    slow = {dotted for dotted in imports(modules()[name], top_only=True) if dotted.split(".")[0] in lazy}
    assert not slow, f"qbp/{name}.py imports {sorted(slow)} at its top"


@pytest.mark.parametrize("path", paths(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_modules_are_short(path: Path):
    n_lines = len(path.read_text().splitlines())
    assert n_lines <= LONGEST or any(kernels in path.as_posix() for kernels in KERNELS), (
        f"{n_lines} lines: take something apart, or out"
    )


@pytest.mark.parametrize("name", modules())
def test_public_things_have_docstrings(name: str):
    tree = modules()[name]
    assert ast.get_docstring(tree), f"qbp/{name}.py has no docstring"
    exported = {
        ast.literal_eval(element)
        for node in tree.body
        if isinstance(node, ast.Assign) and [getattr(t, "id", "") for t in node.targets] == ["__all__"]
        for element in node.value.elts  # type: ignore[attr-defined]
    }
    defined = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    public = [n for key, n in defined.items() if key in exported or (not exported and not key.startswith("_"))]
    lacking = [n.name for n in public if not ast.get_docstring(n)]
    assert not lacking, f"qbp/{name}.py: {lacking} have no docstring"


def test_import_is_quick():
    """`import qbp` loads none of the slow packages, and no engine is compiled."""
    code = f"""
import sys
import qbp, qbp.nn.layer, qbp.testing
print([p for p in {(*LAZY_ONLY, "numba")!r} if p in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert run.stdout.strip() == "[]", run.stdout


def test_importing_each_module_loads_nothing_slow():
    names = [
        name.replace("/", ".")
        for name in modules()
        if not name.startswith((*CONFINED["numba"], *AT_THE_TOP)) and name != "__main__"
    ]
    code = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module("qbp" if name == "__init__" else "qbp." + name)
    slow = [p for p in {LAZY_ONLY!r} if p in sys.modules]
    if slow:
        sys.exit(f"qbp.{{name}} loads {{slow}}")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert run.returncode == 0, run.stderr


# ---- the rules themselves --------------------------------------------------------------------------------------------


def test_the_rules_see_imports():
    tree = ast.parse(
        "import os\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pandas\n"
        "def f():\n    from qbp.nn.layer import QuantumLayer\n    import pennylane as qml\n"
        "class C:\n    def g(self):\n        import numba.core\n"
        "try:\n    import sklearn\nexcept ImportError:\n    pass\n"
    )
    assert imports(tree, top_only=True) == {"os", "typing.TYPE_CHECKING", "sklearn"}
    assert imports(tree) == {
        "os",
        "typing.TYPE_CHECKING",
        "sklearn",
        "qbp.nn.layer.QuantumLayer",
        "pennylane",
        "numba.core",
    }
    assert module_of("qbp.executors.native.Native") == "executors/native" and module_of("qbp.fit") is None


def test_the_rules_see_the_package():
    assert ("nn/layer", "circuit/tracing") in edges() and ("errors", "nn/layer") not in edges()
    assert len(modules()) > 20 and "executors/dense" in modules()
