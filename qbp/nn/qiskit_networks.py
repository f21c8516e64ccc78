"""Qiskit Machine Learning's neural networks: their circuit, what they measure, and what they run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from qbp.circuit.program import Expval, Measurement, Probs
from qbp.circuit.tracing import Circuit, trace
from qbp.errors import ArgumentError, CircuitError

__all__ = ["Network", "NetworkError", "network_of", "refusal"]

MOST_QUBITS = 20
"""Measured qubits whose outcomes `interpret` is asked about, each of them once."""
MOST_TERMS = 100_000
"""Pauli words of all outputs together."""

_NETWORKS = {
    f"qiskit_machine_learning.neural_networks.{module}.{name}": name
    for module, name in (("estimator_qnn", "EstimatorQNN"), ("sampler_qnn", "SamplerQNN"))
}


class NetworkError(ArgumentError):
    """A network, or what is asked of it, does not fit."""

    message: str


class Network(NamedTuple):
    """A neural network as `qbp.TorchConnector` runs it.

    Attributes:
        circuit: with what is measured: M outputs, the last axes of the network's flattened.
        output_shape: the network's own.
        backend: "auto" where its primitive is exact, else the primitive.
        shots: what the primitive is asked for; None for exact values, or for what the primitive does by itself.
        diff_method: as of `QuantumLayer`.
    """

    circuit: Circuit
    output_shape: tuple[int, ...]
    backend: Any
    shots: int | None
    diff_method: str


def network_of(neural_network: Any) -> Network:
    """Read an `EstimatorQNN` or a `SamplerQNN`.

    Raises:
        NetworkError: it is another kind of network, or one that computes in a way of its own.
        CircuitError: its circuit cannot be expressed.
    """
    kind = _kind(neural_network)
    params = {"input_params": neural_network.input_params, "weight_params": neural_network.weight_params}
    circuit = trace(neural_network.circuit, **params)
    if kind == "EstimatorQNN":
        circuit = trace(circuit, observables=list(neural_network.observables))
        primitive, precision = neural_network.estimator, neural_network.default_precision
        exact = getattr(primitive, "_exact_mode", False) or (_is_statevector(primitive) and not precision)
        shots = None if exact or not precision else round(precision**-2)
    else:
        circuit = trace(circuit, observables=_interpreted(neural_network))
        primitive, shots = neural_network.sampler, None
        exact = getattr(primitive, "_exact_mode", False)
    if circuit.n_qubits != getattr(neural_network, "num_virtual_qubits", circuit.n_qubits):  # laid out on a device
        circuit = replace(circuit, program=circuit.program.narrowed())
    method = "spsa" if type(neural_network.gradient).__name__.startswith("SPSA") else "best"
    return Network(circuit, tuple(neural_network.output_shape), "auto" if exact else primitive, shots, method)


def _kind(neural_network: Any) -> str:
    """The class whose outputs it gives."""
    own: set[str] = set()
    for kind in type(neural_network).__mro__:
        name = _NETWORKS.get(f"{kind.__module__}.{kind.__qualname__}")
        if name is not None:
            changed = sorted(method for method in own if hasattr(kind, method))
            if changed:
                raise refusal(
                    f"Argument `neural_network` must compute as an {name} does, but {type(neural_network).__name__} "
                    f"has {', '.join(changed)} of its own: keep Qiskit's TorchConnector for it"
                )
            return name
        own.update(key for key in vars(kind) if not key.startswith("__") and not key.startswith("_abc"))
    raise refusal(
        "Argument `neural_network` must be an EstimatorQNN or a SamplerQNN of Qiskit Machine Learning, but is a "
        f"{type(neural_network).__name__}"
    )


def refusal(text: str) -> NetworkError:
    """The error, which is also the package's own where that is installed."""
    try:
        from qiskit_machine_learning import QiskitMachineLearningError
    except ImportError:
        return NetworkError(text)
    kind: Any = type("NetworkError", (NetworkError, QiskitMachineLearningError), {"__module__": __name__})
    error: NetworkError = kind(text)
    error.message = text  # what Qiskit's errors print
    return error


