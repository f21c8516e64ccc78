"""Trajectories: unbiased, with standard errors that are true, of Pauli errors and of everything else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import qbp
from qbp.circuit.angles import Angles
from qbp.circuit.channels import Channel
from qbp.circuit.program import Clifford, Expval, Probs, Program, Rotation
from qbp.errors import ArgumentError
from qbp.executors import backend
from qbp.executors.pauli import Pauli
from qbp.executors.trajectories import Trajectories
from qbp.executors.trajectories.unravelling import simplified, unravelled
from qbp.gradients.error_bars import of_draws
from qbp.testing.noise import random_channel, with_noise
from qbp.testing.programs import random_amplitudes, random_program

PAULI = {"I": np.eye(2), "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}


def words(n_wires: int) -> list[np.ndarray]:
    """All Pauli words as matrices."""
    if n_wires == 0:
        return [np.eye(1)]
    return [np.kron(letter, rest) for letter in PAULI.values() for rest in words(n_wires - 1)]


def transfer(kraus: list[np.ndarray]) -> np.ndarray:
    """The Pauli transfer matrix of Kraus operators."""
    size = len(kraus[0])
    basis = words(size.bit_length() - 1)
    after = [sum(k @ word @ k.conj().T for k in kraus) for word in basis]
    return np.array([[np.trace(p @ q).real for q in after] for p in basis]) / size


def channel(name: str, wires: tuple[int, ...], strength: float) -> Channel:
    """Noise of one wire; with two, on each of them."""
    p = strength
    kraus = {
        "depolarizing": [np.sqrt(1 - p) * PAULI["I"], *(np.sqrt(p / 3) * PAULI[letter] for letter in "XYZ")],
        "damping": [np.diag([1, np.sqrt(1 - p)]), np.sqrt(p) * np.array([[0, 1], [0, 0]])],
        "reset": [np.array([[1, 0], [0, 0]]), np.array([[0, 1], [0, 0]])],
        "rotation": [np.cos(p) * PAULI["I"] - 1j * np.sin(p) * (0.6 * PAULI["X"] + 0.8 * PAULI["Z"])],
    }[name]
    one = transfer(kraus)
    return Channel.of_matrix(name, wires, one if len(wires) == 1 else np.kron(one, one))


def general(strength: float, wires: tuple[int, ...], seed: int = 3) -> Channel:
    """Some of anything."""
    some = random_channel(np.random.default_rng(seed), wires).matrix()
    return Channel.of_matrix("general", wires, strength * some + (1 - strength) * np.eye(4 ** len(wires)))


def circuit(noise: dict[str, float], n_qubits: int = 4, n_blocks: int = 2, reuploads: bool = False) -> Program:
    """Data, entangled rotations (one angle shared and scaled), noise of several kinds, words and probabilities."""
    ops: list = []
    n_data = n_qubits * (n_blocks if reuploads else 1)

    def disturbed(*wires: int) -> None:
        for name, strength in noise.items():
            if name == "reset":
                continue
            if name == "general":
                ops.append(general(strength, wires))
            else:
                ops.append(channel(name, wires, strength))

    k = n_data
    for block in range(n_blocks):
        if block == 0 or reuploads:
            for w in range(n_qubits):
                ops.append(Rotation("Y", (w,), w + block * n_qubits * reuploads))
                disturbed(w)
        for w in range(n_qubits):
            ops += [Rotation("Z", (w,), k), Rotation("X", (w,), k + 1)]
            k += 2
            disturbed(w)
        for w in range(n_qubits - 1):
            ops.append(Clifford("CNOT", (w, w + 1)))
            disturbed(w, w + 1)
        ops += [Rotation("ZX", (0, n_qubits - 1), n_data, scale=0.5, offset=0.3), Clifford("Hadamard", (1,))]
        if "reset" in noise and block == 0:
            ops.append(channel("reset", (1,), 1))
    measured = (
        Expval.word("Z", 0),
        Expval.word("XY", 1, 2),
        Expval(((0.5, "ZZ", (0, 3)), (-1.2, "X", (2,)), (0.3, "", ()))),
        Probs((3, 1)),
    )
    return Program(n_qubits, tuple(ops), measured, k, readout=((0, 0.03, 0.08), (3, 0.1, 0.02)))


KINDS = {
    "Pauli": {"depolarizing": 0.05},
    "damping": {"damping": 0.08},
    "both": {"depolarizing": 0.01, "damping": 0.02},
    "reset": {"depolarizing": 0.02, "reset": 1.0},
    "rotation": {"rotation": 0.1},
    "general": {"general": 0.03},
}


def angles_of(program: Program, n_rows: int = 2, n_data: int = 4) -> Angles:
    rng = np.random.default_rng(1)
    return Angles(*(torch.tensor(rng.normal(size=s)) for s in ((n_rows, n_data), (program.n_angles - n_data,))))


def repeats(program: Program, angles: Angles, n_repeats: int, n: int) -> tuple[np.ndarray, ...]:
    """Outputs, stds, gradients of batched and of shared angles, over seeds; and the exact ones."""
    grad = torch.tensor(np.random.default_rng(2).normal(size=(angles.n_samples, program.n_outputs)))
    rows = []
    for seed in range(n_repeats):
        executor = Trajectories(n, seed=seed)
        results, saved = executor.forward(program, angles)
        g = executor.vjp(program, angles, None, saved, grad)
        rows.append([np.ravel(part) for part in (results.values, results.stds, g.batched, g.shared)])
    exact, saved = Pauli().forward(program, angles)
    g = Pauli().vjp(program, angles, None, saved, grad)
    return (*map(np.array, zip(*rows, strict=True)), *(np.ravel(p) for p in (exact.values, g.batched, g.shared)))


def check(program: Program, angles: Angles, n_repeats: int, n: int) -> None:
    """Means within error bars, variances as they are said to be."""
    values, stds, batched, shared, exact, g_batched, g_shared = repeats(program, angles, n_repeats, n)
    z_scores = []
    for some, want in ((values, exact), (batched, g_batched), (shared, g_shared)):
        error = some.std(0, ddof=1) / np.sqrt(n_repeats)
        moving = error > 1e-12
        assert np.abs(some.mean(0) - want)[~moving].max(initial=0) < 1e-9
        z_scores += ((some.mean(0) - want)[moving] / error[moving]).tolist()
    z = np.array(z_scores)
    assert np.abs(z).max(initial=0) < 5, z
    assert not len(z) or np.mean(z**2) < 1.9, z
    said, seen = (stds**2).mean(0), values.var(0, ddof=1)
    moving = seen > 1e-12
    assert not moving.any() or np.allclose((said[moving] / seen[moving]).mean(), 1, atol=0.25)


@pytest.mark.parametrize("kind", KINDS)
def test_means_and_variances(kind: str):
    program = circuit(KINDS[kind])
    check(program, angles_of(program), n_repeats=40, n=40)


@pytest.mark.slow
@pytest.mark.parametrize("reuploads", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_means_and_variances_of_200_seeds(kind: str, reuploads: bool):
    program = circuit(KINDS[kind], n_blocks=3, reuploads=reuploads)
    check(program, angles_of(program, 3, 12 if reuploads else 4), n_repeats=200, n=100)


def weak(program: Program, strength: float) -> Program:
    """The program with its channels mixed with doing nothing."""
    ops = tuple(
        Channel.of_matrix(op.name, op.wires, strength * op.matrix() + (1 - strength) * np.eye(4 ** len(op.wires)))
        if isinstance(op, Channel) and "reset" not in op.name
        else op
        for op in program.ops
    )
    return replace(program, ops=ops)


@pytest.mark.parametrize("n_programs", [5, pytest.param(80, marks=pytest.mark.slow)])
def test_random_programs(n_programs: int):
    """All kinds of noise, resets among them, words and probabilities, readout errors, amplitudes: within error bars."""
    rng, z_scores, n_run = np.random.default_rng(5), [], 0
    for k in range(n_programs):
        program = weak(with_noise(rng, random_program(rng, n_qubits=(1, 4))), float(rng.choice([0.03, 0.1, 0.2])))
        n_batched = int(rng.integers(0, program.n_angles + 1))
        shapes = (3, n_batched), (program.n_angles - n_batched,)
        angles = Angles(*(torch.tensor(rng.normal(size=shape)) for shape in shapes))
        amplitudes = None
        if k % 4 == 0:
            program = replace(program, amplitudes=True)
            amplitudes = torch.as_tensor(random_amplitudes(rng, program, 3))
        grad = torch.tensor(rng.normal(size=(3, program.n_outputs)))
        executor = Trajectories(1500, seed=k)
        try:
            results, saved = executor.forward(program, angles, amplitudes)
        except ArgumentError:  # errs too much
            continue
        if saved.call.noisy.errors.weight > 2:  # a few rare lanes of large weights: z is not normal
            continue
        n_run += 1
        draws = executor.vjp(program, angles, amplitudes, saved, grad)
        exact, saved = Pauli().forward(program, angles, amplitudes)
        back = Pauli().vjp(program, angles, amplitudes, saved, grad)
        z_scores += scores(results.values - exact.values, results.stds)
        stds = of_draws(draws.draws, torch.eye(program.n_angles).double().expand(3, -1, -1))
        error = torch.cat([(draws.batched - back.batched).sum(0), draws.shared - back.shared])
        z_scores += scores(error, stds)
    z = np.array(z_scores)
    assert n_run > n_programs / 2 and len(z) > 3 * n_programs
    assert np.abs(z).max() < 6 and 0.5 < np.mean(z**2) < 1.6, np.sort(np.abs(z))[-5:]


def scores(errors: torch.Tensor, stds: torch.Tensor) -> list[float]:
    """Errors in standard errors, of those that are not exact; the others must be."""
    moving = stds > 1e-7
    assert errors[~moving].abs().max() < 1e-6 if (~moving).any() else True
    return (errors[moving] / stds[moving]).tolist()


@pytest.mark.parametrize("name", ["depolarizing", "damping", "reset", "rotation", "general"])
@pytest.mark.parametrize("strength", [0.001, 0.03, 0.4, 1.0])
@pytest.mark.parametrize("n_wires", [1, 2])
def test_channels_are_unravelled_exactly(name: str, strength: float, n_wires: int):
    wires = tuple(range(n_wires))
    one = general(strength, wires) if name == "general" else channel(name, wires, strength)
    total, size = np.eye(4**n_wires), 1.0
    for op in simplified(one):
        after, absolute = matrix_of(op, n_wires)
        total, size = after @ total, size * absolute
    assert np.abs(total - one.matrix()).max() < 1e-12
    assert size < 1 + n_wires * (0.4 * min(strength, 0.1) if name in ("damping", "general") else 1e-9)
    assert np.abs(sum_of(one, n_wires)[0] - one.matrix()).max() < 1e-12  # without that, too


def sum_of(one: Channel, n_wires: int) -> tuple[np.ndarray, float]:
    """The matrix of a channel's terms, and the sum of their absolute weights."""
    basis, size = words(n_wires), 2**n_wires
    total = np.zeros((4**n_wires, 4**n_wires))
    terms = unravelled(one.transfer, n_wires)
    for term in terms:
        operator = basis[term.error]
        if term.event is not None:
            c, d, s = term.event.c, term.event.d, term.event.s
            operator = operator @ (c * np.eye(size) + (d - 1j * s) * basis[term.event.word])
        total += term.weight * transfer([operator])
    return total, sum(abs(term.weight) for term in terms)


