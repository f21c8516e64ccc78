"""From what a user already has to a `Circuit`: the structure as a program, the angles as a function of inputs and
weights.

Sources: a PennyLane function, QNode or template; a Qiskit `QuantumCircuit`; an OpenQASM 3 file; a family of
    `qbp.circuit.ansatz`.
A function is called once, for ONE sample, with tensors that have no values: so what it does must not depend on data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from qbp.circuit.ansatz import COUPLED
from qbp.circuit.lock import as_if_not_called
from qbp.circuit.program import Expval, Measurement, Probs
from qbp.circuit.tracing.circuit import Circuit, sparse_word
from qbp.circuit.tracing.pennylane import n_inputs_of, trace_pennylane, weight_shapes_of
from qbp.circuit.tracing.pennylane_measurements import expval, measurements_of
from qbp.circuit.tracing.qasm_files import trace_qasm
from qbp.circuit.tracing.qiskit import is_qiskit, operators, trace_qiskit
from qbp.errors import ArgumentError

__all__ = ["Circuit", "trace", "weight_shapes_of"]


def trace(
    source: Any,
    weight_shapes: Mapping[str, Any] | None = None,
    *,
    n_inputs: int | None = None,
    n_qubits: int | None = None,
    n_layers: int | None = None,
    coupling_map: Any = None,
    observables: Any = None,
    input_params: Any = None,
    weight_params: Any = None,
    input_arg: str = "inputs",
) -> Circuit:
    """Make a circuit of what is at hand.

    Args:
        source: a PennyLane QNode or quantum function with an argument `inputs`, written for one sample (``inputs[i]``)
            or for a batch (``inputs[..., i]``); a PennyLane template class with ``shape(n_layers, n_wires)``, put
            behind an angle embedding; a Qiskit `QuantumCircuit`; the path of an OpenQASM file, or the name of one of
            ``circuits/``; the name of a family of `qbp.circuit.ansatz`; or a `Circuit`.
        weight_shapes: for a PennyLane function the shape of each weight by the name of its argument.
        n_inputs: I, features of a sample. Found out by trying where a PennyLane function allows several.
        n_qubits, n_layers: size of a family or of a template.
        coupling_map: which wires a family's two-qubit gates join: edges, or a Qiskit `CouplingMap`; `n_qubits` is then
            the map's by default. For families that leave a choice: those of `qbp.circuit.ansatz.COUPLED`.
        observables: what to measure instead of the source's own: Pauli words such as "ZIX" (letter k is wire k), a
            `qbp.circuit.program.Expval` or `Probs`, PennyLane observables, Qiskit `SparsePauliOp`, or a list of these.
            Default for a Qiskit circuit or a template: Z on every wire.
        input_params, weight_params: for a Qiskit circuit which parameters are data and which are weights, in order; for
            a file their names (default: names that start with x are data, all others weights, in the order of their
            numbers).
        input_arg: name of the data argument of a PennyLane function.

    Returns:
        The circuit.

    Raises:
        CircuitError: if the circuit cannot be expressed: it depends on data, measures in the middle and goes on with
            what it measured, or holds a gate without decomposition. The message names the culprit.
        ArgumentError: if an argument does not fit the source.
    """
    if coupling_map is not None and not (isinstance(source, str) and source in COUPLED):
        raise ArgumentError(
            f"Argument `coupling_map` must be None but for the families {', '.join(COUPLED)}; source is {source!r:.60}"
        )
    with as_if_not_called():
        if isinstance(source, Circuit):
            circuit = source
        elif isinstance(source, (str, Path)) or type(source).__name__ == "Listing":
            circuit = trace_qasm(source, n_qubits, n_layers, coupling_map, input_params, weight_params)
        elif is_qiskit(source):
            circuit = trace_qiskit(source, input_params, weight_params)
        elif callable(source):
            shapes = weight_shapes_of(source, weight_shapes, n_qubits, n_layers)
            if n_inputs is None:
                n_inputs = n_inputs_of(source, shapes, n_qubits, n_layers, input_arg)
            circuit = trace_pennylane(source, shapes, n_inputs, n_qubits, n_layers, input_arg)
        else:
            raise ArgumentError(
                "Argument `source` must be a PennyLane function or QNode, a Qiskit QuantumCircuit, the name of an "
                f"OpenQASM 3 file or of a circuit family, but is {type(source).__name__}"
            )
        if observables is not None:
            measured = tuple(m for o in _as_list(observables) for m in _observable(o, circuit.n_qubits))
            measured = tuple(_incoherent(m, circuit.classical) for m in measured)
            program = replace(circuit.program, measurements=measured)
            circuit = replace(circuit, program=program, is_scalar=False, combination=None)
        return circuit


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _incoherent(m: Measurement, wires: tuple[int, ...]) -> Measurement:
    """A measurement without the words that have X or Y on wires which are classical bits: 0 on average."""
    if isinstance(m, Probs):
        return m
    kept = [t for t in m.terms if not any(w in wires and p != "Z" for p, w in zip(t[1], t[2], strict=True))]
    return Expval(tuple(kept) or ((0.0, "", ()),))


def _observable(observable: Any, n_qubits: int) -> list[Measurement]:
    """What one entry of `observables`, of any of the accepted kinds, measures."""
    if isinstance(observable, (Expval, Probs)):
        return [observable]
    if isinstance(observable, str):
        if len(observable) != n_qubits or set(observable) - set("IXYZ"):
            raise ArgumentError(
                f"A Pauli word in `observables` must have one of I, X, Y, Z for each of {n_qubits} wires, "
                f"but is {observable!r}"
            )
        return [Expval(((1.0, *sparse_word(dict(enumerate(observable)))),))]
    if type(observable).__module__.startswith("qiskit"):
        return [*operators(observable, n_qubits)]
    if hasattr(observable, "pauli_rep") or type(observable).__name__ in ("ExpectationMP", "ProbabilityMP"):
        wires = {w: w for w in range(n_qubits)}
        if not set(observable.wires) <= set(wires):
            raise ArgumentError(
                f"Argument `observables` has {observable}, but the circuit's wires are 0 to {n_qubits - 1}"
            )
        takes_obs = hasattr(observable, "pauli_rep")
        return [expval(observable, wires)] if takes_obs else [*measurements_of(observable, wires, n_qubits)]
    raise ArgumentError(f"Argument `observables` cannot hold {observable!r}")
