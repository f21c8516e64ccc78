"""Random numbers by seed, and a model begun anew: the one place where torch's global generators are touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from qbp.circuit.lock import LOCK
from qbp.errors import ArgumentError, check_count
from qbp.nn.copying import copied

__all__ = ["gpus", "redraw", "renew", "seeded", "spared"]


def gpus(model: nn.Module | None = None) -> list[torch.device]:
    """The GPUs that draw random numbers: those of the model's tensors, and torch's default device if it is one."""
    tensors: Any = () if model is None else chain(model.parameters(), model.buffers())
    devices = {torch.get_default_device(), *(tensor.device for tensor in tensors)}
    return sorted((device for device in devices if device.type == "cuda"), key=str)


@contextmanager
def seeded(seed: int | None, model: nn.Module | None = None) -> Iterator[None]:
    """Draw from torch's global generators as if seeded, and put their states back afterwards; one thread at a time.

    Args:
        seed: None leaves them as they are.
        model: whose GPUs are seeded too; a GPU that nothing here uses keeps its state.

    Example:
        >>> with seeded(0):
        ...     one = torch.rand(())
        >>> with seeded(0):
        ...     bool(torch.rand(()) == one)
        True
    """
    if seed is None:
        yield
        return
    check_count("seed", seed, -(2**63), 2**64 - 1)  # torch's
    with spared(model) as used:
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed every GPU there is
        for gpu in used:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def spared(model: nn.Module | None = None) -> Iterator[list[torch.device]]:
    """Put the states of torch's global generators back afterwards; gives the GPUs among them."""
    used = gpus(model)
    with LOCK, torch.random.fork_rng(devices=used):
        yield used


def renew(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy begun anew, with initial weights drawn by `seed`, as if it had just been built.

    Parameters, buffers such as a batch norm's running means, random numbers of quantum layers and what gradient rules
    remember start afresh; weights that are shared stay shared.

    Raises:
        ArgumentError: a module has parameters or buffers that it cannot draw anew, or cannot be copied.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        >>> model[1].running_mean += 1
        >>> renew(model, 0)[1].running_mean.tolist()
        [0.0, 0.0]
    """
    fresh = copied(model)
    with seeded(seed, fresh):
        redraw(fresh)
    for module in fresh.modules():
        if getattr(module, "rng_state", None) is not None:
            module.rng_state = torch.Generator().manual_seed(seed).get_state()
        if callable(begin := getattr(getattr(module, "rule", None), "begin", None)):
            begin()
    return fresh


def redraw(model: nn.Module, strict: bool = True) -> None:
    """Draw the weights of a model anew and reset its buffers, in place, from torch's global random state.

    Args:
        model: the model.
        strict: refuse what cannot be reset, rather than leave it as it is.

    Raises:
        ArgumentError: what cannot be reset, by name; the model is then spoilt.
    """
    tensors = [*model.parameters(), *model.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    shapes = {module: _parametrized(module) for module in model.modules() if parametrize.is_parametrized(module)}
    marked = [(t, old) for t, old in zip(tensors, before, strict=True) if t.is_floating_point() or t.is_complex()]
    with torch.no_grad():
        for tensor, _ in marked:  # whatever is still marked afterwards was not reset
            tensor.fill_(torch.nan)
        done: set[int] = set()
        for module in _children_first(model, set()):
            _reset(module, shapes.get(module, {}), done)
        kept = {id(tensor): old for tensor, old in marked if bool(tensor.isnan().any())}
        if strict:
            _check_reset(model, set(kept))
        for tensor, old in marked:
            if id(tensor) in kept:
                tensor.copy_(old)


def _children_first(module: nn.Module, seen: set[int]) -> Iterator[nn.Module]:
    """Every module once, in the order in which they were built: what a module holds before itself."""
    seen.add(id(module))
    for child in module.children():
        if id(child) not in seen:
            yield from _children_first(child, seen)
    yield module


def _resetter(module: nn.Module) -> Any:
    """What draws a module's weights anew; torch's attention and transformer hide theirs."""
    return getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)


def _reset(module: nn.Module, shapes: dict[str, torch.Size], done: set[int]) -> None:
    """Reset what a module itself holds; a weight that it shares with an earlier one keeps what that one has drawn."""
    if not callable(_resetter(module)):
        return
    own = {name: p for name, p in module._parameters.items() if p is not None}
    drawn = {name: p.detach().clone() for name, p in own.items() if id(p) in done}
    if shapes:
        _reset_parametrized(module, shapes)
    else:
        _resetter(module)()
    for name, parameter in own.items():
        new = module._parameters[name]
        if new is not parameter:  # a new object would no longer be shared
            parameter.copy_(new)  # type: ignore[arg-type]
            module._parameters[name] = parameter
        if name in drawn:
            parameter.copy_(drawn[name])
        done.add(id(parameter))


def _parametrized(module: Any) -> dict[str, torch.Size]:
    return {name: getattr(module, name).shape for name in module.parametrizations}


def _reset_parametrized(module: Any, shapes: dict[str, torch.Size]) -> None:
    """Let the module without its parametrizations draw values, and take what these are made of."""
    kind: Any = type(module).__bases__[0]
    plain = kind.__new__(kind)
    plain.__dict__ = module.__dict__ | {"_parameters": dict(module._parameters)}
    for name, shape in shapes.items():
        like: Tensor = next(module.parametrizations[name].parameters())
        plain._parameters[name] = nn.Parameter(torch.full(shape, torch.nan, dtype=like.dtype, device=like.device))
    _resetter(plain)()
    for name in shapes:
        try:
            setattr(module, name, plain._parameters[name].detach())
        except (RuntimeError, NotImplementedError):  # no inverse: the originals stay marked
            continue


def _check_reset(model: nn.Module, kept: set[int]) -> None:
    for name, module in model.named_modules():
        resets = callable(_resetter(module))
        lost = [key for key, parameter in module.named_parameters(recurse=False) if id(parameter) in kept]
        if not resets and not isinstance(module, nn.modules.loss._Loss):
            lasting = {
                k: b for k, b in module.named_buffers(recurse=False) if k not in module._non_persistent_buffers_set
            }
            lost += [k for k, b in lasting.items() if id(b) in kept or not (b.is_floating_point() or b.is_complex())]
        if lost:
            raise ArgumentError(
                f"Argument `model` must have modules with a `reset_parameters` that resets all they hold, to begin "
                f"anew by seed, but {name or 'the model'!r}, a {type(module).__name__}, keeps {', '.join(lost)} "
                "(for a buffer that is constant, one that does nothing will do)"
            )