def matrix_of(op, n_wires: int) -> tuple[np.ndarray, float]:
    """The same of a fixed rotation or a channel among so many wires."""
    if isinstance(op, Channel):
        matrix, size = sum_of(op, len(op.wires))
        if len(op.wires) < n_wires:
            matrix = np.kron(matrix, np.eye(4)) if op.wires == (0,) else np.kron(np.eye(4), matrix)
        return matrix, size
    word = np.eye(1)
    for wire in range(n_wires):
        word = np.kron(word, PAULI[dict(zip(op.wires, op.pauli, strict=True)).get(wire, "I")])
    return transfer([np.cos(op.offset / 2) * np.eye(2**n_wires) - 1j * np.sin(op.offset / 2) * word]), 1.0


def test_strong_damping_among_weak_depolarizing_needs_no_negative_weights():
    both = np.kron(*[channel("damping", (0,), 0.004).matrix() @ channel("depolarizing", (0,), 0.004).matrix()] * 2)
    assert sum(abs(term.weight) for term in unravelled(Channel.of_matrix("both", (0, 1), both).transfer, 2)) < 1.001


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_seed_same_bits_whatever_the_threads(dtype: torch.dtype):
    program = circuit(KINDS["both"])
    angles = Angles(*(part.to(dtype) for part in angles_of(program, 9)))
    grad = torch.ones(9, program.n_outputs, dtype=dtype)
    n_threads, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            executor = Trajectories(32, seed=5)
            results, saved = executor.forward(program, angles)
            back = executor.vjp(program, angles, None, saved, grad)
            runs.append((results.values, results.stds, back.batched, back.shared))
    finally:
        torch.set_num_threads(n_threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))
    again = Trajectories(32, seed=6)(program, angles)
    assert not torch.equal(again.values, runs[0][0])


