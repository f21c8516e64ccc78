"""A model's structure as plain data, and its weights."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from qbp.circuit import stored
from qbp.circuit.noise_model import NoiseModel
from qbp.circuit.stored_noise import noise_to_data
from qbp.errors import ConfigError
from qbp.executors import capabilities_of
from qbp.executors.noisy import Extrapolated
from qbp.gradients.stateful import STATEFUL
from qbp.nn.copying import copied
from qbp.nn.layer import QuantumLayer
from qbp.nn.noise import noise_of
from qbp.nn.saving.kinds import HOLDERS, MODULES, is_layer
from qbp.nn.saving.steps import Call, Trace, Untraceable, calls_of, to_data, trace
from qbp.nn.traced import TracedModule

__all__ = ["structure_of", "weights_of"]


def structure_of(model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A model as data, without its weights, and the tensors that are constants of its forward passes, by name.

    Raises:
        ConfigError: the model holds what a file cannot hold.
    """
    writer = _Writer(model)
    writer.follow(model, "", Call(1))
    return writer.module(model, ""), writer.constants


class _Writer:
    """Follows the calls from the model down, since that is how a forward pass of anybody's is known, then writes."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.calls: dict[int, Call] = {}
        self.traces: dict[int, Trace] = {}
        self.names: dict[int, str] = {}
        self.constants: dict[str, Tensor] = {}
        self._twin: nn.Module | None = None

    def follow(self, module: nn.Module, name: str, call: Call) -> None:
        """Note how a module is called, and what it calls."""
        before = self.calls.setdefault(id(module), call)
        if before is not call:
            if before != call and id(module) in self.traces:
                raise ConfigError(f"A model file cannot hold {name}, {_a(module)}, which is called in two ways")
            return
        _check_plain(module, name or "the model")
        if type(module) is nn.Sequential:
            for key, child in _children(module):
                self.follow(child, _within(name, key), Call(1))
        elif not _is_known(module):
            trace = self.traces[id(module)] = self.trace(module, name, call)
            for path, inner in trace.calls.items():
                self.follow(module.get_submodule(path), _within(name, path), inner)

    def trace(self, module: nn.Module, name: str, call: Call) -> Trace:
        """The steps of a module of any class; seen on a copy, since a forward may change its module."""
        if isinstance(module, QuantumLayer) or type(module).__module__.startswith("torch.nn.modules."):
            kinds = ", ".join(["QuantumLayer", *HOLDERS, *MODULES])
            what = "a QNode that runs itself" if is_layer(module) else _a(module)
            raise ConfigError(
                f"A model file can hold {kinds}, and modules of your own, but {name or 'the model'} is {what}"
            )
        if isinstance(module, TracedModule):
            return Trace(module.evaluating, module.in_training, {}, calls_of(module.evaluating, module.in_training))
        try:
            return trace(self.twin().get_submodule(name), call)
        except Untraceable as error:
            raise _untraceable(module, name, error) from error

    def twin(self) -> nn.Module:
        """A copy of the whole model."""
        if self._twin is None:
            layers = [m for m in self.model.modules() if isinstance(m, QuantumLayer)]
            try:
                self._twin = copied(self.model, {id(layer.executor): layer.executor for layer in layers})
            except Exception as error:  # whatever a module raises of it
                raise Untraceable(f"cannot be copied ({str(error)[:120]})") from error
        return self._twin

    def module(self, module: nn.Module, name: str) -> dict[str, Any]:
        """One module as data."""
        if id(module) in self.names:
            return {"same": self.names[id(module)]}
        self.names[id(module)] = name
        _check_plain(module, name or "the model")
        kind = type(module).__name__
        if is_layer(module) and module.executor is not None:
            if isinstance(module.executor, Extrapolated):
                raise ConfigError(
                    f"A model file cannot hold extrapolation, but {name or 'the model'} is extrapolated: save what "
                    "it is made of, and extrapolate that again"
                )
            shots = capabilities_of(module.executor).shots
            about = {"backend": module.backend, "diff_method": _rule(module, name), "shots": shots}
            noise, sampled = noise_of(module.executor), module.backend.partition(":")[0] == "trajectories"
            if isinstance(noise, NoiseModel):
                about |= {"noise": noise_to_data(noise)} | ({} if sampled else {"backend": "auto"})
            elif noise is not None and sampled:
                about |= {"noise": noise}
            return {"kind": "QuantumLayer", "circuit": stored.to_data(module.traced), **about}
        if _is_known(module) and kind in MODULES:
            values = {key: getattr(module, key) for key in MODULES[kind][1]}
            if "bias" in values and not isinstance(values["bias"], bool):
                values["bias"] = values["bias"] is not None
            return {"kind": kind, "arguments": values}
        children = {key: self.module(child, _within(name, key)) for key, child in _children(module)}
        if id(module) in self.traces:
            return {"kind": "TracedModule", "modules": children} | self.steps(module, name)
        kind = kind if HOLDERS.get(kind) is type(module) else "Container"
        return {"kind": kind, "modules": children, **_own(module)}

    def steps(self, module: nn.Module, name: str) -> dict[str, Any]:
        """What a module that was traced computes."""
        trace, own = self.traces[id(module)], _own(module)
        try:
            evaluating, training = to_data(trace.evaluating), to_data(trace.training)
        except Untraceable as error:
            raise _untraceable(module, name, error) from error
        self.constants |= {_within(name, key): value for key, value in trace.constants.items()}
        own["buffers"] |= dict.fromkeys(trace.constants, False)
        return {**own, "evaluating": evaluating, "training": None if training == evaluating else training}


def _is_known(module: nn.Module) -> bool:
    """Whether a file says by name what a module is."""
    kind = type(module)
    is_kept = is_layer(module) and module.executor is not None
    return is_kept or kind is nn.Sequential or kind is MODULES.get(kind.__name__, (None,))[0]


def _untraceable(module: nn.Module, name: str, error: Untraceable) -> ConfigError:
    return ConfigError(
        f"A model file can hold modules of your own that torch.fx can trace, but {name or 'the model'} is "
        f"{_a(module)}, which {error}"
    )


def _a(module: nn.Module) -> str:
    return f"a {type(module).__name__}"


def _own(module: nn.Module) -> dict[str, Any]:
    """Names of a module's own parameters and buffers, and which of the buffers a `state_dict` has."""
    persistent = {
        key: key not in module._non_persistent_buffers_set for key, t in module._buffers.items() if t is not None
    }
    return {"parameters": [key for key, p in module._parameters.items() if p is not None], "buffers": persistent}


