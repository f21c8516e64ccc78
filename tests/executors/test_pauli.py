"""Noise, exactly: outputs and gradients against PennyLane's default.mixed, differentiated by torch."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from dataclasses import replace
from functools import reduce
from itertools import product

import numpy as np
import pennylane as qml
import pytest
import torch

import qbp
from qbp.circuit.angles import Angles
from qbp.circuit.program import Channel, Clifford, Expval, Op, Probs, Program, Rotation
from qbp.errors import ArgumentError
from qbp.executors import backend, execute
from qbp.executors.dense import Dense
from qbp.executors.native import Native
from qbp.executors.pauli import Pauli
from qbp.executors.pauli.apart import taken_apart
from qbp.executors.pauli.plan import compile_program
from qbp.executors.sampled import Sampled
from qbp.testing import check_executor, random_program
from qbp.testing.noise import with_noise

PAULI = {"I": np.eye(2), "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}
GATES = {
    **{"Hadamard": qml.Hadamard, "S": qml.S, "SX": qml.SX, "PauliX": qml.X, "PauliY": qml.Y, "PauliZ": qml.Z},
    **{"CNOT": qml.CNOT, "CY": qml.CY, "CZ": qml.CZ, "SWAP": qml.SWAP, "ISWAP": qml.ISWAP, "ECR": qml.ECR},
}


def random_kraus(rng: np.random.Generator, size: int) -> list[np.ndarray]:
    n_kraus = int(rng.integers(1, 5))
    blocks = rng.normal(size=(n_kraus * size, size)) + 1j * rng.normal(size=(n_kraus * size, size))
    return list(np.linalg.qr(blocks)[0].reshape(n_kraus, size, size))


def random_noise(rng: np.random.Generator, wires: list[int]) -> qml.operation.Channel:
    """PennyLane's channel; every kind that it has, strong and weak."""
    p = float(rng.choice([0.01, 0.2, 0.5]))
    (w, *_) = wires
    if len(wires) > 1:
        flips = qml.PauliError("".join(rng.choice(list("XYZ"), 2)), p, wires=wires)
        return flips if rng.random() < 0.4 else qml.QubitChannel(random_kraus(rng, 4), wires=wires)
    kinds = (
        lambda: qml.DepolarizingChannel(p, wires=w),
        lambda: qml.DepolarizingChannel(0.75, wires=w),  # nothing is left
        lambda: qml.AmplitudeDamping(p, wires=w),
        lambda: qml.AmplitudeDamping(0.999999, wires=w),
        lambda: qml.GeneralizedAmplitudeDamping(p, 0.3, wires=w),
        lambda: qml.PhaseDamping(p, wires=w),
        lambda: qml.PhaseFlip(p, wires=w),
        lambda: qml.BitFlip(p, wires=w),
        lambda: qml.ResetError(p / 2, p / 3, wires=w),
        lambda: qml.ResetError(1.0, 0.0, wires=w),
        lambda: qml.ThermalRelaxationError(0.1, 50e-6, 70e-6, 1e-5 * p, wires=w),
        lambda: qml.ThermalRelaxationError(0.1, 50e-6, 30e-6, 1e-5 * p, wires=w),
        lambda: qml.QubitChannel(random_kraus(rng, 2), wires=w),
    )
    return kinds[int(rng.integers(len(kinds)))]()


def channel_of(noise: qml.operation.Channel) -> Channel:
    """By the definition of the Pauli transfer matrix."""
    kraus, wires = [np.asarray(k) for k in noise.kraus_matrices()], tuple(noise.wires)
    words = [reduce(np.kron, [PAULI[c] for c in letters]) for letters in product("IXYZ", repeat=len(wires))]
    after = [sum(k @ word @ k.conj().T for k in kraus) for word in words]
    matrix = np.array([[np.trace(p @ q).real for q in after] for p in words]) / 2 ** len(wires)
    return Channel.of_matrix(noise.name, wires, matrix)