def test_parts_that_do_not_fit_are_run_again(monkeypatch: pytest.MonkeyPatch):
    """With resets, before which states are kept, too."""
    import qbp.executors.trajectories as trajectories

    program = circuit(KINDS["reset"] | {"damping": 0.05})
    angles, grad = angles_of(program, 5), torch.ones(5, program.n_outputs).double()
    gradients = []
    for limit in (2**30, 0, 40_000):
        monkeypatch.setattr(trajectories, "SAVE_LIMIT", limit)
        executor = Trajectories(20, seed=1)
        _, saved = executor.forward(program, angles)
        gradients.append(executor.vjp(program, angles, None, saved, grad))
        if limit == 2**30:
            gradients.append(executor.vjp(program, angles, None, saved, grad))  # a graph that is kept
    for other in gradients[1:]:
        assert torch.equal(other.batched, gradients[0].batched) and torch.equal(other.shared, gradients[0].shared)


def test_amplitudes_and_their_gradients():
    program = replace(circuit({"damping": 0.1}), amplitudes=True)
    angles = angles_of(program, 3)
    amplitudes = torch.as_tensor(random_amplitudes(np.random.default_rng(0), program, 3))
    grad = torch.ones(3, program.n_outputs).double()
    runs = []
    for executor in (Trajectories(20_000, seed=0), Pauli()):
        results, saved = executor.forward(program, angles, amplitudes)
        runs.append((results, executor.vjp(program, angles, amplitudes, saved, grad).amplitudes))
    (sampled, g), (exact, g_exact) = runs
    assert ((sampled.values - exact.values).abs() < 5 * sampled.stds + 1e-9).all()
    assert (g - g_exact).abs().max() < 0.15 and (g - g_exact).abs().mean() < 0.02


