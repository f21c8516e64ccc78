"""Deep copies of models, also of those that hold what they computed."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qbp.errors import ArgumentError

__all__ = ["copied"]


def copied(model: nn.Module, memo: dict[int, Any] | None = None) -> Any:
    """A deep copy of a model.

    `copy.deepcopy` refuses tensors that were computed, as weights by a hook (`torch.nn.utils.prune`, `weight_norm`), or
    an output that a module keeps to look at it later: the copy has their values, and no way back.

    Args:
        model: the model.
        memo: as of `copy.deepcopy`: what is in there is not copied.

    Raises:
        ArgumentError: the model holds something else that cannot be copied.
    """
    try:
        with _Values():
            return copy.deepcopy(model, {} if memo is None else memo)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(f"Argument `model` cannot be copied: {error}") from error


class _Values(TorchFunctionMode):
    """Copies of computed tensors are their values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))
