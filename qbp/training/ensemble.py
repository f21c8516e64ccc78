"""Models that train together: one step of all of them costs little more than a step of one.

Every member keeps its own rows in its own order, its own random numbers, schedule, early stopping, best epoch and
checkpoint: a step of it is the one that it would take alone, but for the last bits of sums.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qbp.nn.seeding import spared
from qbp.nn.stacking import Stack, Unstackable
from qbp.training.checkpoint import Row
from qbp.training.joint import ELEMENTWISE, JointOptimizer
from qbp.training.loop import Tick, bar, train
from qbp.training.members import DivergenceError, Member
from qbp.training.metrics import measure, modes, own, summaries, summary
from qbp.training.options import TRAINING
from qbp.training.state import forward, loss_of

__all__ = ["train_together"]

ALIKE = tuple(name for name in TRAINING if name not in ("lr", "quantum_lr", "validation"))
"""Options in which members do not differ."""


def train_together(
    members: Sequence[Member], progress: object = None
) -> tuple[list[DivergenceError | None], str | None]:
    """Train copies of one model, those together whose steps go together; the others one after the other.

    Args:
        members: the models; they may differ in their rows, their seed, and in learning rates.
        progress: as of `fit`.

    Returns:
        For each member the error of one whose loss is not finite, else None; and why some were not trained together, or
        None.
    """
    errors: dict[int, DivergenceError] = {}
    reason = None
    for group in _groups(members):
        try:
            if len(group) == 1:
                raise Unstackable("there is one")
            ensemble = Ensemble(group)
        except Unstackable as why:
            reason = str(why) if len(group) > 1 else reason
            for member in group:
                try:
                    train(member, progress=progress)
                except DivergenceError as error:
                    errors[id(member)] = error
        else:
            errors |= ensemble.train(progress)
    return [errors.get(id(member)) for member in members], reason


def _groups(members: Sequence[Member]) -> list[list[Member]]:
    """Those that take as many steps in an epoch, of batches as large, and are trained alike but for their rates."""
    groups: list[list[Member]] = []
    for member in members:
        same = next((group for group in groups if _go_together(group[0], member)), None)
        if same is None:
            groups.append([member])
        else:
            same.append(member)
    return groups


def _go_together(one: Member, other: Member) -> bool:
    plain = int | float | str | None
    pairs = [(getattr(one.state.training, name), getattr(other.state.training, name)) for name in ALIKE]
    are_alike = all(a is b or (isinstance(a, plain) and isinstance(b, plain) and a == b) for a, b in pairs)
    return are_alike and len(one.batches.sizes) == len(other.batches.sizes)


class _Rows(NamedTuple):
    """Batches of all members: x, y and weights (K, B, ...), and how many rows of each are its own."""

    x: Tensor
    y: Tensor
    weights: Tensor | None
    sizes: tuple[int, ...]

    @property
    def is_even(self) -> bool:
        return min(self.sizes) == max(self.sizes)


class Ensemble:
    """Members that train together.

    Args:
        members: two or more.

    Raises:
        Unstackable: they cannot.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        self.training = members[0].state.training
        if self.training.optimizer not in ELEMENTWISE:
            raise Unstackable(f"optimizer={self.training.optimizer!r} does not update each number by itself")
        if any(member.state.loader is not None for member in members):
            raise Unstackable("there is a DataLoader, which draws numbers of its own")
        if members[0].batches.data.inputs:
            raise Unstackable("the model takes several inputs")
        self.stack = self._stacked()
        sizes = {tuple(member.batches.sizes) for member in members}
        if self.stack.mixes_rows and len(sizes) > 1:
            raise Unstackable("batch normalisation needs batches of one size")

    def _stacked(self) -> Stack:
        parameters = [[group["params"] for group in member.state.optimizer.param_groups] for member in self.members]
        models = [member.model for member in self.members]
        return Stack(models, parameters, [member.random for member in self.members])

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def train(self, progress: object) -> dict[int, DivergenceError]:
        """Train all to their ends; the errors of those that do not get there, by the id of the member."""
        errors: dict[int, DivergenceError] = {}
        every, n_together = self.members, len(self.members)
        steps = every[0].batches.steps(self.training.accumulate_grad_batches)
        with ExitStack() as after:
            after.enter_context(spared(every[0].model))
            for member in every:
                after.enter_context(modes(member.model))
            tick = after.enter_context(bar(progress, self.training.epochs, steps))
            for member in every:
                member.together = n_together
                with member.drawing():
                    member.begin()
            self._join()
            while self._leave(errors):
                self._epoch(tick, progress, errors)
        return errors

    def _join(self) -> None:
        name: Any = self.training.optimizer
        self.optimizer = JointOptimizer(name, [member.state.optimizer for member in self.members], self.stack)

    def _leave(self, errors: dict[int, DivergenceError]) -> bool:
        """Let those go that have come to their ends; whether others go on."""
        there = [member for member in self.members if not member.state.is_done() and id(member) not in errors]
        if len(there) == len(self.members):
            return True
        for k, member in enumerate(self.members):
            self.optimizer.spread(k)
            if member.state.is_done():
                member.state.finish()
        self.stack.release()
        self.members = there
        if there:
            self.stack = self._stacked()
            self._join()
        return bool(there)

    def _epoch(self, tick: Tick | None, progress: object, errors: dict[int, DivergenceError]) -> None:
        """Train for one epoch, and let each member take its row."""
        began = time.perf_counter()
        trained = self._trained(tick)
        held = self._held_out()
        seconds = (time.perf_counter() - began) / len(self.members)
        for k, member in enumerate(self.members):
            try:
                row = member.row(trained[k], None if held is None else held[k], seconds)
            except DivergenceError as error:
                errors[id(member)] = error
                continue
            if member.run is None:
                member.end(row, progress=progress)
            else:
                self.optimizer.spread(k)
                with member.drawing():
                    member.end(row, progress=progress)
        if self.training.schedule is not None:
            self.optimizer.regroup()

    def _trained(self, tick: Tick | None) -> list[Row]:
        """Take the steps of an epoch; the metrics of each member."""
        size, number = self.training.accumulate_grad_batches, len(self.members[0].state.rows) + 1
        batches = self._batches()
        outputs: list[Tensor] = []
        losses: list[Tensor] = []
        for step, first in enumerate(range(0, len(batches), size)):
            given, values = self.step(batches[first : first + size])
            outputs += given
            losses += values
            if tick is not None:
                tick(number, step + 1)
        sizes = torch.tensor([batch.sizes for batch in batches], dtype=torch.float64)
        means = (torch.stack(losses).double() * sizes).sum(0) / sizes.sum(0)
        every, wanted = torch.cat(outputs, 1), torch.cat([batch.y for batch in batches], 1)
        pairs = [
            (given[: len(m.batches.x)], y[: len(m.batches.x)])
            for given, y, m in zip(every, wanted, self.members, strict=True)
        ]
        are_even = min(len(y) for _, y in pairs) == wanted.shape[1]
        summed = summaries(every, wanted) if are_even else [summary(*pair) for pair in pairs]
        rows = [{"loss": loss, **row} for loss, row in zip(means.tolist(), summed, strict=True)]
        if self.training.metrics:
            for member, row, pair in zip(self.members, rows, pairs, strict=True):
                with member.drawing():
                    row |= own(self.training.metrics, *pair)
        return rows

    def _batches(self) -> list[_Rows]:
        """The batches of an epoch, those of one step side by side; who has fewer rows has its last one again."""
        parts = [member.batches.rows(member.state.order) for member in self.members]
        sizes = [member.batches.sizes for member in self.members]
        largest = [max(each) for each in zip(*sizes, strict=True)]
        x, y = _together([part.x for part in parts]), _together([part.y for part in parts])
        weights: Any = [None] * len(largest)
        if parts[0].weights is not None:
            weights = _together([part.weights for part in parts if part.weights is not None]).split(largest, 1)
        return [
            _Rows(*each)
            for each in zip(x.split(largest, 1), y.split(largest, 1), weights, zip(*sizes, strict=True), strict=True)
        ]

    def step(self, batches: Sequence[_Rows]) -> tuple[list[Tensor], list[Tensor]]:
        """Take a step of each member; for each of the batches the outputs (K, B, M) and losses (K,) before it."""
        outputs: list[Tensor] = []
        losses: list[Tensor] = []
        for batch in batches:
            run = self.stack if batch.is_even else partial(self.stack, sizes=batch.sizes)
            given = forward(run, batch.x, axis=1)
            values = self._losses(given, batch)
            shares = values
            if len(batches) > 1:
                rows = torch.tensor([each.sizes for each in batches], dtype=values.dtype).sum(0)
                shares = values * (values.new_tensor(batch.sizes) / rows)
            self.stack.backward(shares.sum(), again=len(losses) > 0)
            outputs.append(given.detach())
            losses.append(values.detach())
        if self.training.clip_grad_norm is not None:
            self.stack.clip(self.training.clip_grad_norm)
        self.optimizer.step()
        for member in self.members:
            member.state.stepped()
        if self.training.schedule is not None and self.training.schedule_interval == "step":
            self.optimizer.regroup()
        return outputs, losses

    def _losses(self, outputs: Tensor, batch: _Rows) -> Tensor:
        """The loss of each member (K,)."""
        if callable(self.training.loss):
            losses = []
            for k, (member, size) in enumerate(zip(self.members, batch.sizes, strict=True)):
                weights = None if batch.weights is None else batch.weights[k, :size]
                with member.drawing():
                    losses.append(loss_of(member.target, outputs[k, :size], batch.y[k, :size], weights))
            return torch.stack(losses)
        values = self.members[0].target.each(outputs.flatten(0, 1), batch.y.flatten(0, 1)).view(outputs.shape[:2])
        if batch.weights is not None:
            values = values * batch.weights
        if batch.is_even:
            return values.mean(1)
        sizes = torch.tensor(batch.sizes)[:, None]
        return ((torch.arange(values.shape[1]) < sizes) * values / sizes).sum(1)

    # ---- how good they are -------------------------------------------------------------------------------------------

    def _held_out(self) -> list[Row] | None:
        """The metrics of rows held out, for each member."""
        parts = [member.validation for member in self.members if member.validation is not None]
        if not parts:
            return None
        with ExitStack() as stack:
            for member in self.members:
                stack.enter_context(member.state.averaged())
            if callable(self.training.loss) or self.training.metrics or len({len(y) for _, y in parts}) > 1:
                return [self._held_out_of(member) for member in self.members]
            x, y = (torch.stack(each) for each in zip(*parts, strict=True))
            first = self.members[0].model
            with modes(first), torch.no_grad():
                first.eval()
                outputs = torch.cat([self.stack(part) for part in x.split(1024, 1)], 1)
            losses = self.members[0].held_target.each(outputs.flatten(0, 1), y.flatten(0, 1)).view(y.shape[:2])
            return [
                {"loss": loss, **row} for loss, row in zip(losses.mean(1).tolist(), summaries(outputs, y), strict=True)
            ]

    @staticmethod
    def _held_out_of(member: Member) -> Row:
        assert member.validation is not None
        with member.drawing():
            metrics = member.state.training.metrics
            return measure(member.model, *member.validation, member.held_target, metrics=metrics)[1]


def _together(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors (B, ...) as one (K, B, ...), shorter ones with their last row again."""
    most = max(map(len, tensors))
    return torch.stack(
        [t if len(t) == most else torch.cat([t, t[-1:].expand(most - len(t), *t.shape[1:])]) for t in tensors]
    )
