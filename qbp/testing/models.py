"""Random models whose modules stand in several places: what saving, pruning and distilling must get right."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from qbp.nn.layer import QuantumLayer
from qbp.nn.seeding import seeded

__all__ = ["Wired", "Wiring", "random_model"]


class Wiring(NamedTuple):
    """One step of `Wired`: which module reads which value, and which value is added to what it gives."""

    module: int
    reads: int
    adds: int | None = None


class Wired(nn.Module):
    """A model whose forward is no chain: every step may read any value before it, and add another one.

    Args:
        modules: some of them are used several times.
        wiring: the steps; value 0 is the input, value k what step k gives.
        n_heads: the outputs are the sum of the last so many values.
    """

    def __init__(self, modules: list[nn.Module], wiring: list[Wiring], n_heads: int) -> None:
        super().__init__()
        self.parts, self.wiring, self.n_heads = nn.ModuleList(modules), wiring, n_heads

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, M)."""
        values = [x]
        for module, reads, adds in self.wiring:
            value = self.parts[module](values[reads])
            values.append(value if adds is None else value + values[adds])
        return torch.stack(values[-self.n_heads :]).sum(0)


def random_model(seed: int, n_inputs: int = 4, n_outputs: int = 2) -> nn.Module:
    """A small model with shared modules, and by turns skips, two heads, two quantum layers, BatchNorm, Dropout, tied
    and parametrized weights, and neurons that nothing reads.

    Args:
        seed: decides everything; models of even seeds are nested `Sequential`s, those of odd ones `Wired`.
        n_inputs, n_outputs: columns of what it takes and gives.

    Returns:
        The model, (B, n_inputs) -> (B, n_outputs), in evaluation mode.

    Example:
        >>> random_model(1)(torch.zeros(3, 4)).shape
        torch.Size([3, 2])
    """
    draws = random.Random(seed)
    with seeded(seed):
        width = draws.choice((2, 3))
        pool = [_make(draws, kind, width) for kind in _kinds(draws)]
        if draws.random() < 0.3:
            _tie(pool)
        first = nn.Linear(n_inputs, width)
        heads = [nn.Linear(width, n_outputs) for _ in range(draws.choice((1, 2)))]
        order = [*range(len(pool)), *draws.choices(range(len(pool)), k=3)]  # all once, some again
        draws.shuffle(order)
        model: nn.Module
        if seed % 2 == 0:
            block = nn.Sequential(*(pool[k] for k in order[-3:]))
            model = nn.Sequential(first, *(pool[k] for k in order[:-3]), block, nn.Tanh(), heads[0])
        else:
            model = _wired(draws, first, pool, order, heads)
        _settle(draws, model)
    return model.eval()


def _kinds(draws: random.Random) -> list[str]:
    others = ["linear", "activation", "batchnorm", "dropout", "quantum", "block", "parametrized"]
    return ["linear", "activation", "quantum", *draws.sample(others, 3)]


def _make(draws: random.Random, kind: str, width: int) -> nn.Module:
    activation: Callable[[], nn.Module] = draws.choice((nn.Tanh, nn.ReLU, nn.Sigmoid))
    family, n_layers = draws.choice((("strongly_entangling", 1), ("basic_entangler", 2)))
    makers: dict[str, Callable[[], nn.Module]] = {
        "linear": lambda: nn.Linear(width, width),
        "activation": activation,
        "batchnorm": lambda: nn.BatchNorm1d(width),
        "dropout": lambda: nn.Dropout(0.2),
        "quantum": lambda: QuantumLayer(family, n_qubits=width, n_layers=n_layers),
        "block": lambda: nn.Sequential(nn.Linear(width, width + 2), activation(), nn.Linear(width + 2, width)),
        "parametrized": lambda: parametrizations.weight_norm(nn.Linear(width, width)),
    }
    return makers[kind]()


def _tie(pool: list[nn.Module]) -> None:
    """Give two linear layers, or two quantum ones, of one shape the same weights."""
    for kind, name in ((nn.Linear, "weight"), (QuantumLayer, "weights")):
        own = [m for part in pool for m in part.modules() if type(m) is kind]
        for k, module in enumerate(own):
            for other in own[k + 1 :]:
                if getattr(module, name).shape == getattr(other, name).shape:
                    setattr(other, name, getattr(module, name))
                    return


def _wired(
    draws: random.Random, first: nn.Module, pool: list[nn.Module], order: list[int], heads: Sequence[nn.Module]
) -> Wired:
    wiring = [Wiring(0, 0)]
    for k in order:
        latest = len(wiring)
        reads = latest if draws.random() < 0.8 else draws.randint(1, latest)
        wiring.append(Wiring(1 + k, reads, draws.randint(1, latest) if draws.random() < 0.3 else None))
    last = len(wiring)
    wiring += [Wiring(1 + len(pool) + k, last - k) for k in range(len(heads))]
    return Wired([first, *pool, *heads], wiring, len(heads))


def _settle(draws: random.Random, model: nn.Module) -> None:
    """Running means as of training, and a neuron that its reader does not read."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
        elif type(module) is nn.Linear and module.in_features > 1 and draws.random() < 0.3:
            with torch.no_grad():
                module.weight[:, draws.randrange(module.in_features)] = 0
