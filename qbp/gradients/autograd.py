"""Expectation values in autograd: the torch function behind the layer, and which gradient rule it uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Program
from qbp.errors import ArgumentError, GradientError
from qbp.executors import Executor, Gradients, Results, capabilities_of, check_noise, execute, has_adjoint
from qbp.gradients.error_bars import ErrorBars, GradientErrors
from qbp.gradients.evaluations import Evaluations, Needs, Point
from qbp.gradients.rules import RULES
from qbp.gradients.stateful import STATEFUL

__all__ = [
    "DIFF_METHODS",
    "ErrorBars",
    "Expectation",
    "Task",
    "check_bits",
    "check_norms",
    "choose_diff_method",
    "evaluate",
    "expectations",
    "gradients_of",
    "plan_of",
]

DIFF_METHODS = ("best", "adjoint", "backprop", *RULES, *STATEFUL)
"""What `diff_method` may be; PennyLane's names, and those of `qbp.gradients.stateful`."""


APART_FROM = 8
"""Qubits from which rows with shared angles of their own are not one batch."""


class Task(NamedTuple):
    """What an `Expectation` needs besides tensors."""

    program: Program
    executor: Executor
    diff_method: str
    needs: tuple[bool, ...]
    generator: torch.Generator | None
    errors: ErrorBars
    rule: Any = None  # one that remembers earlier steps
    training: bool = True  # whether a backward pass is to be expected
    dtype: torch.dtype | None = None  # of the work, where that is not the angles'


class Ahead(NamedTuple):
    """A gradient whose circuits ran in the forward pass, in one call with those of the outputs."""

    plan: Evaluations
    results: list[Results]


def evaluate(task: Task, angles: Angles, amplitudes: Tensor | None) -> Tensor:
    """Outputs (B, M) without a gradient, or with torch's own."""
    errors = task.errors
    values, errors.stds, errors.truncation, errors.sources = execute(task.executor, task.program, angles, amplitudes)
    return values


def expectations(task: Task, batched: Tensor, shared: Tensor, amplitudes: Tensor | None) -> Tensor:
    """Outputs (K, B, M), where each of K parts has shared angles (K, Ks) of its own; by the adjoint rule or torch's."""
    if task.diff_method == "adjoint":
        outputs: Tensor = Expectations.apply(batched, shared, amplitudes, task)
        return outputs
    states = [None] * len(batched) if amplitudes is None else amplitudes
    parts = zip(batched, shared, states, strict=True)
    return torch.stack([evaluate(task, Angles(*angles), state) for *angles, state in parts])


class Expectation(torch.autograd.Function):
    """Outputs of a program as a function of its angles and amplitudes, with the gradient rule of the task.

    The shift rules combine executions, so that with ``create_graph=True`` they run through this function again: second
    derivatives are exact. The adjoint rule is replaced by the parameter-shift rule there.

    The shared angles may have any shape where the executor takes them so.
    """

    @staticmethod
    def forward(ctx: Any, batched: Tensor, shared: Tensor, amplitudes: Tensor | None, task: Task) -> Tensor:
        ctx.task, ctx.state, errors = task, None, task.errors
        ctx.save_for_backward(batched, shared, amplitudes)
        angles = Angles(batched, shared)
        if task.dtype is not None:
            angles = ctx.angles = Angles(batched.to(task.dtype), shared.to(task.dtype))
        if task.diff_method == "adjoint":
            results, ctx.state = task.executor.forward(task.program, angles, amplitudes)  # type: ignore[attr-defined]
            values, errors.stds, errors.truncation, errors.sources = results
            return values if task.dtype is None else values.to(batched)
        if task.training and capabilities_of(task.executor).one_job:
            plan = plan_of(task, ctx.needs_input_grad, Angles(batched.detach(), shared.detach()), amplitudes)
            results, *rest = _together(task, [Point(angles, amplitudes), *plan.points()])
            ctx.state = Ahead(plan, rest)
        else:
            results = execute(task.executor, task.program, angles, amplitudes)
        values, errors.stds, errors.truncation, errors.sources = results
        return values.to(batched)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        batched, shared, amplitudes = ctx.saved_tensors
        task: Task = ctx.task
        need_batched, need_shared, need_amplitudes, _ = ctx.needs_input_grad
        again = torch.is_grad_enabled()  # the caller wants to differentiate the gradient
        if task.dtype is not None:  # torch rounds the gradients to the dtypes of the angles
            grad = grad.to(task.dtype)
            if again:
                batched, shared, task = batched.to(task.dtype), shared.to(task.dtype), task._replace(dtype=None)
            else:
                batched, shared = ctx.angles
        if task.diff_method == "adjoint" and not again:
            wanted = (need_batched, need_shared, need_amplitudes)
            angles = Angles(batched, shared)
            g = task.executor.vjp(task.program, angles, amplitudes, ctx.state, grad, wanted)  # type: ignore[attr-defined]
            task.errors.gradient = g.draws or None
        elif again:
            if task.rule is not None:
                raise GradientError(f"diff_method={task.diff_method!r} remembers steps: it has no second derivatives")

            def run(point: Point) -> Results:
                return Results(Expectation.apply(point.angles.batched, point.angles.shared, point.amplitudes, task))

            plan = plan_of(task, ctx.needs_input_grad, Angles(batched, shared.reshape(-1)), amplitudes)
            g = _shaped(plan.combine(map(run, plan.points()), grad), shared)
        else:
            angles = Angles(batched.detach(), shared.detach().reshape(-1))
            g = _shaped(gradients_of(task, ctx.needs_input_grad, ctx.state, angles, amplitudes, grad), shared)
        return (
            g.batched if need_batched else None,
            g.shared if need_shared else None,
            g.amplitudes if need_amplitudes else None,
            None,
        )