def random_case(seed: int, in_front: bool, widest: int = 4):
    """A program, the same as PennyLane's operations, and how many of its angles are inputs."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, widest + 1))
    n_inputs, n_weights = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    weights = list(range(n_inputs, n_inputs + n_weights))
    ops, calls = [], []

    def some(k: int) -> list[int]:
        return [int(w) for w in rng.permutation(n)[:k]]

    def rotate(word: str, wires: list[int], angle: int) -> None:
        scale, offset = float(rng.choice([1, 1, -0.5, 2])), float(rng.choice([0, 0.3]))
        ops.append(Rotation(word, tuple(wires), angle, scale, offset))
        calls.append(lambda angles: qml.PauliRot(scale * angles[angle] + offset, word, wires=wires))

    def disturb(wires: list[int]) -> None:
        noise = random_noise(rng, wires)
        ops.append(channel_of(noise))
        calls.append(lambda angles: qml.apply(noise))

    for w in range(n):
        rotate(str(rng.choice(list("XY"))), [w], w % n_inputs)
        if rng.random() < 0.5:
            disturb([w])
    for _ in range(int(rng.integers(4, 14))):
        kind = rng.random()
        if kind < 0.4:
            wires = some(int(rng.choice([1, 1, 2, 3])))
            inputs = [] if in_front else list(range(n_inputs))
            rotate("".join(rng.choice(list("XYZ"), len(wires))), wires, int(rng.choice(weights + inputs)))
        elif kind < 0.7:
            names = [g for g, gate in GATES.items() if gate.num_wires <= n]
            name = names[int(rng.integers(len(names)))]
            wires = some(GATES[name].num_wires)
            ops.append(Clifford(name, tuple(wires)))
            calls.append(lambda angles, name=name, wires=wires: GATES[name](wires=wires))
        else:
            disturb(some(int(rng.choice([1, 1, 2]))))
    measurements = [Expval.word("Z", w) for w in some(2)]
    word, wires = "".join(rng.choice(list("XYZ"), n)), some(n)
    measurements.append(Expval(((0.5, word, tuple(wires)), (-1.5, "X", (wires[0],)), (0.25, "", ()))))
    measurements.append(Probs(tuple(some(2))))
    return Program(n, tuple(ops), tuple(measurements), n_inputs + n_weights), calls, n_inputs


def by_pennylane(program: Program, calls, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Outputs (B, M), differentiable, from density matrices."""

    @qml.qnode(qml.device("default.mixed", wires=program.n_qubits), interface="torch", diff_method="backprop")
    def circuit(angles):
        for call in calls:
            call(angles)
        results = []
        for m in program.measurements:
            if isinstance(m, Probs):
                results.append(qml.probs(wires=m.wires))
                continue
            words = [
                qml.pauli.string_to_pauli_word(w, {wire: k for k, wire in enumerate(on)}) if w else qml.I(0)
                for _, w, on in m.terms
            ]
            results.append(qml.expval(qml.Hamiltonian([c for c, _, _ in m.terms], words)))
        return results

    return torch.stack([torch.cat([r.reshape(-1) for r in circuit(torch.cat([row, weights]))]) for row in x])


def check_case(seed: int, widest: int = 4, n_samples: int = 2) -> None:
    in_front = seed % 2 == 0
    program, calls, n_inputs = random_case(seed, in_front, widest)
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(n_samples, n_inputs, generator=draws, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(program.n_angles - n_inputs, generator=draws, dtype=torch.float64, requires_grad=True)
    outputs = by_pennylane(program, calls, x, weights)
    grad = torch.randn(outputs.shape, generator=draws, dtype=torch.float64)
    want = torch.autograd.grad(outputs, (x, weights), grad, allow_unused=True, materialize_grads=True)
    for way in ("samples", "words") if in_front else ("samples",):
        for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 5e-5)):
            angles, executor = Angles(x.detach().to(dtype), weights.detach().to(dtype)), Pauli(way)
            assert executor.way(program, n_inputs, n_samples, dtype) == way
            results, saved = executor.forward(program, angles)
            got = executor.vjp(program, angles, None, saved, grad.to(dtype))
            assert torch.equal(results.values, executor(program, angles).values)
            assert (results.values - outputs).abs().max() < tolerance, (seed, way, dtype)
            size = grad.abs().sum()
            assert (got.batched - want[0]).abs().max() < tolerance * size, (seed, way, dtype)
            assert (got.shared - want[1]).abs().max() < tolerance * size, (seed, way, dtype)


