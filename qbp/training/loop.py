"""The training loop of one model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from qbp.nn.seeding import seeded
from qbp.training.checkpoint import Row
from qbp.training.members import Member, call
from qbp.training.metrics import measure, modes, own, summary

__all__ = ["Tick", "bar", "train"]

Tick = Callable[[int, int], None]
"""Called with (epoch, step) after every step."""


def train(member: Member, callbacks: Sequence[Any] = (), progress: object = None) -> None:
    """Train one model to its end.

    Args:
        member: the model with its rows.
        callbacks: as of `fit`.
        progress: as of `fit`.
    """
    model, training = member.model, member.state.training
    listening = [each for each in callbacks if hasattr(each, "on_step_end")]
    steps = member.batches.steps(training.accumulate_grad_batches)
    with seeded(member.seed, model), modes(model), bar(progress, training.epochs, steps) as tick:
        member.begin()
        while not member.state.is_done():
            member.end(_epoch(member, listening, tick), callbacks, progress)
        member.state.finish()


def _epoch(member: Member, callbacks: Sequence[Any], tick: Tick | None) -> Row:
    """Train for one epoch; its row of metrics."""
    began, state, model = time.perf_counter(), member.state, member.model
    number, size, step = len(state.rows) + 1, state.training.accumulate_grad_batches, 0
    left = member.batches.epoch(state.order)
    labels: list[Tensor] = []
    outputs: list[Tensor] = []
    losses: list[Tensor] = []
    while group := list(islice(left, size)):
        given, values = state.step(group, member.target)
        labels += [batch.y for batch in group]
        outputs += given
        losses += values
        step += 1
        if tick is not None:
            tick(number, step)
        if callbacks:
            lr = state.optimizer.param_groups[0]["lr"]
            row: Row = {"epoch": number, "step": step, "loss": torch.stack(values).mean().item(), "lr": lr}
            state.is_stopped |= any([call(each, "on_step_end", row, model) for each in callbacks])
    sizes = torch.tensor([len(each) for each in labels], dtype=torch.float64)
    total = float(torch.stack(losses).double().cpu() @ sizes)  # once: every `.item()` waits for a GPU
    every, wanted, metrics = torch.cat(outputs), torch.cat(labels), state.training.metrics
    trained = {"loss": total / float(sizes.sum()), **summary(every, wanted), **own(metrics, every, wanted)}
    held = None
    if member.validation is not None:
        with state.averaged():
            inputs = member.batches.data.inputs
            held = measure(model, *member.validation, member.held_target, metrics=metrics, inputs=inputs)[1]
    return member.row(trained, held, time.perf_counter() - began)


@contextmanager
def bar(progress: object, epochs: int, steps: int) -> Iterator[Tick | None]:
    """Draw a bar with the time left; yield the function that moves it on to (epoch, step)."""
    if progress is not True:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    stride = max(1, steps // 10)  # rich looks back over 1000 moves: enough of them for whole epochs
    with Progress(*columns, speed_estimate_period=86400.0) as bar:
        task = bar.add_task("epoch", total=epochs * steps)

        def tick(epoch: int, step: int) -> None:
            if step % stride == 0 or step == steps:
                bar.update(task, completed=(epoch - 1) * steps + step, description=f"epoch {epoch}/{epochs}")

        yield tick
