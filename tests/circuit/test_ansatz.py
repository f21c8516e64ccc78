"""Circuit families against PennyLane's templates and Qiskit's functions, and the files of circuits/."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from qbp.circuit import ansatz, qasm
from qbp.circuit.angles import Angles
from qbp.circuit.ansatz import ANSATZE
from qbp.circuit.gates import GATES
from qbp.circuit.program import Expval, Program, gate_ops
from qbp.circuit.qasm import gallery
from qbp.circuit.qasm.expression import Expression
from qbp.circuit.qasm.listing import Listing
from qbp.errors import ArgumentError
from qbp.executors.dense import Dense

PI = np.pi


def outputs(circuit: Listing, inputs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """What the dense executor measures for a batch of inputs (B, I); differentiable."""
    values = dict(zip(circuit.inputs, inputs.T, strict=True))
    values |= dict(zip(circuit.weights, weights.flatten(), strict=True))
    angles: list[torch.Tensor] = []
    ops = []
    for call in circuit.calls:
        ops += gate_ops(GATES[call.name], call.wires, range(len(angles), len(angles) + len(call.params)))
        angles += [torch.as_tensor(p.evaluate(values)).expand(len(inputs)) for p in call.params]
    program = Program(circuit.n_qubits, tuple(ops), circuit.measurements, len(angles))
    return Dense()(program, Angles.of(torch.stack(angles, dim=1))).values


def random_point(circuit: Listing, seed: int = 0, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    inputs = 4 * torch.rand(batch, len(circuit.inputs), generator=random, dtype=torch.float64) - 2
    return inputs, 2 * PI * torch.rand(circuit.weight_shape, generator=random, dtype=torch.float64)


def assert_equals_pennylane(circuit: Listing, function, wires=None) -> None:
    """The circuit against a PennyLane function of (inputs, weights), Z measured on `wires`."""
    import pennylane as qml

    device = qml.device("default.qubit", wires=circuit.n_qubits)

    @qml.qnode(device)
    def node(inputs, weights):
        function(inputs, weights)
        return [qml.expval(qml.Z(wire)) for wire in (range(circuit.n_qubits) if wires is None else wires)]

    inputs, weights = random_point(circuit)
    expected = np.stack([np.stack(node(x, weights.numpy())) for x in inputs.numpy()])
    np.testing.assert_allclose(outputs(circuit, inputs, weights), expected, atol=1e-10)


def assert_equals_qiskit(circuit: Listing, built, values) -> None:
    """The circuit against a Qiskit circuit with the values of its parameters for (inputs, weights)."""
    from qiskit.quantum_info import SparsePauliOp, Statevector

    inputs, weights = random_point(circuit)
    expected = []
    for x in inputs.numpy():
        state = Statevector(built.assign_parameters(values(x, weights.numpy())))
        z = [SparsePauliOp.from_sparse_list([("Z", [q], 1)], circuit.n_qubits) for q in range(circuit.n_qubits)]
        expected.append([state.expectation_value(observable).real for observable in z])
    np.testing.assert_allclose(outputs(circuit, inputs, weights), expected, atol=1e-10)


# ---- against PennyLane and Qiskit --------------------------------------------------------------------

sizes = pytest.mark.parametrize(("n", "layers"), [(1, 1), (1, 2), (2, 1), (2, 3), (3, 2), (4, 4), (5, 2)])
larger = pytest.mark.parametrize(("n", "layers"), [(2, 1), (2, 3), (3, 2), (4, 4), (5, 2)])
SHAPES = {
    "strongly_entangling": lambda n, layers: (layers, n, 3),
    "basic_entangler": lambda n, layers: (layers, n),
    "hardware_efficient": lambda n, layers: (layers, n, 2),
    "real_amplitudes": lambda n, layers: (layers + 1, n),
    "reuploading": lambda n, layers: (layers, n, 3),
    "zz_map": lambda n, layers: (layers + 1, n),
    "iqp": lambda n, layers: (layers, n, 3),
    "matrix_product": lambda n, layers: (layers, n - 1, 2),
    "tree_tensor": lambda n, layers: (layers, n - 1, 2),
    "qcnn": lambda n, layers: (n.bit_length() - 1, 4 * layers + 2),
    "xor": lambda n, layers: (n, 2),
}


@sizes
def test_strongly_entangling_is_pennylanes(n, layers):
    import pennylane as qml

    def function(x, w):
        qml.AngleEmbedding(x, range(n))
        qml.StronglyEntanglingLayers(w, range(n))

    circuit = ansatz.strongly_entangling(n, layers)
    assert circuit.weight_shape == qml.StronglyEntanglingLayers.shape(layers, n)
    assert_equals_pennylane(circuit, function)


@sizes
def test_basic_entangler_is_pennylanes(n, layers):
    import pennylane as qml

    def function(x, w):
        qml.AngleEmbedding(x, range(n))
        qml.BasicEntanglerLayers(w, range(n))

    circuit = ansatz.basic_entangler(n, layers)
    assert circuit.weight_shape == qml.BasicEntanglerLayers.shape(layers, n)
    assert_equals_pennylane(circuit, function)


@sizes
def test_iqp_is_pennylanes(n, layers):
    import pennylane as qml

    for repeats in (1, 2):

        def function(x, w, repeats=repeats):
            qml.IQPEmbedding(x, range(n), n_repeats=repeats)
            qml.StronglyEntanglingLayers(w, range(n))

        assert_equals_pennylane(ansatz.iqp(n, layers, repeats=repeats), function)


@pytest.mark.parametrize(("n", "layers"), [(2, 1), (3, 2), (5, 1), (5, 3)])
def test_matrix_product_is_pennylanes(n, layers):
    import pennylane as qml

    def block(weights, wires):
        for first, second in weights.reshape(layers, 2):
            qml.RY(first, wires[0])
            qml.RY(second, wires[1])
            qml.CNOT(wires)

    def function(x, w):
        qml.AngleEmbedding(x, range(n), rotation="Y")
        blocks = np.swapaxes(w, 0, 1).reshape(n - 1, 2 * layers)
        qml.MPS(range(n), 2, block, n_params_block=2 * layers, template_weights=blocks)

    assert_equals_pennylane(ansatz.matrix_product(n, layers), function)


@pytest.mark.parametrize(("n", "layers"), [(2, 1), (4, 2), (8, 1)])
def test_tree_tensor(n, layers):
    import pennylane as qml

    pairs = {2: [(0, 1)], 4: [(0, 1), (2, 3), (1, 3)]}
    pairs[8] = [(0, 1), (2, 3), (4, 5), (6, 7), (1, 3), (5, 7), (3, 7)]

    def function(x, w):
        qml.AngleEmbedding(x, range(n), rotation="Y")
        for block, (first, second) in enumerate(pairs[n]):
            for layer in range(layers):
                qml.RY(w[layer, block, 0], first)
                qml.RY(w[layer, block, 1], second)
                qml.CNOT([first, second])

    assert_equals_pennylane(ansatz.tree_tensor(n, layers), function, wires=[n - 1])


@pytest.mark.parametrize(("n", "layers"), [(2, 1), (2, 2), (4, 1), (4, 2), (8, 1)])
def test_qcnn(n, layers):
    import pennylane as qml

    def function(x, w):
        qml.AngleEmbedding(x, range(n), rotation="Y")
        kept = list(range(n))
        for level in w:
            m = len(kept)
            starts = [*range(0, m, 2), *range(1, m if m > 2 else 1, 2)]
            for layer in range(layers):
                a, b, c, d = level[4 * layer : 4 * layer + 4]
                for start in starts:
                    one, two = kept[start], kept[(start + 1) % m]
                    qml.RY(a, one)
                    qml.RY(b, two)
                    qml.CNOT([one, two])
                    qml.RY(c, one)
                    qml.RY(d, two)
            for one, two in zip(kept[0::2], kept[1::2], strict=True):
                qml.CRZ(level[-2], [one, two])
                qml.CRX(level[-1], [one, two])
            kept = kept[1::2]

    assert_equals_pennylane(ansatz.qcnn(n, layers), function, wires=[n - 1])


@sizes
def test_reuploading(n, layers):
    import pennylane as qml

    def function(x, w):
        for layer in range(layers):
            for wire in range(n):
                qml.RX(w[layer, wire, 0] * x[wire] + w[layer, wire, 1], wire)
                qml.RY(w[layer, wire, 2], wire)
            if layer < layers - 1:
                for wire in range(n - 1):
                    qml.CZ([wire, wire + 1])

    assert_equals_pennylane(ansatz.reuploading(n, layers), function)


def vector(name, values):
    """Values for the elements of one of Qiskit's parameter vectors."""
    return {f"{name}[{k}]": v for k, v in enumerate(np.ravel(values))}


