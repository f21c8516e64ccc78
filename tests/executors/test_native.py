"""The native executor against `Dense` and autograd through it, and its parts against matrices."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from functools import reduce

import numpy as np
import pytest
import torch
from numba import njit

from qbp.circuit.angles import Angles
from qbp.circuit.frame import Frame
from qbp.circuit.gates import GATES
from qbp.circuit.pauli import Word
from qbp.circuit.program import Clifford, Expval, Probs, Program, Rotation, gate_ops
from qbp.errors import ArgumentError
from qbp.executors import AdjointExecutor, native
from qbp.executors.dense import Dense
from qbp.executors.native import Native, plan, schedule, threads, ways
from qbp.executors.native import batch as samples
from qbp.executors.native import single as states
from qbp.executors.native.kernels import fixed_point as turns
from qbp.executors.native.kernels import jit, passes
from qbp.executors.native.kernels import simd as lanes
from qbp.executors.native.kernels.simd import lanes_of
from qbp.testing import random_angles, random_program

DTYPES = [(torch.float64, 1e-12), (torch.float32, 1e-5)]
W = lanes_of(np.float64)


def truth(program, angles, amplitudes, grad):
    """Outputs and gradients of batched angles, shared angles and amplitudes, in float64 through autograd."""
    leaves = [angles.batched.double(), angles.shared.double()]
    if amplitudes is not None:
        leaves.append(amplitudes.to(torch.complex128 if amplitudes.is_complex() else torch.float64))
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    outputs = Dense()(program, Angles(*leaves[:2]), *leaves[2:]).values
    anchor = sum((leaf.real if leaf.is_complex() else leaf).sum() for leaf in leaves)  # some programs use none
    return outputs.detach(), torch.autograd.grad((outputs * grad).sum() + 0 * anchor, leaves)


def run(program, angles, amplitudes=None):
    """Outputs and gradients of a fixed cotangent."""
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(angles.n_samples, program.n_outputs, generator=generator, dtype=angles.batched.dtype)
    executor = Native()
    (outputs, *_), saved = executor.forward(program, angles, amplitudes)
    return grad, outputs, executor.vjp(program, angles, amplitudes, saved, grad)


def assert_equals_dense(program, angles, amplitudes=None, tol=1e-12):
    grad, outputs, result = run(program, angles, amplitudes)
    true_outputs, gradients = truth(program, angles, amplitudes, grad)
    pairs = [(outputs, true_outputs), (result.batched, gradients[0]), (result.shared, gradients[1])]
    if amplitudes is not None:
        pairs.append((result.amplitudes, gradients[2]))
        assert result.amplitudes.dtype == amplitudes.dtype
    for mine, true in pairs:
        assert mine.shape == true.shape
        scale = max(1.0, float(true.abs().max()) if true.numel() else 1.0)
        torch.testing.assert_close(mine.to(true.dtype), true, rtol=0, atol=tol * scale)
    assert outputs.dtype == result.batched.dtype == result.shared.dtype == angles.batched.dtype
    assert torch.equal(Native()(program, angles, amplitudes).values, outputs)


def layers(n_qubits, n_layers, measurements=None, encoding="RX"):
    """Encodings, then layers of Rot and CNOT rings."""
    ops = [op for w in range(n_qubits) for op in gate_ops(GATES[encoding], (w,), [w])]
    k = n_qubits
    for layer in range(n_layers):
        for w in range(n_qubits):
            ops += gate_ops(GATES["Rot"], (w,), [k, k + 1, k + 2])
            k += 3
        for w in range(n_qubits if n_qubits > 1 else 0):
            ops.append(Clifford("CNOT", (w, (w + layer % (n_qubits - 1) + 1) % n_qubits)))
    measured = measurements or tuple(Expval.word("Z", w) for w in range(n_qubits))
    return Program(n_qubits, tuple(ops), tuple(measured), k)


# ---- against dense ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tol"), DTYPES)
@pytest.mark.parametrize(("seed", "n_qubits", "n_programs"), [(0, (1, 4), 60), (1, (1, 7), 40), (2, (7, 9), 10)])
def test_random_programs(seed, n_qubits, n_programs, dtype, tol):
    rng = np.random.default_rng(seed)
    for _ in range(n_programs):
        with_amplitudes = bool(rng.random() < 0.3)
        program = random_program(rng, n_qubits=n_qubits, n_ops=(0, 30), amplitudes=with_amplitudes)
        batch = int(rng.integers(1, 2 * W + 4))
        n_batched = int(rng.choice([0, program.n_angles, rng.integers(0, program.n_angles + 1)]))
        angles = random_angles(rng, program, batch, n_batched=n_batched, dtype=dtype)
        amplitudes = None
        if with_amplitudes:
            amplitudes = torch.tensor(rng.normal(size=(batch, 2**program.n_qubits)), dtype=dtype)
            if rng.random() < 0.5:
                amplitudes = torch.complex(amplitudes, amplitudes.flip(0))
        assert_equals_dense(program, angles, amplitudes, tol)


@pytest.mark.parametrize("name", GATES)
def test_every_gate(name):
    gate = GATES[name]
    rng = np.random.default_rng(0)
    wires = tuple(int(w) for w in rng.permutation(3)[: gate.n_wires])
    before = [Rotation("Y", (w,), w) for w in range(3)] + [
        Rotation("XX", (0, 2), 3),
        Rotation("ZY", (1, 0), 4),
    ]
    after = [Rotation("YX", (2, 1), 5), Rotation("XZ", (0, 1), 6)]
    ops = (*before, *gate_ops(gate, wires, range(7, 7 + gate.n_params)), *after)
    measured = (Expval.word("Z", 0), Expval.word("XYZ", 2, 0, 1), Probs((2, 0)))
    program = Program(3, ops, measured, 7 + gate.n_params)
    for n_batched in (0, 3, program.n_angles):
        assert_equals_dense(program, random_angles(rng, program, 3, n_batched=n_batched))


@pytest.mark.parametrize("batch", [1, 3, W - 1, W, W + 1, 2 * W + 3])
@pytest.mark.parametrize("n_batched", [0, 4, 28])
def test_batch_sizes(batch, n_batched):
    program = layers(4, 2)
    assert_equals_dense(program, random_angles(np.random.default_rng(batch), program, batch, n_batched=n_batched))


def test_empty_batch():
    program = layers(2, 1)
    _, outputs, result = run(program, Angles(torch.zeros(0, 2), torch.zeros(6)))
    assert outputs.shape == (0, 2) and result.batched.shape == (0, 2) and not result.shared.any()


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_many_passes_without_phases(dtype, tol):
    """Undivided rotations grow the state: it must not overflow."""
    n, n_layers = 4, 100
    ops = []
    for k in range(n_layers):
        ops += [Rotation("Y", (w,), n * k + w) for w in range(n)] + [Clifford("CNOT", (k % n, (k + 1) % n))]
    program = Program(n, tuple(ops), (Expval.word("Z", 0), Expval.word("XX", 0, 1)), n * n_layers)
    angles = torch.full((n * n_layers,), np.pi / 2 - 0.01, dtype=dtype)
    assert_equals_dense(program, Angles(torch.zeros(2, 0, dtype=dtype), angles), tol=tol)


def test_half_turns_of_shared_angles():
    """Shared rotations beyond half a turn flip bits and signs of all that comes after them."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        program = random_program(rng, n_qubits=(2, 4), n_ops=(8, 20), n_angles=(8, 12))
        angles = random_angles(rng, program, 2, n_batched=int(rng.integers(0, 4)))
        halves = torch.tensor(rng.integers(-3, 4, size=angles.shared.shape)) * torch.pi
        assert_equals_dense(program, Angles(angles.batched, halves + 0.1 * angles.shared))


