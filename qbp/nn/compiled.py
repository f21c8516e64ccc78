"""A layer in the graphs of `torch.compile`: one operation, with the layer's own code inside."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

__all__ = ["NUMBERS", "compiled", "dtypes", "numbered"]

WORKING = (torch.float32, torch.float64)
NUMBERS: WeakValueDictionary[int, Any] = WeakValueDictionary()
"""The layers by their numbers: an operation of a graph can take no other word for one."""

_COUNT = itertools.count()
_KEPT: OrderedDict[int, tuple[Tensor, tuple[Tensor, Tensor]]] = OrderedDict()
_MOST = 16
"""Forward passes that are kept for their backward pass; one that is no longer there runs again."""


def numbered(layer: Any) -> int:
    """A number of its own for a layer."""
    number = next(_COUNT)
    NUMBERS[number] = layer
    return number


def dtypes(inputs: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """Of the outputs, and of the work."""
    if inputs.is_complex():  # statevectors
        dtype = inputs.dtype.to_real()
        return dtype, (dtype if dtype in WORKING else torch.float32).to_complex()
    dtype = inputs.dtype if inputs.is_floating_point() else torch.get_default_dtype()
    return dtype, dtype if dtype in WORKING else torch.float32


def compiled(layer: Any, inputs: Tensor) -> Tensor:
    """The layer's outputs where Dynamo reads along: it would compile simulators, Python step by step.

    What is exact and has the adjoint rule is one operation; anything else, whose circuits are not to run again, runs
    between two graphs.
    """
    circuit = layer._circuits.get(inputs.shape[-1]) if isinstance(inputs, Tensor) and inputs.ndim > 0 else None
    if circuit is None or circuit.combination is not None:
        return _between(layer, inputs)
    if layer._diff_method != "adjoint" or not layer._executor.capabilities.exact:
        return _between(layer, inputs)
    working = dtypes(inputs)[1]
    weights = layer.flat_weights(inputs.new_empty(0, dtype=working.to_real() if working.is_complex else working))
    trains = torch.is_grad_enabled() and (inputs.requires_grad or weights.requires_grad)
    outputs: Tensor = torch.ops.qbp.layer(inputs, weights, layer._number, trains)[0]
    return outputs


@torch.compiler.disable
def _between(layer: Any, inputs: Tensor) -> Tensor:
    outputs: Tensor = layer.forward(inputs)
    return outputs


def _layer(inputs: Tensor, weights: Tensor, layer: int, trains: bool) -> tuple[Tensor, Tensor]:
    """Outputs, and the number under which the backward pass finds this one."""
    number = next(_COUNT)
    outputs, leaves = _run(inputs, weights, layer, trains)
    if trains:
        _KEPT[number] = outputs, leaves
        while len(_KEPT) > _MOST:
            _KEPT.popitem(last=False)
    return outputs.detach(), torch.tensor(number)


def _autograd() -> Any:
    """Autograd, as outside: operations of the dispatcher run below it."""
    here, not_here = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    for key in (torch._C.DispatchKey.AutogradFunctionality, torch._C.DispatchKey.ADInplaceOrView):
        not_here = not_here.remove(key)
    return torch._C._ForceDispatchKeyGuard(here, not_here)


def _run(inputs: Tensor, weights: Tensor, layer: int, trains: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    leaves = inputs.detach(), weights.detach()
    with torch.set_grad_enabled(trains), _autograd():
        for leaf in leaves:
            leaf.requires_grad_(trains and leaf.dtype.is_floating_point)
        return NUMBERS[layer].outputs_of(leaves[0], leaves[1]), leaves


def _shapes(inputs: Tensor, weights: Tensor, layer: int, trains: bool) -> tuple[Tensor, Tensor]:
    circuit = NUMBERS[layer]._circuits[int(inputs.shape[-1])]
    shape = inputs.shape[:-1] if circuit.is_scalar else (*inputs.shape[:-1], circuit.program.n_outputs)
    return inputs.new_empty(shape, dtype=dtypes(inputs)[0]), torch.empty((), dtype=torch.int64)


def _layer_backward(grad: Tensor, inputs: Tensor, weights: Tensor, number: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    kept = _KEPT.pop(int(number), None)
    outputs, leaves = _run(inputs, weights, layer, True) if kept is None else kept
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    gradients = iter(torch.autograd.grad(outputs, wanted, grad, materialize_grads=True))
    of_inputs, of_weights = (next(gradients) if leaf.requires_grad else torch.zeros_like(leaf) for leaf in leaves)
    return of_inputs, of_weights


def _shapes_backward(
    grad: Tensor, inputs: Tensor, weights: Tensor, number: Tensor, layer: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(inputs), torch.empty_like(weights)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:2], output[1])
    ctx.layer = inputs[2]


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    return (*torch.ops.qbp.layer_backward(grad, *ctx.saved_tensors, ctx.layer), None, None)


def _each_lane(operation: Any) -> Any:
    """The rule for `vmap`: lane by lane."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        lanes = [
            operation(*(x if d is None else x.select(d, k) for x, d in zip(inputs, in_dims, strict=True)))
            for k in range(info.batch_size)
        ]
        results = tuple(torch.stack(parts) for parts in zip(*lanes, strict=True))
        return results, (0,) * len(results)

    return rule


_LIBRARY = torch.library.Library("qbp", "DEF")
_LIBRARY.define("layer(Tensor inputs, Tensor weights, int layer, bool trains) -> (Tensor, Tensor)")
_LIBRARY.define(
    "layer_backward(Tensor grad, Tensor inputs, Tensor weights, Tensor number, int layer) -> (Tensor, Tensor)"
)
for _name, _function, _fake in (("layer", _layer, _shapes), ("layer_backward", _layer_backward, _shapes_backward)):
    _LIBRARY.impl(_name, _function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"qbp::{_name}", _fake, lib=_LIBRARY)
    torch.library.register_vmap(f"qbp::{_name}", _each_lane(getattr(torch.ops.qbp, _name)), lib=_LIBRARY)
torch.library.register_autograd("qbp::layer", _backward, setup_context=_keep, lib=_LIBRARY)
