"""A trained circuit without any quantum code: cosines and sines of its inputs, products of them, and coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qbp.circuit.angles import AngleMap
from qbp.circuit.tracing import Circuit
from qbp.errors import ArgumentError, check_count

__all__ = ["ClassicalTwin", "classical_twin"]

MOST_FREQUENCIES = 100_000
"""Frequencies of an output's spectrum."""

_TINY = 1e-14

Series = dict[tuple[tuple[int, float], ...], complex]
"""Coefficients by frequency, a vector over the inputs as pairs (input, frequency)."""


class ClassicalTwin(nn.Module):
    """What a trained circuit computes, ``(*, I) -> (*, M)``, by plain torch; see `QuantumLayer.to_classical`.

    Each value is ``of_cos cos t_k v[first] + of_sin sin t_k v[second]`` of two earlier ones, where ``t = slopes x +
    offsets``: products of cosines and sines of the inputs. Outputs are coefficients times some of them. All of it lies
    in buffers, so that `state_dict`, `torch.export` and ONNX have everything.

    Args:
        state: the buffers, as `state_dict` gives them.

    Attributes:
        truncation: (M,) how far outputs may be off where words were left out, else zeros.

    Example:
        >>> import qbp
        >>> layer = qbp.QuantumLayer("basic_entangler", n_qubits=3, n_layers=1, seed=0)
        >>> twin, x = layer.to_classical(), torch.randn(5, 3)
        >>> torch.allclose(twin(x), layer(x), atol=1e-6)
        True
        >>> torch.equal(ClassicalTwin(twin.state_dict())(x), twin(x))
        True
    """

    slopes: Tensor
    offsets: Tensor
    first: Tensor
    second: Tensor
    of_cos: Tensor
    of_sin: Tensor
    angle: Tensor
    sizes: Tensor
    features: Tensor
    coefficients: Tensor
    truncation: Tensor
    scalar: Tensor

    def __init__(self, state: Mapping[str, Tensor]):
        super().__init__()
        for name in self.__class__.__annotations__:
            if name not in state:
                raise ArgumentError(f"Argument `state` must have {name!r}, as the state of a `ClassicalTwin` has")
            self.register_buffer(name, state[name].detach().clone())
        self._sizes: list[int] = self.sizes.tolist()  # how the graph is unrolled
        self._scalar = bool(self.scalar)

    @property
    def n_words(self) -> int:
        """Values that are computed of a row."""
        return len(self.first)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (*, M) of inputs (*, I); (*) where the circuit gives one bare expectation value."""
        turns = x.to(self.slopes.dtype) @ self.slopes.T + self.offsets
        one = torch.ones_like(turns[..., :1])
        cos, sin = torch.cat([one, turns.cos()], -1), torch.cat([one, turns.sin()], -1)
        values, begin = torch.cat([torch.zeros_like(one), one], -1), 0
        for size in self._sizes:
            own = slice(begin, begin + size)
            angle, begin = self.angle[own], begin + size
            new = self.of_cos[own] * cos[..., angle] * values[..., self.first[own]]
            new = new + self.of_sin[own] * sin[..., angle] * values[..., self.second[own]]
            values = torch.cat([values, new], -1)
        outputs = values[..., self.features] @ self.coefficients
        return outputs[..., 0] if self._scalar else outputs

    def spectrum(self, output: int = 0, most: int = MOST_FREQUENCIES) -> Series:
        """The Fourier series of an output: ``y(x) = sum_w c_w exp(i w x)`` (arXiv 2008.08605, eq. 1).

        Args:
            output: which one.
            most: frequencies that there may be.

        Returns:
            The coefficient of each frequency, zeros left out.

        Raises:
            ArgumentError: there is no such output, or there are more frequencies.

        Example:
            >>> import pennylane as qml, qbp
            >>> def circuit(inputs):
            ...     qml.RX(inputs[0], wires=0)
            ...     return qml.expval(qml.Z(0))
            >>> qbp.QuantumLayer(circuit, {}).to_classical().spectrum()  # cos x
            {((0, -1.0),): (0.5+0j), ((0, 1.0),): (0.5+0j)}
        """
        check_count("output", output, least=0, most=self.coefficients.shape[1] - 1)
        state = {name: value.tolist() for name, value in self.state_dict().items()}
        one: Series = {(): 1.0 + 0j}
        turns = zip(state["slopes"], state["offsets"], strict=True)
        waves = [(one, one), *(_wave({i: s for i, s in enumerate(row) if s}, offset) for row, offset in turns)]
        values: list[Series] = [{}, one]
        columns = (state[name] for name in ("first", "second", "of_cos", "of_sin", "angle"))
        for a, b, x, y, k in zip(*columns, strict=True):
            cos, sin = waves[k]
            values.append(_added([_times(cos, values[a], x), _times(sin, values[b], y)], most))
        features = zip(state["coefficients"], state["features"], strict=True)
        total = _added([_times(one, values[at], row[output]) for row, at in features], most)
        return dict(sorted(total.items()))


def _wave(slopes: Mapping[int, float], offset: float) -> tuple[Series, Series]:
    """cos and sin of ``slopes x + offset``."""
    turn = complex(np.exp(1j * offset))
    plus, minus = (tuple((i, sign * s) for i, s in slopes.items()) for sign in (1, -1))
    if not slopes:
        return {(): turn.real + 0j}, {(): turn.imag + 0j}
    return {plus: turn / 2, minus: turn.conjugate() / 2}, {plus: turn / 2j, minus: -turn.conjugate() / 2j}


def _times(one: Series, other: Series, factor: float) -> Series:
    result: Series = {}
    if factor:
        for w, a in one.items():
            for v, b in other.items():
                both = dict(w)
                for i, frequency in v:
                    both[i] = both.get(i, 0.0) + frequency
                key = tuple(sorted((i, frequency) for i, frequency in both.items() if abs(frequency) > _TINY))
                result[key] = result.get(key, 0) + factor * a * b
    return result


def _added(parts: list[Series], most: int) -> Series:
    total: Series = {}
    for part in parts:
        for key, value in part.items():
            total[key] = total.get(key, 0) + value
    total = {key: value for key, value in total.items() if abs(value) > _TINY}
    if len(total) > most:
        raise ArgumentError(f"Argument `most` must be at least {len(total):,} for so many frequencies, but is {most:,}")
    return total


# ---- from a circuit --------------------------------------------------------------------------------------------------


def classical_twin(circuit: Circuit, weights: Tensor, x: Tensor | None, cuts: Mapping[str, Any]) -> ClassicalTwin:
    """The twin of a circuit with these weights.

    Args:
        circuit: the circuit.
        weights: (P,).
        x: (B, I) rows on which the error of cuts is measured, or None.
        cuts: options of `qbp.executors.propagation.PauliPropagation`.

    Raises:
        ArgumentError: there are too many words, something is cut without rows, or angles are no affine functions of the
            inputs.
    """
    from qbp.executors.propagation import PauliPropagation

    executor, angle_map = PauliPropagation(**cuts), circuit.angle_map
    if executor.capabilities.truncation and x is None:
        raise ArgumentError("Argument `x` must be rows (B, I) where words are cut: on them the error is measured")
    if angle_map.batched_graph is not None:
        raise ArgumentError("A classical twin is had of angles that are affine in the inputs; some of these are not")
    dtype, weights = weights.dtype, weights.detach().double().cpu()
    rows = torch.zeros(1, angle_map.n_inputs) if x is None else x
    angles = angle_map(rows.detach().double().cpu(), weights)
    sums, error = executor.unrolled(circuit.program, angles)
    slopes, offsets = _turns(angle_map, weights, sums.angles, sums.scales)
    truncation = torch.zeros(circuit.program.n_outputs) if error is None else error.max(0).values
    numbers = {"slopes": slopes, "offsets": offsets, "truncation": truncation}
    numbers |= {name: torch.from_numpy(getattr(sums, name)) for name in ("of_cos", "of_sin", "coefficients")}
    whole = {name: torch.from_numpy(getattr(sums, name)) for name in ("first", "second", "angle", "sizes", "features")}
    state = {name: value.to(dtype) for name, value in numbers.items()} | whole
    return ClassicalTwin(state | {"scalar": torch.tensor(circuit.is_scalar)})


def _turns(angle_map: AngleMap, weights: Tensor, which: np.ndarray, scales: np.ndarray) -> tuple[Tensor, Tensor]:
    """Slopes (K, I) and offsets (K,) of angles as functions of the inputs, of each ``scale * angle + offset``."""
    fixed = angle_map(torch.zeros(1, angle_map.n_inputs, dtype=torch.float64), weights).full()[0]
    slopes = torch.zeros(len(fixed), angle_map.n_inputs, dtype=torch.float64)
    slopes[: angle_map.n_batched] = angle_map.inputs.dense(angle_map.n_inputs)
    scale, offset = torch.from_numpy(scales).T
    return scale[:, None] * slopes[which], scale * fixed[which] + offset