def test_large_angles():
    words = [("Y", (0,)), ("XX", (0, 1)), ("YX", (1, 0)), ("ZZ", (0, 1)), ("X", (1,)), ("YZ", (0, 1)), ("Z", (1,))]
    ops = tuple(Rotation(word, wires, k) for k, (word, wires) in enumerate(words))
    program = Program(2, ops, (Expval.word("Z", 0), Expval.word("YX", 0, 1)), len(words))
    for n_batched in (0, 7):
        angles = random_angles(np.random.default_rng(0), program, 4, n_batched=n_batched)
        assert_equals_dense(program, Angles(3e4 * angles.batched, 3e4 * angles.shared), tol=1e-14)


def test_tiny_angles_are_not_slow_or_wrong():
    """Products of tiny amplitudes are flushed to zero inside the kernels, and only there."""
    program = layers(8, 1)
    angles = random_angles(np.random.default_rng(0), program, 3, n_batched=8, dtype=torch.float32)
    assert_equals_dense(program, Angles(angles.batched * 1e-6, angles.shared * 1e-6), tol=1e-5)
    assert torch.tensor([1e-40]).mul(1).item() > 0


def test_unnormalised_states_are_linear_algebra():
    program = Program(2, (Rotation("XY", (0, 1), 0),), (Expval(((1.0, "", ()), (0.5, "Z", (1,)))),), 1, True)
    amplitudes = torch.tensor([[3.0, 0.0, 1.0j, 0.0]], dtype=torch.complex128)
    assert_equals_dense(program, Angles(torch.tensor([[0.3]]).double(), torch.zeros(0).double()), amplitudes)


