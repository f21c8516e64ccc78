"""Every executor and every gradient rule of the package, held to the conformance suite."""

from __future__ import annotations

import pytest

from qbp.executors import Executor, backend
from qbp.gradients import finite_diff, parameter_shift
from qbp.testing import check_executor, check_rule


class OutputsOnly:
    """The executor without its adjoint rule, which PennyLane's devices have for some programs only."""

    def __init__(self, executor: Executor):
        self.executor, self.name, self.exact, self.shots = executor, executor.name, executor.exact, executor.shots

    def __call__(self, *arguments):
        return self.executor(*arguments)


def test_native():
    check_executor(backend("native"), n_programs=80)


@pytest.mark.parametrize("name", ["default.qubit", "lightning.qubit"])
def test_pennylane_devices(name: str):
    check_executor(OutputsOnly(backend(name)), n_programs=20, batch_sizes=(3,), equal_rows=False)


@pytest.mark.parametrize("name", ["dense", "native"])
def test_exact_rules(name: str):
    check_rule(parameter_shift, backend(name))
    check_rule(finite_diff, backend(name), atol=1e-7, amplitudes=False)


@pytest.mark.parametrize("name", ["default.qubit", "lightning.qubit"])
def test_pennylane_devices_with_their_adjoint_rule(name: str):
    executor = backend(name)
    check_executor(executor, accepts=executor.has_adjoint, n_programs=12, batch_sizes=(3,), atol=1e-8, equal_rows=False)
