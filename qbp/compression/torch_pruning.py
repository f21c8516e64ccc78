"""Quantum layers in Torch-Pruning (arXiv 2301.12900), which prunes the channels of arbitrary classical networks.

Unregistered, a quantum layer is taken for a bare parameter and resized wrongly. Registered, it is a layer of its own:
its inputs are the angles that they turn, its outputs what it measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from qbp.circuit.program import Probs
from qbp.compression.groups import rows_for
from qbp.errors import ArgumentError, MissingPackageError
from qbp.nn.flow import flow_of
from qbp.nn.layer import QuantumLayer
from qbp.nn.shrink import shrink

__all__ = ["drop_outputs", "torch_pruning_options"]


def drop_outputs(layer: QuantumLayer, outputs: Sequence[int]) -> None:
    """Measure less, in place, and drop the gates that only those outputs saw.

    Args:
        layer: a layer that measures expectation values.
        outputs: which of its M outputs go.

    Raises:
        ArgumentError: the layer measures probabilities, or nothing would be left.
    """
    circuit = layer.circuit
    measurements = circuit.program.measurements
    if any(isinstance(m, Probs) for m in measurements):
        raise ArgumentError("Argument `layer` must measure expectation values to measure less, but has probabilities")
    kept = tuple(m for k, m in enumerate(measurements) if k not in set(outputs))
    if not kept:
        raise ArgumentError("Argument `outputs` must leave something to measure, but names all outputs")
    weights = {name: weight.detach() for name, weight in layer.qnode_weights.items()}
    layer.set_circuit(replace(circuit, program=replace(circuit.program, measurements=kept)), weights)
    shrink(layer)


def torch_pruning_options(model: nn.Module) -> dict[str, Any]:
    """What every pruner of Torch-Pruning, and its dependency graph, must be told about a model with quantum layers.

    Args:
        model: the model.

    Returns:
        ``customized_pruners``, and ``ignored_layers`` with what has outputs that are the model's own.

    Raises:
        MissingPackageError: Torch-Pruning is not installed.

    Example:
        >>> import torch, torch_pruning, qbp
        >>> model, x = qbp.hybrid(8, 2, n_qubits=4, n_layers=1, seed=0), torch.zeros(1, 8)
        >>> options = torch_pruning_options(model)
        >>> magnitude = torch_pruning.importance.GroupMagnitudeImportance()
        >>> torch_pruning.pruner.BasePruner(model, x, magnitude, pruning_ratio=0.5, **options).step()
        >>> model[0].out_features, model[2].n_inputs, model(x).shape
        (2, 2, torch.Size([1, 2]))
    """
    try:
        from torch_pruning import BasePruningFunc
    except ImportError as error:
        raise MissingPackageError(f"Torch-Pruning is needed: pip install 'qbp[prune]' ({error})") from error

    class QuantumPruner(BasePruningFunc):
        def prune_in_channels(self, layer: QuantumLayer, idxs: Sequence[int]) -> QuantumLayer:
            shrink(layer, inputs=dict.fromkeys(idxs, 0.0))
            return layer

        def prune_out_channels(self, layer: QuantumLayer, idxs: Sequence[int]) -> QuantumLayer:
            drop_outputs(layer, idxs)
            return layer

        def get_in_channels(self, layer: QuantumLayer) -> int | None:
            return layer.n_inputs

        def get_out_channels(self, layer: QuantumLayer) -> int | None:
            return layer.n_outputs

    kinds: tuple[type[nn.Module], ...] = (nn.Linear, QuantumLayer)
    if (x := rows_for(model, None)) is not None:
        last = [model.get_submodule(name) for name in flow_of(model, x).last(kinds)]
    else:
        last = [module for module in model.modules() if isinstance(module, kinds)][-1:]
    return {"customized_pruners": {QuantumLayer: QuantumPruner()}, "ignored_layers": last}
