"""A layer in the words of other packages: PennyLane's, Qiskit's, OpenQASM's.

All are written from the circuit that the layer runs, whatever it was made from, pruned or not: outputs are equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qbp.circuit.tracing import Circuit
from qbp.errors import ArgumentError
from qbp.nn.noise import noise_of

if TYPE_CHECKING:
    from qbp.nn.translation.qiskit_circuits import QiskitCircuit

__all__ = ["Translated"]


class Translated:
    """A layer whose circuit is known."""

    _executor: Any

    @property
    def circuit(self) -> Circuit:
        """The traced circuit."""
        raise NotImplementedError

    def to_pennylane(self) -> Any:
        """The layer as PennyLane's own `TorchLayer`, with the same weights; its QNode is `.qnode`.

        Raises:
            ArgumentError: the noise is that of a device, not of the circuit.
            CircuitError: a QNode runs itself, or PennyLane has no words for what is read wrongly.

        Example:
            >>> import qbp, torch
            >>> layer, x = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1), torch.randn(3, 2)
            >>> torch.allclose(layer.to_pennylane()(x), layer(x), atol=1e-6)
            True
        """
        from qbp.nn.translation.pennylane_layers import pennylane_layer

        return pennylane_layer(self, self._whole_circuit())

    def to_qiskit(self) -> QiskitCircuit:
        """The layer as a `QuantumCircuit` with parameters x (data) and w (weights), and its observables.

        Returns:
            `circuit`, `observables`, `input_params`, `weight_params` as an `EstimatorQNN`, or `QuantumLayer`, takes
            them, and `weights`, the values (P,).

        Raises:
            ArgumentError: the noise is that of a device, not of the circuit.
            CircuitError: a QNode runs itself, or Qiskit has no words for the circuit: amplitudes that are data,
                functions in angles.

        Example:
            >>> import qbp
            >>> exported = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1).to_qiskit()
            >>> exported.circuit.num_parameters, [str(word.paulis[0]) for word in exported.observables]
            (4, ['IZ', 'ZI'])
        """
        from qbp.nn.translation.qiskit_circuits import qiskit_circuit

        return qiskit_circuit(self, self._whole_circuit())

    def to_qasm(self, *, bound: bool = False) -> str:
        """The layer as OpenQASM 3, which `QuantumLayer` reads back from a file; data are x_0, ..., weights w_0, ...

        Args:
            bound: whether the weights are written as numbers, so that data are the only inputs.

        Raises:
            ArgumentError: the noise is that of a device, not of the circuit.
            CircuitError: a QNode runs itself, or OpenQASM has no words for the circuit: channels, amplitudes, functions
                in angles.

        Example:
            >>> import qbp
            >>> print(qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1).to_qasm())
            // observables: Z0, Z1
            // weight_shape: 1, 2
            OPENQASM 3.0;
            include "stdgates.inc";
            <BLANKLINE>
            input float[64] x_0;
            input float[64] x_1;
            input float[64] w_0;
            input float[64] w_1;
            qubit[2] q;
            <BLANKLINE>
            rx(x_0) q[0];
            rx(x_1) q[1];
            rx(w_0) q[0];
            rx(w_1) q[1];
            cx q[0], q[1];
            <BLANKLINE>
        """
        from qbp.nn.translation.qasm_text import qasm_text

        return qasm_text(self, self._whole_circuit(), bound)

    def _whole_circuit(self) -> Circuit:
        """The circuit, which must be all that the layer computes."""
        noise = noise_of(self._executor)
        if noise is not None:
            raise ArgumentError(
                f"This layer's circuit is without the noise {noise!r} of its backend: call `set_backend` first"
            )
        return self.circuit