@pytest.mark.parametrize("seed", range(30))
def test_random_circuits_with_noise(seed: int):
    check_case(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 400))
def test_many_random_circuits_with_noise(seed: int):
    check_case(seed, widest=6, n_samples=2)


@pytest.mark.parametrize("way", ["samples", "auto"])
def test_conformance(way: str):
    check_executor(Pauli(way), n_programs=12, batch_sizes=(3, 17))


def noisy_layer(backend: str = "auto", **options) -> qbp.QuantumLayer:
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=3, n_layers=1, backend=backend, seed=0, **options)
    program = with_noise(np.random.default_rng(5), layer.circuit.program)
    layer.set_circuit(replace(layer.circuit, program=program), {"weights": layer.weights})
    return layer


@pytest.mark.parametrize("name", ["auto", "pauli"])
def test_layers_train_under_noise(name: str):
    layer = noisy_layer(name).double()
    assert layer.diff_method == "adjoint"
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(layer, {"weights": w}, x), (x, layer.weights)
    )


def test_gradients_are_those_of_the_shift_rule():
    layer, x = noisy_layer().double(), torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    want = torch.autograd.grad(layer(x).sum(), (x, layer.weights))
    layer.set_backend("native", diff_method="parameter-shift")
    gradients = torch.autograd.grad(layer(x).sum(), (x, layer.weights))
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(want, gradients, strict=True))


def test_shots_are_of_the_noisy_distribution():
    layer, x = noisy_layer().double(), torch.randn(2, 3, dtype=torch.float64)
    exact = layer(x)
    layer.set_backend("native", shots=40_000)
    sampled = layer(x)
    assert ((sampled - exact).abs() < 5 * layer.last_stds + 1e-9).all()
    assert layer.last_stds.max() < 0.006


def test_noise_without_noise_is_the_state_vector():
    rng = np.random.default_rng(0)
    for _ in range(10):
        program = random_program(rng, n_qubits=(1, 4))
        angles = Angles.of(torch.tensor(rng.normal(size=(4, program.n_angles))))
        assert torch.allclose(Pauli()(program, angles).values, Dense()(program, angles).values, atol=1e-12)


def test_words_are_chosen_where_they_pay():
    front, again = noisy_layer().circuit.program, Pauli()
    noise = channel_of(qml.AmplitudeDamping(0.1, wires=1))
    front = replace(
        front,
        ops=(*(op for op in front.ops if not isinstance(op, Channel)), noise, Rotation("X", (1,), front.n_angles - 1)),
    )
    assert again.way(front, 3, 1024) == "words"
    assert again.way(front, front.n_angles, 1024) == "samples"  # every angle a sample's own
    many = replace(front, measurements=(Probs((0, 1, 2)), Probs((1, 2, 0)), Probs((2, 1, 0))))
    assert again.way(many, 3, 4) == "samples"  # more outputs than samples
    with pytest.raises(ArgumentError, match="behind the start"):
        Pauli("words")(front, Angles.of(torch.zeros(1, front.n_angles)))


def test_copies_are_kept_where_nothing_undoes_the_noise():
    def plan(strength: float):
        noise = channel_of(qml.AmplitudeDamping(strength, wires=0))
        ops = (Rotation("X", (0,), 0), Clifford("CNOT", (0, 1)), noise, Rotation("ZZ", (0, 1), 1), noise)
        program = Program(2, ops, (Expval.word("Z", 0),), 2)
        return compile_program(program, 1, np.dtype(np.float64))

    assert plan(0.01).n_kept == plan(0.01).n_kept_back == 0
    assert plan(1.0).n_kept == plan(1.0).n_kept_back == 2