# ---- lanes that are amplitudes ---------------------------------------------------------------------------------------


@pytest.fixture
def one_state_each(monkeypatch):
    """All states one after the other, with amplitudes in lanes, where there are enough."""
    monkeypatch.setattr(native, "lanes_are_amplitudes", lambda n, samples, dtype: n >= 6)


def random_case(rng, program, batch, dtype):
    """Angles, and amplitudes where the program starts from some."""
    angles = random_angles(rng, program, batch, n_batched=int(rng.integers(0, program.n_angles + 1)), dtype=dtype)
    if not program.amplitudes:
        return angles, None
    amplitudes = torch.tensor(rng.normal(size=(batch, 2**program.n_qubits)), dtype=dtype)
    return angles, torch.complex(amplitudes, amplitudes.flip(0)) if rng.random() < 0.5 else amplitudes


@pytest.mark.parametrize(("dtype", "tol"), DTYPES)
@pytest.mark.parametrize(("seed", "n_qubits", "n_programs"), [(0, (6, 7), 60), (1, (8, 10), 20), (2, (11, 13), 4)])
def test_one_state_random_programs(seed, n_qubits, n_programs, dtype, tol, one_state_each):
    rng = np.random.default_rng(seed)
    for _ in range(n_programs):
        program = random_program(rng, n_qubits=n_qubits, n_ops=(0, 40), amplitudes=bool(rng.random() < 0.3))
        batch = int(rng.integers(1, 4))
        assert_equals_dense(program, *random_case(rng, program, batch, dtype), tol)


@pytest.mark.parametrize("batch", [1, 3, W - 1, W, W + 1])
@pytest.mark.parametrize(("dtype", "tol"), DTYPES)
def test_one_state_batch_sizes(batch, dtype, tol, one_state_each):
    program = layers(6, 2, (Expval.word("Z", 0), Expval.word("XY", 1, 4), Expval.word("YY", 2, 3), Probs((5, 0))))
    assert_equals_dense(
        program, random_angles(np.random.default_rng(0), program, batch, n_batched=6, dtype=dtype), tol=tol
    )


LARGE = [(14, 3, ()), (16, 1, ()), (18, 1, pytest.mark.slow), (20, 1, pytest.mark.slow)]


@pytest.mark.parametrize(("n_qubits", "batch"), [pytest.param(n, batch, marks=marks) for n, batch, marks in LARGE])
@pytest.mark.parametrize(("dtype", "tol"), DTYPES)
def test_large_states(n_qubits, batch, dtype, tol, monkeypatch):
    """In the layout of large states, which narrow registers take later than wide ones."""
    monkeypatch.setattr(native, "lanes_are_amplitudes", lambda *_: True)
    words = [Expval.word("Z", 0), Expval.word("ZZ", 3, n_qubits - 1), Expval.word("XYX", 0, 7, n_qubits - 1)]
    program = layers(n_qubits, 1, (*words, Probs((3, 1))))
    angles = random_angles(np.random.default_rng(0), program, batch, n_batched=n_qubits, dtype=dtype)
    assert_equals_dense(program, angles, tol=tol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_threads_on_one_state_do_not_change_bits(dtype, batch, monkeypatch):
    """Threads that share a state, and threads that each have states of their own."""
    program = layers(14, 2, (Expval.word("Z", 0), Expval.word("XX", 2, 13), Probs((1, 2))))
    angles = random_angles(np.random.default_rng(0), program, batch, n_batched=14, dtype=dtype)
    monkeypatch.setattr(native, "lanes_are_amplitudes", lambda *_: True)
    one = run(program, angles)
    before = torch.get_num_threads()
    try:
        for n_threads in (2, 3, 8):
            torch.set_num_threads(n_threads)
            assert all(same(one, run(program, angles)) for _ in range(3))
    finally:
        torch.set_num_threads(before)


def test_both_layouts_agree(monkeypatch):
    """The rule may choose either for any size; phases that sum up, and half turns, are where they differ most."""
    rng = np.random.default_rng(4)
    for _ in range(10):
        program = random_program(rng, n_qubits=(6, 8), n_ops=(20, 60))
        angles = random_angles(rng, program, 5, n_batched=3)
        angles = Angles(angles.batched * 20, angles.shared * 20)
        results = []
        for alone in (False, True):
            monkeypatch.setattr(native, "lanes_are_amplitudes", lambda *_, alone=alone: alone)
            assert native._Call(program, angles, None).layout is (states if alone else samples)
            results.append(run(program, angles))
        for mine, other in zip(
            (results[0][1], results[0][2].shared), (results[1][1], results[1][2].shared), strict=True
        ):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-11)


