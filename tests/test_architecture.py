"""The house rules: who may import whom, how long a module may be, and what `import qbp` may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "qbp"

# Imports go one way: a module imports from its own line or from those above it, and never in a circle.
LAYERS = (
    "errors files graphs gates program angles expression listing qasm_reader qasm drawing cost ledger patience jobs",
    "trace executors gradients onchip expectation qnode weights layer testing",
    "ansatz gallery models backprop data families metrics checkpoint train store information capability provenance",
    "hardware noise groups edit importance redundancy exact transpiled prune structured lesson distill compress "
    "controls trial statistics verdicts sweep grid compare diagnose",
    "report pictures page sections config runs submission pipeline cli __main__",
)
LAYER = {name: i for i, line in enumerate(LAYERS) for name in line.split()}

# A name is resolved to something higher up when it is needed: ``trace("strongly_entangling")`` asks for its family.
LAZY = {("trace", "ansatz")}

# Where packages that are slow to import, or that not everybody has, may be imported at all; and where at the top.
CONFINED = {
    "numba": {"executors/native"},
    "pennylane": {"trace/pennylane", "executors/pennylane_device", "qnode", "cli"},
    "qiskit": {"trace/qiskit", "executors/qiskit_primitive", "gallery", "qasm", "cli"},
    "matplotlib": {"report", "pictures", "page/charts"},
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
)
LONGEST = 400  # lines, but for kernels
KERNELS = {"kernels", "passes", "one_state"}  # may be longer


@cache
def modules() -> dict[str, ast.Module]:
    """The syntax tree of every module by its path without suffix, as in "executors/dense"."""
    paths = sorted(p for p in PACKAGE.rglob("*.py"))
    return {
        p.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__"): ast.parse(p.read_text())
        for p in paths
    }


def is_no_import(node: ast.AST) -> bool:
    """Whether it is for types only, or what a module does when it is run as a program."""
    return isinstance(node, ast.If) and any(s in ast.dump(node.test) for s in ("TYPE_CHECKING", "__main__"))


def imports(tree: ast.AST, top_only: bool = False) -> set[str]:
    """Dotted names of what is imported, but for types only; of functions too unless `top_only`."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif is_no_import(node):
            found |= set().union(*(imports(child, top_only) for child in node.orelse))
        elif not (top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            found |= imports(node, top_only)
    return found


def unit(dotted: str) -> str:
    """The module or package right below qbp that a dotted name belongs to."""
    return dotted.split(".")[1]


def edges(top_only: bool) -> set[tuple[str, str]]:
    """Pairs (importer, imported) of modules and packages right below qbp."""
    found = set()
    for name, tree in modules().items():
        if name == "__init__":
            continue
        for dotted in imports(tree, top_only):
            if dotted.startswith("qbp.") and unit(dotted) in LAYER:
                found.add((name.split("/")[0], unit(dotted)))
    return {(a, b) for a, b in found if a != b}


def test_every_module_has_its_layer():
    unknown = {name.split("/")[0] for name in modules()} - set(LAYER) - {"__init__"}
    assert not unknown, f"give {sorted(unknown)} a place in LAYERS"


def test_imports_go_one_way():
    upwards = {(a, b) for a, b in edges(top_only=False) if LAYER[a] < LAYER[b]}
    assert upwards <= LAZY, f"{sorted(upwards - LAZY)} go upwards"
    assert not upwards & edges(top_only=True), "only an import inside a function may go upwards"


def test_no_circles():
    graph: dict[str, set[str]] = {}
    for a, b in edges(top_only=False) - LAZY:
        graph.setdefault(a, set()).add(b)
    list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle


@pytest.mark.parametrize("package", CONFINED)
def test_confined(package: str):
    allowed = CONFINED[package]
    for name, tree in modules().items():
        users = {dotted for dotted in imports(tree) if dotted.split(".")[0].split("_")[0] == package}
        inside = any(name == place or name.startswith(place + "/") for place in allowed)
        assert not users or inside, f"qbp/{name}.py imports {sorted(users)}; only {sorted(allowed)} may"


@pytest.mark.parametrize("name", modules())
def test_slow_packages_are_imported_inside_functions(name: str):
    slow = {dotted for dotted in imports(modules()[name], top_only=True) if dotted.split(".")[0] in LAZY_ONLY}
    assert not slow, f"qbp/{name}.py imports {sorted(slow)} at its top"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_modules_are_short(path: Path):
    n_lines = len(path.read_text().splitlines())
    assert n_lines <= LONGEST or path.stem in KERNELS, f"{n_lines} lines: take something apart, or out"


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
import qbp, qbp.layer, qbp.testing
print([p for p in {(*LAZY_ONLY, "numba")!r} if p in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert run.stdout.strip() == "[]", run.stdout


def test_importing_each_module_loads_nothing_slow():
    names = [
        name.replace("/", ".") for name in modules() if not name.startswith("executors/native") and name != "__main__"
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
        "def f():\n    from qbp.layer import QuantumLayer\n    import pennylane as qml\n"
        "class C:\n    def g(self):\n        import numba.core\n"
        "try:\n    import sklearn\nexcept ImportError:\n    pass\n"
    )
    assert imports(tree, top_only=True) == {"os", "typing.TYPE_CHECKING", "sklearn"}
    assert imports(tree) == {
        "os",
        "typing.TYPE_CHECKING",
        "sklearn",
        "qbp.layer.QuantumLayer",
        "pennylane",
        "numba.core",
    }
    assert unit("qbp.executors.native.Native") == "executors"


def test_the_rules_see_the_package():
    assert ("layer", "trace") in edges(top_only=True) and ("errors", "layer") not in edges(top_only=False)
    assert len(modules()) > 20 and "executors/dense" in modules()