@pytest.mark.parametrize("keep", [True, False])
def test_states_that_are_not_kept_are_computed_again(keep: bool, monkeypatch: pytest.MonkeyPatch):
    program, _, n_inputs = random_case(3, in_front=False)
    angles = Angles(torch.randn(40, n_inputs, dtype=torch.float64), torch.randn(program.n_angles - n_inputs).double())
    executor, grad = Pauli(), torch.randn(40, program.n_outputs, dtype=torch.float64)
    want = executor.vjp(program, angles, None, executor.forward(program, angles)[1], grad)
    if not keep:
        monkeypatch.setattr("qbp.executors.pauli.SAVE_LIMIT", 0)
    got = executor.vjp(program, angles, None, executor.forward(program, angles)[1], grad)
    assert torch.equal(got.batched, want.batched)
    assert torch.equal(got.shared, want.shared)


@pytest.mark.parametrize("in_front", [True, False])
def test_threads_change_no_bit(in_front: bool, monkeypatch: pytest.MonkeyPatch):
    program, _, n_inputs = random_case(4 if in_front else 5, in_front)
    angles = Angles(torch.randn(700, n_inputs), torch.randn(program.n_angles - n_inputs))
    executor, grad = Pauli(), torch.randn(700, program.n_outputs)
    monkeypatch.setattr("qbp.executors.pauli.THREADS_FROM", 0)
    runs = []
    n_threads = torch.get_num_threads()
    try:
        for n in (1, 2, 4):
            torch.set_num_threads(n)
            results, saved = executor.forward(program, angles)
            runs.append((results.values, *executor.vjp(program, angles, None, saved, grad)[:2]))
    finally:
        torch.set_num_threads(n_threads)
    assert all(torch.equal(a, b) for other in runs[1:] for a, b in zip(runs[0], other, strict=True))


def test_too_many_qubits_go_by_few_words_or_are_refused_before_anything_runs():
    noise, n_qubits = channel_of(qml.BitFlip(0.1, wires=0)), 30
    chain = tuple(Clifford("CNOT", (w, w + 1)) for w in range(n_qubits - 1))
    program = Program(n_qubits, (Rotation("X", (0,), 0), noise, *chain), (Expval.word("Z", n_qubits - 1),), 1)
    values = execute(backend("auto"), program, Angles.of(torch.tensor([[0.3]], dtype=torch.float64))).values
    assert values.item() == pytest.approx(0.8 * np.cos(0.3), abs=1e-12)

    ring = (*chain, Clifford("CNOT", (n_qubits - 1, 0)))
    turns = [Rotation(letter, (w,), 2 * w + at) for w in range(n_qubits) for at, letter in enumerate("YZ")]
    deep = replace(program, ops=(noise, *(4 * (*turns, *ring)), noise), n_angles=2 * n_qubits)
    with pytest.raises(ArgumentError, match="30 qubits with noise take"):
        execute(backend("auto"), deep, Angles.of(torch.zeros(1, 2 * n_qubits)))


def test_wires_that_no_output_sees_cost_nothing():
    program, _, n_inputs = random_case(7, in_front=False, widest=3)
    n, at = program.n_qubits, [40, 3, 17]
    moved = replace(
        program,
        n_qubits=60,
        ops=(Rotation("X", (5,), 0), *(replace(op, wires=tuple(at[w] for w in op.wires)) for op in program.ops)),
        measurements=tuple(
            Probs(tuple(at[w] for w in m.wires))
            if isinstance(m, Probs)
            else Expval(tuple((c, word, tuple(at[w] for w in on)) for c, word, on in m.terms))
            for m in program.measurements
        ),
        readout=((59, 0.1, 0.1), (at[0], 0.2, 0.3)),
    )
    program = replace(program, readout=((0, 0.2, 0.3),))
    angles = Angles(torch.randn(3, n_inputs).double(), torch.randn(program.n_angles - n_inputs).double())
    grad = torch.randn(3, program.n_outputs).double()
    runs = []
    for some in (program, moved):
        results, saved = Native().forward(some, angles)
        runs.append((results.values, *Native().vjp(some, angles, None, saved, grad)[:2]))
    assert n <= 3
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*runs, strict=True))


