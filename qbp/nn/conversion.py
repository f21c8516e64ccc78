"""Models made with PennyLane's `TorchLayer` or Qiskit's `TorchConnector` become models of qbp, with equal outputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qbp.errors import ArgumentError, CircuitError, suggests_names
from qbp.executors import capabilities_of
from qbp.nn.copying import copied
from qbp.nn.drop_in import TorchConnector, TorchLayer
from qbp.nn.layer import QuantumLayer
from qbp.nn.seeding import spared

__all__ = ["convert"]

_TORCHLAYER = "pennylane.qnn.torch.TorchLayer"
_CONNECTOR = "qiskit_machine_learning.connectors.torch_connector.TorchConnector"
_OF_LAYERS = {"qnode", "qnode_weights", "_initialized", "_neural_network", "_sparse", "_parameters"}
_OF_LAYERS |= {"_compiled_call_impl"}
"""What the originals keep of their own, and what would call them."""
_METHODS = ("forward", "_evaluate_qnode", "weight", "neural_network", "construct", "__call__", "_wrapped_call_impl")
"""A subclass with one of these of its own computes something else."""
_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-4}


@suggests_names
def convert(model: nn.Module, *, inplace: bool = False) -> Any:
    """Put qbp's layers in the places of PennyLane's `TorchLayer` and of Qiskit's `TorchConnector`.

    Names, weights and their dtypes, modules and weights that are shared, hooks, and whether a module is in training
    stay; so does the `state_dict`. Each new layer is compared with the original on random rows first. One that cannot
    be converted, or that gives something else, stays as it is, and a warning says which and why.

    A layer that samples, or runs on a device that is no exact simulator, keeps its device or primitive with its shots
    and noise, and is not compared.

    Args:
        model: a module; itself, or any module in it, may be such a layer.
        inplace: change the model itself rather than a copy: its parameters stay the same objects, so that an optimizer
            of theirs goes on.

    Returns:
        The model, or the new layer where the model is one.

    Raises:
        ArgumentError: there is nothing to convert, or the model cannot be copied.

    Example:
        >>> import pennylane as qml
        >>> @qml.qnode(qml.device("default.qubit", wires=2))
        ... def circuit(inputs, weights):
        ...     qml.AngleEmbedding(inputs, wires=range(2))
        ...     qml.BasicEntanglerLayers(weights, wires=range(2))
        ...     return [qml.expval(qml.Z(wire)) for wire in range(2)]
        >>> layer = qml.qnn.TorchLayer(circuit, {"weights": (3, 2)})
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 2), layer, torch.nn.Linear(2, 1))
        >>> faster, x = convert(model), torch.randn(8, 4)
        >>> torch.allclose(faster(x), model(x), atol=1e-6)
        True
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"Argument `model` must be a torch.nn.Module, but is a {type(model).__name__}")
    named = {name or "the model": m for name, m in model.named_modules() if _original_of(m)}
    if not named and not any(isinstance(module, QuantumLayer) for module in model.modules()):
        raise ArgumentError("Argument `model` must hold a TorchLayer or a TorchConnector, but holds none")
    layers: dict[int, QuantumLayer] = {}
    stay: list[str] = []
    other: list[str] = []
    parameters: dict[int, Any] = {}  # what stands for the original's, by its id
    with spared(), torch.no_grad():
        for name, original in named.items():
            try:
                layer = _layer_of(original)
                if not _compare(original, layer):
                    other.append(repr(name))
                _check_weights(original, layer)
            except Exception as error:  # the user's code runs, which may raise anything
                stay.append(f"{name!r} ({error})")
                continue
            _take_weights(original, layer, parameters, inplace)
            layers[id(original)] = layer
    if stay:
        warnings.warn(f"These layers stay as they are: {'; '.join(stay)}", stacklevel=3)
    if other:
        what = "gave values for a batch that are not those of its rows: now they are those of its rows"
        warnings.warn(f"The original of {', '.join(other)} {what}", stacklevel=3)
    if inplace:
        for original in named.values():
            if id(original) in layers:
                _take_rest(original, layers[id(original)], None)
        return _replaced(model, layers)
    memo: dict[int, Any] = {**parameters, **layers}
    for original in named.values():
        if id(original) in layers:
            _take_rest(original, layers[id(original)], memo)
    return copied(model, memo)


def _original_of(module: nn.Module) -> str:
    """Which of the two classes it is one of; "" for none, and for qbp's own."""
    if isinstance(module, QuantumLayer):
        return ""
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__]
    return next((name for name in (_TORCHLAYER, _CONNECTOR) if name in names), "")


def _layer_of(original: Any) -> QuantumLayer:
    """qbp's layer with the original's circuit."""
    name = _original_of(original)
    for kind in type(original).__mro__:
        if f"{kind.__module__}.{kind.__qualname__}" == name:
            break
        changed = [method for method in _METHODS if method in vars(kind)]
        if changed or hasattr(original, "parametrizations"):
            raise ArgumentError(f"its class {kind.__name__} has {', '.join(changed) or 'parametrizations'} of its own")
    if name == _CONNECTOR:
        return TorchConnector(original.neural_network, original.weight)
    shapes = {key: tuple(weight.shape) for key, weight in original.qnode_weights.items()}
    with _input_argument(original.input_arg):
        return TorchLayer(original.qnode, shapes, {k: w.detach() for k, w in original.qnode_weights.items()})


