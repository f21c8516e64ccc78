"""Every executor and every gradient rule of the package, held to the conformance suite."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import qbp
from qbp.circuit.angles import Angles
from qbp.circuit.gates import GATES
from qbp.circuit.program import Clifford, Expval, Probs, Program, Rotation, gate_ops
from qbp.errors import ArgumentError
from qbp.executors import Capabilities, Executor, backend, capabilities_of, execute, native
from qbp.executors.dense import Dense
from qbp.executors.native import Native, plan
from qbp.executors.native.kernels.simd import lanes_of
from qbp.gradients.rules import finite_diff, parameter_shift
from qbp.testing import check_executor, check_rule, random_amplitudes, random_angles, random_program


class OutputsOnly:
    """The executor without its adjoint rule, which PennyLane's devices have for some programs only."""

    def __init__(self, executor: Executor):
        self.executor, self.name, self.exact, self.shots = (
            executor,
            executor.name,
            executor.shots is None,
            executor.shots,
        )

    def __call__(self, *arguments):
        return self.executor(*arguments)


def test_native():
    check_executor(backend("native"), n_programs=80)


@pytest.mark.parametrize("name", ["default.qubit", "lightning.qubit"])
def test_pennylane_devices(name: str):
    check_executor(OutputsOnly(backend(name)), n_programs=20, batch_sizes=(3,), equal_rows=False)


@pytest.mark.slow
def test_trajectories_without_noise():
    """Where nothing is random, they are exact; what is random is held to its error bars in their own tests."""
    executor = backend("trajectories")
    executor.capabilities = replace(executor.capabilities, exact=True, channels=False)
    check_executor(executor, n_programs=12, batch_sizes=(3, 17))


def test_noise_on_default_mixed():
    """Channels by their Kraus operators, readout errors: PennyLane is a reference of its own for noise."""
    executor = OutputsOnly(backend("default.mixed"))
    assert capabilities_of(executor.executor).channels
    executor.capabilities = Capabilities(channels=True)
    check_executor(executor, n_programs=12, batch_sizes=(3,), equal_rows=False)


@pytest.mark.parametrize("name", ["dense", "default.qubit", "qiskit"])
def test_executors_without_noise_refuse_it(name: str):
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, backend=name)
    noisy = replace(layer.circuit.program, readout=((0, 0.1, 0.0),))
    assert not capabilities_of(layer.executor).channels
    with pytest.raises(ArgumentError, match="readout errors, but"):
        execute(layer.executor, noisy, Angles.of(torch.zeros(1, noisy.n_angles)))
    with pytest.raises(ArgumentError, match="readout errors, but"):
        layer.set_circuit(replace(layer.circuit, program=noisy), {"weights": layer.weights})


@pytest.mark.parametrize("name", ["dense", "native"])
def test_exact_rules(name: str):
    check_rule(parameter_shift, backend(name))
    check_rule(finite_diff, backend(name), atol=1e-7, amplitudes=False)


@pytest.mark.parametrize("name", ["default.qubit", "lightning.qubit"])
def test_pennylane_devices_with_their_adjoint_rule(name: str):
    executor = backend(name)
    check_executor(executor, accepts=executor.has_adjoint, n_programs=12, batch_sizes=(3,), atol=1e-8, equal_rows=False)


# ---- native over programs of every size ------------------------------------------------------------------------------

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
MOST = 1 + max(lanes_of(np.dtype(name)) for name in ("float32", "float64"))  # samples