def chain(n_qubits: int) -> Program:
    """Noise between neighbours: an output sees few wires."""
    rng, ops = np.random.default_rng(1), [Rotation("X", (w,), w) for w in range(n_qubits)]
    for w in range(n_qubits):
        ops.append(channel_of(qml.AmplitudeDamping(0.1, wires=w)))
    for w in (*range(0, n_qubits - 1, 2), *range(1, n_qubits - 1, 2)):
        noise = channel_of(qml.QubitChannel(random_kraus(rng, 4), wires=(w, w + 1)))
        ops += [Clifford("CNOT", (w, w + 1)), noise, Rotation("YX", (w, w + 1), n_qubits + w)]
    measured = (*(Expval.word("Z", w) for w in range(n_qubits)), Probs((1, 0)), Expval(((0.5, "XY", (0, 1)),)))
    return Program(n_qubits, tuple(ops), measured, 2 * n_qubits, readout=((0, 0.1, 0.2),))


def test_wide_circuits_are_taken_apart(monkeypatch: pytest.MonkeyPatch):
    program = chain(7)
    angles = Angles(torch.randn(5, 7).double(), torch.randn(7).double())
    grad, executor = torch.randn(5, program.n_outputs).double(), Pauli()
    assert len(taken_apart(program)) > 1
    assert max(part.n_qubits for part, _ in taken_apart(program)) <= 4
    runs = []
    for whole in (False, True):
        if whole:
            monkeypatch.setattr("qbp.executors.pauli.taken_apart", lambda p: ((p, tuple(range(p.n_outputs))),))
            program = replace(program)
        results, saved = executor.forward(program, angles)
        assert torch.equal(results.values, executor(program, angles).values)
        runs.append((results.values, *executor.vjp(program, angles, None, saved, grad)[:2]))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*runs, strict=True))


def wide_case(seed: int) -> Program:
    """7 or 8 wires, gates and noise anywhere, words of every kind measured."""
    rng, ops, k = random.Random(seed), list[Op](), 0
    n = rng.choice((7, 8))
    two = channel_of(qml.QubitChannel(random_kraus(np.random.default_rng(seed), 4), wires=(0, 1)))
    damping = channel_of(qml.AmplitudeDamping(0.2, wires=0))
    apart = np.kron(channel_of(qml.DepolarizingChannel(0.1, wires=0)).matrix(), damping.matrix())
    for _ in range(rng.choice((6, 10, 20))):
        on = tuple(rng.sample(range(n), 2))
        kind = rng.choice(("turn", "turns", "one", "pair", "pair", "damping", "apart", "two"))
        if kind == "turn":
            ops.append(Rotation(rng.choice("XYZ"), on[:1], k := k + 1))
        elif kind == "turns":
            ops.append(Rotation(rng.choice(("ZZ", "XY", "ZX")), on, k := k + 1))
        elif kind == "one":
            ops.append(Clifford(rng.choice(("Hadamard", "S", "SX", "PauliX")), on[:1]))
        elif kind == "pair":
            ops.append(Clifford(rng.choice(("CNOT", "CZ", "SWAP", "ISWAP", "CY")), on))
        elif kind == "damping":
            ops.append(replace(damping, wires=on[:1]))
        else:
            ops.append(replace(two, wires=on) if kind == "two" else Channel.of_matrix("apart", on, apart))
    words = [Expval.word(rng.choice("XYZ"), w) for w in range(n)]
    several = Expval(((0.5, "ZZ", (0, 1)), (0.2, "", ()), (-0.3, "X", (2,)), (0.7, "YZX", (1, 4, 5))))
    readout = ((0, 0.1, 0.2), (3, 0.05, 0.0), (5, 0.0, 0.3))
    return Program(n, tuple(ops), (*words, several, Probs((3, 1))), k + 1, readout=readout)