def test_the_rule_for_lanes():
    float32, float64 = np.dtype(np.float32), np.dtype(np.float64)
    assert not native.lanes_are_amplitudes(3, 1, float32)
    for dtype in (float32, float64):
        assert native.lanes_are_amplitudes(12, 1, dtype)
        assert native.lanes_are_amplitudes(20, 4096, dtype)
        assert not native.lanes_are_amplitudes(10, 128, dtype)
    assert native.lanes_are_amplitudes(14, lanes_of(float32) + 1, float32)  # the last chunk is nearly empty


# ---- diagonal words that differ between samples ----------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tol"), DTYPES)
@pytest.mark.parametrize("n_batched", [15, 18, 21])
def test_feature_maps_of_phases(n_batched, dtype, tol):
    """All ZZ of a level in one sweep, also where some of its angles are shared."""
    n = 6
    pairs = [(a, b) for a in range(n) for b in range(a)]
    ops = [Clifford("Hadamard", (w,)) for w in range(n)]
    ops += [Rotation("ZZ", pair, k) for k, pair in enumerate(pairs)]
    ops += [Rotation("Z", (w,), 15 + w) for w in range(n)]
    ops += [Clifford("Hadamard", (w,)) for w in range(n)]
    ops += [Rotation("ZZ", pair, k) for k, pair in enumerate(pairs)] + [Rotation("Y", (w,), 15 + w) for w in range(n)]
    program = Program(n, tuple(ops), tuple(Expval.word("Z", w) for w in range(n)), 21)
    kinds = plan.compile_program(program, n_batched).tables.items[:, 0]
    assert schedule.SWEEP in kinds and schedule.PHASE not in kinds
    assert_equals_dense(
        program, random_angles(np.random.default_rng(0), program, W + 3, n_batched=n_batched, dtype=dtype), tol=tol
    )


# ---- the same bits ---------------------------------------------------------------------------------------------------