def wide_program(number: int) -> Program:
    """Program number so and so: 1 to 14 qubits and every gate in turn, a gate and a word that reach over all wires,
    one angle in rotations far apart, an unused wire, amplitudes."""
    rng = np.random.default_rng(number)
    n = 1 + (number + number // len(GATES)) % 14
    used = n - 1 if n > 2 and rng.random() < 0.3 else n
    size = {"n_qubits": (used, used), "n_ops": (4, 30), "n_angles": (1, 16)}
    program = random_program(rng, **size, amplitudes=bool(rng.random() < 0.2))
    n_angles = program.n_angles

    gate = list(GATES.values())[number % len(GATES)]
    new = []
    if gate.n_wires <= used:
        wires = tuple(int(w) for w in rng.permutation(used)[: gate.n_wires])
        new.append(gate_ops(gate, wires, range(n_angles, n_angles + gate.n_params)))
        n_angles += gate.n_params
    if used > 1:
        ends = (0, used - 1) if rng.random() < 0.5 else (used - 1, 0)
        new.append((Clifford(str(rng.choice(["CNOT", "CZ", "CY", "SWAP", "ISWAP"])), ends),))
        new.append((Rotation("".join(rng.choice(list("XYZ"), 2)), ends, n_angles),))
        n_angles += 1
    for _ in range(3):  # an angle again, wherever it is
        angle, scale = int(rng.integers(n_angles)), float(rng.choice([1.0, -0.5, 2.0]))
        new.append((Rotation(str(rng.choice(list("XYZ"))), (int(rng.integers(used)),), angle, scale),))
    ops = list(program.ops)
    for some in new:
        at = int(rng.integers(len(ops) + 1))
        ops[at:at] = some

    on = np.delete(np.arange(n), rng.integers(n)) if used < n else np.arange(n)
    measurements = [*program.measurements, Expval.word("Z", used - 1)]
    moved = tuple(replace(op, wires=tuple(int(on[w]) for w in op.wires)) for op in ops)
    return Program(n, moved, tuple(_moved(m, on) for m in measurements), n_angles, program.amplitudes)


def _moved(measurement: Expval | Probs, on: np.ndarray) -> Expval | Probs:
    if isinstance(measurement, Probs):
        return Probs(tuple(int(on[w]) for w in measurement.wires[:6]))
    return Expval(tuple((c, word, tuple(int(on[w]) for w in wires)) for c, word, wires in measurement.terms))


def check_native(number: int) -> None:
    """Outputs and gradients of one program in both dtypes and for all batch sizes against autograd through `Dense`;
    the same bits with several threads, and where the final states are not kept."""
    program, rng = wide_program(number), np.random.default_rng(number)
    n_batched = int(rng.choice([0, program.n_angles, rng.integers(program.n_angles + 1)]))
    angles = random_angles(rng, program, MOST, n_batched=n_batched, dtype=torch.float32)
    amplitudes = random_amplitudes(rng, program, MOST, dtype=torch.complex64)
    grad = torch.tensor(rng.normal(size=(MOST, program.n_outputs)), dtype=torch.float32)

    leaves = [angles.batched.double(), angles.shared.double().repeat(MOST, 1)]  # shared ones of each sample
    if amplitudes is not None:
        leaves.append(amplitudes.to(torch.complex128))
    leaves = [leaf.requires_grad_() for leaf in leaves]
    outputs = Dense()(program, Angles.of(torch.cat(leaves[:2], 1)), *leaves[2:]).values
    gradients = torch.autograd.grad((outputs * grad).sum(), leaves, allow_unused=True, materialize_grads=True)

    for dtype, tolerance in TOLERANCE.items():
        width = lanes_of(np.dtype(str(dtype).removeprefix("torch.")))
        run = partial(native_results, program, angles, amplitudes, grad, dtype)
        for batch in (1, 3, width - 1, width, width + 1):
            results = run(batch)
            wants = [
                outputs[:batch],
                gradients[0][:batch],
                gradients[1][:batch].sum(0),
                *(g[:batch] for g in gradients[2:]),
            ]
            for got, want in zip(results, wants, strict=True):
                largest_value = float(want.detach().abs().max()) if want.numel() else 0.0
                atol = tolerance * max(1.0, largest_value)
                torch.testing.assert_close(got.to(want.dtype), want, rtol=0, atol=atol)
        for batch in (2, width, width + 1):  # whatever the layout is for so many samples
            once = run(batch)
            for n_threads, keep in ((2, True), (3, False)):
                again = run(batch, n_threads=n_threads, keep=keep)
                assert all(map(torch.equal, again, once)), "bits depend on threads, or on what is kept"


def native_results(program, angles, amplitudes, grad, dtype, batch, n_threads=1, keep=True):
    """Outputs, and gradients of batched angles, shared angles and amplitudes if there are some."""
    executor = Native()
    some = Angles(angles.batched[:batch].to(dtype), angles.shared.to(dtype))
    begin = None if amplitudes is None else amplitudes[:batch].to(dtype.to_complex())
    before = torch.get_num_threads(), native.THREADS_FROM, native.SAVE_LIMIT
    torch.set_num_threads(n_threads)
    native.THREADS_FROM, native.SAVE_LIMIT = 0, native.SAVE_LIMIT if keep else 0
    try:
        (outputs, *_), saved = executor.forward(program, some, begin)
        gradients = executor.vjp(program, some, begin, saved, grad[:batch].to(dtype))
    finally:
        torch.set_num_threads(before[0])
        native.THREADS_FROM, native.SAVE_LIMIT = before[1:]
    results = [outputs, gradients.batched, gradients.shared, gradients.amplitudes]
    return [result for result in results if result is not None]


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_native_on_programs_of_every_size(first: int):
    for number in range(first, first + 20):
        if wide_program(number).n_qubits <= 12:
            check_native(number)


def test_a_gradient_that_is_a_denormal_number_is_the_same_where_states_are_not_kept():
    check_native(435)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 500, 20))
def test_native_on_500_programs(first: int):
    for number in range(first, first + 20):
        check_native(number)


def test_the_500_programs_have_all_gates_at_many_sizes():
    sizes = {name: set() for name in GATES}
    for number in range(500):
        sizes[list(GATES)[number % len(GATES)]].add(wide_program(number).n_qubits)
    assert min(map(len, sizes.values())) >= 12 and set.union(*sizes.values()) == set(range(1, 15))


def test_a_planted_fault_is_noticed(monkeypatch):
    monkeypatch.setattr(plan, "sign_of", lambda word: 1 if word.phase != 1 else -1)
    monkeypatch.setattr(native, "_PLANS", type(native._PLANS)())
    monkeypatch.setattr(native, "_SIZES", {})
    with pytest.raises(AssertionError):
        for number in range(30):
            check_native(number)
