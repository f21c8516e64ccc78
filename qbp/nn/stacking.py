"""Copies of one model as one function: each with weights of its own, all of them in one call.

Small models cost what their operations cost to start, not what these compute. So K copies take little longer than one
where every operation is done once for all of them: dense layers by `torch.baddbmm`, circuits as one batch whose rows
differ in their weights, all else row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qbp.executors import capabilities_of
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import BoundedAngle

__all__ = ["WIDEST", "Stack", "Unstackable"]


WIDEST = 10
"""Qubits up to which many circuits at once are cheaper than one after the other."""


class Unstackable(Exception):
    """Why models cannot be one function."""


class Stack:
    """K models of one structure as a function (K, B, ...) -> (K, B, ...), whose k-th part is that of model k.

    The weights that train become rows of a matrix (of one for each group), and so do their gradients: those of the
    models are views of it, until `release`. Buffers likewise: whatever looks at a model sees it as it is.

    Args:
        models: copies of one model, on the CPU, which differ in their values only.
        parameters: of each model groups of those that train, one for each matrix, in the order of its columns.
        draws: what each model draws the random numbers of dropout from.

    Attributes:
        weights, gradients: (K, P) of each group.
        mixes_rows: whether rows of one model see each other, as in batch normalisation.

    Raises:
        Unstackable: a part of the models is not known to do with many what it does with one.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        parameters: Sequence[Sequence[Sequence[nn.Parameter]]],
        draws: Sequence[torch.Generator],
    ) -> None:
        self.models, self.parameters, self.draws = models, parameters, draws
        self.mixes_rows = False
        self._leaves: dict[int, Tensor] = {}
        self._buffers: list[tuple[nn.Module, str]] = []
        _check_tensors(models)
        groups = [[list(group) for group in own] for own in parameters]
        self.weights = [torch.stack([_flat(group) for group in each]) for each in zip(*groups, strict=True)]
        self.gradients = [torch.zeros_like(weights) for weights in self.weights]
        self._trained: list[list[Tensor]] = []
        views: list[tuple[nn.Parameter, Tensor]] = []
        for weights, of_models in zip(self.weights, zip(*groups, strict=True), strict=True):
            parts = weights.split([p.numel() for p in of_models[0]], 1)
            self._trained.append([])
            for each, part in zip(zip(*of_models, strict=True), parts, strict=True):
                leaf = part.unflatten(1, each[0].shape) if each[0].ndim else part[:, 0]
                views += zip(each, leaf, strict=True)
                self._leaves[id(each[0])] = leaf.requires_grad_(True)
                self._trained[-1].append(leaf)
        self._function = self.of(models)
        for parameter, row in views:  # only now that nothing can go wrong
            parameter.data = row

    def __call__(self, x: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
        """Return the outputs (K, B, M) of inputs (K, B, ...), in the mode (training or not) of the first model.

        Args:
            x: the inputs.
            sizes: how many rows of each model are real, where not all are.
        """
        self.sizes = sizes
        return self._function(x)

    def backward(self, loss: Tensor, again: bool = False) -> None:
        """Take the gradients of a sum of the models' losses; `again` adds them to those that are there."""
        leaves = [leaf for group in self._trained for leaf in group]
        gradients = iter(torch.autograd.grad(loss, leaves, materialize_grads=True))
        for total, group in zip(self.gradients, self._trained, strict=True):
            parts = [next(gradients).reshape(len(total), -1) for _ in group]
            if again:
                total += torch.cat(parts, 1)
            else:
                torch.cat(parts, 1, out=total)

    def clip(self, norm: float) -> None:
        """Make the gradient of each model no longer than this, as `torch.nn.utils.clip_grad_norm_`."""
        squares = torch.stack([gradients.square().sum(1) for gradients in self.gradients]).sum(0)
        factors = (norm / (squares.sqrt() + 1e-6)).clamp(max=1.0)[:, None]
        for gradients in self.gradients:
            gradients *= factors

    def of(self, modules: Sequence[nn.Module]) -> Callable[[Tensor], Tensor]:
        """Return what so many copies of a module do at once, to (K, B, ...)."""
        first = modules[0]
        for module in modules:
            if "forward" in vars(module) or any(getattr(module, hooks) for hooks in _HOOKS):
                raise Unstackable(f"a {type(first).__name__} has hooks, or a `forward` of its own")
        for kind, make in _KINDS.items():
            draws_only = kind is nn.Linear and type(first).forward is nn.Linear.forward  # other initial weights
            if type(first) is kind or ((kind is QuantumLayer or draws_only) and isinstance(first, kind)):
                return make(self, modules)
        if callable(stacked := getattr(first, "stacked", None)):  # it says so itself
            function: Callable[[Tensor], Tensor] = stacked(self, modules)
            return function
        if getattr(first, "vmaps", False):
            return _vmapped(self, modules)
        raise Unstackable(f"it is not known what a {type(first).__name__} does with many models at once")

    def leaf(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the same tensor of every model as one (K, ...)."""
        leaf = self._leaves.get(id(tensors[0]))
        if leaf is None:  # one that does not train
            leaf = self._leaves[id(tensors[0])] = torch.stack([t.detach() for t in tensors])
        return leaf

    def buffer(self, modules: Sequence[nn.Module], name: str) -> Tensor:
        """Return a buffer that training changes, as one (K, ...), of which the models' are views from now on."""
        rows = torch.stack([getattr(module, name) for module in modules])
        for module, row in zip(modules, rows, strict=True):
            setattr(module, name, row)
            self._buffers.append((module, name))
        return rows

    def release(self) -> None:
        """Give each model tensors of its own again."""
        for own in self.parameters:
            for parameter in (p for group in own for p in group):
                parameter.data = parameter.data.clone()
        for module, name in self._buffers:
            setattr(module, name, getattr(module, name).clone())


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _check_tensors(models: Sequence[nn.Module]) -> None:
    """Refuse tensors of several kinds: a row holds them side by side."""
    every = [p for model in models for p in model.parameters()]
    like = every[0]
    if any(p.device.type != "cpu" for p in every):
        raise Unstackable("they are not on the CPU")
    if any(p.dtype is not like.dtype or p.dtype not in (torch.float32, torch.float64) for p in every):
        raise Unstackable("their weights are not all of one precision")
    if any(p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None) for p in every):
        raise Unstackable("their weights have hooks")


def _flat(parameters: Sequence[nn.Parameter]) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in parameters])


