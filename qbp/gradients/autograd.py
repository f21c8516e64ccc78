"""Expectation values in autograd: the torch function behind the layer, and which gradient rule it uses."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qbp.circuit.angles import AngleMap, Angles
from qbp.circuit.program import Program
from qbp.errors import ArgumentError, GradientError
from qbp.executors import AdjointExecutor, Executor, Gradients
from qbp.gradients.rules import RULES, VARIANCES, Needs
from qbp.gradients.stateful import STATEFUL

__all__ = ["DIFF_METHODS", "ErrorBars", "Expectation", "Task", "check_norms", "choose_diff_method", "evaluate"]

DIFF_METHODS = ("best", "adjoint", "backprop", *RULES, *STATEFUL)
"""What `diff_method` may be; PennyLane's names, and those of `qbp.gradients.stateful`."""


@dataclass
class ErrorBars:
    """What the noise of an executor that tells its `last_stds` makes of the last results of a layer.

    Attributes:
        outputs: standard errors (B, M) of the outputs.
        gradients: variances of the gradients of the angles; those of batched angles (B, Kb), of shared ones (Ks,).
        source: where the angles came from: the map, inputs (B, I) and weights (P,).
    """

    outputs: Tensor | None = None
    gradients: Gradients | None = None
    source: tuple[AngleMap, Tensor, Tensor] | None = None

    def of_weights(self) -> Tensor | None:
        """Standard errors (P,) of the last gradient of the weights, through ``d angles / d weights``."""
        if self.source is None or self.gradients is None:
            return None
        angle_map, x, weights = self.source

        def angles(at: Tensor) -> tuple[Tensor, Tensor]:
            result = angle_map(x, at)
            return result.batched, result.shared

        found = (self.gradients.batched, self.gradients.shared)
        total = torch.zeros_like(weights)
        for slopes, variance in zip(torch.autograd.functional.jacobian(angles, weights), found, strict=True):
            if variance is not None:
                total += variance.to(weights).reshape(-1) @ slopes.reshape(-1, len(weights)) ** 2
        return total.sqrt()


class Task(NamedTuple):
    """What an `Expectation` needs besides tensors."""

    program: Program
    executor: Executor
    diff_method: str
    needs: tuple[bool, ...]
    generator: torch.Generator | None
    errors: ErrorBars
    rule: Any = None  # one that remembers earlier steps


def evaluate(task: Task, angles: Angles, amplitudes: Tensor | None) -> Tensor:
    """Outputs (B, M) without a gradient."""
    outputs = task.executor(task.program, angles, amplitudes)
    task.errors.outputs = getattr(task.executor, "last_stds", None)
    return outputs


class Ahead:
    """All executions of a step in one call: those of the outputs, and those that the gradient rule will ask for.

    A rule asks for the same executions whatever the gradient of the outputs is. So it runs in the forward pass on
    zeros, to be seen what it asks for, and again in the backward pass, on what came of it.

    Args:
        task: with the rule and the executor.
        angles, amplitudes: of the batch.
        needs: the gradients that will be wanted.
    """

    def __init__(self, task: Task, angles: Angles, amplitudes: Tensor | None, needs: Needs):
        self.task, self.needs = task, needs
        self.rule: Any = deepcopy(task.rule) or RULES[task.diff_method]  # as it is now
        self.seed = int(torch.randint(2**62, (), generator=task.generator))
        asked = [(angles, amplitudes)]

        def note(at: Angles, start: Tensor | None) -> Tensor:
            asked.append((at, start))
            return at.batched.new_zeros(at.n_samples, task.program.n_outputs)

        self._rule(
            deepcopy(self.rule),
            note,
            angles,
            amplitudes,
            angles.batched.new_zeros(angles.n_samples, task.program.n_outputs),
        )
        rows = Angles.of(torch.cat([at.full().double() for at, _ in asked]))
        states = None if amplitudes is None else torch.cat([start for _, start in asked if start is not None])
        outputs = task.executor(task.program, rows, states)
        stds = getattr(task.executor, "last_stds", None)
        sizes = [at.n_samples for at, _ in asked]
        self.outputs, *self.shifted = outputs.split(sizes)
        self.variances = None if stds is None else (stds**2).split(sizes)[1:]
        task.errors.outputs = None if stds is None else stds[: sizes[0]].to(angles.batched)

    def _rule(self, rule: Any, run: Any, angles: Angles, amplitudes: Tensor | None, grad: Tensor) -> Gradients:
        generator = torch.Generator().manual_seed(self.seed)
        found: Gradients = rule(run, self.task.program, angles, amplitudes, grad, self.needs, generator=generator)
        return found

    def vjp(self, angles: Angles, amplitudes: Tensor | None, grad: Tensor) -> Gradients:
        """The rule's gradients, and their variances as the task's error bars."""
        variance = VARIANCES.get(self.task.diff_method)
        self.task.errors.gradients = None
        if self.variances is not None and variance is not None:
            self.task.errors.gradients = variance(
                _replay(self.variances), self.task.program, angles, amplitudes, grad, self.needs
            )
        found = self._rule(self.rule, _replay(self.shifted), angles, amplitudes, grad)
        if self.task.rule is not None:
            self.task.rule.load_state(self.rule.state())
        return found


