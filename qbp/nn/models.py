"""Models: a classical network, the hybrid one, and a classical twin of the same size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from qbp.errors import ArgumentError, check_choice, check_count, check_share, suggests_names
from qbp.limits import check_memory
from qbp.nn.layer import QuantumLayer
from qbp.nn.seeding import renew, seeded

__all__ = ["ACTIVATIONS", "BoundedAngle", "hybrid", "matched_mlp", "mlp", "n_parameters", "renew"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class BoundedAngle(nn.Module):
    """Turn any number into an angle: `scale * tanh(x)` (the dressed quantum circuit of arXiv 1912.08278).

    Rotations repeat every 2 pi, so a step of the weights could jump over whole turns of an unbounded angle.

    Args:
        scale: the largest angle, in radians.

    Example:
        >>> BoundedAngle()(torch.tensor([0.0, 100.0])).tolist()
        [0.0, 1.5707963705062866]
    """

    def __init__(self, scale: float = math.pi / 2) -> None:
        super().__init__()
        if not (math.isfinite(scale) and scale > 0):
            raise ArgumentError(f"Argument `scale` must be a positive angle in radians, but is {scale!r}")
        self.scale = float(scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return angles of the shape of `x`, in radians."""
        return self.scale * torch.tanh(x)

    def extra_repr(self) -> str:
        return f"scale={self.scale:.6g}"