class Expectations(torch.autograd.Function):
    """Outputs (K, B, M) of a program, where each of K parts has shared angles of its own, by the adjoint rule.

    Few qubits go as one batch, whose rows have all their angles for themselves; for more, a call for each part costs
    less (measured: from `APART_FROM` qubits on).
    """

    @staticmethod
    def forward(ctx: Any, batched: Tensor, shared: Tensor, amplitudes: Tensor | None, task: Task) -> Tensor:
        program, executor = task.program, task.executor
        ctx.task, ctx.shape, ctx.n_batched = task, batched.shape[:2], batched.shape[2]
        if program.n_qubits >= APART_FROM or program.is_noisy:
            parts = zip(batched, shared, [None] * len(batched) if amplitudes is None else amplitudes, strict=True)
            ctx.calls = [(Angles(rows.contiguous(), own), states) for rows, own, states in parts]
        else:
            every = torch.cat([batched, shared[:, None].expand(-1, batched.shape[1], -1)], 2).flatten(0, 1)
            states = None if amplitudes is None else amplitudes.flatten(0, 1)
            ctx.calls = [(Angles.of(every), states)]
        results = [executor.forward(program, *call) for call in ctx.calls]  # type: ignore[attr-defined]
        ctx.states = [state for _, state in results]
        return torch.cat([result.values for result, _ in results]).unflatten(0, ctx.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        task, wanted = ctx.task, ctx.needs_input_grad[:3]
        rows = grad.flatten(0, 1).split([len(angles.batched) for angles, _ in ctx.calls])
        parts = [
            task.executor.vjp(task.program, *call, state, part, (True, True, wanted[2]))
            for call, state, part in zip(ctx.calls, ctx.states, rows, strict=True)
        ]
        of_rows = torch.cat([part.batched for part in parts]).unflatten(0, ctx.shape)
        if len(parts) == 1:
            of_shared = of_rows[..., ctx.n_batched :].sum(1)
        else:
            of_shared = torch.stack([part.shared for part in parts])
        of_states = torch.cat([part.amplitudes for part in parts]).unflatten(0, ctx.shape) if wanted[2] else None
        return of_rows[..., : ctx.n_batched] if wanted[0] else None, of_shared, of_states, None


def _shaped(gradients: Gradients, shared: Tensor) -> Gradients:
    """The gradient of the shared angles in their shape."""
    return gradients if gradients.shared is None else gradients._replace(shared=gradients.shared.view_as(shared))


def gradients_of(
    task: Task, wanted: Sequence[bool], ahead: Ahead | None, angles: Angles, amplitudes: Tensor | None, grad: Tensor
) -> Gradients:
    """The rule's gradients of the batched angles, the shared ones and the amplitudes, as far as they are wanted, and
    their errors as the task's error bars."""
    noted: list[Results] = []

    def note(results: Results) -> Results:
        if results.stds is not None or results.truncation is not None:
            noted.append(results)
        return results

    def run(point: Point) -> Results:
        executor: Any = task.executor
        if point.shots is not None:
            executor = executor.with_shots(point.shots)
        return note(execute(executor, task.program, point.angles, point.amplitudes))

    if ahead is not None:
        plan = ahead.plan
        results = map(note, ahead.results)
    else:
        plan = plan_of(task, wanted, angles, amplitudes)
        results = map(run, plan.points())
    gradients = plan.combine(results, grad)
    task.errors.gradient = GradientErrors(plan, noted, grad) if noted else None
    if task.rule is not None:
        task.rule.after_backward()
    return gradients


def plan_of(task: Task, wanted: Sequence[bool], angles: Angles, amplitudes: Tensor | None) -> Evaluations:
    """What the rule asks for where gradients of the batched angles, the shared ones, the amplitudes are wanted."""
    need_batched, need_shared, need_amplitudes = wanted[:3]
    n_batched = angles.batched.shape[1]
    each = (need and (need_batched if k < n_batched else need_shared) for k, need in enumerate(task.needs))
    needs = Needs(tuple(each), need_amplitudes)
    name = "parameter-shift" if task.diff_method == "adjoint" else task.diff_method
    rule = RULES[name] if task.rule is None else task.rule.plan
    shots = capabilities_of(task.executor).shots
    plan: Evaluations = rule(task.program, needs, angles, amplitudes, generator=task.generator, shots=shots)
    return plan


def _together(task: Task, points: Sequence[Point]) -> list[Results]:
    """Several points in one call."""
    rows = Angles.of(torch.cat([point.angles.full().double() for point in points]))
    states = [point.amplitudes for point in points if point.amplitudes is not None]
    results = execute(task.executor, task.program, rows, torch.cat(states) if states else None)
    sizes = [point.angles.n_samples for point in points]
    parts = [[None] * len(sizes) if part is None else part.split(sizes) for part in results]
    each = (Results(*own) for own in zip(*parts, strict=True))
    return [own._replace(values=own.values.to(point.angles.batched)) for own, point in zip(each, points, strict=True)]


def check_norms(amplitudes: Tensor) -> None:
    """Raise `ArgumentError` unless every row of the amplitudes (B, 2^N) has norm 1."""
    norms = torch.linalg.vector_norm(amplitudes.detach(), dim=1)
    wrong = torch.nonzero((norms - 1).abs() > 1e-4)
    if len(wrong):
        row = int(wrong[0])
        raise ArgumentError(
            f"Argument `inputs` must have rows of norm 1 to be amplitudes, but row {row} has norm "
            f"{float(norms[row]):.6g}; embed them with normalize=True"
        )


def check_bits(inputs: Tensor, columns: Sequence[int]) -> None:
    """Raise `ArgumentError` unless these columns of the inputs (B, I) are 0 or 1."""
    bits = inputs.detach()[:, list(columns)]
    wrong = torch.nonzero((bits != 0) & (bits != 1))
    if len(wrong):
        row, k = wrong[0].tolist()
        raise ArgumentError(
            f"Argument `inputs` must be 0 or 1 in column {columns[k]}, which is embedded as a basis state, but row "
            f"{row} has {float(bits[row, k]):.6g}"
        )


def choose_diff_method(executor: Executor, asked: str, program: Program) -> str:
    """The rule that will be used, or a GradientError where the one asked for is not to be had; an ArgumentError where
    the program has noise that the executor cannot run."""
    check_noise(executor, program)
    able = capabilities_of(executor)
    if asked == "best":
        return "backprop" if able.differentiable else "adjoint" if has_adjoint(executor, program) else "parameter-shift"
    if asked == "adjoint" and not has_adjoint(executor, program):
        raise GradientError(
            f"diff_method='adjoint' is not to be had on backend {executor.name!r} for this circuit; "
            "use 'parameter-shift'"
        )
    if asked == "finite-diff" and not able.exact:
        raise GradientError(
            "diff_method='finite-diff' divides the noise of the shots by a small step: use 'parameter-shift' or 'spsa'"
        )
    if asked == "gcans" and not (able.shots and able.with_shots):
        raise GradientError("diff_method='gcans' allots shots: give `shots`, on a backend whose shots can be chosen")
    if asked == "backprop" and not able.differentiable:
        raise GradientError(
            "diff_method='backprop' differentiates through torch and needs backend='dense' without shots, or an "
            "executor of your own that is made of torch's operations"
        )
    return asked