def _replay(results: Iterable[Tensor]) -> Any:
    """A `run` that gives what came of the executions, in their order."""
    rest = iter(results)
    return lambda at, start: next(rest).to(at.batched)


class Expectation(torch.autograd.Function):
    """Outputs of a program as a function of its angles and amplitudes, with the gradient rule of the task.

    The shift rules combine executions, so that with ``create_graph=True`` they run through this function again: second
    derivatives are exact. The adjoint rule is replaced by the parameter-shift rule there.

    The shared angles may have any shape where the executor takes them so.
    """

    @staticmethod
    def forward(ctx: Any, batched: Tensor, shared: Tensor, amplitudes: Tensor | None, task: Task) -> Tensor:
        angles = Angles(batched, shared)
        ctx.task, ctx.state = task, None
        ctx.save_for_backward(batched, shared, amplitudes)
        if task.diff_method == "adjoint":
            outputs, ctx.state = task.executor.forward(task.program, angles, amplitudes)  # type: ignore[attr-defined]
            return outputs
        if getattr(task.executor, "one_job", False):
            ctx.state = Ahead(task, angles, amplitudes, _needs(ctx, task, batched.shape[1]))
            return ctx.state.outputs.to(batched)
        return task.executor(task.program, angles, amplitudes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        batched, shared, amplitudes = ctx.saved_tensors
        angles, task = Angles(batched, shared), ctx.task
        need_batched, need_shared, need_amplitudes, _ = ctx.needs_input_grad
        again = torch.is_grad_enabled()  # the caller wants to differentiate the gradient
        if task.diff_method == "adjoint" and not again:
            wanted = (need_batched, need_shared, need_amplitudes)
            g = task.executor.vjp(task.program, angles, amplitudes, ctx.state, grad, wanted)
        elif isinstance(ctx.state, Ahead) and not again:
            g = ctx.state.vjp(angles, amplitudes, grad)
        elif again and task.rule is not None:
            raise GradientError(f"diff_method={task.diff_method!r} remembers steps: it has no second derivatives")
        else:

            def run(at: Angles, start: Tensor | None, shots: int | None = None) -> Tensor:
                if not again:
                    executor = task.executor if shots is None else task.executor.with_shots(shots)
                    return executor(task.program, at, start)
                return Expectation.apply(at.batched, at.shared, start, task)

            rule = task.rule or RULES["parameter-shift" if task.diff_method == "adjoint" else task.diff_method]
            needs = _needs(ctx, task, batched.shape[1])
            flat = Angles(batched, shared.reshape(-1))
            g = rule(run, task.program, flat, amplitudes, grad, needs, generator=task.generator)
            g = g._replace(shared=None if g.shared is None else g.shared.view_as(shared))
        return (
            g.batched if need_batched else None,
            g.shared if need_shared else None,
            g.amplitudes if need_amplitudes else None,
            None,
        )


def _needs(ctx: Any, task: Task, n_batched: int) -> Needs:
    need_batched, need_shared, need_amplitudes, _ = ctx.needs_input_grad
    wanted = (need and (need_batched if k < n_batched else need_shared) for k, need in enumerate(task.needs))
    return Needs(tuple(wanted), need_amplitudes)


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


def choose_diff_method(executor: Executor, asked: str, program: Program) -> str:
    """The rule that will be used, or a GradientError where the one asked for is not to be had."""
    is_torch = executor.name == "dense" and executor.exact
    has_adjoint = isinstance(executor, AdjointExecutor)
    if has_adjoint and hasattr(executor, "has_adjoint"):
        has_adjoint = executor.has_adjoint(program)
    if asked == "best":
        return "backprop" if is_torch else "adjoint" if has_adjoint else "parameter-shift"
    if asked == "adjoint" and not has_adjoint:
        raise GradientError(
            f"diff_method='adjoint' is not to be had on backend {executor.name!r} for this circuit; "
            "use 'parameter-shift'"
        )
    if asked == "finite-diff" and not executor.exact:
        raise GradientError(
            "diff_method='finite-diff' divides the noise of the shots by a small step: use 'parameter-shift' or 'spsa'"
        )
    if asked == "gcans" and not (executor.shots and hasattr(executor, "with_shots")):
        raise GradientError("diff_method='gcans' allots shots: give `shots`, on a backend whose shots can be chosen")
    if asked == "backprop" and not is_torch:
        raise GradientError(
            "diff_method='backprop' differentiates through torch and needs backend='dense' without shots"
        )
    return asked
