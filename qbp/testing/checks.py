"""The checks: `check_executor`, `check_rule` and `gradcheck`. They raise `AssertionError` and say where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Expval, Program
from qbp.executors import AdjointExecutor, Executor, Gradients
from qbp.gradients.rules import Needs
from qbp.testing.programs import NASTY, random_amplitudes, random_angles, random_program
from qbp.testing.reference import reference_outputs, reference_vjp

__all__ = ["check_executor", "check_rule", "gradcheck"]

FLOAT32_ATOL = 5e-5
"""Tolerance in float32, as long as what a check is told to allow is smaller."""


@dataclass(frozen=True)
class _Case:
    """A program, arguments to run it with, and how far an output may be from the truth for each unit of tolerance."""

    where: str
    program: Program
    angles: Angles
    amplitudes: Tensor | None
    unit: np.ndarray

    @property
    def arguments(self) -> tuple[Program, Angles, Tensor | None]:
        return self.program, self.angles, self.amplitudes


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
    in = dtype out; arguments stay as they are, earlier results too; where it is exact, equal calls give equal bits and
    so do equal rows. If it has the adjoint rule, its gradients are those of `reference_vjp`, and only those asked for.

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
    _check(isinstance(executor.name, str) and executor.name != "", "`name` must be a string")
    _check(isinstance(executor.exact, bool), "`exact` must be True or False")
    _check(executor.shots is None or executor.shots > 0, "`shots` must be None or a positive number")
    for case in _cases(rng, n_programs, programs, accepts, batch_sizes, dtypes):
        _check_outputs(executor, case, atol, equal_rows)
        if isinstance(executor, AdjointExecutor):
            _check_vjp(executor, case, atol, rng)


def check_rule(
    rule: Callable[..., Gradients],
    executor: Executor,
    *,
    atol: float = 1e-9,
    repeats: int = 1,
    amplitudes: bool = True,
    n_programs: int = 20,
    rng: np.random.Generator | None = None,
    programs: Mapping[str, Program] = NASTY,
    accepts: Callable[[Program], bool] = lambda program: True,
    batch_sizes: Sequence[int] = (1, 3, 7),
    dtypes: Sequence[torch.dtype] = (torch.float64, torch.float32),
) -> None:
    """Hold a gradient rule (see `qbp.gradients.rules`) to its contract, over nasty and random programs.

    Its gradients are those of `reference_vjp`; it gives those that are wanted and zero for the other angles, runs
    nothing where none is wanted, and leaves its arguments as they are.

    Args:
        rule: ``rule(run, program, angles, amplitudes, grad, needs) -> Gradients``.
        executor: what runs the programs; an exact one.
        atol: largest error in float64, for gradients and observables of norm 1.
        repeats: for a rule that is random: how often it runs; its mean must be within five standard errors
            and `atol`.
        amplitudes: whether the rule gives gradients of amplitudes.
        n_programs, rng, programs, accepts, batch_sizes, dtypes: as in `check_executor`.

    Raises:
        AssertionError: at the first difference.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    for case in _cases(rng, n_programs, programs, accepts, batch_sizes, dtypes):
        program, angles, states = case.arguments
        n_batched, grad = angles.batched.shape[1], _random_grad(case, rng)
        calls = 0

        def run(at: Angles, start: Tensor | None, program: Program = program) -> Tensor:
            nonlocal calls
            calls += 1
            return executor(program, at, start)

        want = reference_vjp(program, angles, grad, states)
        for wanted in (
            [True] * program.n_angles,
            (rng.random(program.n_angles) < 0.5).tolist(),
            [False] * program.n_angles,
        ):
            needs = Needs(tuple(wanted), amplitudes and states is not None and any([*wanted, program.n_angles == 0]))
            before, calls = deepcopy((angles, states, grad)), 0
            results = [rule(run, program, angles, states, grad, needs) for _ in range(repeats)]
            _check(_same_bits(before, (angles, states, grad)), f"{case.where}: the rule changed its arguments")
            if not any([*wanted, needs.amplitudes]):
                _check(calls == 0, f"{case.where}: no gradient was wanted, but the program ran {calls} times")
            masked = want.angles * np.array(wanted, dtype=float)
            parts = {
                "batched": (masked[:, :n_batched], any(wanted[:n_batched])),
                "shared": (masked[:, n_batched:].sum(0), any(wanted[n_batched:])),
                "amplitudes": (want.amplitudes, needs.amplitudes),
            }
            for part, (target, is_wanted) in parts.items():
                got = [getattr(result, part) for result in results]
                _check_part(case, part, got, target if is_wanted else None, atol * _size(case, grad))


