"""Models as files: structure, circuits and weights in one safetensors file. Loading runs no code of the file.

A pruned or distilled model has no function and no config to build it from: its circuit is kept as data, ops and angles.
A module that stands in several places is kept once, and so is a weight that several modules share.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from qbp.circuit import stored
from qbp.circuit.stored_graphs import size_of
from qbp.errors import ConfigError, QbpError, check_choice
from qbp.executors import capabilities_of, check_trusted
from qbp.executors.dense import Dense
from qbp.gradients.autograd import DIFF_METHODS
from qbp.gradients.stateful import STATEFUL
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import BoundedAngle
from qbp.nn.seeding import seeded
from qbp.nn.stand_ins import elsewhere, random_rows, widths
from qbp.storage.container import load_state, save_state

__all__ = ["MODULES", "load_model", "save_model"]

VERSION = 2
READABLE = (1, 2)  # version 1 knew neither shared modules nor rows

# Modules that a file may hold, by name, with the arguments that make another one like it.
MODULES: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "Linear": (nn.Linear, ("in_features", "out_features", "bias")),
    "Flatten": (nn.Flatten, ("start_dim", "end_dim")),
    "Dropout": (nn.Dropout, ("p",)),
    "LeakyReLU": (nn.LeakyReLU, ("negative_slope",)),
    "ELU": (nn.ELU, ("alpha",)),
    "GELU": (nn.GELU, ("approximate",)),
    "Softmax": (nn.Softmax, ("dim",)),
    "LogSoftmax": (nn.LogSoftmax, ("dim",)),
    "BatchNorm1d": (nn.BatchNorm1d, ("num_features", "eps", "momentum", "affine", "track_running_stats")),
    "BoundedAngle": (BoundedAngle, ("scale",)),
    **{kind.__name__: (kind, ()) for kind in (nn.Tanh, nn.ReLU, nn.Sigmoid, nn.SiLU, nn.Identity)},
}


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _is_axis(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -64 <= value < 64


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


# What the arguments of modules may be, by their names.
ARGUMENTS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("in_features", "out_features", "num_features"), _is_size),
    **dict.fromkeys(("start_dim", "end_dim"), _is_axis),
    **dict.fromkeys(("negative_slope", "alpha", "eps", "scale", "p"), _is_number),
    **dict.fromkeys(("bias", "affine", "track_running_stats"), lambda value: isinstance(value, bool)),
    "dim": lambda value: value is None or _is_axis(value),
    "momentum": lambda value: value is None or _is_number(value),
    "approximate": lambda value: value in ("none", "tanh"),
}

MOST_CALLS = 10_000
"""Modules that a row passes, each as often as it is called."""

ROWS = 3
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How far outputs of the rows in a file may be from what they were, relative to the largest; of other dtypes 0.05."""

MOST_WORK = 2**20
"""What one row may take for rows to be kept or checked: weights of linear layers, amplitudes times rotations."""


def save_model(model: nn.Module, path: str | Path) -> None:
    """Write a model of `Sequential`s, quantum layers and the modules of `MODULES` to one file, atomically.

    Of a quantum layer the circuit, the weights, the names of backend and gradient rule and the shots are kept. Modules
    and weights that are shared stay shared. The file also holds a few random rows (none of the user's data) with the
    model's outputs, which loading checks.

    Args:
        model: the model.
        path: where to, as in "small.safetensors".

    Raises:
        ConfigError: the model holds what a file cannot hold: another kind of module, hooks, a QNode that runs itself,
            a gradient rule of the user's own; or weights that share memory without being one parameter.

    Example:
        >>> import tempfile, qbp
        >>> model, path = qbp.hybrid(8, 2, seed=0), Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> save_model(model, path)
        >>> torch.equal(load_model(path)(torch.ones(1, 8)), model(torch.ones(1, 8)))
        True
    """
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    structure = _to_data(model, "", {})
    weights, ties = _weights(model)
    state = {"format": "model", "version": VERSION, "frozen": frozen, "model": structure, "weights": weights}
    save_state(path, state | {"ties": ties, "rows": _rows(model)})


