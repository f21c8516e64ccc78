"""Models of papers, as they define them: a closed table, named by the configs of claims."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from qbp.circuit.program import Expval
from qbp.circuit.qasm.expression import Expression
from qbp.circuit.qasm.listing import Call, Listing
from qbp.comparison.controls import Sine
from qbp.errors import ArgumentError, check_choice
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import BoundedAngle
from qbp.runs.schema import Section
from qbp.runs.values import among

__all__ = ["PUBLISHED", "Published", "build_published"]


# ---- what they are made of -------------------------------------------------------------------------------------------


class Dense(nn.Linear):
    """A dense layer whose initial weights are N(0, `deviation`^2); its biases too, or zero.

    Args:
        n_inputs, n_outputs: columns.
        deviation: of the weights; None for 1 / sqrt(n_inputs).
        bias: whether there are biases.
        drawn: whether they are drawn as the weights are.
    """

    def __init__(
        self, n_inputs: int, n_outputs: int, deviation: float | None, bias: bool = True, drawn: bool = False
    ) -> None:
        self.deviation = n_inputs**-0.5 if deviation is None else deviation
        self.drawn = drawn
        super().__init__(n_inputs, n_outputs, bias)

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        nn.init.normal_(self.weight, std=self.deviation)
        if self.bias is not None:
            nn.init.normal_(self.bias, std=self.deviation if self.drawn else 0.0)


class Wave(Sine):
    """`Sine` whose initial weights and phases are N(0, `deviation`^2)."""

    def __init__(self, width: int, deviation: float | None) -> None:
        self.deviation = width**-0.5 if deviation is None else deviation
        super().__init__(width, width)

    def reset_parameters(self) -> None:
        """Draw the weights and phases anew."""
        nn.init.normal_(self.linear.weight, std=self.deviation)
        nn.init.normal_(self.phases, std=self.deviation)


class Logit(nn.Module):
    """The outputs (B, 2) of two classes from one logit (B, 1), that of the second against the first."""

    vmaps = True

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 2)."""
        return torch.cat([torch.zeros_like(x), x], -1)


def _layer(n_inputs: int, weights: Any, calls: list[Call], title: str, **options: Any) -> QuantumLayer:
    """A layer that measures Z on every wire."""
    n = max(max(call.wires) for call in calls) + 1
    x = tuple(f"x_{k}" for k in range(n_inputs))
    measured = tuple(Expval.word("Z", wire) for wire in range(n))
    names = tuple(map(str, weights.flat))
    return QuantumLayer(Listing(n, x, names, tuple(calls), measured, title, "", weights.shape), **options)


def _variables(letter: str, *shape: int) -> Any:
    variables = np.empty(int(np.prod(shape)), dtype=object)
    variables[:] = [Expression.variable(f"{letter}_{k}") for k in range(len(variables))]
    return variables.reshape(shape)


def _embedding(n: int) -> list[Call]:
    """Hadamards, then RY of the data."""
    x = _variables("x", n)
    return [Call("Hadamard", (k,)) for k in range(n)] + [Call("RY", (k,), (x[k],)) for k in range(n)]


def _two_classes(name: str, n_outputs: int) -> None:
    if n_outputs != 2:
        raise ArgumentError(f"Model {name!r} is of two classes, but there are {n_outputs}")


# ---- the models ------------------------------------------------------------------------------------------------------


def dressed(n_inputs: int, n_outputs: int, *, layers: int = 5, entangled: bool = True) -> nn.Module:
    """The dressed quantum circuit of arXiv 2403.07059: as many qubits as features, no biases.

    ``W_out Z(RY(theta) and a ring of CNOTs, L times; RY(pi/2 tanh(W_in x)); H)``, with angles uniform in [0, 2 pi) and
    dense weights N(0, 1) / n: ``n^2 + L n + n n_outputs`` parameters.

    Args:
        n_inputs, n_outputs: columns and classes.
        layers: L.
        entangled: whether there are CNOTs; without them it is the study's "separable" variant.
    """
    n, w = n_inputs, _variables("w", layers, n_inputs)
    ring = [(k, (k + 1) % n) for k in range(n if n > 2 else n - 1)] if entangled else []
    calls = _embedding(n)
    for row in w:
        calls += [Call("RY", (k,), (row[k],)) for k in range(n)] + [Call("CNOT", pair) for pair in ring]
    first, last = Dense(n, n, 1 / n, bias=False), Dense(n, n_outputs, 1 / n, bias=False)
    return nn.Sequential(first, BoundedAngle(), _layer(n, w, calls, "Dressed quantum circuit"), last)


MIDDLES = ("circuit", "tanh", "sine")
STARTS = ("published", "scaled")