@sizes
def test_real_amplitudes_is_qiskits(n, layers):
    from qiskit.circuit import ParameterVector, QuantumCircuit
    from qiskit.circuit.library import real_amplitudes

    built = QuantumCircuit(n)
    for wire, feature in enumerate(ParameterVector("x", n)):
        built.ry(feature, wire)
    built = built.compose(real_amplitudes(n, reps=layers, parameter_prefix="w"))  # reverse_linear is its default
    assert_equals_qiskit(ansatz.real_amplitudes(n, layers), built, lambda x, w: vector("x", x) | vector("w", w))


@larger
def test_zz_map_is_qiskits(n, layers):
    from qiskit.circuit.library import real_amplitudes, zz_feature_map

    for reps in (1, 2):
        features = zz_feature_map(n, reps=reps, entanglement="full")
        built = features.compose(real_amplitudes(n, reps=layers, parameter_prefix="w"))
        assert_equals_qiskit(ansatz.zz_map(n, layers, reps=reps), built, lambda x, w: vector("x", x) | vector("w", w))


@larger  # Qiskit's functions want two qubits for a gate on two
def test_hardware_efficient_is_qiskits(n, layers):
    """Its n_local, whose first layer of rotations holds the data: RZ does nothing to |0>."""
    from qiskit.circuit.library import n_local

    built = n_local(n, ["rz", "ry"], "cz", entanglement="linear", reps=layers, parameter_prefix="w")

    def values(x, w):
        # a layer of Qiskit's is RZ on all wires, then RY on all wires
        rows = [np.zeros(n), x, *(row for layer in w for row in (layer[:, 0], layer[:, 1]))]
        return vector("w", np.concatenate(rows))

    assert_equals_qiskit(ansatz.hardware_efficient(n, layers), built, values)


