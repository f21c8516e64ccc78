"""The modules that a model file may hold by name, and what their arguments may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

from torch import nn

from qbp.nn.drop_in import TorchLayer
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import BoundedAngle
from qbp.nn.robustness import Normalized, Quantized
from qbp.nn.traced import Container

__all__ = ["ARGUMENTS", "HOLDERS", "MODULES", "MOST_CALLS", "is_layer"]

_LAYERS = {QuantumLayer.__module__, TorchLayer.__module__}

MOST_CALLS = 10_000
"""Modules that a row passes, each as often as it is called."""

_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")
_CONV = (
    *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias"),
    "padding_mode",
)
_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_RECURRENT = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
_PLAIN = (
    *(nn.Tanh, nn.ReLU, nn.Sigmoid, nn.SiLU, nn.Identity, nn.ReLU6, nn.SELU, nn.Mish, nn.Softsign, nn.LogSigmoid),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Tanhshrink),
)

# Modules that a file may hold, by name, with the arguments that make another one like it.
MODULES: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "Linear": (nn.Linear, ("in_features", "out_features", "bias")),
    "Bilinear": (nn.Bilinear, ("in1_features", "in2_features", "out_features", "bias")),
    "Flatten": (nn.Flatten, ("start_dim", "end_dim")),
    "Unflatten": (nn.Unflatten, ("dim", "unflattened_size")),
    "Dropout": (nn.Dropout, ("p",)),
    "Dropout2d": (nn.Dropout2d, ("p",)),
    "LeakyReLU": (nn.LeakyReLU, ("negative_slope",)),
    "ELU": (nn.ELU, ("alpha",)),
    "CELU": (nn.CELU, ("alpha",)),
    "GELU": (nn.GELU, ("approximate",)),
    "PReLU": (nn.PReLU, ("num_parameters",)),
    "Softplus": (nn.Softplus, ("beta", "threshold")),
    "Hardtanh": (nn.Hardtanh, ("min_val", "max_val")),
    "Softmax": (nn.Softmax, ("dim",)),
    "LogSoftmax": (nn.LogSoftmax, ("dim",)),
    "BatchNorm1d": (nn.BatchNorm1d, _NORM),
    "BatchNorm2d": (nn.BatchNorm2d, _NORM),
    "LayerNorm": (nn.LayerNorm, ("normalized_shape", "eps", "elementwise_affine", "bias")),
    "GroupNorm": (nn.GroupNorm, ("num_groups", "num_channels", "eps", "affine")),
    "Conv1d": (nn.Conv1d, _CONV),
    "Conv2d": (nn.Conv2d, _CONV),
    "MaxPool1d": (nn.MaxPool1d, _POOL),
    "MaxPool2d": (nn.MaxPool2d, _POOL),
    "AvgPool1d": (nn.AvgPool1d, _POOL[:3]),
    "AvgPool2d": (nn.AvgPool2d, _POOL[:3]),
    "AdaptiveAvgPool1d": (nn.AdaptiveAvgPool1d, ("output_size",)),
    "AdaptiveAvgPool2d": (nn.AdaptiveAvgPool2d, ("output_size",)),
    "LSTM": (nn.LSTM, _RECURRENT),
    "GRU": (nn.GRU, _RECURRENT),
    "MultiheadAttention": (nn.MultiheadAttention, ("embed_dim", "num_heads", "dropout", "batch_first")),
    "BoundedAngle": (BoundedAngle, ("scale",)),
    "Normalized": (Normalized, ("num_features", "eps")),
    "Quantized": (Quantized, ("levels", "low", "high")),
    **{kind.__name__: (kind, ()) for kind in _PLAIN},
}

HOLDERS: dict[str, type[nn.Module]] = {
    "Sequential": nn.Sequential,
    "ModuleList": nn.ModuleList,
    "ModuleDict": nn.ModuleDict,
    "Container": Container,
}
"""Modules that hold others; all but the first cannot be called."""


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _is_axis(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -64 <= value < 64


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _is_shape(value: Any) -> bool:
    """One size, or a few of them."""
    sizes = value if isinstance(value, tuple) else (value,)
    return len(sizes) <= 8 and all(s is None or s == 0 or _is_size(s) for s in sizes)


_FLAGS = "bias affine track_running_stats elementwise_affine ceil_mode batch_first bidirectional"
_SIZES = """
in_features in1_features in2_features out_features num_features num_parameters num_groups num_channels in_channels
out_channels groups input_size hidden_size embed_dim num_heads levels
"""

# What the arguments of modules may be, by their names.
ARGUMENTS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(_SIZES.split(), _is_size),
    **dict.fromkeys(_FLAGS.split(), lambda value: isinstance(value, bool)),
    **dict.fromkeys(("start_dim", "end_dim"), _is_axis),
    **dict.fromkeys(("negative_slope", "alpha", "eps", "scale", "p", "dropout"), _is_number),
    **dict.fromkeys(("beta", "threshold", "min_val", "max_val", "low", "high"), _is_number),
    **dict.fromkeys(("kernel_size", "stride", "dilation", "output_size", "normalized_shape"), _is_shape),
    "unflattened_size": _is_shape,
    "num_layers": lambda value: _is_size(value) and value <= 100,
    "padding": lambda value: value in ("same", "valid") or _is_shape(value),
    "padding_mode": lambda value: value in ("zeros", "reflect", "replicate", "circular"),
    "dim": lambda value: value is None or _is_axis(value),
    "momentum": lambda value: value is None or _is_number(value),
    "approximate": lambda value: value in ("none", "tanh"),
}


def is_layer(module: nn.Module) -> TypeGuard[QuantumLayer]:
    """Whether it is a quantum layer that a file can hold, of no subclass that somebody wrote."""
    is_ours = isinstance(module, QuantumLayer) and type(module).__module__ in _LAYERS
    return is_ours and getattr(module, "_output_shape", None) is None
