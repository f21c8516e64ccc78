"""The weights of a quantum layer: their first values, and all of them by name."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from qbp.circuit.lock import LOCK
from qbp.errors import ArgumentError

__all__ = ["Weights", "initial_weight"]


class Weights(MutableMapping[str, Tensor]):
    """A layer's weights by name; assigning a tensor makes it the weight."""

    def __init__(self, layer: nn.Module):
        self._layer: Any = layer

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._layer._weight_names:
            raise KeyError(name)
        return getattr(self._layer, name)

    def __setitem__(self, name: str, value: Tensor) -> None:
        if name not in self._layer._weight_names:
            raise KeyError(name)
        setattr(self._layer, name, value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach()))

    def __delitem__(self, name: str) -> None:
        raise TypeError("A layer's weights cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._layer._weight_names)

    def __len__(self) -> int:
        return len(self._layer._weight_names)


def initial_weight(
    name: str, shape: tuple[int, ...], init_method: Any, generator: torch.Generator | None = None
) -> Tensor:
    """The first value of a weight, as `init_method` of a layer says; uniform in [0, 2 pi) where it is None.

    Drawn from `generator` (on the CPU), or from torch's global random numbers where it is None.
    """
    if init_method is None:
        init: Any = functools.partial(nn.init.uniform_, b=2 * math.pi)
    elif isinstance(init_method, Mapping):
        init = init_method[name]
        if isinstance(init, Tensor):
            if tuple(init.shape) != shape:
                raise ArgumentError(
                    f"Argument `init_method` for {name!r} must have shape {shape}, but has {tuple(init.shape)}"
                )
            return init.detach().clone()
    else:
        init = init_method
    if generator is None:
        value = init(torch.empty(shape or 1))
    else:
        value = _drawn(init, torch.empty(shape or 1, device="cpu"), generator).to(torch.get_default_device())
    return value if shape else value[0]


def _drawn(init: Callable[..., Tensor], empty: Tensor, generator: torch.Generator) -> Tensor:
    try:
        takes_generator = "generator" in inspect.signature(init).parameters  # those of torch.nn.init
    except ValueError:  # of a method written in C
        takes_generator = False
    if takes_generator:
        return init(empty, generator=generator)
    with LOCK, torch.random.fork_rng(devices=[]):
        torch.default_generator.set_state(generator.get_state())
        value = init(empty)
        generator.set_state(torch.default_generator.get_state())
    return value