def mari(n_inputs: int, n_outputs: int, *, middle: str = "circuit", init: str = "published") -> nn.Module:
    """The dressed quantum circuit of arXiv 1912.08278 for two spirals, or a dense layer in its circuit's place.

    Five qubits of depth 5, CNOTs on even and on odd pairs before each layer of RY, between dense layers with biases.

    Args:
        n_inputs, n_outputs: columns and classes.
        middle: "circuit"; "tanh", the paper's classical network; "sine", ``sin(W a + b)`` with as many parameters.
        init: "published": all is drawn from N(0, 0.001^2); "scaled": weights from N(0, 1 / fan in), biases zero, the
            circuit's angles uniform in [0, 2 pi).
    """
    check_choice("middle", middle, MIDDLES)
    check_choice("init", init, STARTS)
    n, depth = 5, 5
    deviation = 1e-3 if init == "published" else None
    dense = partial(Dense, deviation=deviation, drawn=init == "published")
    w = _variables("w", depth, n)
    calls = _embedding(n)
    for row in w:
        calls += [Call("CNOT", pair) for pair in ((0, 1), (2, 3), (1, 2), (3, 4))]
        calls += [Call("RY", (k,), (row[k],)) for k in range(n)]
    parts: list[nn.Module] = [dense(n_inputs, n)]
    if middle == "circuit":
        drawn = {} if deviation is None else {"init_method": partial(nn.init.normal_, std=deviation)}
        parts += [BoundedAngle(), _layer(n, w, calls, "Dressed quantum circuit of depth 5", **drawn)]
    elif middle == "tanh":
        parts += [nn.Tanh(), dense(n, n), nn.Tanh()]
    else:
        parts += [nn.Tanh(), Wave(n, deviation)]
    return nn.Sequential(*parts, dense(n, n_outputs))


def reuploaded_qubit(n_inputs: int, n_outputs: int, *, layers: int = 6) -> nn.Module:
    """One qubit into which two or three features are loaded again in every layer (arXiv 1907.02085, equation 7).

    A layer is the rotation ``RZ RY RZ`` by ``theta + alpha x``, a weight for each feature and angle; the classes are
    told from <Z> by a weight and a bias each, which take the place of the paper's weighted fidelities.

    Args:
        n_inputs, n_outputs: columns, at most three, and classes.
        layers: how often the data are loaded.
    """
    if n_inputs > 3:
        raise ArgumentError(f"Model 'reuploaded_qubit' takes at most three features, but there are {n_inputs}")
    x, w = _variables("x", n_inputs), _variables("w", layers, 3 + n_inputs)
    calls = []
    for row in w:
        angles = [row[k] + row[3 + k] * x[k] if k < n_inputs else row[k] for k in range(3)]
        calls += [Call("RZ", (0,), (angles[1],)), Call("RY", (0,), (angles[0],)), Call("RZ", (0,), (angles[2],))]
    return nn.Sequential(_layer(n_inputs, w, calls, "One qubit, data re-uploaded"), nn.Linear(1, n_outputs))


def hqcnn(n_inputs: int, n_outputs: int, *, hidden: int = 12, n_qubits: int = 4, layers: int = 2) -> nn.Module:
    """A hybrid of 441 parameters for 30 features, after Informatics 13(6):98.

    Dense 30-12-4 with tanh between, RY of ``pi/2 tanh``, two layers of real amplitudes (12 angles), one logit. The
    paper's abstract gives qubits, layers and the number of parameters; the widths are ours.

    Args:
        n_inputs, n_outputs: columns; two classes.
        hidden: width of the encoder.
        n_qubits, layers: of the circuit.
    """
    _two_classes("hqcnn", n_outputs)
    encoder = nn.Linear(n_inputs, hidden), nn.Tanh(), nn.Linear(hidden, n_qubits), BoundedAngle()
    circuit = QuantumLayer("real_amplitudes", n_qubits=n_qubits, n_layers=layers)
    return nn.Sequential(*encoder, circuit, nn.Linear(n_qubits, 1), Logit())


PUBLISHED: dict[str, Callable[..., nn.Module]] = {
    "dressed": dressed,
    "mari": mari,
    "reuploaded_qubit": reuploaded_qubit,
    "hqcnn": hqcnn,
}
"""Every model by its name: functions of (n_inputs, n_outputs) and options."""


class Published(Section):
    """A model of a paper: a key of `PUBLISHED`, and its options."""

    kind: Literal["published"] = "published"
    name: Annotated[str, among(PUBLISHED)]
    options: Annotated[dict[str, Any], Field(default_factory=dict)]


def build_published(name: str, n_inputs: int, n_outputs: int, options: Mapping[str, Any]) -> nn.Module:
    """Build a model of `PUBLISHED`.

    Raises:
        ArgumentError: the name or an option is unknown, or the data do not fit.

    Example:
        >>> from qbp.nn.models import n_parameters
        >>> n_parameters(build_published("hqcnn", 30, 2, {}))
        441
    """
    check_choice("name", name, PUBLISHED)
    allowed = list(inspect.signature(PUBLISHED[name]).parameters)[2:]
    for option in options:
        check_choice("options", option, allowed)
    return PUBLISHED[name](n_inputs, n_outputs, **options)