def load_model(path: str | Path, *, backend: Any = None, trust: bool = False) -> nn.Module:
    """Read what `save_model` wrote.

    Args:
        path: the file.
        backend: where the circuits run, instead of where they ran when the model was saved.
        trust: whether the file may name a backend that has to be imported ("package.module:Thing"), that is a plugin
            of PennyLane's, or that uses your account ("ibm:NAME").

    Returns:
        The model, in training mode, on the CPU.

    Raises:
        ConfigError: the file is missing, damaged or not a model; it names a backend that wants `trust`; or the model
            gives other outputs than it did when it was saved.
        ArgumentError: the backend is unknown.
    """
    state = load_state(path)
    if state.get("format") != "model" or state.get("version") not in READABLE:
        raise ConfigError(f"{path} is not a model of qbp.save_model of version {VERSION}")
    try:
        with seeded(0):  # weights that are drawn first are none of the caller's random numbers
            model = _Reader(str(path), state, backend, trust).read()
        _check_rows(model, state.get("rows"), str(path))
    except QbpError as error:
        if len(str(error)) < 1000:
            raise
        raise ConfigError(f"The model in {path} is damaged: {str(error)[:300]} ...") from error
    except Exception as error:  # whatever a damaged file makes of it
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ConfigError(f"The model in {path} is damaged: {said}") from error
    return model


# ---- structure -------------------------------------------------------------------------------------------------------


def _to_data(module: nn.Module, name: str, seen: dict[int, str]) -> dict[str, Any]:
    if id(module) in seen:
        return {"same": seen[id(module)]}
    seen[id(module)] = name
    kind = type(module).__name__
    _check_plain(module, name or "the model")
    if type(module) is nn.Sequential:
        children = {key: _to_data(child, f"{name}.{key}".lstrip("."), seen) for key, child in _children(module)}
        return {"kind": kind, "modules": children}
    if _is_layer(module) and module.executor is not None:
        shots = capabilities_of(module.executor).shots
        about = {"backend": module.backend, "diff_method": _rule(module, name), "shots": shots}
        return {"kind": kind, "circuit": stored.to_data(module.circuit), **about}
    if kind not in MODULES or type(module) is not MODULES[kind][0]:
        known = ", ".join(["Sequential", "QuantumLayer", *MODULES])
        what = "QNode that runs itself" if _is_layer(module) else kind
        raise ConfigError(f"A model file can hold {known}, but {name or 'the model'} is a {what}")
    values = {key: getattr(module, key) for key in MODULES[kind][1]}
    if "bias" in values:
        values["bias"] = values["bias"] is not None
    return {"kind": kind, "arguments": values}


def _is_layer(module: nn.Module) -> TypeGuard[QuantumLayer]:
    """Whether it is a quantum layer, and of no subclass that somebody wrote."""
    return isinstance(module, QuantumLayer) and type(module).__module__ == QuantumLayer.__module__


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """All places of a module, also those where one stands that has another place already."""
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


