"""Writes the folder ``circuits/``: one OpenQASM 3 file for each circuit, and a README with a drawing of each."""

from __future__ import annotations

import os
from pathlib import Path

from qbp.circuit import ansatz
from qbp.circuit.qasm.listing import Listing, format_observables
from qbp.circuit.qasm.text_drawing import draw
from qbp.circuit.qasm.writer import dumps

__all__ = ["circuits", "readme", "write_circuits"]


def circuits() -> dict[str, Listing]:
    """The circuits of the folder by the name of their file."""
    return {
        "strongly_entangling_4q_2l": ansatz.strongly_entangling(4, 2),
        "basic_entangler_4q_2l": ansatz.basic_entangler(4, 2),
        "hardware_efficient_4q_2l": ansatz.hardware_efficient(4, 2),
        "real_amplitudes_4q_2l": ansatz.real_amplitudes(4, 2),
        "reupload_4q": ansatz.reuploading(4, 3),
        "zz_map_3q": ansatz.zz_map(3, 2),
        "iqp_4q": ansatz.iqp(4, 1),
        "matrix_product_4q": ansatz.matrix_product(4, 2),
        "tree_tensor_4q": ansatz.tree_tensor(4, 2),
        "qcnn_8q": ansatz.qcnn(8, 1),
        "xor_2q": ansatz.xor(2, 1),
    }


_INTRODUCTION = """\
# Circuits

Variational circuits as data: one OpenQASM 3 file each, which qbp and Qiskit read unchanged. Inputs (data) are named
`x_...`, weights `w_...`. This page and the files are written by `python -m qbp.circuit.qasm.gallery circuits/`, so
change `qbp/circuit/ansatz.py` for those; any other file in this folder is found by its name as well.

## The subset of OpenQASM 3

A file is flat, so that it means the same to every reader:

- `OPENQASM 3.0;` and `include "stdgates.inc";`;
- scalars `input float[64] x_0;` and `input float[64] w_0;`. The *numbers* in their names give the order of the
  features of a sample and of the flattened weights (`x_2` comes before `x_10`), whatever the order of the
  declarations, which other tools sort as text;
- one register `qubit[4] q;`;
- calls of gates of `stdgates.inc`, each on qubits named one by one: `crz(2 * (pi - x_0)) q[0], q[1];`. A parameter is
  arithmetic (`+ - * / **` and parentheses) of inputs, weights, numbers, `pi`, `tau`, `euler` and of the functions
  `sin cos tan arcsin arccos arctan exp log sqrt pow`. Whole numbers are not divided (`1.0 / 2`, not `1 / 2`, which is 0
  in OpenQASM 3). Qiskit 2 reads `+ - * /` only, and the files here use no more;
- `barrier`, which has no effect, and comments.

Nothing else: no measurements, classical bits, conditions, loops, gate definitions or modifiers. Comments may say

    // title: one line
    // reference: one line
    // observables: Z0, 0.5*Z0 - X1*X2, probs(0, 1)
    // weight_shape: 2, 4, 3
    // order: x_1, x_0, w_0

where Z0 is Pauli Z on `q[0]`; without them Z is measured on every qubit, and the weights are one vector. `order` is for
names that are to be bound in another order than that of their numbers.

## Files of other tools

OpenQASM 2, and OpenQASM 3 with gate definitions, modifiers and several registers, are read by Qiskit's readers (for
OpenQASM 3 `pip install qiskit-qasm3-import`, or the extra `qbp[qasm]`): what Qiskit and PennyLane export, for example.

- Parameters whose names start with x (`x_0`, or `_x_0_` as Qiskit writes `x[0]`) are data, all others are weights, both
  in the order of their numbers; `QuantumLayer("file.qasm", input_params=["a"], weight_params=["b"])` says otherwise.
- Z is measured on every qubit unless `observables` are given. Measurements at the end are left out; qubits that are
  used again after a measurement, conditions and `reset` of a qubit in use are refused, with their line.
- A file may have 40,000 qubits and bits and 6 million characters (150,000 in OpenQASM 3), and include nothing but the
  gates' own library.

## How to open a file

qbp, as a layer of a torch model or as data:

```python
from qbp import QuantumLayer
from qbp.circuit import qasm

layer = QuantumLayer("circuits/reupload_4q.qasm")
listing = qasm.load("circuits/reupload_4q.qasm")
```

Qiskit (`pip install qiskit-qasm3-import`). Qiskit sorts parameters by name, so bind them by name. Its `q[0]` is the
right-most letter of a Pauli string:

```python
from qiskit import qasm3

circuit = qasm3.load("circuits/reupload_4q.qasm")
values = dict(zip(listing.inputs, inputs)) | dict(zip(listing.weights, weights.flatten()))
bound = circuit.assign_parameters(values)
```

PennyLane's own reader rejects the `include`; the gates of a listing have PennyLane's names:

```python
import pennylane as qml


@qml.qnode(qml.device("default.qubit", wires=listing.n_qubits))
def circuit(inputs, weights):
    values = dict(zip(listing.inputs, inputs)) | dict(zip(listing.weights, weights.flatten()))
    for call in listing.calls:
        getattr(qml, call.name)(*[param.evaluate(values) for param in call.params], wires=call.wires)
    return [qml.expval(qml.Z(wire)) for wire in range(listing.n_qubits)]
```
"""


def readme(listings: dict[str, Listing]) -> str:
    """The text of the folder's README: how to use the files, a table and a drawing of each."""
    table = ["| file | circuit | qubits | inputs | weights | gates | of them on two qubits | reference |"]
    table.append("|---|---|--:|--:|--:|--:|--:|---|")
    drawings = []
    for name, c in listings.items():
        pairs = sum(len(call.wires) > 1 for call in c.calls)
        counts = f"{c.n_qubits} | {len(c.inputs)} | {len(c.weights)} | {len(c.calls)} | {pairs}"
        table.append(f"| [{name}]({name}.qasm) | {c.title} | {counts} | {c.reference} |")
        shape = ", ".join(map(str, c.weight_shape)) + ("," if len(c.weight_shape) == 1 else "")
        about = f"Weights ({shape}). Measured: {format_observables(c.measurements)}."
        drawings.append(f"### {name}\n\n{about}\n\n```text\n{draw(c)}\n```\n")
    note = "Parameters that are long expressions are drawn as the inputs and weights that they depend on.\n"
    return "\n".join([_INTRODUCTION, "## The circuits\n", *table, "", "## Drawings\n", note, *drawings])


def write_circuits(folder: str | Path) -> list[Path]:
    """Write every circuit and the README into a folder, which is made if there is none; other files there stay.

    Returns:
        The paths of what was written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    listings = circuits()
    texts = {f"{name}.qasm": dumps(listing) for name, listing in listings.items()} | {"README.md": readme(listings)}
    for name, text in texts.items():
        temporary = folder / f"{name}.tmp"
        temporary.write_bytes(text.encode())
        os.replace(temporary, folder / name)
    return [folder / name for name in texts]


if __name__ == "__main__":
    import sys

    if len(sys.argv) != 2:
        sys.exit("usage: python -m qbp.circuit.qasm.gallery FOLDER")
    print(*write_circuits(sys.argv[1]), sep="\n")
