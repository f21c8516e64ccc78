"""Controls: what a hybrid model has to be compared with before a word is said about its circuit.

Three kinds. In place of the circuit: is it the circuit that does it, its training, its entanglement? Matched rivals: a
classical network of as many parameters, of as many multiply-adds, of as much time. And what anybody would try first: a
linear model, and the models of `qbp.comparison.estimators`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qbp.circuit.program import Expval, Op
from qbp.nn.flow import replaced
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import matched_mlp, mlp
from qbp.nn.resources import resources, shape_of
from qbp.training.options import Training

if TYPE_CHECKING:
    from qbp.nn.stacking import Stack

__all__ = ["CONTROLS", "LAYER_CONTROLS", "MATCHED_TIME", "RIVALS", "Noise", "Removed", "Sine", "model_behind"]

MATCHED_TIME = "matched_time"


# ---- in place of the circuit ---------------------------------------------------------------------------------------


class Removed(nn.Module):
    """Nothing in place of a layer (B, I) -> (B, M): the identity, or a fixed random projection where I is not M.

    Args:
        n_inputs, n_outputs: I and M.
    """

    projection: Tensor | None
    vmaps = True  # it draws and changes nothing: `torch.vmap` of it is many of it

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.register_buffer("projection", None)
        if n_inputs != n_outputs:
            self.projection = torch.empty(n_outputs, n_inputs)
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the projection anew: with orthonormal rows or columns."""
        if self.projection is not None:
            nn.init.orthogonal_(self.projection)

    def forward(self, x: Tensor) -> Tensor:
        """Return (*, M)."""
        return x if self.projection is None else nn.functional.linear(x, self.projection)


