"""Expectation values under the transforms of `torch.func`: `vmap`, `grad`, `jacrev`, `jvp`, and what is made of them.

Lanes of `vmap` become samples of one batch: an executor runs any number of samples at once, each with its own weights
where they differ. Plain autograd goes another way, `qbp.gradients.autograd.Expectation`, which keeps what the forward
pass left and asks less.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from qbp.circuit.angles import Angles
from qbp.errors import GradientError
from qbp.executors import Gradients, Results, execute
from qbp.gradients.autograd import Task, gradients_of, plan_of
from qbp.gradients.evaluations import Point

__all__ = ["Outputs", "is_transformed"]


def is_transformed() -> bool:
    """Whether a transform of `torch.func` is under way."""
    return torch._C._functorch.maybe_current_level() is not None


class Outputs(torch.autograd.Function):
    """Outputs (B, M) of a program as a function of its angles (B, Kb), (Ks,) and amplitudes (B, 2^N)."""

    @staticmethod
    def forward(batched: Tensor, shared: Tensor, amplitudes: Tensor | None, task: Task) -> Tensor:
        return execute(task.executor, task.program, Angles(batched, shared), amplitudes).values.to(batched)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _keep(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        batched, shared, amplitudes = ctx.saved_tensors
        gradients = Pullback.apply(batched, shared, amplitudes, grad, ctx.task)
        return (*gradients, *[None] * (4 - len(gradients)))

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        """Row m of the Jacobian is the pullback of output m; all of them are one batch."""
        with forward_ad._set_fwd_grad_enabled(True):  # torch switches it off here, also for transforms further out
            return Outputs._change(ctx, *tangents)

    @staticmethod
    def _change(ctx: Any, *tangents: Tensor | None) -> Tensor:
        batched, shared, amplitudes = _values(ctx)
        n_samples, n_outputs = len(batched), ctx.task.program.n_outputs
        unit = torch.eye(n_outputs, dtype=batched.dtype, device=batched.device).repeat_interleave(n_samples, 0)
        rows = Angles(batched, shared).full().repeat(n_outputs, 1)
        states = None if amplitudes is None else amplitudes.repeat(n_outputs, 1)
        slopes = Pullback.apply(rows, rows.new_empty(0), states, unit, ctx.task)
        pairs = zip((batched, shared), tangents[:2], strict=True)
        moved = Angles(*(torch.zeros_like(t) if change is None else change for t, change in pairs)).full()
        change = (slopes[0].unflatten(0, (n_outputs, n_samples)) * moved).sum(-1)
        if tangents[2] is not None:
            change = change + (slopes[2].unflatten(0, (n_outputs, n_samples)) * tangents[2]).sum(-1)
        return change.T

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        *tensors, task = inputs
        batched, shared, amplitudes = _merged(info.batch_size, in_dims[:3], tensors, together=in_dims[1] is not None)
        return Outputs.apply(batched, shared, amplitudes, task).unflatten(0, (info.batch_size, -1)), 0


class Pullback(torch.autograd.Function):
    """Gradients of ``sum(grad * outputs)`` by the angles, and by the amplitudes where there are some."""

    @staticmethod
    def forward(
        batched: Tensor, shared: Tensor, amplitudes: Tensor | None, grad: Tensor, task: Task
    ) -> tuple[Tensor, ...]:
        wanted, angles = (True, True, amplitudes is not None), Angles(batched, shared)
        executor: Any = task.executor
        grad = torch.zeros(grad.shape, dtype=grad.dtype, device=grad.device) if grad._is_zerotensor() else grad
        if task.diff_method == "adjoint":
            _, state = executor.forward(task.program, angles, amplitudes)
            return _tensors(executor.vjp(task.program, angles, amplitudes, state, grad, wanted), angles)
        return _tensors(gradients_of(task, wanted, None, angles, amplitudes, grad), angles)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _keep(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        primals, function = _shifted(ctx, ctx.saved_tensors)
        gradients = list(torch.func.vjp(function, *primals)[1](cotangents))
        return (*gradients[:2], gradients[2] if len(gradients) == 4 else None, gradients[-1], None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        with forward_ad._set_fwd_grad_enabled(True):
            primals, function = _shifted(ctx, _values(ctx))
            primals = tuple(
                p.clone(memory_format=torch.contiguous_format) for p in primals
            )  # torch refuses expanded ones
            moved = [tangents[k] for k in range(4) if ctx.saved_tensors[k] is not None]
            moved = [torch.zeros_like(p) if t is None else t for p, t in zip(primals, moved, strict=True)]
            return torch.func.jvp(function, primals, tuple(moved))[1]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], Any]:
        *tensors, grad, task = inputs
        n_lanes, n_shared = info.batch_size, tensors[1].shape[-1]
        batched, shared, amplitudes = _merged(n_lanes, in_dims[:3], tensors, together=True)
        rows = _lanes(n_lanes, grad, in_dims[3]).flatten(0, 1)
        of_rows, _, *of_states = Pullback.apply(batched, shared, amplitudes, rows, task)
        each = of_rows.unflatten(0, (n_lanes, -1))
        n_batched = each.shape[-1] - n_shared
        results = (each[..., :n_batched], each[..., n_batched:].sum(1))
        results += tuple(states.unflatten(0, (n_lanes, -1)) for states in of_states)
        return results, (0,) * len(results)


def _keep(ctx: Any, inputs: tuple[Any, ...]) -> None:
    *tensors, ctx.task = inputs
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _values(ctx: Any) -> tuple[Any, ...]:
    """The saved tensors without the tangents of the level that asks; those of levels further out stay."""
    return tuple(None if t is None else forward_ad.unpack_dual(t, level=0).primal for t in ctx.saved_tensors)


def _shifted(ctx: Any, values: tuple[Any, ...]) -> tuple[tuple[Tensor, ...], Any]:
    """What a `Pullback` is a function of, and itself as the parameter-shift rule has it: by outputs, which have
    derivatives again."""
    task: Task = ctx.task
    if task.rule is not None:
        raise GradientError(f"diff_method={task.diff_method!r} remembers steps: it has no second derivatives")
    *tensors, grad = values

    def function(batched: Tensor, shared: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        angles, amplitudes = Angles(batched, shared), rest[0] if len(rest) == 2 else None

        def run(point: Point) -> Results:
            return Results(Outputs.apply(point.angles.batched, point.angles.shared, point.amplitudes, task))

        plan = plan_of(task, (True, True, amplitudes is not None), angles, amplitudes)
        return _tensors(plan.combine(map(run, plan.points()), rest[-1]), angles)

    return tuple(t for t in (*tensors, grad) if t is not None), function


def _tensors(gradients: Gradients, angles: Angles) -> tuple[Tensor, ...]:
    """Of the batched angles, of the shared ones, and of the amplitudes where there are some."""
    batched = torch.zeros_like(angles.batched) if gradients.batched is None else gradients.batched
    shared = torch.zeros_like(angles.shared) if gradients.shared is None else gradients.shared
    return (batched, shared) if gradients.amplitudes is None else (batched, shared, gradients.amplitudes)


def _merged(
    n_lanes: int, in_dims: tuple[int | None, ...], tensors: list[Any], together: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Lanes as samples: angles (V B, Kb) and (Ks,), or (V B, Kb + Ks) and none where all are to be a sample's own."""
    lanes = [None if t is None else _lanes(n_lanes, t, dim) for t, dim in zip(tensors, in_dims, strict=True)]
    batched, shared, amplitudes = lanes
    assert batched is not None and shared is not None
    states = None if amplitudes is None else amplitudes.flatten(0, 1)
    if not together:
        return batched.flatten(0, 1), tensors[1], states
    every = shared[:, None].expand(-1, batched.shape[1], -1)
    return torch.cat([batched, every], -1).flatten(0, 1), batched.new_empty(0), states


def _lanes(n_lanes: int, tensor: Tensor, dim: int | None) -> Tensor:
    """With the axis of the lanes in front."""
    return tensor.expand(n_lanes, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
