"""A QNode that runs itself, for what a program cannot express or qbp does not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from qbp.circuit.lock import LOCK
from qbp.circuit.tracing.pennylane import takes_batch
from qbp.errors import CircuitError
from qbp.nn.qnode import EXACT_SIMULATORS, FunctionSource, qnode_behind, shot_copies, without_shots

__all__ = ["OwnQNode"]

BACKPROP = ("DefaultQubit", "DefaultMixed")
"""PennyLane's devices that torch differentiates: PennyLane has no part in the backward pass."""


class OwnQNode:
    """Runs a QNode: a batch at once where that is seen to be right, else sample after sample, which always is.

    One thread at a time, since PennyLane notes the gates of all threads in one place. Copies of a layer share it.

    Args:
        source: the QNode, or a function that calls one.
        input_arg: the name of its data argument.
    """

    def __init__(self, source: FunctionSource, input_arg: str):
        self.source, self.input_arg = source, input_arg
        self._together: dict[int, bool] = {}  # by the number of inputs: whether it takes whole batches
        self._batched: dict[int, bool] = {}  # whether its function is written for batches
        self._rows_only_differentiate: set[int] = set()
        qnode = qnode_behind(source.function)
        self.name, self.diff_method = f"qnode on {qnode.device.name}", str(qnode.diff_method)

    def __deepcopy__(self, memo: dict[int, Any]) -> OwnQNode:
        return self

    @property
    def qnode(self) -> Any:
        """What is called; PennyLane's QNode, or what wraps one."""
        if self.source.function is None:
            raise CircuitError("The layer's QNode runs itself, and could not be pickled with the layer")
        return self.source.function

    @property
    def copies(self) -> int:
        """How many results a list of shots gives, 0 without such a list."""
        return shot_copies(qnode_behind(self.qnode))

    def __call__(self, inputs: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Outputs (*, M) of inputs (*, I), or (*) of one bare expectation value; with a list of shots one such tensor
        for each, stacked."""
        lead, n_inputs = inputs.shape[:-1], inputs.shape[-1]
        copies = self.copies
        with LOCK:
            if n_inputs not in self._together:
                self._together[n_inputs] = self._runs_batches(n_inputs, weights)
            flat = inputs.reshape(lead.numel(), n_inputs)
            run = self._run_batch if self._together[n_inputs] and len(flat) else self._run_rows
            if inputs.requires_grad and n_inputs in self._rows_only_differentiate:
                run = self._run_rows
            if not torch.is_grad_enabled():  # PennyLane would prepare the gradients of whatever might want one
                stacked = run(flat.detach(), *_named({name: weight.detach() for name, weight in weights.items()}))
            elif self.is_torch():
                stacked = run(flat, *_named(weights))
            else:
                stacked = _Locked.apply(run, self._run_rows, self._note, _named(weights)[0], flat, *weights.values())
        shaped = stacked.to(inputs.real.dtype).reshape(len(stacked), *lead, *stacked.shape[2:])
        return shaped if copies else shaped[0]

    def _note(self, n_inputs: int) -> None:
        """That PennyLane has no gradient of the inputs of a batch."""
        self._rows_only_differentiate.add(n_inputs)

    def is_torch(self) -> bool:
        """Whether the QNode is torch from end to end."""
        qnode = qnode_behind(self.qnode)
        kinds = {kind.__name__ for kind in type(qnode.device).__mro__}
        return qnode.diff_method in ("best", "backprop") and bool(kinds & {*BACKPROP}) and not qnode.shots.total_shots

    def _runs_batches(self, n_inputs: int, weights: Mapping[str, Tensor]) -> bool:
        """Whether the QNode gives for a batch what it gives for each row, tried with numbers on simulators."""
        qnode = qnode_behind(self.qnode)
        kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(qnode.device).__mro__}
        if not kinds & EXACT_SIMULATORS or self.copies:
            return False
        n_rows = 1 if n_inputs != 2 else 2  # twice that is another number than that of inputs
        rows = torch.randn(n_rows, n_inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        rows = torch.nn.functional.normalize(torch.cat([rows, -rows]), dim=1)  # for amplitudes; both signs for branches
        exact = OwnQNode(FunctionSource(self.qnode, None, {}), self.input_arg)
        if qnode.shots.total_shots:
            if self.qnode is not qnode:
                return False
            exact.source.function = without_shots(qnode)
        try:
            numbers = _named({name: weight.detach().to(rows) for name, weight in weights.items()})
            alone = exact._run_rows(rows, *numbers)
        except RuntimeError:  # of a function that computes with tensors of its own in another dtype
            rows = rows.to(next(iter(weights.values()), rows.float()).dtype)
            numbers = _named({name: weight.detach() for name, weight in weights.items()})
            alone = exact._run_rows(rows, *numbers)
        try:
            together = exact._run_batch(rows, *numbers)
        except Exception:  # whatever the user's code raises, when it is not meant for batches
            return False
        return together.shape == alone.shape and torch.allclose(together.double(), alone.double(), atol=1e-5)

    def _run_batch(self, rows: Tensor, names: tuple[str, ...], *weights: Tensor) -> Tensor:
        """Outputs (1, B, M), or (1, B)."""
        result = self.qnode(**{self.input_arg: rows}, **dict(zip(names, weights, strict=True)))
        together = result if isinstance(result, Tensor) else torch.hstack([r.reshape(len(rows), -1) for r in result])
        return together[None]

    def _run_rows(self, rows: Tensor, names: tuple[str, ...], *weights: Tensor) -> Tensor:
        """Outputs (copies, B, M), or (copies, B): one copy for each number of shots."""
        n_inputs, named = rows.shape[1], dict(zip(names, weights, strict=True))
        if n_inputs not in self._batched:
            qnode = qnode_behind(self.qnode)
            shapes = {name: tuple(weight.shape) for name, weight in named.items()}
            plain = self.qnode is qnode
            self._batched[n_inputs] = plain and takes_batch(qnode.func, n_inputs, shapes, self.input_arg)
        batched, copies = self._batched[n_inputs], self.copies
        results = []
        for x in rows if len(rows) else rows.new_zeros(1, n_inputs):  # an empty batch has the shape of one sample
            result = self.qnode(**{self.input_arg: x[None] if batched else x}, **named)
            results.append(torch.stack([_flatten(part, batched) for part in (result if copies else [result])]))
        return torch.stack(results, dim=1)[:, : len(rows)]


def _named(weights: Mapping[str, Tensor]) -> tuple[Any, ...]:
    """The names of the weights, and the weights."""
    return (tuple(weights), *weights.values())


def _flatten(result: Any, batched: bool) -> Tensor:
    """What a QNode gives for one sample, or for a batch of one, as (M,); one bare result keeps its own axes."""
    if isinstance(result, Tensor):
        return result[0] if batched and result.ndim and len(result) == 1 else result
    return torch.hstack([r.reshape(-1) for r in result])


class _Locked(torch.autograd.Function):
    """A QNode whose backward pass runs PennyLane, too: one thread at a time.

    Where PennyLane cannot differentiate a batch, the gradients are those of the rows. Gradients that will be
    differentiated again are those of the QNode run once more.
    """

    @staticmethod
    def forward(
        ctx: Any, run: Callable[..., Tensor], rows: Callable[..., Tensor], note: Any, names: Any, *tensors: Tensor
    ) -> Tensor:
        with torch.enable_grad():
            needs = ctx.needs_input_grad[4:]
            ctx.leaves = [t.detach().requires_grad_(need) for t, need in zip(tensors, needs, strict=True)]
            ctx.outputs = run(ctx.leaves[0], names, *ctx.leaves[1:])
        ctx.run, ctx.rows, ctx.note, ctx.names = run, rows, note, names
        ctx.save_for_backward(*tensors)
        return ctx.outputs.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        again = torch.is_grad_enabled()
        with LOCK, torch.enable_grad():
            leaves = list(ctx.saved_tensors) if again else ctx.leaves
            outputs = ctx.run(leaves[0], ctx.names, *leaves[1:]) if again else ctx.outputs
            try:
                gradients = _gradients(outputs, leaves, grad, again)
            except NotImplementedError:
                ctx.note(leaves[0].shape[1])
                outputs = ctx.rows(leaves[0], ctx.names, *leaves[1:])
                gradients = _gradients(outputs, leaves, grad, again)
        return (None, None, None, None, *gradients)


def _gradients(outputs: Tensor, leaves: list[Tensor], grad: Tensor, again: bool) -> list[Tensor | None]:
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    if not outputs.requires_grad or not wanted:
        return [None] * len(leaves)
    options = {"retain_graph": True, "create_graph": again, "allow_unused": True}
    gradients = iter(torch.autograd.grad(outputs, wanted, grad, **options))
    return [next(gradients) if leaf.requires_grad else None for leaf in leaves]
