"""A module whose forward pass is data: steps from a closed table of torch's functions, and calls of its own modules.

So a model of anybody's class can be a file: what `torch.fx` traces of it is kept, and computed without the class.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from qbp.circuit.stored_graphs import NAMES
from qbp.errors import ConfigError

__all__ = ["ATTRIBUTES", "METHODS", "Container", "Ref", "Step", "TracedModule", "filled", "functions", "named_tensor"]

ATTRIBUTES = frozenset({"shape", "dtype", "device", "ndim", "T", "mT", "H", "mH", "real", "imag"})

_METHODS = """
argsort baddbmm bernoulli bfloat16 bool byte chunk contiguous count_nonzero cummax cummin diag dim double expand_as
fliplr flipud flatten float half inner int kron log_softmax logcumsumexp long matmul matrix_exp matrix_power median
movedim moveaxis multiply narrow ndimension nelement nanmean nansum negative numel pinverse relu repeat_interleave
reshape_as resolve_conj size softmax subtract sum_to_size swapaxes swapdims take_along_dim to trace type_as unflatten
view_as
"""
_OF_TORCH = """
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d avg_pool1d avg_pool2d bilinear
block_diag broadcast_to cartesian_prod cat celu column_stack complex concat concatenate conv1d conv2d conv3d
cosine_similarity dropout dstack einsum embedding feature_dropout hstack layer_norm group_norm max_pool1d max_pool2d
meshgrid ones_like outer pairwise_distance pixel_shuffle polar rand_like randn_like rms_norm row_stack selu stack
tensordot tril_indices vstack where zeros_like _weight_norm
"""
_OF_FUNCTIONAL = """
adaptive_avg_pool1d adaptive_avg_pool2d alpha_dropout avg_pool1d avg_pool2d celu conv1d conv2d cosine_similarity dropout
dropout1d dropout2d elu embedding feature_alpha_dropout gelu glu group_norm hardshrink hardsigmoid hardswish hardtanh
layer_norm leaky_relu linear log_softmax logsigmoid max_pool1d max_pool2d mish normalize one_hot pad pairwise_distance
prelu relu relu6 rms_norm scaled_dot_product_attention selu sigmoid silu softmax softmin softplus softshrink softsign
tanh tanhshrink threshold unfold
"""
_OPERATORS = """
abs add and_ eq floordiv ge getitem gt invert le lt matmul mod mul ne neg or_ pos pow sub truediv xor
"""

METHODS = frozenset(name for name in (NAMES + _METHODS).split() if callable(getattr(Tensor, name, None)))
"""Methods of tensors that a step may call: none changes a tensor in place or tells Python what is in it."""

_LARGEST = 2**63


@cache
def functions() -> Mapping[str, Callable[..., Any]]:
    """The functions that a step may call, by name, as in "functional.relu"; the table is closed.

    Example:
        >>> functions()["torch.tanh"] is torch.tanh
        True
    """
    names = sorted(METHODS | set(_OF_TORCH.split()))
    torchs = {f"torch.{name}": getattr(torch, name) for name in names if callable(getattr(torch, name, None))}
    nets = {f"functional.{name}": getattr(nn.functional, name) for name in _OF_FUNCTIONAL.split()}
    operators = {f"operator.{name}": getattr(operator, name) for name in _OPERATORS.split()}
    return MappingProxyType(torchs | nets | operators)


class Ref(NamedTuple):
    """The value that an earlier step gave."""

    step: int


class Step(NamedTuple):
    """One step of a forward pass.

    Attributes:
        op: "input", "tensor" (a parameter or a buffer), "attribute", "method", "function", "module" or "output".
        target: which one: a name of the tables above, or of the module's own parts.
        args, kwargs: what it gets: numbers, `Ref`s, and lists of them.
    """

    op: str
    target: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Container(nn.Module):
    """Modules and parameters that other modules use; it computes nothing itself."""


class TracedModule(nn.Module):
    """A module that computes what its steps say.

    Args:
        evaluating: the steps in evaluation.
        training: those in training.
    """

    def __init__(self, evaluating: Sequence[Step], training: Sequence[Step]) -> None:
        super().__init__()
        self.evaluating, self.in_training = tuple(evaluating), tuple(training)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arguments."""
        return tuple(step.target for step in self.evaluating if step.op == "input")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the steps give."""
        names = self.inputs
        given = dict(zip(names, args, strict=False)) | kwargs
        if len(args) > len(names) or given.keys() != set(names):
            raise TypeError(f"forward() takes the arguments {', '.join(names)}")
        values: list[Any] = []
        for step in self.in_training if self.training else self.evaluating:
            if step.op == "input":
                values.append(given[step.target])
            else:
                values.append(_result(self, step, filled(step.args, values), filled(step.kwargs, values)))
        return values[-1]

    def extra_repr(self) -> str:
        """Return how many steps it has."""
        return f"{len(self.evaluating)} steps"


def filled(value: Any, values: Sequence[Any]) -> Any:
    """A nested value with what the steps gave in the places of `Ref`s."""
    if isinstance(value, Ref):
        return values[value.step]
    if isinstance(value, Mapping):
        return {key: filled(item, values) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(filled(part, values) for part in (value.start, value.stop, value.step)))
    return type(value)(filled(item, values) for item in value) if isinstance(value, list | tuple) else value


def _result(module: nn.Module, step: Step, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    if step.op == "output":
        return args[0]
    if step.op == "tensor":
        return named_tensor(module, step.target)
    if step.op == "attribute" and step.target in ATTRIBUTES:
        return getattr(args[0], step.target)
    if step.op == "method" and step.target in METHODS:
        return getattr(args[0], step.target)(*args[1:], **kwargs)
    if step.op == "module":
        return _part(module, step.target)(*args, **kwargs)
    if step.op == "function" and step.target.startswith("operator."):
        return _operate(step.target, args)
    if step.op == "function":
        return functions()[step.target](*args, **kwargs)
    raise ConfigError(f"A step cannot be {step.op} {step.target[:80]!r}")


def _operate(name: str, args: tuple[Any, ...]) -> Any:
    """An operator, of tensors, or of numbers that stay small: sizes are numbers, too."""
    kinds = (Tensor, Proxy, int, float, complex)
    container = name == "operator.getitem" and isinstance(args[0], tuple | list | dict)
    if not container and not all(isinstance(arg, kinds) for arg in args[: 1 if name == "operator.getitem" else 2]):
        raise ConfigError(f"A step cannot use {name} on {', '.join(type(arg).__name__ for arg in args)}")
    if name == "operator.pow" and isinstance(args[0], int) and isinstance(args[1], int) and abs(args[1]) > 64:
        raise ConfigError("A step cannot raise an integer to a power above 64")
    result = functions()[name](*args)
    if isinstance(result, int) and abs(result) >= _LARGEST:
        raise ConfigError("An integer of a step must be below 2^63")
    return result


def _part(module: nn.Module, path: str) -> nn.Module:
    """A module within another one, by way of nothing but modules."""
    for name in path.split("."):
        child = module._modules.get(name)
        if child is None:
            raise ConfigError(f"A step cannot use {path[:80]!r}: there is no such module")
        module = child
    return module


def named_tensor(module: nn.Module, path: str) -> Tensor | None:
    """A parameter or a buffer within a module; one that is None is None."""
    prefix, _, name = path.rpartition(".")
    owner = _part(module, prefix) if prefix else module
    for tensors in (owner._parameters, owner._buffers):
        if name in tensors:
            return tensors[name]
    raise ConfigError(f"A step cannot use {path[:80]!r}: there is no such parameter")
