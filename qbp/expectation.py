"""Expectation values in autograd: the torch function behind the layer, and which gradient rule it uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qbp.angles import Angles
from qbp.errors import GradientError
from qbp.executors import AdjointExecutor, Executor
from qbp.gradients import RULES, Needs
from qbp.program import Program

__all__ = ["DIFF_METHODS", "Expectation", "Task", "choose_diff_method"]

DIFF_METHODS = ("best", "adjoint", "backprop", *RULES)
"""What `diff_method` may be; PennyLane's names."""


@dataclass(frozen=True)
class Task:
    """What an `Expectation` needs besides tensors."""

    program: Program
    executor: Executor
    diff_method: str
    needs: tuple[bool, ...]
    generator: torch.Generator | None


class Expectation(torch.autograd.Function):
    """Outputs of a program as a function of its angles and amplitudes, with the gradient rule of the task.

    The shift rules combine executions, so that with ``create_graph=True`` they run through this function again: second
    derivatives are exact. The adjoint rule is replaced by the parameter-shift rule there.
    """

    @staticmethod
    def forward(ctx: Any, batched: Tensor, shared: Tensor, amplitudes: Tensor | None, task: Task) -> Tensor:
        angles = Angles(batched, shared)
        ctx.task, ctx.state = task, None
        ctx.save_for_backward(batched, shared, amplitudes)
        if task.diff_method == "adjoint":
            outputs, ctx.state = task.executor.forward(task.program, angles, amplitudes)  # type: ignore[attr-defined]
            return outputs
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
        else:
            n_batched = batched.shape[1]
            wanted_angles = tuple(
                need and (need_batched if k < n_batched else need_shared) for k, need in enumerate(task.needs)
            )

            def run(at: Angles, start: Tensor | None) -> Tensor:
                if not again:
                    return task.executor(task.program, at, start)
                return Expectation.apply(at.batched, at.shared, start, task)

            rule = RULES["parameter-shift" if task.diff_method == "adjoint" else task.diff_method]
            needs = Needs(wanted_angles, need_amplitudes)
            g = rule(run, task.program, angles, amplitudes, grad, needs, generator=task.generator)
        return (
            g.batched if need_batched else None,
            g.shared if need_shared else None,
            g.amplitudes if need_amplitudes else None,
            None,
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
    if asked == "backprop" and not is_torch:
        raise GradientError(
            "diff_method='backprop' differentiates through torch and needs backend='dense' without shots"
        )
    return asked