def gradcheck(
    module: torch.nn.Module, *inputs: Tensor, step: float = 1e-5, atol: float = 1e-6, rtol: float = 1e-5
) -> None:
    """Compare the gradients of a module with central differences, in float64, for its inputs AND its parameters.

    Args:
        module: a deterministic module; a copy of it in float64 is checked.
        inputs: arguments of the module; those of a floating-point dtype are differentiated.
        step: h of ``[f(t + h) - f(t - h)] / 2h``.
        atol, rtol: largest difference: ``atol + rtol * |central difference|``.

    Raises:
        AssertionError: naming the input or parameter, the worst entry and its two values.

    Example:
        >>> gradcheck(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh()), torch.randn(4, 3))
    """
    module = deepcopy(module).double()
    arguments = [x.detach().double() if x.is_floating_point() else x for x in inputs]
    parameters = {f"parameter {name!r}": p.detach() for name, p in module.named_parameters() if p.requires_grad}
    tensors = {f"input {i}": x for i, x in enumerate(arguments) if x.is_floating_point()} | parameters
    tensors = {name: t.clone().requires_grad_() for name, t in tensors.items()}

    def call() -> Tensor:
        called = [tensors.get(f"input {i}", x) for i, x in enumerate(arguments)]
        swapped = {name[len("parameter '") : -1]: t for name, t in tensors.items() if name in parameters}
        return torch.func.functional_call(module, swapped, tuple(called))

    outputs = call()
    _check(outputs.requires_grad, "The outputs depend on no input and no parameter, as far as torch knows")
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0), dtype=outputs.dtype)
    found = torch.autograd.grad((outputs * weights).sum(), list(tensors.values()), allow_unused=True)
    for (name, tensor), gradient in zip(tensors.items(), found, strict=True):
        got = np.zeros(tensor.shape) if gradient is None else gradient.numpy()
        want = np.zeros(tensor.shape)
        with torch.no_grad():
            for i in np.ndindex(tensor.shape):
                value, sides = tensor[i].item(), []
                for sign in (1, -1):
                    tensor[i] = value + sign * step
                    sides.append((call() * weights).sum().item())
                tensor[i] = value
                want[i] = (sides[0] - sides[1]) / (2 * step)
        missing = " (torch found no way from it to the outputs)" if gradient is None else ""
        _check_close(f"The gradient of {name}{missing}", got, want, atol + rtol * abs(want))


# ---- parts of the checks ---------------------------------------------------------------------------------------------


def _cases(
    rng: np.random.Generator,
    n_programs: int,
    programs: Mapping[str, Program],
    accepts: Callable[[Program], bool],
    batch_sizes: Sequence[int],
    dtypes: Sequence[torch.dtype],
) -> Iterator[_Case]:
    """Each named program with each batch size, each random program with one; every split of angles, every dtype."""
    known = [(f"program {name!r}", program, size) for name, program in programs.items() for size in batch_sizes]
    drawn = (
        (f"random program {i}", random_program(rng, amplitudes=i % 5 == 4), batch_sizes[i % len(batch_sizes)])
        for i in range(n_programs)
    )
    count = 0
    for i, (where, program, n_samples) in enumerate((*known, *drawn)):
        if not accepts(program):
            continue
        count += 1
        nth, size = divmod(i, len(batch_sizes))
        n_batched = (program.n_angles, 0, int(rng.integers(program.n_angles + 1)))[(nth + size) % 3]
        dtype = dtypes[int(rng.integers(len(dtypes)))] if rng.random() < 0.5 else dtypes[0]
        angles = random_angles(rng, program, n_samples, n_batched=n_batched, dtype=dtype)
        state_dtype = dtype if rng.random() < 0.5 else dtype.to_complex()
        amplitudes = random_amplitudes(rng, program, n_samples, dtype=state_dtype)
        for rows in (angles.batched, *([] if amplitudes is None else [amplitudes])):
            _repeat_first_row(rows)
        unit = [
            [max(1.0, sum(abs(c) for c, _, _ in m.terms))] if isinstance(m, Expval) else [1.0] * 2 ** len(m.wires)
            for m in program.measurements
        ]
        label = f"{where}, B = {n_samples}, Kb = {n_batched} of K = {program.n_angles}, {dtype}"
        yield _Case(label, program, angles, amplitudes, np.concatenate(unit))
    _check(count > 0, "There was no program that `accepts` accepts: nothing was checked")