def same(a, b):
    return all(torch.equal(x, y) for x, y in ((a[1], b[1]), (a[2].batched, b[2].batched), (a[2].shared, b[2].shared)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_do_not_change_bits(dtype, monkeypatch):
    program = layers(7, 3)
    angles = random_angles(np.random.default_rng(0), program, 5 * W, n_batched=7, dtype=dtype)
    one = run(program, angles)
    monkeypatch.setattr(native, "THREADS_FROM", 0)
    before = torch.get_num_threads()
    try:
        for n_threads in (2, 3, 16):
            torch.set_num_threads(n_threads)
            assert all(same(one, run(program, angles)) for _ in range(5))
    finally:
        torch.set_num_threads(before)


def test_rows_do_not_depend_on_each_other():
    program = layers(5, 2, (Expval.word("X", 0), Probs((1, 0))))
    rng = np.random.default_rng(0)
    angles = random_angles(rng, program, 2 * W + 3, n_batched=5, dtype=torch.float32)
    outputs = Native()(program, angles).values
    rows = torch.tensor(rng.permutation(2 * W + 3))
    assert torch.equal(Native()(program, Angles(angles.batched[rows], angles.shared)).values, outputs[rows])
    assert torch.equal(Native()(program, Angles(angles.batched[-1:], angles.shared)).values, outputs[-1:])
    equal = Angles(angles.batched[:1].expand(2 * W + 3, -1), angles.shared)
    assert torch.equal(Native()(program, equal).values, outputs[:1].expand(2 * W + 3, -1))


def test_a_bad_row_stays_alone():
    program = layers(3, 1)
    angles = random_angles(np.random.default_rng(0), program, 3, n_batched=3)
    outputs = Native()(program, angles).values
    angles.batched[1, 0] = float("nan")
    got = Native()(program, angles).values
    assert got[1].isnan().all() and torch.equal(got[[0, 2]], outputs[[0, 2]])


def test_states_that_are_too_large_are_computed_again(monkeypatch):
    for amplitudes in (None, torch.randn(2 * W, 2**4, dtype=torch.complex128)):
        program = layers(4, 2)
        if amplitudes is not None:
            program = Program(4, program.ops, program.measurements, program.n_angles, True)
        angles = random_angles(np.random.default_rng(0), program, 2 * W, n_batched=4)
        kept = run(program, angles, amplitudes)
        with monkeypatch.context() as patch:
            patch.setattr(native, "SAVE_LIMIT", 0)
            again = run(program, angles, amplitudes)
        torch.testing.assert_close(again[2].shared, kept[2].shared, rtol=1e-12, atol=1e-13)
        assert torch.equal(again[1], kept[1])


def test_backward_twice_and_needs():
    program = layers(3, 1)
    angles = random_angles(np.random.default_rng(0), program, 4, n_batched=3)
    executor = Native()
    (outputs, *_), saved = executor.forward(program, angles)
    first = executor.vjp(program, angles, None, saved, torch.ones_like(outputs))
    second = executor.vjp(program, angles, None, saved, torch.ones_like(outputs), (False, True, False))
    assert torch.equal(first.shared, second.shared)
    assert second.batched is None and first.amplitudes is None


# ---- processes, copies, errors ---------------------------------------------------------------------------------------


def test_is_an_adjoint_executor_and_copies():
    executor = Native()
    assert isinstance(executor, AdjointExecutor)
    program = layers(2, 1)
    angles = random_angles(np.random.default_rng(0), program, 2, n_batched=2)
    outputs = executor(program, angles).values
    for other in (copy.deepcopy(executor), pickle.loads(pickle.dumps(executor))):
        assert torch.equal(other(pickle.loads(pickle.dumps(program)), angles).values, outputs)


STEP = """
import torch
from qbp.circuit.angles import Angles
from qbp.executors.native import Native
from qbp.executors.native.kernels import batch as kernels, single as one_state
from qbp.circuit.program import Expval, Program, Rotation
program = Program({n_qubits}, (Rotation("Y", (0,), 0),), (Expval.word("Z", 0),), 1)
angles = Angles(torch.zeros(1, 0), torch.zeros(1))
(y, *_), saved = Native().forward(program, angles)
Native().vjp(program, angles, None, saved, y)
for kernel in ({module}.forward, {module}.backward):
    print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))
"""


def test_compiled_once_on_a_machine():
    run(layers(2, 1), Angles(torch.zeros(1, 2), torch.zeros(6)))
    code = STEP.format(n_qubits=1, module="kernels")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"] * 2
    assert "compiling" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not jit._can_spawn(), reason="needs two processors")
@pytest.mark.parametrize(("n_qubits", "module"), [(1, "kernels"), (10, "one_state")])
def test_both_kernels_are_compiled_at_once(tmp_path, n_qubits, module):
    """Forward here, backward by another process meanwhile, of which one word is said."""
    code, env = STEP.format(n_qubits=n_qubits, module=module), os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split() == ["0", "1", "1", "0"]
    assert done.stderr.count("compiling") == 1


def _in_child(queue, angles):
    torch.set_num_threads(2)
    queue.put(run(layers(6, 2), angles)[2].shared.numpy())


def test_fork_after_threads(monkeypatch):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork here")
    monkeypatch.setattr(native, "THREADS_FROM", 0)
    angles = random_angles(np.random.default_rng(0), layers(6, 2), 4 * W, n_batched=6)
    mine = run(layers(6, 2), angles)[2].shared.numpy()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue, angles))
    child.start()
    assert np.array_equal(queue.get(timeout=60), mine)
    child.join()


def test_errors_of_threads_reach_the_caller():
    def fail(_):
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        threads.run_on_threads(fail, None, 3)