@pytest.mark.parametrize("n", [2, 3])
def test_xor_solves_parity_exactly_with_known_weights(n):
    bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)
    weights = torch.tensor([[PI, 0.0]] * n, dtype=torch.float64)
    expected = 1 - 2 * (bits.sum(1, keepdim=True) % 2)
    torch.testing.assert_close(outputs(ansatz.xor(n), bits, weights), expected, atol=1e-12, rtol=0)
    inputs, weights = random_point(ansatz.xor(n))
    product = torch.cos(weights[:, 0] * inputs + weights[:, 1]).prod(1, keepdim=True)
    torch.testing.assert_close(outputs(ansatz.xor(n), inputs, weights), product, atol=1e-12, rtol=0)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_xor_learns_from_random_weights(low):
    bits = torch.tensor(list(itertools.product([low, 1.0], repeat=2)), dtype=torch.float64)
    target = torch.tensor([[1.0], [-1.0], [-1.0], [1.0]], dtype=torch.float64)
    circuit = ansatz.xor()
    solved = 0
    for seed in range(10):
        weights = random_point(circuit, seed)[1].requires_grad_()
        optimizer = torch.optim.Adam([weights], lr=0.2)
        for _ in range(120):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(outputs(circuit, bits, weights), target).backward()
            optimizer.step()
        solved += bool((outputs(circuit, bits, weights) * target > 0).all())
    assert solved >= 9


# ---- what holds for all of them ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ANSATZE)
@pytest.mark.parametrize(("n", "layers"), [(2, 1), (4, 1), (4, 3)])
def test_every_family(name, n, layers):
    layers = 1 if name == "xor" else layers
    circuit = ANSATZE[name](n, layers)
    assert circuit.weight_shape == SHAPES[name](n, layers)
    assert ansatz.weight_shapes(name, n, layers) == {"weights": circuit.weight_shape}
    assert circuit.inputs == tuple(f"x_{k}" for k in range(n))
    assert circuit.weights == tuple(f"w_{k}" for k in range(np.prod(circuit.weight_shape)))
    one_wire = name in ("tree_tensor", "qcnn", "xor")
    assert circuit.measurements == tuple(Expval.word("Z", w) for w in ([n - 1] if one_wire else range(n)))
    assert circuit.title and circuit.reference
    assert qasm.loads(qasm.dumps(circuit)) == circuit


@pytest.mark.parametrize("name", ANSATZE)
def test_every_input_and_every_weight_matters(name):
    """But the last RZ of strongly entangling layers: only CNOTs come between it and Z. PennyLane's has it too."""
    circuit = ANSATZE[name](4, 1 if name == "xor" else 2)
    inputs, weights = random_point(circuit, seed=3)
    inputs.requires_grad_()
    weights.requires_grad_()
    signs = torch.linspace(0.5, 1.5, len(circuit.measurements), dtype=torch.float64)
    (outputs(circuit, inputs, weights) * signs).sum().backward()
    assert (inputs.grad.abs() > 1e-6).all()
    dead = weights.grad.abs() < 1e-6
    if name in ("strongly_entangling", "iqp"):
        assert dead[-1, :, 2].all()
        dead[-1, :, 2] = False
    assert not dead.any()