def _check_outputs(executor: Executor, case: _Case, atol: float, equal_rows: bool) -> None:
    program, angles, amplitudes = case.arguments
    before = deepcopy((angles, amplitudes))
    outputs = executor(program, angles, amplitudes)
    shape = (angles.n_samples, program.n_outputs)
    _check(outputs.shape == shape, f"{case.where}: outputs must have shape {shape}, but have {tuple(outputs.shape)}")
    dtype = angles.batched.dtype
    _check(outputs.dtype == dtype, f"{case.where}: outputs must have dtype {dtype}, but have {outputs.dtype}")
    _check(_same_bits(before, (angles, amplitudes)), f"{case.where}: the executor changed its arguments")
    tolerance = _tolerance(atol, dtype) + (5 / executor.shots**0.5 if executor.shots else 0)
    target = reference_outputs(program, angles, amplitudes)
    _check_close(f"{case.where}: outputs", outputs.detach().numpy(), target, tolerance * case.unit)
    kept = outputs.detach().clone()
    strided = Angles(_strided(angles.batched + 0.1), _strided(angles.shared - 0.1))
    other = executor(program, strided, amplitudes)
    _check_close(
        f"{case.where}: outputs at angles that are not contiguous",
        other.detach().numpy(),
        reference_outputs(program, strided, amplitudes),
        tolerance * case.unit,
    )
    _check(torch.equal(outputs, kept), f"{case.where}: a later call changed the outputs of an earlier one")
    if executor.exact:
        same = torch.equal(executor(program, angles, amplitudes), kept)
        _check(same, f"{case.where}: equal calls gave different outputs, yet the executor says that it is exact")
        for row in _equal_rows(angles.n_samples) if equal_rows else ():
            same = torch.equal(kept[0], kept[row])
            _check(same, f"{case.where}: rows 0 and {row} are equal, but their outputs differ")


def _check_vjp(executor: AdjointExecutor, case: _Case, atol: float, rng: np.random.Generator) -> None:
    program, angles, amplitudes = case.arguments
    grad = _random_grad(case, rng)
    n_batched = angles.batched.shape[1]
    plain, tolerance = reference_outputs(program, angles, amplitudes), _tolerance(atol, grad.dtype) * case.unit
    want = reference_vjp(program, angles, grad, amplitudes)
    parts = (want.angles[:, :n_batched], want.angles[:, n_batched:].sum(0), want.amplitudes)
    for needs in product((True, False), (True, False), (True, False) if amplitudes is not None else (False,)):
        if not any(needs):
            continue
        before = deepcopy((angles, amplitudes, grad))
        outputs, saved = executor.forward(program, angles, amplitudes)
        _check_close(f"{case.where}: outputs of `forward`", outputs.detach().numpy(), plain, tolerance)
        executor.forward(program, Angles(angles.batched + 1, angles.shared + 1), amplitudes)  # another layer's
        got = executor.vjp(program, angles, amplitudes, saved, grad, needs)
        _check(_same_bits(before, (angles, amplitudes, grad)), f"{case.where}: `vjp` changed its arguments")
        for part, target, need in zip(("batched", "shared", "amplitudes"), parts, needs, strict=True):
            _check_part(case, part, [getattr(got, part)], target if need else None, atol * _size(case, grad))
        if executor.exact:
            again = executor.vjp(*case.arguments, executor.forward(*case.arguments)[1], grad, needs)
            for part in ("batched", "shared", "amplitudes"):
                same = _same_bits(getattr(got, part), getattr(again, part))
                _check(same, f"{case.where}: equal calls gave different gradients of {part}")


