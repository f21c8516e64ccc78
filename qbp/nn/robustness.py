"""Means against noise, beside training under it: normalised, quantised and extrapolated outputs, noise that changes.

Normalisation and quantisation are those of QuantumNAT (arXiv 2110.11331); zero-noise extrapolation is that of arXiv
1612.02058, with the noise amplified exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qbp.errors import ArgumentError, check_count
from qbp.executors import backend as make_backend
from qbp.nn.copying import copied
from qbp.nn.layer import QuantumLayer
from qbp.nn.noise import executor_with_noise

__all__ = ["Normalized", "Quantized", "extrapolated", "fluctuating"]


class Normalized(nn.BatchNorm1d):
    """Each output of a quantum layer with mean 0 and variance 1 in its batch, in training as in evaluation (arXiv
    2110.11331, section 3.1): what noise scales and shifts, evenly for all rows, is undone.

    Args:
        num_features: M, columns of the input (B, M); batches must have several rows.
        eps: added to the variance.

    Example:
        >>> import torch
        >>> Normalized(1)(torch.tensor([[0.1], [0.3]])).round(decimals=2).tolist()
        [[-1.0], [1.0]]
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        check_count("num_features", num_features)
        super().__init__(num_features, eps=eps, affine=False, track_running_stats=False)


class Quantized(nn.Module):
    """Outputs rounded to one of a few levels between `low` and `high` (arXiv 2110.11331, section 3.3): small errors are
    rounded away. Gradients pass where outputs are inside of the range, as if nothing were rounded.

    Args:
        levels: how many, two at least.
        low, high: the first and the last level.

    Attributes:
        distance: of the last outputs from their levels, the mean square: a term of the loss that draws them there.

    Example:
        >>> import torch
        >>> Quantized(levels=5)(torch.tensor([0.4, 0.6, 9.0])).tolist()
        [0.0, 1.0, 2.0]
    """

    def __init__(self, levels: int = 5, low: float = -2.0, high: float = 2.0) -> None:
        super().__init__()
        check_count("levels", levels, least=2)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ArgumentError(f"Arguments `low` and `high` must be finite and in that order, but are {low}, {high}")
        self.levels, self.low, self.high = levels, float(low), float(high)
        self.distance: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the levels, of the shape of `x`."""
        step = (self.high - self.low) / (self.levels - 1)
        inside = x.clamp(self.low, self.high)
        level = self.low + ((inside - self.low) / step).round() * step
        self.distance = (inside - level.detach()).square().mean()
        return inside + (level - inside).detach()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"distance": None}  # a copy has no outputs yet, and torch copies no part of a graph

    def extra_repr(self) -> str:
        return f"levels={self.levels}, low={self.low:g}, high={self.high:g}"


def extrapolated(layer: QuantumLayer, factors: Sequence[int] = (1, 2, 3)) -> QuantumLayer:
    """A copy of a layer, with the same weights, whose outputs are extrapolated to no noise, and so are its gradients.

    Every error is applied `k` times for each factor k, and the polynomial through the outputs is evaluated at 0
    (Richardson). Readout errors are not amplified, and stay.

    Args:
        layer: a layer with `noise`, without shots.
        factors: two or more different whole numbers from 1 on.

    Raises:
        ArgumentError: the layer has no noise that is known exactly, or the factors are none.

    Example:
        >>> import qbp
        >>> noise = qbp.NoiseModel.of({"CNOT": {"DepolarizingChannel": 0.01}})
        >>> layer = QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, noise=noise)
        >>> extrapolated(layer).backend
        'noise model, extrapolated'
    """
    from qbp.executors.noisy import Extrapolated

    if len(factors) < 2 or len(set(factors)) < len(factors):
        raise ArgumentError(f"Argument `factors` must be two or more different numbers, but is {factors!r}")
    for factor in factors:
        check_count("factors", factor)
    executor: Any = layer.executor
    engine: Any = getattr(executor, "engine", None) if hasattr(executor, "transpiles") else executor
    if not hasattr(engine, "amplified") or getattr(executor, "shots", None) is not None:
        raise ArgumentError(f"Argument `layer` must have `noise` and no shots, but runs on {layer.backend!r}")
    other = copied(layer, {id(executor): executor})
    other.set_backend(Extrapolated(engine, tuple(factors), f"{layer.backend}, extrapolated"))
    return other


@contextmanager
def fluctuating(model: nn.Module, noises: Sequence[Any]) -> Iterator[nn.Module]:
    """While it lasts, every call of a quantum layer in training has one of several noises, drawn from torch's global
    random numbers: the days of a device, or calibrations that may come. In evaluation layers run as they did.

    Args:
        model: holds one or more `QuantumLayer` whose circuits are known.
        noises: each as `noise` of a `QuantumLayer`; None for no noise.

    Raises:
        ArgumentError: there is no noise, or no quantum layer.

    Example:
        >>> import qbp
        >>> days = [qbp.NoiseModel.of({"CNOT": {"DepolarizingChannel": p}}) for p in (0.01, 0.02, 0.05)]
        >>> train, _ = qbp.data.load("xor")
        >>> with fluctuating(qbp.hybrid(2, 2, n_qubits=2, seed=0), days) as model:
        ...     history = qbp.fit(model, train, epochs=1, seed=0)
    """
    layers = [module for module in model.modules() if isinstance(module, QuantumLayer)]
    if not layers or any(layer.executor is None for layer in layers):
        raise ArgumentError("Argument `model` must hold quantum layers whose circuits are known")
    if not noises:
        raise ArgumentError("Argument `noises` must hold one noise or more, but is empty")
    own = [layer.executor for layer in layers]
    drawn = [
        [make_backend("auto") if noise is None else executor_with_noise(noise, "auto", None, None) for noise in noises]
        for _ in layers
    ]

    def draw(executors: list[Any], before: Any) -> Any:
        def hook(layer: QuantumLayer, inputs: Any) -> None:
            layer.set_backend(executors[int(torch.randint(len(executors), ()))] if layer.training else before)

        return hook

    parts = zip(layers, drawn, own, strict=True)
    handles = [layer.register_forward_pre_hook(draw(executors, before)) for layer, executors, before in parts]
    try:
        yield model
    finally:
        for handle, layer, before in zip(handles, layers, own, strict=True):
            handle.remove()
            assert before is not None
            layer.set_backend(before)