@pytest.mark.parametrize("seeds", [range(8), pytest.param(range(8, 150), marks=pytest.mark.slow)])
def test_parts_add_up_to_the_whole(seeds: range, monkeypatch: pytest.MonkeyPatch):
    """What words do not see, or see a part of only, is left out, and nothing changes."""
    n_apart = 0
    for seed in seeds:
        program = wide_case(seed)
        generator, half = torch.Generator().manual_seed(seed), program.n_angles // 2
        values = torch.randn(2, program.n_angles, generator=generator, dtype=torch.float64)
        angles = Angles(values[:, :half], values[0, half:])
        grad, runs = torch.randn(2, program.n_outputs, generator=generator).double(), []
        n_apart += len(taken_apart(program)) > 1
        for whole in (False, True):
            with monkeypatch.context() as patch:
                if whole:
                    patch.setattr("qbp.executors.pauli.taken_apart", lambda p: ((p, tuple(range(p.n_outputs))),))
                results, saved = Pauli().forward(program, angles)
                runs.append((results.values, *Pauli().vjp(program, angles, None, saved, grad)[:2]))
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*runs, strict=True))
    assert n_apart > len(seeds) / 4


def test_a_word_sees_less_than_its_wires():
    """A Z on the control of a CNOT sees neither target nor noise there; two wires' noise acts on one."""
    both = channel_of(qml.DepolarizingChannel(0.1, wires=0)).matrix()
    ops: list[Op] = [Rotation("Y", (w,), w) for w in range(9)]
    for w in range(1, 9):
        ops += [Clifford("CNOT", (0, w)), Channel.of_matrix("two", (0, w), np.kron(both, both))]
    program = Program(9, tuple(ops), (Expval.word("Z", 0),), 9)
    ((part, _),) = taken_apart(program)
    assert part.n_qubits == 1 and part.counts() == {"RY": 1, "two": 8} and len(program.seen_wires()) == 9
    angles = Angles.of(torch.full((1, 9), 0.4, dtype=torch.float64))
    assert Pauli()(program, angles).values.item() == pytest.approx((1 - 0.4 / 3) ** 8 * math.cos(0.4))


def test_a_hundred_qubits_with_noise():
    program = chain(100)
    angles = Angles(torch.randn(2, 100), torch.randn(100))
    results, saved = Native().forward(program, angles)
    gradients = Native().vjp(program, angles, None, saved, torch.ones_like(results.values))
    assert (results.values.abs() <= 1.00001).all()
    assert gradients.batched.abs().min() > 0


def test_samples_of_the_noisy_distribution_pass_the_suite():
    check_executor(Sampled(Pauli(), 200, torch.Generator().manual_seed(0)), n_programs=12, batch_sizes=(3,))


def test_bad_arguments():
    program = noisy_layer().circuit.program
    with pytest.raises(ArgumentError, match="Argument `way`"):
        Pauli("both")
    with pytest.raises(ArgumentError, match="must hold"):
        Pauli()(program, Angles.of(torch.zeros(1, 1)))
    with pytest.raises(ArgumentError, match="float32 or float64"):
        Native()(program, Angles.of(torch.zeros(1, program.n_angles, dtype=torch.float16)))
    with pytest.raises(ArgumentError, match="`amplitudes` must be None"):
        Pauli()(program, Angles.of(torch.zeros(1, program.n_angles)), torch.zeros(1, 8))


def test_a_step_without_noise_neither_loads_nor_compiles_this_engine():
    code = """
import sys, torch, qbp
layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1)
layer(torch.zeros(1, 2)).sum().backward()
assert layer.backend == "native" and not [name for name in sys.modules if name.startswith("qbp.executors.pauli")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