@pytest.mark.parametrize("name", ANSATZE)
def test_sizes_are_checked(name):
    build = ANSATZE[name]
    for n in (0, -1, 2.0, "2", True, None):
        with pytest.raises(ArgumentError, match=r"`n_qubits` must be (a positive|an) integer"):
            build(n, 1)
    for layers in (0, -1, 1.5, None):
        with pytest.raises(ArgumentError, match="`n_layers`"):
            build(2, layers)
    assert build(np.int64(2), np.int64(1)) == build(2, 1)
    if name in ("tree_tensor", "qcnn"):
        with pytest.raises(ArgumentError, match="power of two, but is 6"):
            build(6, 1)
    with pytest.raises(ArgumentError, match=r"`name` must be one of 'strongly_entangling'.* but is 'nothing'"):
        ansatz.weight_shapes("nothing", 2, 1)


@pytest.mark.parametrize("name", ANSATZE)
def test_what_would_take_hours_is_refused_before_it_is_built(name):
    for n, layers in ((2**30, 1), (2**20000, 1), (2**16, 40), (16, 10**9))[: 2 if name == "xor" else None]:
        with pytest.raises(ArgumentError, match=r"would have at least (about )?[\d,^]+ gates, but a circuit may have"):
            ANSATZE[name](n, layers)


# ---- circuits/ ---------------------------------------------------------------------------------------

FILES = sorted(gallery.circuits())


def test_committed_files_are_what_the_code_writes(tmp_path):
    written = gallery.write_circuits(tmp_path / "new" / "folder")
    assert {path.name for path in written} == {f"{name}.qasm" for name in FILES} | {"README.md"}
    for path in written:
        same = (qasm.circuits_dir() / path.name).read_bytes() == path.read_bytes()
        assert same, f"run python -m qbp.circuit.qasm.gallery: {path}"
    assert sorted(path.name for path in written) == sorted(p.name for p in written[0].parent.iterdir())  # nothing else
    assert set(FILES) <= set(qasm.available())


def test_files_are_written_without_matplotlib_and_frameworks(tmp_path):
    code = f"""
import runpy, sys
sys.modules.update(dict.fromkeys(["matplotlib", "pennylane", "qiskit", "sklearn", "pandas"]))  # importing one fails
sys.argv = ["qbp.circuit.qasm.gallery", {str(tmp_path)!r}]
runpy.run_module("qbp.circuit.qasm.gallery", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = [*(f"{name}.qasm" for name in gallery.circuits()), "README.md"]
    assert done.stdout.split() == [str(tmp_path / name) for name in names]


@pytest.mark.parametrize("name", FILES)
def test_the_three_ways_to_open_a_file(name):
    """The code that the README shows, run as it stands there for each file: all give the same outputs."""
    readme = (qasm.circuits_dir() / "README.md").read_text()
    ours, qiskits, pennylanes = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    path = str(qasm.circuits_dir() / f"{name}.qasm")
    ours, qiskits = (text.replace("circuits/reupload_4q.qasm", path) for text in (ours, qiskits))
    assert path in ours and path in qiskits

    listing = qasm.load(path)
    assert listing == gallery.circuits()[name] == qasm.load(name)
    batch, weights = random_point(listing)
    expected = outputs(listing, batch, weights)

    space: dict = {}
    exec(ours, space)
    assert space["listing"] == listing
    with torch.no_grad():
        next(space["layer"].parameters()).copy_(weights)
    torch.testing.assert_close(space["layer"](batch), expected, atol=1e-6, rtol=0)  # the weights are float32

    space = {"listing": listing, "weights": weights.numpy()}
    exec(pennylanes, space)
    wires = [measurement.terms[0][2][0] for measurement in listing.measurements]
    for x, row in zip(batch.numpy(), expected, strict=True):
        np.testing.assert_allclose(np.array(space["circuit"](x, weights.numpy()))[wires], row, atol=1e-10)

    pytest.importorskip("qiskit_qasm3_import")
    from qiskit.quantum_info import SparsePauliOp, Statevector

    for x, row in zip(batch.numpy(), expected, strict=True):
        space["inputs"] = x
        exec(qiskits, space)
        state = Statevector(space["bound"])
        z = [SparsePauliOp.from_sparse_list([("Z", [q], 1)], listing.n_qubits) for q in wires]
        np.testing.assert_allclose([state.expectation_value(o).real for o in z], row, atol=1e-10)


def test_a_wrong_circuit_would_be_noticed():
    """The comparison itself: a sign, a wire, an angle too many."""
    circuit = ansatz.strongly_entangling(3, 2)
    inputs, weights = random_point(circuit)
    right = outputs(circuit, inputs, weights)
    x = Expression.variable("x_0")
    calls = list(circuit.calls)
    for wrong in (
        [replace(calls[0], params=(-x,)), *calls[1:]],
        [replace(calls[0], params=(2 * x,)), *calls[1:]],
        [*calls[:-1], replace(calls[-1], wires=calls[-1].wires[::-1])],
        calls[1:],
    ):
        assert (outputs(replace(circuit, calls=tuple(wrong)), inputs, weights) - right).abs().max() > 1e-3
