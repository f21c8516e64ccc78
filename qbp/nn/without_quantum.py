"""What a layer can do and say without a quantum computer, or a simulator of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from qbp.circuit.tracing import Circuit
from qbp.errors import ArgumentError
from qbp.nn.classical import ClassicalTwin, classical_twin
from qbp.nn.noise import noise_of
from qbp.nn.simulability import Simulability, simulability

__all__ = ["WithoutQuantum"]


class WithoutQuantum:
    """A layer with its weights, whose circuit is known."""

    _executor: Any
    parameters: Callable[[], Iterator[nn.Parameter]]
    flat_weights: Callable[[Tensor], Tensor]

    @property
    def circuit(self) -> Circuit:
        """The traced circuit."""
        raise NotImplementedError

    def to_classical(self, x: Tensor | None = None, **cuts: Any) -> ClassicalTwin:
        """What the layer computes with its weights as they are, as a plain torch module without any quantum code.

        The measured words are carried back to the data (`qbp.executors.propagation`): outputs are sums of products of
        cosines and sines of the inputs. Exact, or with words left out and the error measured.

        Args:
            x: (B, I) rows on which that error is measured; needed with `cuts` only.
            cuts: `min_coefficient`, `max_sines`, `max_weight` and `max_words` of
                `qbp.executors.propagation.PauliPropagation`.

        Raises:
            ArgumentError: there are more than `max_words` words; the layer has the noise of a device, amplitudes, or
                angles that are no affine functions of its inputs.
            CircuitError: a QNode runs itself.

        Example:
            >>> import qbp
            >>> layer = qbp.QuantumLayer("strongly_entangling", n_qubits=4, n_layers=2, seed=0)
            >>> twin, x = layer.to_classical(), torch.randn(8, 4)
            >>> bool((twin(x) - layer(x)).abs().max() < 1e-6)
            True
        """
        noise = noise_of(self._executor)
        if noise is not None:
            raise ArgumentError(f"This layer's circuit is without the noise {noise!r} of its backend: set another one")
        return classical_twin(self.circuit, self._flat_as_they_are(), x, cuts)

    def simulability(self, limit: int = 1_000_000, shots: int = 4096) -> Simulability:
        """What the circuit takes on this computer, by the ways that there are, and on a device; printed, a sentence.

        Noise of `noise=` or of a noisy device is left out, and the sentence says so; channels in the circuit count.

        Args:
            limit: Pauli words of an output up to which they are counted.
            shots: of a device, for each basis that is measured.

        Raises:
            ArgumentError: the circuit starts from amplitudes, or measures probabilities of more than six wires.

        Example:
            >>> import qbp
            >>> simulability = qbp.QuantumLayer("basic_entangler", n_qubits=4, n_layers=1).simulability()
            >>> [output.qubits for output in simulability.outputs], simulability.words is not None
            ([3, 2, 3, 4], True)
        """
        noise = noise_of(self._executor)
        without = "the layer's noise model" if noise is not None and not isinstance(noise, str) else noise
        return simulability(self.circuit, self._flat_as_they_are(), limit, shots, without)

    def _flat_as_they_are(self) -> Tensor:
        kind = next((p.dtype for p in self.parameters() if p.dtype in (torch.float32, torch.float64)), torch.float32)
        return self.flat_weights(torch.empty(0, dtype=kind))
