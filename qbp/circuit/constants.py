"""Values of what does not depend on inputs or weights, while a function is traced with tensors that have no values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node
from torch.overrides import TorchFunctionMode

__all__ = ["ReadConstants", "constant_of", "item_of", "values_at"]


def constant_of(tensor: Tensor) -> Tensor | None:
    """The values of a traced tensor, found by running the operations that it came from; None where it depends on an
    argument of the traced function."""
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
    from torch.utils._python_dispatch import _disable_current_modes

    if not isinstance(tensor, FakeTensor):
        with _disable_current_modes():
            return tensor.detach()
    mode = get_proxy_mode()
    slot: Any = None if mode is None else get_proxy_slot(tensor, mode.tracer, default=None)
    if mode is None or slot is None:
        return None
    with torch.no_grad(), _disable_current_modes():
        return _run(slot.proxy.node, getattr(mode.tracer, "root", None), {})


def item_of(tensor: Tensor) -> Any:
    """The number in a traced tensor, where that does not depend on an argument of the traced function."""
    from torch.utils._python_dispatch import _disable_current_modes

    value = constant_of(tensor)
    with _disable_current_modes():
        return NotImplemented if value is None else value.item()


class ReadConstants(TorchFunctionMode):
    """While a function is traced: NumPy arrays, and tensors made of lists, of what does not depend on its arguments."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.utils._python_dispatch import _disable_current_modes

        if func in (Tensor.numpy, Tensor.__array__):
            value = constant_of(args[0])
            if value is not None:
                with _disable_current_modes():
                    return func(value, *args[1:], **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor) and isinstance(args[0], list | tuple):
            items = [item_of(x) if isinstance(x, Tensor) and x.ndim == 0 else x for x in args[0]]
            if all(x is not NotImplemented for x in items):
                args = (items, *args[1:])
            elif all((isinstance(x, Tensor) and x.ndim == 0) or isinstance(x, int | float) for x in args[0]):
                copied = torch.stack([torch.as_tensor(x) for x in args[0]]).detach()  # of numbers, as torch makes it
                return copied.to(**{name: value for name, value in (kwargs or {}).items() if value is not None})
        return func(*args, **(kwargs or {}))


def values_at(tensor: Tensor, seed: int) -> np.ndarray:
    """The values of a traced tensor where the arguments of the traced function are random numbers."""
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
    from torch.utils._python_dispatch import _disable_current_modes

    if not isinstance(tensor, FakeTensor):
        with _disable_current_modes():
            return tensor.numpy(force=True)
    mode = get_proxy_mode()
    assert mode is not None
    slot: Any = get_proxy_slot(tensor, mode.tracer)
    node, draw = slot.proxy.node, torch.Generator().manual_seed(seed)
    arguments = [(n, n.meta["val"]) for n in node.graph.nodes if n.op == "placeholder"]
    with torch.no_grad(), _disable_current_modes():
        values = {n: torch.rand(tuple(a.shape), dtype=a.dtype, generator=draw) for n, a in arguments}
        result: np.ndarray = _run(node, getattr(mode.tracer, "root", None), values).numpy()
        return result


def _run(node: Node, root: Any, values: dict[Node, Any]) -> Any:
    """What a node of the graph computes, None where that needs an argument without value."""
    order, todo = [], [node]
    while todo:
        current = todo.pop()
        if current in values:
            continue
        if current.op == "placeholder":
            return None
        order.append(current)
        todo += current.all_input_nodes
    for current in reversed(order):
        if current in values:
            continue
        if current.op == "get_attr":
            values[current] = getattr(root, str(current.target))
        else:
            args, kwargs = torch.fx.node.map_arg((current.args, current.kwargs), lambda n: values[n])
            target: Any = current.target
            values[current] = target(*args, **kwargs)
    return values[node]
