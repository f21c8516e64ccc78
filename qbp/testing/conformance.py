"""The check of executors: `check_executor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import fields
from itertools import chain, product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Program
from qbp.executors import AdjointExecutor, Capabilities, Executor, capabilities_of, execute, has_adjoint
from qbp.testing.cases import (
    FLOAT32_ATOL,
    Case,
    cases,
    check,
    check_close,
    check_part,
    equal_rows_of,
    random_grad,
    same_bits,
    size_of,
    tolerance_of,
)
from qbp.testing.noise import NOISY
from qbp.testing.programs import NASTY
from qbp.testing.reference import reference_outputs, reference_vjp

__all__ = ["check_executor"]


def check_executor(
    executor: Executor,
    *,
    atol: float = 1e-10,
    n_programs: int = 40,
    rng: np.random.Generator | None = None,
    programs: Mapping[str, Program] = NASTY,
    accepts: Callable[[Program], bool] = lambda program: True,
    batch_sizes: Sequence[int] = (1, 3, 7, 17),
    dtypes: Sequence[torch.dtype] = (torch.float64, torch.float32),
    equal_rows: bool = True,
) -> None:
    """Hold an executor to its contract, over nasty and random programs.

    Its outputs are those of dense matrices, for any batch size and any split into batched and shared angles; dtype
    in = dtype out; arguments stay as they are, earlier results too. And its `Capabilities` are true: where it is exact,
    equal calls give equal bits and so do equal rows; by the adjoint rule, and by torch where it is differentiable, its
    gradients are those of `reference_vjp`, and only those asked for; standard errors are as large as the errors are;
    what an approximation may be off is at least what it is off. One that runs noise (`channels`) is also given `NOISY`
    and random programs with channels and readout errors.

    Args:
        executor: what is checked.
        atol: largest error in float64 for observables of norm 1. Where the executor samples, five standard errors are
            allowed beside it.
        n_programs: number of random programs.
        rng: what is random; seed 0 by default.
        programs: programs with their names, besides the random ones.
        accepts: which programs the executor can run (most have to, or nothing is checked).
        batch_sizes: B, each with each of `programs`.
        dtypes: of the angles.
        equal_rows: whether equal rows of a batch must give equal bits, as they do in everything of qbp. NumPy's matrix
            products, where they are another library's (PennyLane's default.qubit), may round rows differently.

    Raises:
        AssertionError: at the first difference.

    Example:
        >>> from qbp.executors.dense import Dense
        >>> check_executor(Dense(), n_programs=3, batch_sizes=(3,))
    """
    rng = np.random.default_rng(0) if rng is None else rng
    check(isinstance(executor.name, str) and executor.name != "", "`name` must be a string")
    able = capabilities_of(executor)
    _check_said(executor, able)
    noise, n_adjoint = _Noise(), 0
    tried = cases(rng, n_programs, programs, accepts, batch_sizes, dtypes)
    if able.channels:
        few = batch_sizes[1::2] or batch_sizes  # density matrices are slow
        tried = chain(tried, cases(rng, n_programs // 4, NOISY, accepts, few, dtypes, noise=True))
    for case in tried:
        _check_outputs(executor, able, case, atol, equal_rows, noise)
        if has_adjoint(executor, case.program):
            n_adjoint += 1
            _check_vjp(executor, able, case, atol, rng)
        if able.differentiable:
            _check_autograd(executor, case, atol, rng)
    noise.check(atol)
    check(n_adjoint > 0 or not able.adjoint, "`adjoint` is True, but no program that was tried has the adjoint rule")


def _check_said(executor: Executor, able: Capabilities) -> None:
    """What can be seen without running a program."""
    flags = (field.name for field in fields(Capabilities) if field.name != "shots")
    for name in flags:
        check(isinstance(getattr(able, name), bool), f"`{name}` must be True or False")
    counted = able.shots is None or (isinstance(able.shots, int) and able.shots > 0)
    check(counted, "`shots` must be None or a positive number")
    check(not able.exact or able.shots is None, "`exact` must be False where `shots` are given")
    check(not able.exact or not able.truncation, "`exact` must be False where there is a `truncation`")
    if able.adjoint:
        check(
            isinstance(executor, AdjointExecutor), "`adjoint` is True, but `has_adjoint`, `forward` or `vjp` is missing"
        )
    if able.with_shots:
        other = capabilities_of(executor.with_shots(7))  # type: ignore[attr-defined]
        check(other.shots == 7, f"`with_shots` is True, but `with_shots(7)` has {other.shots} shots")


class _Noise:
    """Whether standard errors are as large as the errors, over all that was tried."""

    def __init__(self) -> None:
        self.errors, self.stds, self.n = 0.0, 0.0, 0

    def add(self, where: str, stds: Tensor, error: np.ndarray, rows: list[int]) -> None:
        """Note the standard errors (B, M) and errors (B, M) of rows that are all different."""
        array = stds.detach().double().numpy()
        check(array.shape == error.shape, f"{where}: `stds` must have shape {error.shape}, but have {array.shape}")
        check(bool((array >= 0).all()), f"{where}: `stds` must be at least 0")
        self.errors += float((error[rows] ** 2).sum())
        self.stds += float((array[rows] ** 2).sum())
        self.n += error[rows].size

    def check(self, atol: float) -> None:
        """Whether both have the same size."""
        size, said = ((total / max(1, self.n)) ** 0.5 for total in (self.errors, self.stds))
        true = self.n < 30 or abs(size - said) < 0.3 * said + 10 * max(atol, FLOAT32_ATOL)
        check(true, f"`stds` are {said:.3g} on average, but the errors {size:.3g}")


def _check_outputs(
    executor: Executor, able: Capabilities, case: Case, atol: float, equal_rows: bool, noise: _Noise
) -> None:
    program, angles, amplitudes = case.arguments
    before = deepcopy((angles, amplitudes))
    results = execute(executor, program, angles, amplitudes)
    outputs = results.values
    shape = (angles.n_samples, program.n_outputs)
    check(outputs.shape == shape, f"{case.where}: outputs must have shape {shape}, but have {tuple(outputs.shape)}")
    dtype = angles.batched.dtype
    check(outputs.dtype == dtype, f"{case.where}: outputs must have dtype {dtype}, but have {outputs.dtype}")
    check(same_bits(before, (angles, amplitudes)), f"{case.where}: the executor changed its arguments")
    for name, part in (("standard_errors", results.stds), ("truncation", results.truncation)):
        said, there = getattr(able, name), part is not None
        check(said == there, f"{case.where}: `{name}` is {said}, but results have {'some' if there else 'none'}")
    tolerance = (tolerance_of(atol, dtype) + (5 / able.shots**0.5 if able.shots else 0)) * case.unit
    if results.truncation is not None:
        bound = results.truncation.detach().double().numpy()
        check(bound.shape == shape, f"{case.where}: `truncation` must have shape {shape}, but has {bound.shape}")
        check(bool((bound >= 0).all()), f"{case.where}: `truncation` must be at least 0")
        tolerance = tolerance + bound
    target = reference_outputs(program, angles, amplitudes)
    check_close(f"{case.where}: outputs", outputs.detach().numpy(), target, tolerance)
    if results.stds is not None:
        rows = [row for row in range(angles.n_samples) if row not in equal_rows_of(angles.n_samples)]
        noise.add(case.where, results.stds, outputs.detach().double().numpy() - target, rows)
    kept = outputs.detach().clone()
    strided = Angles(_strided(angles.batched + 0.1), _strided(angles.shared - 0.1))
    other = execute(executor, program, strided, amplitudes)
    check_close(
        f"{case.where}: outputs at angles that are not contiguous",
        other.values.detach().numpy(),
        reference_outputs(program, strided, amplitudes),
        tolerance if other.truncation is None else tolerance + other.truncation.detach().double().numpy(),
    )
    check(torch.equal(outputs, kept), f"{case.where}: a later call changed the outputs of an earlier one")
    if able.exact:
        same = torch.equal(execute(executor, program, angles, amplitudes).values, kept)
        check(same, f"{case.where}: equal calls gave different outputs, yet the executor says that it is exact")
        for row in equal_rows_of(angles.n_samples) if equal_rows else ():
            same = torch.equal(kept[0], kept[row])
            check(same, f"{case.where}: rows 0 and {row} are equal, but their outputs differ")


def _check_vjp(executor: Any, able: Capabilities, case: Case, atol: float, rng: np.random.Generator) -> None:
    program, angles, amplitudes = case.arguments
    grad = random_grad(case, rng)
    n_batched = angles.batched.shape[1]
    plain, tolerance = reference_outputs(program, angles, amplitudes), tolerance_of(atol, grad.dtype) * case.unit
    want = reference_vjp(program, angles, grad, amplitudes)
    parts = (want.angles[:, :n_batched], want.angles[:, n_batched:].sum(0), want.amplitudes)
    for needs in product((True, False), (True, False), (True, False) if amplitudes is not None else (False,)):
        if not any(needs):
            continue
        before = deepcopy((angles, amplitudes, grad))
        results, saved = executor.forward(program, angles, amplitudes)
        bound = 0 if results.truncation is None else results.truncation.double().numpy()
        check_close(f"{case.where}: outputs of `forward`", results.values.detach().numpy(), plain, tolerance + bound)
        executor.forward(program, Angles(angles.batched + 1, angles.shared + 1), amplitudes)  # another layer's
        got = executor.vjp(program, angles, amplitudes, saved, grad, needs)
        check(same_bits(before, (angles, amplitudes, grad)), f"{case.where}: `vjp` changed its arguments")
        for part, target, need in zip(("batched", "shared", "amplitudes"), parts, needs, strict=True):
            check_part(case, part, [getattr(got, part)], target if need else None, atol * size_of(case, grad))
        if able.exact:
            again = executor.vjp(*case.arguments, executor.forward(*case.arguments)[1], grad, needs)
            for part in ("batched", "shared", "amplitudes"):
                same = same_bits(getattr(got, part), getattr(again, part))
                check(same, f"{case.where}: equal calls gave different gradients of {part}")
    if able.any_shape:
        column = Angles(angles.batched, angles.shared.unsqueeze(0))
        _, saved = executor.forward(program, column, amplitudes)
        shape = executor.vjp(program, column, amplitudes, saved, grad, (False, True, False)).shared.shape
        check(
            shape == column.shared.shape,
            f"{case.where}: shared angles of shape {tuple(column.shared.shape)} got a "
            f"gradient of shape {tuple(shape)}, yet the executor says that it takes any shape",
        )


def _check_autograd(executor: Executor, case: Case, atol: float, rng: np.random.Generator) -> None:
    """Torch's gradients through an executor that says that it is differentiable."""
    program, angles, amplitudes = case.arguments
    grad, n_batched = random_grad(case, rng), angles.batched.shape[1]
    leaves = [part.clone().requires_grad_() for part in (angles.batched, angles.shared)]
    start = None if amplitudes is None else amplitudes.clone().requires_grad_()
    outputs = execute(executor, program, Angles(*leaves), start).values
    wanted = leaves if start is None else [*leaves, start]
    gradients: Sequence[Tensor] = [torch.zeros_like(leaf) for leaf in wanted]
    if outputs.requires_grad:
        gradients = torch.autograd.grad(outputs, wanted, grad, allow_unused=True, materialize_grads=True)
    want = reference_vjp(program, angles, grad, amplitudes)
    parts = (want.angles[:, :n_batched], want.angles[:, n_batched:].sum(0), want.amplitudes)
    for part, got, target in zip(("batched", "shared", "amplitudes"), gradients, parts, strict=False):
        check_part(case, part, [got], target, atol * size_of(case, grad))


def _strided(tensor: Tensor) -> Tensor:
    """The same values, not contiguous in memory."""
    return tensor.unsqueeze(-1).repeat(*[1] * tensor.ndim, 2)[..., 0]