@contextmanager
def _input_argument(name: str) -> Iterator[None]:
    """For layers that are made meanwhile, the name of the data argument."""
    before = QuantumLayer._input_arg
    QuantumLayer.set_input_argument(name)
    try:
        yield
    finally:
        QuantumLayer.set_input_argument(before)


# ---- equal outputs ---------------------------------------------------------------------------------------------------


def _compare(original: Any, layer: QuantumLayer) -> bool:
    """Raise unless the layer gives what the original gives for each row; nothing is compared where outputs are random,
    or the code is the same.

    Returns:
        Whether the original, too, gives for a batch what it gives for its rows.
    """
    if layer.executor is None or capabilities_of(layer.executor).shots or layer.backend not in _EXACT:
        return True
    dtype = torch.float64
    rows = _rows(layer)
    try:
        want = _row_by_row(original, rows)
    except RuntimeError:  # its function computes with tensors of its own in another dtype
        dtype = torch.float32
        want = _row_by_row(original, rows.to(dtype))
    got = layer.forward(rows.to(dtype))
    if want.numel() != got.numel():
        raise CircuitError(f"a row gives {want.numel() // len(rows)} outputs, but {got.numel() // len(rows)} in qbp")
    error = (want.reshape(-1).to(got.dtype) - got.reshape(-1)).abs().max().item() if want.numel() else 0.0
    if not error <= _TOLERANCE[dtype] * max(1.0, want.abs().max().item() if want.numel() else 0.0):
        raise CircuitError(f"outputs differ by {error:.2g} from the original's")
    batch = _batch(original, rows.to(dtype))
    if batch is not None and batch.shape != got.shape:
        raise CircuitError(f"a batch gives shape {tuple(batch.shape)}, but {tuple(got.shape)} in qbp: return a list")
    return batch is None or torch.allclose(batch.to(got.dtype), got, atol=_TOLERANCE[torch.float32])


_EXACT = ("native", "pauli", "windows", "pauli-propagation")


def _rows(layer: QuantumLayer) -> Tensor:
    """Random rows that the circuit takes."""
    circuit = layer.traced
    n_rows = 3 if circuit.n_inputs != 3 else 5
    rows = torch.randn(n_rows, circuit.n_inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows[:, list(circuit.bits)] = (rows[:, list(circuit.bits)] > 0).double()
    return nn.functional.normalize(rows, dim=1) if circuit.normalized else rows


def _row_by_row(original: Any, rows: Tensor) -> Tensor:
    """Its outputs; row after row, as a function that is written for one sample wants it, where that works."""
    run = _answer(original)
    try:
        return torch.stack([run(row).reshape(-1) for row in rows])
    except RuntimeError:
        raise
    except Exception as error:  # whatever a function raises that is written for batches
        try:
            return run(rows)
        except Exception:
            raise CircuitError(f"the original does not run: {error}") from error


def _answer(original: Any) -> Any:
    """Its forward pass without hooks; of Qiskit's in double precision."""
    if _original_of(original) == _TORCHLAYER:
        return type(original).forward.__get__(original)
    network, weights = original.neural_network, original.weight.detach().double().numpy(force=True)

    def run(x: Tensor) -> Tensor:
        outputs = network.forward(x.numpy(), weights)
        return torch.as_tensor(outputs.todense() if network.sparse else outputs)

    return run


def _batch(original: Any, rows: Tensor) -> Tensor | None:
    """Its outputs for a batch; None where it takes none."""
    try:
        outputs: Tensor = type(original).forward(original, rows)
        return outputs.to_dense() if outputs.is_sparse else outputs
    except Exception:  # whatever a function raises that is written for one sample
        return None


# ---- what a module is besides its outputs ----------------------------------------------------------------------------


def _check_weights(original: Any, layer: Any) -> None:
    """Raise where the original computes with other tensors than its `state_dict` has, as after an assignment."""
    for name in layer._parameters:
        used = original.qnode_weights[name] if _original_of(original) == _TORCHLAYER else original._weights
        if original._parameters.get(name) is not used:
            raise ArgumentError(f"its weight {name!r} was replaced, and the original still computes with the old one")


def _take_weights(original: Any, layer: Any, parameters: dict[int, Any], same: bool) -> None:
    """The original's parameters, or copies of them: one for each, however many modules share it."""
    for name in layer._parameters:
        old = original._parameters[name]
        if id(old) not in parameters:
            parameters[id(old)] = old if same else nn.Parameter(old.detach().clone(), old.requires_grad)
        layer._parameters[name] = parameters[id(old)]


def _take_rest(original: Any, layer: Any, memo: dict[int, Any] | None) -> None:
    """Hooks, whether it is in training, and what a user put on it; copied by way of `memo`, unless that is None."""
    for key, value in vars(original).items():
        kept = key in ("training", "_buffers", "_modules", "_non_persistent_buffers_set") or "hook" in key
        if key not in _OF_LAYERS and (kept or key not in vars(layer)):
            vars(layer)[key] = value if memo is None else copied(value, memo)


def _replaced(model: nn.Module, layers: dict[int, QuantumLayer]) -> nn.Module:
    """The model with the new layers in the places of the originals."""
    for module in list(model.modules()):
        for key, child in module._modules.items():
            if id(child) in layers:
                module._modules[key] = layers[id(child)]
    return layers.get(id(model), model)
