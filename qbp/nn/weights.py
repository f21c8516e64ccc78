"""The weights of a quantum layer: their first values, and all of them by name."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from qbp.errors import ArgumentError
from qbp.nn.seeding import spared

__all__ = ["Draws", "WeightedModule", "Weights", "initial_weight"]


class Draws(torch.Generator):
    """A generator of random numbers on the CPU that any process can unpickle; torch's own cannot be sent to a spawned
    one."""

    def __new__(cls, seed: int = 0) -> Draws:
        return super().__new__(cls)

    def __init__(self, seed: int = 0):
        self.manual_seed(seed)

    def __reduce__(self) -> Any:
        return _draws, (self.get_state().numpy().tobytes(),)


def _draws(state: bytes) -> Draws:
    draws = Draws()
    draws.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    return draws


class Weights(MutableMapping[str, Tensor]):
    """A layer's weights by name; assigning a tensor makes it the weight."""

    def __init__(self, layer: nn.Module):
        self._layer: Any = layer

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._layer._weight_names:
            raise KeyError(name)
        weight: Tensor = self._layer._weight(name)
        return weight

    def __setitem__(self, name: str, value: Tensor) -> None:
        if name not in self._layer._weight_names:
            raise KeyError(name)
        weight = value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach())
        if name in self._layer._parameters:
            self._layer._parameters[name] = weight
        else:  # parametrized
            setattr(self._layer, name, weight)

    def __delitem__(self, name: str) -> None:
        raise TypeError("A layer's weights cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._layer._weight_names)

    def __len__(self) -> int:
        return len(self._layer._weight_names)


class WeightedModule(nn.Module):
    """A module whose weights have names that a user chose."""

    _weight_names: tuple[str, ...]
    _init_method: Any  # holds the function as `.function`

    @property
    def qnode_weights(self) -> MutableMapping[str, Tensor]:
        """The weights by name, PennyLane's `TorchLayer.qnode_weights`."""
        return Weights(self)

    def flat_weights(self, x: Tensor) -> Tensor:
        """All weights (P,), one tensor after the other, of the dtype and device of `x`."""
        tensors = [self._weight(name) for name in self._weight_names]
        if len(tensors) == 1:
            return tensors[0].reshape(-1).to(x)
        return torch.cat([t.reshape(-1) for t in tensors]).to(x) if tensors else x.new_empty(0)

    def _register(self, name: str, weight: nn.Parameter) -> None:
        """A weight may have the name of a property, as "backend": then `qnode_weights` has it."""
        if name in self.__dict__ or not name.isidentifier():
            raise ArgumentError(f"Weight {name!r} has the name of what a torch module keeps: give it another one")
        self._parameters[name] = weight

    def _weight(self, name: str) -> Tensor:
        weight = self._parameters.get(name)
        return getattr(self, name) if weight is None else weight  # they may be parametrized

    def reset_parameters(self) -> None:
        """Draw the weights anew, by `init_method`."""
        with torch.no_grad():
            for name in self._weight_names:
                weight = self._weight(name)
                weight.copy_(initial_weight(name, tuple(weight.shape), self._init_method.function))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Qiskit's `TorchConnector` keeps its weights under two names."""
        if "weight" in self._parameters and "_weights" not in self._parameters and f"{prefix}_weights" in state_dict:
            state_dict.setdefault(f"{prefix}weight", state_dict.pop(f"{prefix}_weights"))
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _weights_like(self, x: Tensor) -> dict[str, Tensor]:
        return {name: self._weight(name).to(x) for name in self._weight_names}


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
    with spared():
        torch.default_generator.set_state(generator.get_state())
        value = init(empty)
        generator.set_state(torch.default_generator.get_state())
    return value