def test_bad_arguments():
    program = layers(2, 1)
    good = Angles(torch.zeros(1, 2), torch.zeros(6))
    executor = Native()
    with pytest.raises(ArgumentError, match="8 angles"):
        executor(program, Angles(torch.zeros(1, 2), torch.zeros(5)))
    with pytest.raises(ArgumentError, match="float32 or float64"):
        executor(program, Angles(torch.zeros(1, 2).half(), torch.zeros(6).half()))
    with pytest.raises(ArgumentError, match="amplitudes"):
        executor(program, good, torch.ones(1, 4))
    with pytest.raises(ArgumentError, match="grad"):
        (outputs, *_), saved = executor.forward(program, good)
        executor.vjp(program, good, None, saved, outputs[:, :1])


def test_too_many_qubits_are_refused(monkeypatch):
    monkeypatch.setattr(native, "physical_memory", lambda: 2**30)
    monkeypatch.setattr(ways, "MOST_STEPS", 0)  # no words are carried back
    program = Program(26, (Rotation("Y", (0,), 0),), (Probs((0, 25)), Expval.word("X" * 26, *range(26))), 1)
    with pytest.raises(ArgumentError, match=r"26 qubits .* in float32 take 1\.5 GiB, but there are 1\.0 GiB"):
        Native()(program, Angles(torch.zeros(1, 0), torch.zeros(1)))
    everything = Program(14, (Rotation("Y", (0,), 0),), (Probs(tuple(range(14))),), 1)
    with pytest.raises(ArgumentError, match=r"16384 outputs of 14 qubits and a batch of 100000 in float32 take"):
        Native()(everything, Angles(torch.zeros(100_000, 0), torch.zeros(1)))


# ---- the compiler ----------------------------------------------------------------------------------------------------

PAULI = {(0, 0): np.eye(2), (1, 0): [[0, 1], [1, 0]], (1, 1): [[0, -1j], [1j, 0]], (0, 1): [[1, 0], [0, -1]]}


def matrix(word, n):
    """The matrix of a `Word`."""
    letters = [np.array(PAULI[word.x >> b & 1, word.z >> b & 1], complex) for b in range(n - 1, -1, -1)]
    return 1j ** (word.phase - (word.x & word.z).bit_count()) * reduce(np.kron, letters)


def test_frame_conjugates_words():
    rng = np.random.default_rng(0)
    n = 3
    for _ in range(30):
        frame, clifford = Frame(n), np.eye(2**n, dtype=complex)
        for _ in range(8):
            x, z, quarters = (int(v) for v in (rng.integers(8), rng.integers(8), rng.integers(-5, 6)))
            frame.turn(Word.hermitian(x, z), quarters)
            half = quarters * np.pi / 4
            turn = np.cos(half) * np.eye(2**n) - 1j * np.sin(half) * matrix(Word.hermitian(x, z), n)
            clifford = turn @ clifford
        word = Word.hermitian(int(rng.integers(8)), int(rng.integers(8)))
        image = frame.pull(word)
        np.testing.assert_allclose(matrix(image, n), clifford.conj().T @ matrix(word, n) @ clifford, atol=1e-12)
        assert image.sign in (1, -1)


def test_cos_and_sin():
    angles = np.concatenate([np.linspace(-20, 20, 4001), np.pi / 4 * np.arange(-40, 41), [1e6, -123456.789, 0.0]])
    Native()(layers(1, 1), Angles(torch.zeros(1, 1), torch.zeros(3)))  # compiled as part of a kernel
    cos_sin = njit(lambda t: passes.cos_sin(t))  # part of a kernel: Python itself must not call it
    got = np.array([cos_sin(t) for t in angles])
    np.testing.assert_allclose(got, np.stack([np.cos(angles), np.sin(angles)], 1), rtol=0, atol=4e-16)
    assert np.isnan(cos_sin(np.nan)).all()


@pytest.mark.parametrize(("dtype", "tol"), [(np.float64, 1e-14), (np.float32, 1.5e-7)])
def test_angles_as_integers(dtype, tol):
    angles = np.concatenate([np.linspace(-20, 20, 2001), np.pi / 4 * np.arange(-40, 41), [0.0]])

    @njit
    def cos_sin(angle, array):
        c, s = turns.cos_sin_of_turns(lanes.splat(turns.turns_in(angle, array)))
        return lanes.hsum(c) / lanes.n_lanes(array), lanes.hsum(s) / lanes.n_lanes(array)

    got = np.array([cos_sin(t, np.zeros(W, dtype)) for t in angles])
    np.testing.assert_allclose(got, np.stack([np.cos(angles), np.sin(angles)], 1), rtol=0, atol=tol)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("with_instruction", [True, False])