# ---- what is done to (K, B, ...) -------------------------------------------------------------------------------------

Function = Callable[[Tensor], Tensor]


def _rows(stack: Stack, modules: Sequence[Any]) -> Function:
    """A module that does the same to every row, whatever the other rows are."""
    module = modules[0]

    def function(x: Tensor) -> Tensor:
        result: Tensor = module(x.flatten(0, 1))
        return result.unflatten(0, x.shape[:2])

    return function


def _each(stack: Stack, modules: Sequence[Any]) -> Function:
    """A module that does the same to every number."""
    module = modules[0]
    return module.forward


def _softmax(stack: Stack, modules: Sequence[Any]) -> Function:
    if modules[0].dim not in (1, -1):
        raise Unstackable(f"a {type(modules[0]).__name__} over dim={modules[0].dim} may mix rows")
    return _rows(stack, modules)


def _flatten(stack: Stack, modules: Sequence[Any]) -> Function:
    first = modules[0]
    if getattr(first, "start_dim", getattr(first, "dim", 1)) not in (1, 2, 3):
        raise Unstackable(f"a {type(first).__name__} of its first dimensions may mix rows")
    return _rows(stack, modules)


def _chain(stack: Stack, modules: Sequence[Any]) -> Function:
    parts = [stack.of(each) for each in zip(*modules, strict=True)]

    def function(x: Tensor) -> Tensor:
        for part in parts:
            x = part(x)
        return x

    return function


def _linear(stack: Stack, modules: Sequence[Any]) -> Function:
    weight = stack.leaf([m.weight for m in modules])  # (K, O, I)
    bias = None if modules[0].bias is None else stack.leaf([m.bias for m in modules])

    def function(x: Tensor) -> Tensor:
        rows = x if x.ndim == 3 else x.flatten(1, -2)
        if bias is None:
            y = torch.bmm(rows, weight.mT)
        else:
            y = torch.baddbmm(bias[:, None], rows, weight.mT)
        return y if x.ndim == 3 else y.unflatten(1, x.shape[1:-1])

    return function


def _convolution(stack: Stack, modules: Sequence[Any]) -> Function:
    """One convolution with as many groups more as there are models."""
    first = modules[0]
    convolve, n_models = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(first.kernel_size)], len(modules)
    if first.padding_mode != "zeros":
        raise Unstackable(f"a {type(first).__name__} with padding_mode={first.padding_mode!r} is done one by one")
    weight = stack.leaf([m.weight for m in modules])
    bias = None if first.bias is None else stack.leaf([m.bias for m in modules])
    options = first.stride, first.padding, first.dilation, first.groups * n_models

    def function(x: Tensor) -> Tensor:
        y = convolve(_as_channels(x), weight.flatten(0, 1), None if bias is None else bias.flatten(), *options)
        return _as_models(y, n_models)

    return function


def _as_channels(x: Tensor) -> Tensor:
    """(K, B, C, ...) as (B, K * C, ...)."""
    return x.transpose(0, 1).flatten(1, 2)


def _as_models(x: Tensor, n_models: int) -> Tensor:
    """(B, K * C, ...) as (K, B, C, ...)."""
    return x.unflatten(1, (n_models, -1)).transpose(0, 1)