def test_without_noise_it_is_exact():
    program = replace(circuit({}), readout=())
    angles = angles_of(program)
    results = Trajectories(16, seed=0)(program, angles)
    assert torch.allclose(results.values, Pauli()(program, angles).values, atol=1e-12) and not results.stds.any()


def test_channels_in_a_row_are_one():
    program = circuit({"depolarizing": 0.02, "damping": 0.02}, n_blocks=1)
    executor = Trajectories(16, seed=0)
    _, saved = executor.forward(program, angles_of(program))
    n_gates = sum(len(op.wires) for op in program.ops if isinstance(op, Channel)) // 2  # 2 channels for each wire
    assert len(saved.call.noisy.errors.rates) <= n_gates and saved.call.noisy.errors.weight < 1.0001


def test_probabilities_add_up_and_norms_cost_nothing():
    """With damping trajectories differ in their norms, whose mean is known."""
    program = circuit({"damping": 0.02})
    angles = angles_of(program)
    results, saved = Trajectories(16, seed=0).forward(program, angles)
    assert saved.reference is not None and saved.norms.std() > 0.01
    assert torch.allclose(results.values[:, 3:].sum(1), torch.ones(2).double(), atol=1e-12)


def test_weak_noise_costs_few_lanes_and_errs_little():
    """No error at all is one lane of its probability; a single bit flip is one lane for all who have it."""
    program = Program(2, (Rotation("X", (0,), 0), channel("depolarizing", (0,), 0.01)), (Expval.word("Z", 0),), 1)
    executor = Trajectories(1000, seed=0)
    results, saved = executor.forward(program, Angles.of(torch.tensor([[0.4]], dtype=torch.float64)))
    assert len(saved.lanes.rows) == 2 and saved.lanes.counts.tolist() == [999, 0]
    assert results.values.item() == pytest.approx((1 - 4 * 0.01 / 3) * np.cos(0.4), abs=1e-12)
    assert results.stds.item() < 1e-9


def test_what_would_err_too_much_is_refused():
    turn = Rotation("XY", (0, 1), None, offset=0.7)
    ops = tuple(op for k in range(24) for op in (random_channel(np.random.default_rng(k), (0, 1)), turn))
    program = Program(2, ops, (Expval.word("X", 0), Expval.word("Y", 1)), 0)
    with pytest.raises(ArgumentError, match=r"standard errors would be .* times.*as Pauli errors alone"):
        Trajectories(16, seed=0)(program, Angles(torch.zeros(1, 0), torch.zeros(0)))


# ---- layers ----------------------------------------------------------------------------------------------------------

