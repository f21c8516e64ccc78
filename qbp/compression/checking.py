"""Every smaller model runs once beside the model that it must agree with, before it is handed back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qbp.compression.groups import rows_for
from qbp.errors import ArgumentError
from qbp.nn.flow import exact_copy, imitated, tensors_in
from qbp.nn.layer import QuantumLayer
from qbp.nn.seeding import seeded

__all__ = ["check_copies", "check_same"]

LARGEST = 18  # qubits of a circuit that is run for it; of larger ones only the shapes are compared
CLOSE = {torch.float64: 1e-8, torch.float32: 1e-4}
"""Largest difference of outputs, as a share of the largest output (at least 1), by the dtype of the weights."""


def check_same(expected: nn.Module, small: nn.Module, x: Tensor | None, changed: Sequence[str]) -> None:
    """Raise unless two models give the same, run exactly, in evaluation mode, and in float64 where they can be.

    Args:
        expected: the model before, or one in which what was removed does nothing.
        small: the smaller model.
        x: rows to run them on; None for random ones, where their shape is known.
        changed: names of the modules that were made smaller.

    Raises:
        ArgumentError: outputs or their shapes differ, or the smaller model cannot run.
    """
    rows = rows_for(expected, x)
    if rows is None:
        return
    layers = [module for module in expected.modules() if isinstance(module, QuantumLayer) and module.executor]
    too_large = any(layer.traced.n_qubits > LARGEST for layer in layers)
    for dtype in (torch.float64, torch.get_default_dtype()):  # some models work in the one only
        try:
            wanted = _outputs(expected, rows, dtype, too_large)
            break
        except Exception:  # whatever a model raises of rows that do not suit it, or of this dtype
            continue
    else:
        return
    try:
        got = _outputs(small, rows, dtype, too_large)
    except Exception as error:
        raise _fault(changed, f"does not run: {error}") from error
    if [t.shape for t in wanted] != [t.shape for t in got]:
        shapes = [[tuple(t.shape) for t in each] for each in (got, wanted)]
        raise _fault(changed, f"gives shapes {shapes[0]} instead of {shapes[1]}")
    close = max(CLOSE.get(each, 0.05) for each in {dtype, *(p.dtype for p in expected.parameters())})
    for a, b in zip(wanted, got, strict=True):
        scale = max(1.0, float(a.abs().max())) if a.numel() else 1.0
        if not too_large and not torch.allclose(a, b, rtol=0, atol=close * scale, equal_nan=True):
            raise _fault(changed, f"gives outputs that differ by {float((a - b).abs().max()):.2g}")


class _OriginalCalled(Exception):
    pass


def check_copies(model: nn.Module, x: Tensor | None) -> None:
    """Raise `ArgumentError` where a copy of a model still computes with the model's own modules, as one whose `forward`
    is a function that holds them: what is pruned in the copy would change nothing.

    Args:
        model: the model.
        x: as of `check_same`.
    """
    rows = rows_for(model, x)
    if rows is None:
        return

    def note(module: nn.Module, arguments: object) -> None:
        raise _OriginalCalled(type(module).__name__)

    copy = imitated(model).eval()
    hooks = [module.register_forward_pre_hook(note) for module in model.modules()]
    try:
        with torch.no_grad(), seeded(0):
            copy(rows)
    except _OriginalCalled as called:
        raise ArgumentError(
            "Argument `model` must be a module whose copies compute with parts of their own, but its `forward` holds "
            f"a {called} of the model itself: make it a method that finds its parts in `self`"
        ) from None
    except Exception:  # whatever a model raises of rows that do not suit it
        return
    finally:
        for hook in hooks:
            hook.remove()


def _fault(changed: Sequence[str], what: str) -> ArgumentError:
    names = ", ".join(map(repr, changed)) or "any module"
    return ArgumentError(f"Argument `model` cannot be pruned at {names}: the smaller model {what}")


def _outputs(model: nn.Module, x: Tensor, dtype: torch.dtype, too_large: bool) -> list[Tensor]:
    exact = (imitated(model) if too_large else exact_copy(model)).to("cpu", dtype).eval()
    with torch.no_grad(), seeded(0):  # of a model that draws random numbers
        return tensors_in(exact(x.to("cpu", dtype)))