class Sine(nn.Module):
    """The classical layer that a circuit without entanglement is: ``y_m = sum_k a_km sin(k (W x)_m + b_km)``.

    A circuit that encodes each input r times is a Fourier series of degree r in it (arXiv 2008.08605); so is this.

    Args:
        n_inputs, n_outputs: I and M.
        degree: r.
    """

    vmaps = True

    def __init__(self, n_inputs: int, n_outputs: int, degree: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(n_inputs, n_outputs, bias=False)
        self.phases = nn.Parameter(torch.empty(degree, n_outputs))
        self.amplitudes = nn.Parameter(torch.empty(degree, n_outputs)) if degree > 1 else None
        self.register_buffer("multiples", torch.arange(1.0, degree + 1)[:, None])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the phases anew, uniform in [0, 2 pi) as a circuit's angles; the amplitudes begin equal."""
        nn.init.uniform_(self.phases, b=2 * math.pi)
        if self.amplitudes is not None:
            nn.init.constant_(self.amplitudes, 1 / len(self.amplitudes))

    def forward(self, x: Tensor) -> Tensor:
        """Return (*, M)."""
        waves = torch.sin(self.linear(x)[..., None, :] * self.multiples + self.phases)
        return waves[..., 0, :] if self.amplitudes is None else (waves * self.amplitudes).sum(-2)


class Noise(nn.Module):
    """A placebo: numbers that have nothing to do with the input, uniform over the range of a layer's outputs.

    In training they are drawn anew for every row and call, so that none can be learned by heart. In evaluation the i-th
    row of a call gets the same ones each time, by a seed that is drawn with the weights. The input counts with a factor
    of nought: what stands before the layer has gradients, all of them 0.

    Args:
        ranges: for each of M outputs the lowest and the highest value.
    """

    seed: Tensor

    def __init__(self, ranges: Sequence[tuple[float, float]]) -> None:
        super().__init__()
        self.ranges = tuple(ranges)
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the seed of evaluation anew."""
        self.seed.copy_(torch.randint(2**31, ()))

    def forward(self, x: Tensor) -> Tensor:
        """Return (*, M)."""
        generator = None if self.training else torch.Generator().manual_seed(int(self.seed))
        return self.drawn(x, generator) + 0 * x.sum(-1, keepdim=True)

    def drawn(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return noise for the rows (*, I): (*, M)."""
        low, high = x.new_tensor(self.ranges).T
        shares = torch.rand(*x.shape[:-1], len(self.ranges), dtype=x.dtype, generator=generator)
        return low + (high - low) * shares.to(x)

    @staticmethod
    def stacked(stack: Stack, modules: Sequence[Noise]) -> Callable[[Tensor], Tensor]:
        """What many do at once (`qbp.nn.stacking`): each draws what it would alone."""
        first = modules[0]

        def function(x: Tensor) -> Tensor:
            noise = x.new_zeros(*x.shape[:-1], len(first.ranges))
            for k, module in enumerate(modules):
                size = x.shape[1] if stack.sizes is None else stack.sizes[k]
                draws = stack.draws[k] if first.training else torch.Generator().manual_seed(int(module.seed))
                noise[k, :size] = first.drawn(x[k, :size], draws)
            return noise + 0 * x.sum(-1, keepdim=True)

        return function


def _ranges(layer: QuantumLayer) -> list[tuple[float, float]]:
    """The lowest and the highest value that each output of a layer could have; -1 and 1 where outputs are made of what
    is measured."""
    if layer.is_combined:
        return [(-1.0, 1.0)] * layer.traced.n_outputs
    ranges: list[tuple[float, float]] = []
    for measurement in layer.circuit.program.measurements:
        if isinstance(measurement, Expval):
            centre = sum(c for c, word, _ in measurement.terms if not word.strip("I"))
            reach = sum(abs(c) for c, word, _ in measurement.terms if word.strip("I"))
            ranges.append((centre - reach, centre + reach))
        else:
            ranges += [(0.0, 1.0)] * 2 ** len(measurement.wires)
    return ranges


def _is_entangling(op: Op) -> bool:
    return len(op.wires) > 1


def _frozen(layer: QuantumLayer) -> nn.Module:
    return layer.requires_grad_(False)


def _separable(layer: QuantumLayer) -> nn.Module:
    circuit = layer.traced.drop_ops(_is_entangling)
    control = QuantumLayer(circuit, backend=layer.executor or "auto", diff_method=layer.diff_method)
    for name, weight in layer.named_parameters(recurse=False):  # which may be those of another layer too
        if circuit.weight_shapes.get(name) == tuple(weight.shape):
            control.register_parameter(name, weight)
    return control


def _tanh(layer: QuantumLayer) -> nn.Module:
    return nn.Sequential(nn.Linear(*shape_of(layer)), nn.Tanh())


# name -> what stands in the place of each quantum layer.
LAYER_CONTROLS: dict[str, Callable[[QuantumLayer], nn.Module]] = {
    "noise": lambda layer: Noise(_ranges(layer)),
    "removed": lambda layer: Removed(*shape_of(layer)),
    "frozen": _frozen,
    "separable": _separable,
    "layer_linear": lambda layer: nn.Linear(*shape_of(layer)),
    "layer_tanh": _tanh,
    "layer_sine": lambda layer: Sine(*shape_of(layer), uploads(layer)),
}


def uploads(layer: QuantumLayer) -> int:
    """Return how many rotations the input that is encoded most often turns: the degree of the Fourier series."""
    angle_map, rotations = layer.traced.angle_map, layer.traced.program.angle_rotations()
    draws = torch.Generator().manual_seed(0)
    x, weights = (
        torch.randn(n, generator=draws, dtype=torch.float64) for n in (angle_map.n_inputs, angle_map.n_weights)
    )

    def angles(x: Tensor) -> Tensor:
        return angle_map(x[None], weights).batched[0]

    turned = torch.autograd.functional.jacobian(angles, x) != 0  # (Kb, I)
    times = torch.tensor([len(rotations[k]) for k in range(len(turned))], dtype=torch.int64)
    return max(1, int((turned * times[:, None]).sum(0).max())) if turned.numel() else 1


# ---- the controls of a model ---------------------------------------------------------------------------------------

Control = Callable[[nn.Module, int, int], nn.Module]


def _layer_control(make: Callable[[QuantumLayer], nn.Module]) -> Control:
    def control_of(layer: QuantumLayer) -> nn.Module:
        control = make(layer)
        is_scalar = layer.traced.is_scalar and not isinstance(control, QuantumLayer)
        return nn.Sequential(control, nn.Flatten(-2)) if is_scalar else control  # (*) instead of (*, 1)

    return lambda model, n_inputs, n_outputs: replaced(model, control_of)


def _matched_compute(model: nn.Module, n_inputs: int, n_outputs: int) -> nn.Module:
    """An MLP of as many multiply-adds for a row as the model with its circuit simulated: wide, or deep and wide."""
    target = resources(model, n_inputs)["multiply_adds"]
    ends = n_inputs + n_outputs
    width = max(1, round(target / ends))
    if width <= 1024:
        return mlp(n_inputs, width, n_outputs)
    width = round((math.sqrt(ends * ends + 4 * target) - ends) / 2)  # width^2 + ends * width = target
    return mlp(n_inputs, width, width, n_outputs)


# name -> (model, inputs, outputs) -> the control; weights are drawn later, by `renew`.
CONTROLS: dict[str, Control] = {
    **{name: _layer_control(make) for name, make in LAYER_CONTROLS.items()},
    "matched_parameters": matched_mlp,
    "matched_compute": _matched_compute,
    # trained for as many epochs as fit into the time of the subject's: `qbp.comparison.timing`
    MATCHED_TIME: lambda model, n_inputs, n_outputs: mlp(n_inputs, 100, n_outputs),
    "linear_model": lambda model, n_inputs, n_outputs: nn.Linear(n_inputs, n_outputs),
}


RIVALS = ("matched_parameters", "matched_compute", MATCHED_TIME, "linear_model")
"""Controls that begin with a dense layer and so want scaled features, whatever the subject wants."""


def configurations(training: Training) -> tuple[dict[str, Any], ...]:
    """Return the twelve configurations of a model that `qbp.fit` trains: rates around `lr`, two batch sizes."""
    sizes = (training.batch_size, max(1, training.batch_size // 2))
    return tuple({"lr": training.lr * by, "batch_size": size} for size in sizes for by in (1, 3, 1 / 3, 10, 0.1, 30))


def controls_of(model: nn.Module, n_inputs: int, n_outputs: int) -> dict[str, nn.Module]:
    """Build every control of a model that `qbp.fit` trains.

    Args:
        model: (B, n_inputs) -> (B, n_outputs).
        n_inputs, n_outputs: its columns.

    Returns:
        The controls by name, all of `CONTROLS`; those in place of a circuit only where the model has one.

    Raises:
        ArgumentError: a control cannot be built, as where no MLP has as many parameters.
    """
    has_circuit = any(isinstance(module, QuantumLayer) for module in model.modules())
    names: Sequence[str] = [name for name in CONTROLS if has_circuit or name not in LAYER_CONTROLS]
    return {name: CONTROLS[name](model, n_inputs, n_outputs) for name in names}


def model_behind(control: str, subject: str, models: Collection[str]) -> str:
    """Return the name of the model that a control of a subject is: its own, as "hybrid/frozen", or one of all."""
    own = f"{subject}/{control}"
    return own if own in models else control