def _is_statevector(primitive: Any) -> bool:
    """Whether it is a simulator that is exact where no precision is asked for."""
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(primitive).__mro__[:2]}
    return bool(names & {"qiskit.primitives.statevector_estimator.StatevectorEstimator"})


# ---- outcomes --------------------------------------------------------------------------------------------------------


def _interpreted(network: Any) -> list[Measurement]:
    """What a sampler's network measures: probabilities of outcomes as they are, or the sums of them that `interpret`
    makes, as Pauli words: the parity of any number of qubits is one word."""
    bits = _bits(network)
    places = sorted(bits, reverse=True)
    wires = tuple(dict.fromkeys(bits[place] for place in places))
    n, shape = len(wires), tuple(network.output_shape)
    if n > MOST_QUBITS:
        raise CircuitError(f"A SamplerQNN may measure up to {MOST_QUBITS} qubits, but measures {n}")
    rows = np.arange(2**n)
    read = {wire: rows >> (n - 1 - k) & 1 for k, wire in enumerate(wires)}
    outcomes = sum((read[bits[place]] << place for place in places), np.zeros_like(rows))
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    outputs = [_output(network, int(outcome), numbers) for outcome in outcomes]
    if outputs == list(range(numbers.size)):
        return [Probs(wires)]
    return _words(outputs, numbers.size, wires)


def _bits(network: Any) -> Mapping[int, int]:
    """For each bit of an outcome the wire that it is read from."""
    circuit = network.circuit
    layout = getattr(circuit, "layout", None)
    if layout is not None:
        return dict(enumerate(layout.final_index_layout(filter_ancillas=True)))
    if not circuit.clbits:
        return {k: k for k in range(circuit.num_qubits)}
    measured = (step for step in circuit.data if step.operation.name == "measure")
    return {circuit.find_bit(s.clbits[0]).index: circuit.find_bit(s.qubits[0]).index for s in measured}


def _output(network: Any, outcome: int, numbers: np.ndarray) -> int | None:
    """The output that an outcome counts for, None where it counts for none."""
    if outcome >= 2**network.num_virtual_qubits:
        return None
    key = network.interpret(outcome)
    try:
        index = numbers[tuple(int(k) for k in key) if isinstance(key, Sequence | np.ndarray) else int(key)]
    except (IndexError, TypeError, ValueError) as error:
        raise CircuitError(
            f"`interpret` of the SamplerQNN must give places in its output shape {numbers.shape}, but gives {key!r} "
            f"for {outcome}"
        ) from error
    if np.ndim(index):
        raise CircuitError(f"`interpret` of the SamplerQNN must give places in {numbers.shape}, but gives {key!r}")
    return int(index)


def _words(outputs: Sequence[int | None], n_outputs: int, wires: tuple[int, ...]) -> list[Measurement]:
    """Sums of outcomes' probabilities as words of Z, by a Walsh-Hadamard transform of which outcomes count."""
    size = len(outputs)
    if n_outputs * size > 2**24:
        raise CircuitError(f"A SamplerQNN of {len(wires)} qubits may not have {n_outputs} outputs by `interpret`")
    counts = np.zeros((n_outputs, size))
    for outcome, output in enumerate(outputs):
        if output is not None:
            counts[output, outcome] = 1 / size
    half = 1
    while half < size:
        pairs = counts.reshape(n_outputs, -1, 2, half)
        counts = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], 2).reshape(counts.shape)
        half *= 2
    if np.count_nonzero(counts) > MOST_TERMS:
        raise CircuitError(
            f"`interpret` of the SamplerQNN makes {np.count_nonzero(counts)} Pauli words, more than {MOST_TERMS}"
        )
    on = [tuple(wire for k, wire in enumerate(wires) if z >> (len(wires) - 1 - k) & 1) for z in range(size)]
    return [
        Expval(tuple((float(row[z]), "Z" * len(on[z]), on[z]) for z in np.flatnonzero(row)) or ((0.0, "", ()),))
        for row in counts
    ]