def test_lanes_are_swapped(dtype, with_instruction, monkeypatch):
    if not with_instruction:
        monkeypatch.setattr(lanes, "_PERMUTATIONS", {})
    width = lanes_of(dtype)

    @njit
    def swap(numbers, by, result):
        lanes.store(result, 0, lanes.swapped(lanes.load(numbers, 0), by))

    for by in range(width):
        result = np.zeros(width, dtype)
        swap(np.arange(width).astype(dtype), by, result)
        assert (result == np.arange(width) ^ by).all()


def test_products_of_words():
    rng = np.random.default_rng(1)
    for _ in range(30):
        a, b = (Word.hermitian(int(rng.integers(8)), int(rng.integers(8))) for _ in range(2))
        np.testing.assert_array_equal(matrix(a.times(b), 3), matrix(a, 3) @ matrix(b, 3))
        product = matrix(a, 3) @ matrix(b, 3)
        assert a.anticommutes(b) == np.array_equal(product, -matrix(b, 3) @ matrix(a, 3))


def test_places_are_a_linear_permutation():
    n = 11
    places = [schedule.place(i) for i in range(2**n)]
    assert sorted(places) == list(range(2**n))
    placed = njit(lambda i: passes.place(i))
    assert places == [int(placed(i)) for i in range(2**n)]
    for z in (0b1011, 0b11010110101, 2**n - 1):
        placed = schedule.placed_z(z, n)
        assert all((i & z).bit_count() % 2 == (places[i] & placed).bit_count() % 2 for i in range(2**n))


def test_tables_list_every_coset_once():
    rng = np.random.default_rng(0)
    for _ in range(50):
        words = [Word(int(rng.integers(32)), int(rng.integers(32))) for _ in range(rng.integers(1, 3))]
        if len({0, *(w.x for w in words)}) <= len(words):
            continue
        span = {}
        for vector in [w.x for w in words] + [1 << b for b in range(5)]:
            schedule._extend(span, vector)
        lo, hi = schedule.cosets(span, words, int(rng.integers(0, 5)))
        seen = []
        for h in hi:
            for k in lo:
                i = (h ^ k) & (2**29 - 1)
                for flip, word in zip(schedule.FLIPS, words, strict=False):
                    assert bool(h & flip) == bool((i & word.z).bit_count() & 1)
                seen += [i ^ v for v in schedule.span_of([w.x for w in words])]
        assert sorted(seen) == list(range(32))


def test_layers_take_few_passes():
    """The first layer is part of the start; then one pass for each wire, and one sweep for all phases of a layer."""
    tables = plan.compile_program(layers(6, 4), 6).tables
    kinds = [int(kind) for kind in tables.items[:, 0]]
    assert sum(2 if kind >= schedule.TWO else 1 for kind in kinds if kind != schedule.DIAGONAL) == 6 * 3
    assert kinds.count(schedule.DIAGONAL) == 3
    assert len(tables.blocks) == 1
    assert len(plan.compile_program(layers(10, 4), 10).tables.blocks) > 2


def test_clifford_circuits_run_nothing():
    ops = (
        Clifford("Hadamard", (0,)),
        Clifford("CNOT", (0, 1)),
        Clifford("S", (1,)),
        Clifford("ISWAP", (1, 0)),
    )
    program = Program(2, ops, (Expval.word("XX", 0, 1), Expval.word("ZZ", 0, 1)), 0)
    assert not len(plan.compile_program(program, 0).tables.items)
    assert_equals_dense(program, Angles(torch.zeros(2, 0).double(), torch.zeros(0).double()))


def test_rotations_that_nobody_sees_are_not_run():
    program = Program(2, (Rotation("ZX", (0, 1), 0), Rotation("Z", (0,), 1)), (Expval.word("Z", 0),), 2)
    assert not len(plan.compile_program(program, 0).tables.items)


def test_planted_faults_are_noticed(monkeypatch):
    program = layers(3, 2)
    angles = random_angles(np.random.default_rng(0), program, 2, n_batched=3)
    assert_equals_dense(program, angles)
    monkeypatch.setattr(plan, "sign_of", lambda word: 1 if word.phase != 1 else -1)
    monkeypatch.setattr(native, "_PLANS", type(native._PLANS)())
    monkeypatch.setattr(native, "_SIZES", {})
    with pytest.raises(AssertionError):
        assert_equals_dense(program, angles)