def mlp(n_inputs: int, *hidden_and_out: int, activation: str = "tanh", seed: int | None = None) -> nn.Sequential:
    """Build a multi-layer perceptron: linear layers with an activation between them, none after the last.

    Args:
        n_inputs: columns of the input (B, n_inputs).
        hidden_and_out: width of every hidden layer, then of the output (B, n_outputs); at least the output.
        activation: a key of `ACTIVATIONS`.
        seed: of the initial weights; torch's global random state is then not touched. None draws from it.

    Returns:
        The model (B, n_inputs) -> (B, n_outputs).

    Raises:
        ArgumentError: a width is not a positive integer, or the activation is unknown.

    Example:
        >>> mlp(8, 8, 2)(torch.zeros(5, 8)).shape
        torch.Size([5, 2])
    """
    check_choice("activation", activation, ACTIVATIONS)
    check_count("n_inputs", n_inputs)
    if not hidden_and_out:
        raise ArgumentError("Argument `hidden_and_out` must end with the number of outputs, but is empty")
    for width in hidden_and_out:
        check_count("hidden_and_out", width)
    widths = (n_inputs, *hidden_and_out)
    _check_size(*widths)
    with seeded(seed):
        layers: list[nn.Module] = []
        for below, above in pairwise(widths):
            layers += [nn.Linear(below, above), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


@suggests_names
def hybrid(
    n_inputs: int,
    n_outputs: int,
    *,
    circuit: Any = "strongly_entangling",
    n_qubits: int = 4,
    n_layers: int = 2,
    weight_shapes: Mapping[str, Any] | None = None,
    coupling_map: Any = None,
    backend: Any = "auto",
    noise: Any = None,
    diff_method: Any = "best",
    shots: int | None = None,
    seed: int | None = None,
    scale: float = math.pi / 2,
    encoder: bool = True,
) -> nn.Sequential:
    """Build a dressed quantum circuit (arXiv 1912.08278): linear, bounded angles, circuit, linear.

    Args:
        n_inputs: columns of the input (B, n_inputs).
        n_outputs: columns of the output (B, n_outputs).
        circuit: a family of `qbp.circuit.ansatz`, a `.qasm` file, or another source for `QuantumLayer`.
        n_qubits: qubits of a family (a source that has its own qubits keeps them).
        n_layers: layers of a family.
        weight_shapes: of a function or a QNode, as in `QuantumLayer`.
        coupling_map: as in `QuantumLayer`, for a family.
        backend: as in `QuantumLayer`.
        noise: as in `QuantumLayer`.
        diff_method: as in `QuantumLayer`.
        shots: as in `QuantumLayer`; None is exact.
        seed: of all initial weights and of the layer's own random numbers; torch's global random state is
            then not touched. None draws from it.
        scale: the largest angle that the encoder gives, in radians.
        encoder: whether there is one; without it the columns are the circuit's inputs, as they are.

    Returns:
        Sequential(Linear, BoundedAngle, QuantumLayer, Linear), without the first two where there is no encoder.

    Raises:
        ArgumentError: a width is not a positive integer, or the circuit has no inputs, not as many as there are columns
            where there is no encoder, or no list of outputs.

    Example:
        >>> hybrid(8, 2, seed=0)(torch.zeros(5, 8)).shape
        torch.Size([5, 2])
    """
    check_count("n_inputs", n_inputs)
    check_count("n_outputs", n_outputs)
    family = isinstance(circuit, str) and not circuit.endswith(".qasm")
    with seeded(seed):
        layer = QuantumLayer(
            circuit,
            weight_shapes,
            n_qubits=n_qubits if family else None,
            n_layers=n_layers if family else None,
            coupling_map=coupling_map,
            backend=backend,
            noise=noise,
            diff_method=diff_method,
            shots=shots,
            seed=seed,
        )
        if layer.n_inputs == 0:
            raise ArgumentError("Argument `circuit` must take inputs, but has none")
        if layer.n_outputs is None or layer.traced.is_scalar:
            raise ArgumentError("Argument `circuit` must return a list of outputs known in advance")
        width = n_qubits if layer.n_inputs is None else layer.n_inputs
        _check_size(layer.n_outputs, n_outputs)
        if not encoder:
            if n_inputs != width:
                raise ArgumentError(
                    f"Argument `n_inputs` must be {width}, as the circuit has, without an encoder, but is {n_inputs}"
                )
            return nn.Sequential(layer, nn.Linear(layer.n_outputs, n_outputs))
        _check_size(n_inputs, width)
        first = nn.Linear(n_inputs, width)
        return nn.Sequential(first, BoundedAngle(scale), layer, nn.Linear(layer.n_outputs, n_outputs))


def n_parameters(model: nn.Module) -> int:
    """Count what training changes: the elements of parameters that want a gradient, shared ones once.

    Example:
        >>> n_parameters(mlp(8, 8, 2))
        90
    """
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def matched_mlp(
    model: nn.Module,
    n_inputs: int,
    n_outputs: int,
    *,
    tolerance: float = 0.05,
    activation: str = "tanh",
    seed: int | None = None,
) -> nn.Sequential:
    """Build the classical twin of `model`: an MLP with nearly the same number of parameters.

    Of the MLPs within the tolerance it takes those with the fewest hidden layers (one to three), of these the
    one whose narrowest layer is widest (a bottleneck would make a weak twin), of these the nearest in size. Where all
    of them squeeze everything through one neuron, it takes the next larger MLP with one hidden layer instead, if that
    has at most half as many parameters again: a twin that is too strong proves more than one that is too weak.

    Args:
        model: the model to match.
        n_inputs: columns of the input.
        n_outputs: columns of the output.
        tolerance: largest difference in parameters, as a share of the model's.
        activation: a key of `ACTIVATIONS`.
        seed: of the initial weights, as in `mlp`.

    Returns:
        The MLP.

    Raises:
        ArgumentError: no such MLP exists (the model is too small for its inputs and outputs, as a rule).

    Example:
        >>> twin = matched_mlp(mlp(8, 5, 4, 2), 8, 2)
        >>> n_parameters(mlp(8, 5, 4, 2)), n_parameters(twin)
        (79, 79)
    """
    check_count("n_inputs", n_inputs)
    check_count("n_outputs", n_outputs)
    check_share("tolerance", tolerance, zero=True)
    target = n_parameters(model)
    nearest = _size(n_inputs, 1, n_outputs)
    squeezed: tuple[int, ...] | None = None
    for depth in (1, 2, 3):
        choices = _hidden(target, n_inputs, n_outputs, depth)
        sizes = {widths: _size(n_inputs, *widths, n_outputs) for widths in choices}
        fits = [w for w, size in sizes.items() if abs(size - target) <= tolerance * target]
        if fits:
            hidden = min(fits, key=lambda widths: (-min(widths), abs(sizes[widths] - target), widths))
            if min(hidden) > 1:
                return mlp(n_inputs, *hidden, n_outputs, activation=activation, seed=seed)
            squeezed = squeezed or hidden
        nearest = min([nearest, *sizes.values()], key=lambda size: abs(size - target))
    wider = max(2, math.ceil((target - n_outputs) / (n_inputs + 1 + n_outputs)))
    if squeezed is not None and _size(n_inputs, wider, n_outputs) <= 1.5 * target:
        squeezed = (wider,)
    if squeezed is not None:
        return mlp(n_inputs, *squeezed, n_outputs, activation=activation, seed=seed)
    raise ArgumentError(
        f"Argument `model` has {target} parameters, and no MLP from {n_inputs} inputs to {n_outputs} outputs "
        f"comes within {tolerance:.0%} of that (the nearest: {nearest}): take fewer inputs or a larger model"
    )


def _hidden(target: int, n_inputs: int, n_outputs: int, depth: int) -> Iterator[tuple[int, ...]]:
    """Yield widths of `depth` hidden layers; the last one brings the size near the target."""
    if depth == 1:
        below = max((target - n_outputs) // (n_inputs + 1 + n_outputs), 1)
        yield from ((below,), (below + 1,))
        return
    for first in range(1, target // (n_inputs + 1) + 1):
        rest = target - (n_inputs + 1) * first
        yield from ((first, *others) for others in _hidden(rest, first, n_outputs, depth - 1))


def _size(*widths: int) -> int:
    return sum((below + 1) * above for below, above in pairwise(widths))


def _check_size(*widths: int) -> None:
    """Refuse layers that do not fit, with their gradients and an optimiser's two moments."""
    check_memory("Dense layers of these widths", 4 * 4 * _size(*widths))