def _check_part(case: _Case, part: str, got: Sequence[Tensor | None], want: np.ndarray | None, atol: float) -> None:
    """One of the gradients, as the mean over repeats; None is as good as a gradient without entries."""
    what = f"{case.where}: the gradient of {part}"
    if want is None:
        _check(all(g is None or not g.numel() for g in got), f"{what} was not asked for, and must be None")
        return
    tensors = [g for g in got if g is not None]
    if not tensors and want.size == 0:
        return
    _check(len(tensors) == len(got), f"{what} was asked for, but is None")
    source = case.amplitudes if part == "amplitudes" else case.angles.batched
    assert source is not None
    shape, dtype = tuple(tensors[0].shape), tensors[0].dtype
    _check(shape == want.shape, f"{what} must have shape {want.shape}, but has {shape}")
    _check(dtype == source.dtype, f"{what} must have dtype {source.dtype}, but has {dtype}")
    values = torch.stack(tensors).detach().numpy()
    tolerance: Any = _tolerance(atol, dtype)
    if len(values) > 1:
        tolerance = tolerance + 5 * values.std(0, ddof=1) / len(values) ** 0.5
    _check_close(what, values.mean(0), want, tolerance)


def _random_grad(case: _Case, rng: np.random.Generator) -> Tensor:
    n_samples = case.angles.n_samples
    grad = torch.tensor(rng.normal(size=(n_samples, case.program.n_outputs)), dtype=case.angles.batched.dtype)
    return _repeat_first_row(grad)


def _equal_rows(n_samples: int) -> tuple[int, ...]:
    """Rows made equal to row 0, far from it: an engine may treat the last ones of a batch in another way."""
    return (n_samples // 2, n_samples - 1) if n_samples > 3 else (2,) if n_samples == 3 else ()


def _repeat_first_row(rows: Tensor) -> Tensor:
    for row in _equal_rows(len(rows)):
        rows[row] = rows[0].clone()
    return rows


def _size(case: _Case, grad: Tensor) -> float:
    """How large a gradient is, roughly, of which the observables have norm 1: what tolerances are relative to."""
    return float((grad.abs().double().numpy() * case.unit).sum())


def _tolerance(atol: float, dtype: torch.dtype) -> float:
    return atol if dtype in (torch.float64, torch.complex128) else max(atol, FLOAT32_ATOL)


def _strided(tensor: Tensor) -> Tensor:
    """The same values, not contiguous in memory."""
    return tensor.unsqueeze(-1).repeat(*[1] * tensor.ndim, 2)[..., 0]


def _same_bits(a: Any, b: Any) -> bool:
    if isinstance(a, Angles):
        return _same_bits((a.batched, a.shared), (b.batched, b.shared))
    if isinstance(a, tuple):
        return all(_same_bits(x, y) for x, y in zip(a, b, strict=True))
    return a is b if a is None or b is None else torch.equal(a, b)


def _check(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


def _check_close(what: str, got: np.ndarray, want: np.ndarray, atol: Any) -> None:
    if not want.size:
        return
    excess = abs(got - want) - atol
    wrong = ~(excess <= 0)  # a NaN is wrong too
    if wrong.any():
        worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), want.shape)
        allowed = float(np.broadcast_to(atol, want.shape)[worst])
        raise AssertionError(
            f"{what}: {int(wrong.sum())} of {want.size} entries are wrong; entry {tuple(map(int, worst))} is "
            f"{got[worst]:.12g}, but must be {want[worst]:.12g} (within {allowed:.2g})"
        )