def _weights(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every parameter and buffer once, by its first name, and which further names stand for which of them."""
    weights: dict[str, Tensor] = {}
    ties: dict[str, str] = {}
    names: dict[int, str] = {}
    memory: dict[tuple[int, int], str] = {}
    for prefix, module in model.named_modules():
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            name = f"{prefix}.{key}".lstrip(".")
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


class _Reader:
    """A model of the state in a file, of which nothing is believed.

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
        self.calls: dict[str, int] = {}

    def read(self) -> nn.Module:
        model = self.module(self.state["model"], "")
        self.place_weights(model)
        return model

    def module(self, data: Any, name: str) -> nn.Module:
        if "same" in data:
            if self.calls.get(data["same"], 0) == 0:
                raise ConfigError(f"The model in {self.path} is damaged: {name} is the same as nothing before it")
            self.calls[name] = self.calls[data["same"]]
            return self.modules[data["same"]]
        self.calls[name] = 0  # until it is whole: no module holds itself
        kind = data["kind"]
        if kind == "Sequential":
            module: nn.Module = nn.Sequential()
            calls = 1
            for key, child in data["modules"].items():
                inner = f"{name}.{key}".lstrip(".")
                module.add_module(key, self.module(child, inner))
                calls += self.calls[inner]
        else:
            calls, module = 1, self.layer(data, name) if kind == "QuantumLayer" else self.plain(data)
        if calls > MOST_CALLS:
            raise ConfigError(f"The model in {self.path} calls more than {MOST_CALLS} modules")
        self.calls[name], self.modules[name] = calls, module
        return module

    def plain(self, data: Mapping[str, Any]) -> nn.Module:
        kind = data["kind"]
        if not isinstance(kind, str) or kind not in MODULES:
            raise ConfigError(f"A model file can hold {', '.join(MODULES)}, but names {str(kind)[:80]!r}")
        make, names = MODULES[kind]
        arguments = data["arguments"]
        wrong = [key for key in names if not ARGUMENTS[key](arguments[key])]
        if wrong or set(arguments) != set(names):
            raise ConfigError(
                f"The model in {self.path} is damaged: {kind} cannot have such {', '.join(wrong or names)}"
            )
        with torch.device("meta"):  # its weights come from the file, and are as large as that
            return make(**arguments)

    def layer(self, data: Mapping[str, Any], name: str) -> QuantumLayer:
        circuit = stored.from_data(data["circuit"])
        for key, shape in circuit.weight_shapes.items():
            full = f"{name}.{key}".lstrip(".")
            if tuple(self.weight(full).shape) != shape:
                raise ConfigError(f"The model in {self.path} is damaged: {full} must have shape {shape}")
        if self.backend is not None:
            return QuantumLayer(circuit, backend=self.backend)
        where = data["backend"]
        check_trusted(where, f"The model in {self.path}", self.trust)
        rule, shots = data["diff_method"], data["shots"]
        if isinstance(rule, dict):
            rule = STATEFUL[rule["rule"]](**rule["options"])
        else:
            check_choice("diff_method", rule, DIFF_METHODS)
        return QuantumLayer(circuit, backend=where, diff_method=rule, shots=shots)

    def weight(self, name: str) -> Tensor:
        tensor = self.weights[self.ties.get(name, name)]
        if not isinstance(tensor, Tensor):
            raise ConfigError(f"The model in {self.path} is damaged: {name} must be a tensor")
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
                    raise ConfigError(
                        f"The model in {self.path} is damaged: {name} must have shape {tuple(old.shape)}, but has "
                        f"{tuple(new.shape)} of {new.dtype}"
                    )
                unused.discard(first)
                if key in module._buffers:
                    module._buffers[key] = new
                else:
                    placed.setdefault(first, nn.Parameter(new, requires_grad=first not in frozen))
                    module._parameters[key] = placed[first]
        if unused:
            raise ConfigError(f"The model in {self.path} is damaged: it has no {min(unused)}")


# ---- rows ------------------------------------------------------------------------------------------------------------


def _work(model: nn.Module) -> int:
    """What a row takes, roughly, each module as often as it is called."""
    work = 0
    for _, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, QuantumLayer):
            program = module.circuit.program
            words = sum(len(getattr(m, "terms", (0,))) for m in program.measurements)
            work += (64 + 2 ** min(program.n_qubits, 40)) * (len(program.ops) + words)
            work += sum(size_of(graph) for graph in module.circuit.angle_map.graphs)
        else:
            work += 1 + sum(parameter.numel() for parameter in module.parameters(recurse=False))
    return work


def _outputs(model: nn.Module, x: Tensor) -> Tensor:
    """What a model gives in evaluation, its circuits computed by the dense executor: exact, and on no device."""
    with torch.no_grad():
        outputs = elsewhere(model, lambda layer: (Dense(), "backprop")).eval()(x)
    if not isinstance(outputs, Tensor):
        raise ConfigError("A model must give a tensor")
    return outputs


def _rows(model: nn.Module) -> dict[str, Tensor] | None:
    """Random rows and what the model makes of them; None for a large model, or one that takes no such rows."""
    if _work(model) > MOST_WORK:
        return None
    for width in widths(model)[:8]:
        for x in random_rows(model, ROWS, width):
            try:
                outputs = _outputs(model, x)
            except Exception:  # these are not the rows that it takes
                continue
            if bool(outputs.isfinite().all()):
                return {"inputs": x, "outputs": outputs}
    return None


def _check_rows(model: nn.Module, rows: Any, path: str) -> None:
    if rows is None or _work(model) > MOST_WORK:
        return
    x, expected = rows["inputs"], rows["outputs"]
    if x.ndim != 2 or len(x) > ROWS or x.shape[1] not in widths(model):
        raise ConfigError(f"The model in {path} is damaged: it takes no such rows")
    outputs = _outputs(model, x)
    within = TOLERANCES.get(outputs.dtype, 0.05) * max(1.0, float(expected.abs().max()))
    far = math.inf if outputs.shape != expected.shape else float((outputs - expected).abs().max())
    if not far <= within:
        raise ConfigError(f"The model in {path} gives other outputs than it did when it was saved (by {far:.3g})")
