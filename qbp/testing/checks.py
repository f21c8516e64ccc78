"""The checks of gradients: `check_rule` and `gradcheck`. They raise `AssertionError` and say where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from qbp.circuit.program import Program
from qbp.executors import Executor, Results, execute
from qbp.gradients.evaluations import Evaluations, Needs, Point
from qbp.gradients.rules import vjp
from qbp.testing.cases import cases, check, check_close, check_part, random_grad, same_bits, size_of
from qbp.testing.programs import NASTY
from qbp.testing.reference import reference_vjp

__all__ = ["check_rule", "gradcheck"]


def check_rule(
    rule: Callable[..., Evaluations],
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
        rule: ``rule(program, needs, angles, amplitudes, generator=..., shots=...) -> Evaluations``.
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
    for case in cases(rng, n_programs, programs, accepts, batch_sizes, dtypes):
        program, angles, states = case.arguments
        n_batched, grad = angles.batched.shape[1], random_grad(case, rng)
        calls = 0

        def run(point: Point, program: Program = program) -> Results:
            nonlocal calls
            calls += 1
            return execute(executor, program, point.angles, point.amplitudes)

        want = reference_vjp(program, angles, grad, states)
        for wanted in (
            [True] * program.n_angles,
            (rng.random(program.n_angles) < 0.5).tolist(),
            [False] * program.n_angles,
        ):
            needs = Needs(tuple(wanted), amplitudes and states is not None and any([*wanted, program.n_angles == 0]))
            before, calls = deepcopy((angles, states, grad)), 0
            results = [vjp(rule, run, program, angles, states, grad, needs) for _ in range(repeats)]
            check(same_bits(before, (angles, states, grad)), f"{case.where}: the rule changed its arguments")
            if not any([*wanted, needs.amplitudes]):
                check(calls == 0, f"{case.where}: no gradient was wanted, but the program ran {calls} times")
            masked = want.angles * np.array(wanted, dtype=float)
            parts = {
                "batched": (masked[:, :n_batched], any(wanted[:n_batched])),
                "shared": (masked[:, n_batched:].sum(0), any(wanted[n_batched:])),
                "amplitudes": (want.amplitudes, needs.amplitudes),
            }
            for part, (target, is_wanted) in parts.items():
                got = [getattr(result, part) for result in results]
                check_part(case, part, got, target if is_wanted else None, atol * size_of(case, grad))


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
    check(outputs.requires_grad, "The outputs depend on no input and no parameter, as far as torch knows")
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0), dtype=outputs.dtype)
    gradients = torch.autograd.grad((outputs * weights).sum(), list(tensors.values()), allow_unused=True)
    for (name, tensor), gradient in zip(tensors.items(), gradients, strict=True):
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
        check_close(f"The gradient of {name}{missing}", got, want, atol + rtol * abs(want))
