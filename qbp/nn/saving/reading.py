"""A model of the data in a file, of which nothing is believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qbp.circuit import stored
from qbp.circuit.stored_noise import noise_from_data
from qbp.circuit.stored_values import as_dict, as_flag, as_list, as_text
from qbp.errors import ConfigError, check_choice
from qbp.executors import check_trusted
from qbp.gradients.autograd import DIFF_METHODS
from qbp.gradients.stateful import STATEFUL
from qbp.nn.layer import QuantumLayer
from qbp.nn.saving.kinds import ARGUMENTS, HOLDERS, MODULES, MOST_CALLS
from qbp.nn.saving.steps import from_data
from qbp.nn.traced import TracedModule

__all__ = ["Reader"]


class Reader:
    """Makes a model of the state in a file.

    Args:
        path: the file, for errors.
        state: what is in it.
        backend, trust: as in `load_model`.
    """

    def __init__(self, path: str, state: Mapping[str, Any], backend: Any, trust: bool):
        self.path, self.state, self.backend, self.trust = path, state, backend, trust
        self.weights: Mapping[str, Any] = state["weights"]
        self.ties: Mapping[str, str] = state.get("ties", {})
        self.modules: dict[str, nn.Module] = {}
        self.calls: dict[str, int] = {}  # of modules, when one of these is called; 0 until it is whole

    def read(self) -> nn.Module:
        """Return the model, with its weights."""
        model = self.module(self.state["model"], "")
        self.place_weights(model)
        return model

    def module(self, data: Any, name: str) -> nn.Module:
        """One module, with all that is in it."""
        if "same" in data:
            if self.calls.get(data["same"], 0) == 0:  # no module holds itself
                raise self.damaged(f"{name} is the same as nothing before it")
            self.calls[name] = self.calls[data["same"]]
            return self.modules[data["same"]]
        self.calls[name] = 0
        kind = data["kind"]
        if isinstance(kind, str) and kind in HOLDERS:
            module, calls = self.holder(data, HOLDERS[kind](), name)
        elif kind == "TracedModule":
            module, calls = self.traced(data, name)
        else:
            calls, module = 1, self.layer(data, name) if kind == "QuantumLayer" else self.plain(data)
        if calls > MOST_CALLS:
            raise ConfigError(f"The model in {self.path} calls more than {MOST_CALLS} modules")
        self.calls[name], self.modules[name] = calls, module
        return module

    def holder(self, data: Mapping[str, Any], module: nn.Module, name: str) -> tuple[nn.Module, int]:
        """A module of modules, and how many a call of it calls, if it calls all of them."""
        calls = 1
        for key, child in as_dict(data["modules"], "modules").items():
            inner = f"{name}.{key}".lstrip(".")
            module.add_module(key, self.module(child, inner))
            calls += self.calls[inner]
        for key in as_list(data.get("parameters", []), "parameters"):
            module.register_parameter(as_text(key), nn.Parameter(self.like(name, key), requires_grad=False))
        for key, persistent in as_dict(data.get("buffers", {}), "buffers").items():
            module.register_buffer(key, self.like(name, key), persistent=as_flag(persistent, "whether one is kept"))
        return module, calls

    def like(self, name: str, key: str) -> Tensor:
        """A stand-in for a weight of the file."""
        return self.weight(f"{name}.{key}".lstrip(".")).to("meta")

    def traced(self, data: Mapping[str, Any], name: str) -> tuple[nn.Module, int]:
        """A module of steps, and how many modules one of its passes calls."""
        evaluating = from_data(data["evaluating"])
        training = evaluating if data["training"] is None else from_data(data["training"])
        module = TracedModule(evaluating, training)
        self.holder(data, module, name)
        paths: Iterable[str]
        calls = 1
        for paths in ([s.target for s in steps if s.op == "module"] for steps in (evaluating, training)):
            inside = [self.calls.get(f"{name}.{path}".lstrip("."), 0) for path in paths]
            if not all(inside):
                raise self.damaged(f"{name or 'the model'} calls what it does not have")
            calls = max(calls, 1 + sum(inside))
        return module, calls

    def plain(self, data: Mapping[str, Any]) -> nn.Module:
        """A module of the table."""
        kind = data["kind"]
        if not isinstance(kind, str) or kind not in MODULES:
            raise ConfigError(f"A model file can hold {', '.join(MODULES)}, but names {str(kind)[:80]!r}")
        make, names = MODULES[kind]
        arguments = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data["arguments"].items()
        }
        wrong = [key for key in names if not ARGUMENTS[key](arguments[key])]
        if wrong or set(arguments) != set(names):
            raise self.damaged(f"{kind} cannot have such {', '.join(wrong or names)}")
        with torch.device("meta"):  # its weights come from the file, and are as large as that
            return make(**arguments)

    def layer(self, data: Mapping[str, Any], name: str) -> QuantumLayer:
        """A quantum layer."""
        circuit = stored.from_data(data["circuit"])
        for key, shape in circuit.weight_shapes.items():
            full = f"{name}.{key}".lstrip(".")
            if tuple(self.weight(full).shape) != shape:
                raise self.damaged(f"{full} must have shape {shape}")
        if self.backend is not None:
            return QuantumLayer(circuit, backend=self.backend)
        where = data["backend"]
        check_trusted(where, f"The model in {self.path}", self.trust)
        rule, shots = data["diff_method"], data["shots"]
        if isinstance(rule, dict):
            rule = STATEFUL[rule["rule"]](**rule["options"])
        else:
            check_choice("diff_method", rule, DIFF_METHODS)
        noise = data.get("noise")
        if isinstance(noise, str):
            check_trusted(noise, f"The model in {self.path}", self.trust)
        elif noise is not None:
            noise = noise_from_data(noise)
        return QuantumLayer(circuit, backend=where, noise=noise, diff_method=rule, shots=shots)

    def weight(self, name: str) -> Tensor:
        """A tensor of the file, by any of its names."""
        tensor = self.weights[self.ties.get(name, name)]
        if not isinstance(tensor, Tensor):
            raise self.damaged(f"{name} must be a tensor")
        return tensor

    def place_weights(self, model: nn.Module) -> None:
        """Put the weights of the file in the places of those that the model was made with."""
        frozen, placed = set(self.state["frozen"]), dict[str, nn.Parameter]()
        unused = set(self.weights)
        for prefix, module in model.named_modules():
            for key, old in (*module._parameters.items(), *module._buffers.items()):
                name = f"{prefix}.{key}".lstrip(".")
                if old is None:
                    continue
                new, first = self.weight(name), self.ties.get(name, name)
                if new.shape != old.shape or new.is_floating_point() != old.is_floating_point():
                    raise self.damaged(
                        f"{name} must have shape {tuple(old.shape)}, but has {tuple(new.shape)} of {new.dtype}"
                    )
                unused.discard(first)
                if key in module._buffers:
                    module._buffers[key] = new
                else:
                    placed.setdefault(first, nn.Parameter(new, requires_grad=first not in frozen))
                    module._parameters[key] = placed[first]
            if isinstance(module, nn.RNNBase):  # which keeps a list of its weights
                module._flat_weights = [module._parameters[key] for key in module._flat_weights_names]
        if unused:
            raise self.damaged(f"it has no {min(unused)}")

    def damaged(self, what: str) -> ConfigError:
        """The error of a file that says what cannot be."""
        return ConfigError(f"The model in {self.path} is damaged: {what}")