def _batch_norm(stack: Stack, modules: Sequence[Any]) -> Function:
    first = modules[0]
    if first.track_running_stats and first.momentum is None:
        raise Unstackable(f"a {type(first).__name__} with momentum=None counts its steps")
    stack.mixes_rows = True
    weight = stack.leaf([m.weight for m in modules]) if first.affine else None
    bias = stack.leaf([m.bias for m in modules]) if first.affine else None
    keeps = first.running_mean is not None
    mean, variance = ((stack.buffer(modules, name) if keeps else None) for name in ("running_mean", "running_var"))
    steps = stack.buffer(modules, "num_batches_tracked") if keeps else None

    def function(x: Tensor) -> Tensor:
        if first.training and steps is not None:
            steps.add_(1)
        kept = [None if t is None else t.flatten() for t in (mean, variance)]  # views, which are written to
        flat = [None if t is None else t.flatten() for t in (weight, bias)]
        here, momentum = first.training or not keeps, first.momentum or 0.0
        y = F.batch_norm(_as_channels(x), kept[0], kept[1], flat[0], flat[1], here, momentum, first.eps)
        return _as_models(y, len(modules))

    return function


def _layer_norm(stack: Stack, modules: Sequence[Any]) -> Function:
    first = modules[0]
    shape = first.normalized_shape
    weight = None if first.weight is None else stack.leaf([m.weight for m in modules])
    bias = None if first.bias is None else stack.leaf([m.bias for m in modules])

    def function(x: Tensor) -> Tensor:
        y = F.layer_norm(x, shape, None, None, first.eps)
        ones = (1,) * (x.ndim - 1 - len(shape))
        if weight is not None:
            y = y * weight.reshape(len(weight), *ones, *shape)
        return y if bias is None else y + bias.reshape(len(bias), *ones, *shape)

    return function


def _dropout(stack: Stack, modules: Sequence[Any]) -> Function:
    """Every model drops what it would alone: it has its own random numbers, in the order of its own rows."""
    first = modules[0]
    keep = 1 - first.p

    def function(x: Tensor) -> Tensor:
        if not first.training or not first.p:
            return x
        noise = torch.zeros_like(x)
        for k, draws in enumerate(stack.draws if keep else ()):
            size = x.shape[1] if stack.sizes is None else stack.sizes[k]
            noise[k, :size] = torch.empty_like(x[k, :size]).bernoulli_(keep, generator=draws)
        return x * noise.div_(keep or 1)

    return function


def _quantum(stack: Stack, modules: Sequence[Any]) -> Function:
    first = modules[0]
    if type(first).forward is not QuantumLayer.forward or first.executor is None:
        raise Unstackable(f"a {type(first).__name__} runs by itself")
    able = capabilities_of(first.executor)
    if not able.exact or able.shots or able.one_job or first.diff_method not in ("adjoint", "backprop"):
        raise Unstackable(f"a circuit on {first.backend!r} with diff_method={first.diff_method!r} is run one by one")
    if first.n_outputs is not None and first.traced.n_qubits > WIDEST:
        raise Unstackable(f"a circuit of more than {WIDEST} qubits is no cheaper with others")
    names = list(first.qnode_weights)
    every = [stack.leaf([m.qnode_weights[name] for m in modules]) for name in names]

    def function(x: Tensor) -> Tensor:
        flat = [leaf.flatten(1) if leaf.ndim > 1 else leaf[:, None] for leaf in every]
        weights = flat[0] if len(flat) == 1 else torch.cat(flat, 1) if flat else x.new_empty(len(x), 0)
        lead = x.shape[1:-1]
        outputs = first.forward_each(x if len(lead) == 1 else x.flatten(1, -2), weights)
        if first.traced.is_scalar:
            return outputs.reshape(len(x), *lead)
        return outputs if len(lead) == 1 else outputs.unflatten(1, lead)

    return function


def _vmapped(stack: Stack, modules: Sequence[Any]) -> Function:
    """A module that says of itself that it draws nothing and changes nothing."""
    first = modules[0]
    names = [name for name, _ in first.named_parameters()] + [name for name, _ in first.named_buffers()]
    tensors = [dict(m.named_parameters()) | dict(m.named_buffers()) for m in modules]
    leaves = {name: stack.leaf([each[name] for each in tensors]) for name in names}
    run = torch.vmap(lambda own, x: torch.func.functional_call(first, own, (x,)))
    return lambda x: run(leaves, x)


_KINDS: dict[type[nn.Module], Callable[[Stack, Sequence[Any]], Function]] = {
    nn.Sequential: _chain,
    nn.Linear: _linear,
    QuantumLayer: _quantum,
    nn.Dropout: _dropout,
    nn.Flatten: _flatten,
    nn.Unflatten: _flatten,
    nn.LayerNorm: _layer_norm,
    nn.PReLU: _vmapped,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _batch_norm),
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax), _softmax),
    **dict.fromkeys(
        (
            *(BoundedAngle, nn.Identity, nn.Tanh, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Sigmoid, nn.LogSigmoid, nn.GELU),
            *(nn.SiLU, nn.ELU, nn.CELU, nn.SELU, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid),
            *(nn.Mish, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.Threshold),
        ),
        _each,
    ),
    **dict.fromkeys(
        (
            *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
            *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.PixelShuffle, nn.ZeroPad2d),
        ),
        _rows,
    ),
}