def _within(name: str, key: str) -> str:
    return f"{name}.{key}".lstrip(".")


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(key, child) for key, child in module._modules.items() if child is not None]


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _check_plain(module: nn.Module, name: str) -> None:
    """Refuse what is added to a module and would be lost."""
    if any(getattr(module, hooks, None) for hooks in _HOOKS):
        raise ConfigError(f"A model file cannot hold hooks, but {name}, a {type(module).__name__}, has some")
    if "forward" in vars(module):
        raise ConfigError(f"A model file cannot hold a `forward` of its own, but {name} has one")


def _rule(layer: QuantumLayer, name: str) -> Any:
    """The gradient rule of a layer: its name, with its options where it is one that remembers earlier steps."""
    rule = layer.rule
    if rule is None:
        return layer.diff_method
    if type(rule) is not STATEFUL.get(layer.diff_method):
        raise ConfigError(f"A model file cannot hold a gradient rule of your own, but {name} has {layer.diff_method!r}")
    options = {key: getattr(rule, key) for key in inspect.signature(type(rule)).parameters if hasattr(rule, key)}
    return {"rule": layer.diff_method, "options": options}


def weights_of(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every parameter and buffer once, by its first name, and which further names stand for which of them.

    Raises:
        ConfigError: some share memory without being one parameter.
    """
    weights: dict[str, Tensor] = {}
    ties: dict[str, str] = {}
    names: dict[int, str] = {}
    memory: dict[tuple[int, int], str] = {}
    for prefix, module in model.named_modules():
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            name = _within(prefix, key)
            if tensor is None:
                continue
            if id(tensor) in names:
                ties[name] = names[id(tensor)]
                continue
            place = tensor.untyped_storage().data_ptr(), tensor.storage_offset()
            if tensor.numel() and memory.setdefault(place, name) != name:
                raise ConfigError(
                    f"{memory[place]} and {name} share memory without being one parameter: tie them by assigning one "
                    "to the other, or clone one"
                )
            names[id(tensor)], weights[name] = name, tensor
    return weights, ties
