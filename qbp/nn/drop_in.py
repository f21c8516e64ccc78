"""`TorchLayer` and `TorchConnector`: PennyLane's and Qiskit Machine Learning's names for a quantum layer.

A program that imports them from here instead is the same program: as there, circuits are computed in double precision,
whatever the dtype of the input, which is that of the output.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qbp.circuit.tracing import Circuit
from qbp.gradients.autograd import Expectation
from qbp.gradients.transforms import is_transformed
from qbp.nn.layer import QuantumLayer
from qbp.nn.qiskit_networks import network_of, refusal
from qbp.nn.qnode import FunctionSource, check_torch

__all__ = ["TorchConnector", "TorchLayer"]


class _InDouble(QuantumLayer):
    """A layer that computes in double precision."""

    def _run(self, circuit: Circuit, x: Tensor, weights: Tensor | None, in_jit: bool) -> Tensor:
        if x.dtype not in (torch.float32, torch.complex64):
            return super()._run(circuit, x, weights, in_jit)
        given = weights is not None
        weight = None if given or in_jit or is_transformed() else self._only_weight_of(circuit, x)
        if weight is not None:  # rounded within one step of autograd
            return Expectation.apply(x, weight, None, self._task(circuit, x, weight, dtype=torch.float64))
        if weights is not None:
            weights = weights.double()
        return super()._run(circuit, x.to(torch.complex128 if x.is_complex() else torch.float64), weights, in_jit)


class TorchLayer(_InDouble):
    """`pennylane.qnn.TorchLayer` with qbp's engine: a `QuantumLayer` with its signature and its text.

    Args:
        qnode: the QNode, with an argument `inputs`.
        weight_shapes: the shape of each weight by the name of its argument.
        init_method: a function of `torch.nn.init`, or for each weight such a function or a tensor.
        options: what else a `QuantumLayer` takes.

    Raises:
        CircuitError: if the circuit cannot be expressed.
        ArgumentError: if an argument does not fit.

    Example:
        >>> import pennylane as qml
        >>> @qml.qnode(qml.device("default.qubit", wires=2))
        ... def circuit(inputs, weights):
        ...     qml.AngleEmbedding(inputs, wires=range(2))
        ...     qml.BasicEntanglerLayers(weights, wires=range(2))
        ...     return [qml.expval(qml.Z(wire)) for wire in range(2)]
        >>> TorchLayer(circuit, {"weights": (3, 2)})(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        qnode: Any,
        weight_shapes: Mapping[str, Any],
        init_method: Callable[..., Tensor] | Mapping[str, Any] | None = None,
        **options: Any,
    ):
        check_torch()
        super().__init__(qnode, weight_shapes, init_method, **options)

    def __str__(self) -> str:
        name = getattr(getattr(self.qnode, "func", self.qnode), "__name__", "unknown")
        return f"<Quantum Torch Layer: func={name}>"

    __repr__ = __str__


class TorchConnector(_InDouble):
    """`TorchConnector` of Qiskit Machine Learning with qbp's engine.

    What differs: outputs are dense, and the layer in front always trains, whatever `input_gradients` of the network
    says. Where the network's primitive is exact the circuit runs on the native engine; any other primitive is kept,
    with its shots and its noise.

    Args:
        neural_network: an `EstimatorQNN` or a `SamplerQNN`.
        initial_weights: (P,) the first weights. Default: uniform in [-1, 1].
        sparse: for the signature's sake: whether Qiskit's output would be sparse.

    Raises:
        ArgumentError: if the network is of another class, or `sparse` is asked of a network that is not. It is a
            `QiskitMachineLearningError`, too.
        CircuitError: if the circuit cannot be expressed.
    """

    def __init__(self, neural_network: Any, initial_weights: Any = None, sparse: bool | None = None):
        network = network_of(neural_network)
        if sparse and not neural_network.sparse:
            raise refusal("TorchConnector configured as sparse, the network must be sparse as well")
        init: Any = functools.partial(nn.init.uniform_, a=-1, b=1)
        if initial_weights is not None:
            init = {"weight": torch.as_tensor(initial_weights).detach().to(torch.float32)}
        super().__init__(
            network.circuit,
            init_method=init,
            backend=network.backend,
            shots=network.shots,
            diff_method=network.diff_method,
        )
        if not self._weight_names:
            self._register("weight", nn.Parameter(torch.zeros(0)))
        self._network = FunctionSource(neural_network, None, {})  # lost where it cannot be pickled
        self._output_shape = None if len(network.output_shape) == 1 else network.output_shape

    @property
    def neural_network(self) -> Any:
        """The network that the layer was made from; None after unpickling where it cannot be pickled."""
        return self._network.function

    @property
    def sparse(self) -> bool:
        """Whether outputs are sparse: they never are."""
        return False

    @property
    def _weights(self) -> Tensor:
        return self.weight

    def forward(self, input_data: Tensor | None = None) -> Tensor:
        """Outputs (*, M), or (*, ...) of the network's output shape, of inputs (*, I); without data of a circuit that
        takes none."""
        if input_data is None:
            input_data = next(self.parameters(), torch.empty(0)).new_empty(0)
        if not isinstance(input_data, Tensor) or not input_data.ndim or input_data.shape[-1] != self.n_inputs:
            got = tuple(input_data.shape) if isinstance(input_data, Tensor) else type(input_data).__name__
            raise refusal(f"Argument `input_data` must have shape (..., {self.n_inputs}), but has {got}")
        outputs = super().forward(input_data)
        return outputs if self._output_shape is None else outputs.unflatten(-1, self._output_shape)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if f"{prefix}weight" in destination:
            destination[f"{prefix}_weights"] = destination[f"{prefix}weight"]  # Qiskit's second name of it