NOISE = {"SX": {"DepolarizingChannel": 0.002}, "CNOT": {"DepolarizingChannel": 0.02, "AmplitudeDamping": 0.02}}


def layer_of(**options) -> qbp.QuantumLayer:
    noise = qbp.NoiseModel.of(NOISE, readout=0.03)
    return qbp.QuantumLayer("strongly_entangling", n_qubits=4, n_layers=1, noise=noise, seed=3, **options)


def test_layers_have_error_bars_of_outputs_and_gradients():
    x = torch.linspace(-1, 1, 12).reshape(3, 4)
    exact, layer = layer_of(), layer_of(backend="trajectories:400")
    assert layer.backend == "trajectories:400" and layer.diff_method == "adjoint" and "trajectories" in repr(layer)
    want = exact(x)
    want.sum().backward()
    outputs, gradients, stds, grad_stds = [], [], [], []
    for _ in range(25):
        layer.zero_grad()
        values = layer(x)
        values.sum().backward()
        outputs.append(values.detach())
        gradients.append(layer.weights.grad.flatten().clone())
        stds.append(layer.last_stds)
        grad_stds.append(layer.last_grad_stds)
    pairs = ((outputs, stds, want.detach()), (gradients, grad_stds, exact.weights.grad.flatten()))
    for some, said, true in pairs:
        z = (torch.stack(some) - true) / (torch.stack(said) + 1e-7)
        moving = torch.stack(said).mean(0) > 1e-5
        assert 0.6 < z[:, moving].square().mean() < 1.5, z


def test_seeds_copies_and_files(tmp_path):
    x = torch.linspace(-1, 1, 12).reshape(3, 4)
    a, b = layer_of(backend="trajectories:20"), layer_of(backend="trajectories:20")
    assert torch.equal(a(x), b(x)) and not torch.equal(a(x), a(x))
    qbp.save_model(torch.nn.Sequential(a), tmp_path / "m.safetensors")
    loaded = qbp.load_model(tmp_path / "m.safetensors")[0]
    assert loaded.backend == "trajectories:20" and loaded.noise == a.noise
    exact = layer_of()(x)
    assert ((loaded(x) - exact).abs() < 6 * loaded.last_stds + 1e-6).all()


def test_names_of_backends():
    assert backend("trajectories").n_trajectories == 16 and backend("trajectories:64").name == "trajectories:64"
    for wrong in ("trajectories:", "trajectories:x", "trajectories:2", "trajectories:-3"):
        with pytest.raises(ArgumentError):
            backend(wrong)
    with pytest.raises(ArgumentError, match="shots"):
        backend("trajectories", shots=100)
    with pytest.raises(ArgumentError, match="n_trajectories"):
        Trajectories(2)


def test_devices_within_error_bars():
    """A transpiled circuit with all of a device's noise, two groups of observables, readout errors."""
    pytest.importorskip("qiskit_ibm_runtime")
    options = {"n_qubits": 3, "n_layers": 2, "noise": "fake:manila", "seed": 4, "observables": ["ZII", "IXX", "IIZ"]}
    exact = qbp.QuantumLayer("strongly_entangling", **options)
    layer = qbp.QuantumLayer("strongly_entangling", backend="trajectories:800", **options)
    x = torch.randn(4, 3, dtype=torch.float64)
    want, outputs = exact.double()(x), layer.double()(x)
    want.sum().backward()
    outputs.sum().backward()
    z = (outputs - want).detach() / layer.last_stds
    z_weights = (layer.weights.grad - exact.weights.grad).flatten() / (layer.last_grad_stds + 1e-9)
    assert z.abs().max() < 5 and z_weights.abs().max() < 5 and z.square().mean() < 3


def test_wide_devices(tmp_path):
    """Ten qubits of a device, beyond what is exact there, trained for a step, saved and loaded."""
    pytest.importorskip("qiskit_ibm_runtime")
    layer = qbp.QuantumLayer(
        "basic_entangler", n_qubits=10, n_layers=1, noise="fake:torino", backend="trajectories", seed=0
    )
    assert layer.noise == "fake:torino"
    out = layer(torch.zeros(2, 10))
    out.sum().backward()
    assert layer.last_stds.shape == (2, 10) and bool(torch.isfinite(layer.weights.grad).all())
    assert layer.last_grad_stds.shape == (10,)
    qbp.save_model(layer, tmp_path / "m.safetensors")
    assert qbp.load_model(tmp_path / "m.safetensors").noise == layer.noise
