"""Threads that build, trace and run layers at once: right answers, and nothing of torch's or PennyLane's changed."""

from __future__ import annotations

import random
import sys
import threading
import warnings

import numpy as np
import pennylane as qml
import pytest
import torch
from torch import nn

from qbp import QuantumLayer, trace

N = 3


def circuit(inputs, w):
    qml.AngleEmbedding(torch.sin(inputs), wires=range(N))
    qml.StronglyEntanglingLayers(w, wires=range(N))
    return [qml.expval(qml.Z(i)) for i in range(N)]


def noisy(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(N))
    qml.DepolarizingChannel(0.1, wires=0)
    qml.StronglyEntanglingLayers(w, wires=range(N))
    return [qml.expval(qml.Z(i)) for i in range(N)]


SHAPES = {"w": (1, N, 3)}


def tilted(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(N))
    qml.StronglyEntanglingLayers(w, wires=range(N))
    return [qml.probs(op=qml.Hadamard(i)) for i in range(N)]


DEVICES = {  # without a seed they would draw one from NumPy's global random numbers
    "default.mixed": qml.device("default.mixed", wires=N),
    "lightning.qubit": qml.device("lightning.qubit", wires=N, seed=None),
}

KINDS = {
    "native": lambda: QuantumLayer(circuit, SHAPES, seed=1),
    "drawn by a function": lambda: QuantumLayer(circuit, SHAPES, lambda t: t.normal_(), seed=1),
    "device": lambda: QuantumLayer(circuit, SHAPES, backend="default.qubit", diff_method="parameter-shift", seed=1),
    "adjoint on a device": lambda: QuantumLayer(circuit, SHAPES, backend="default.qubit", seed=1),
    "lightning": lambda: QuantumLayer(circuit, SHAPES, backend="lightning.qubit", seed=1),
    "QNode": lambda: QuantumLayer(qml.QNode(noisy, DEVICES["default.mixed"]), SHAPES, seed=1),
    "QNode by shifts": lambda: QuantumLayer(
        qml.QNode(tilted, DEVICES["lightning.qubit"], diff_method="parameter-shift"), SHAPES, seed=1
    ),
    "family": lambda: QuantumLayer("strongly_entangling", n_qubits=N, n_layers=1, seed=1),
}


def process_state():
    """What tracing and devices read or change for the whole process."""
    fx = sys.modules["torch.fx._symbolic_trace"]
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "is_abstract": qml.math.is_abstract,
        "queues": list(qml.QueuingManager._active_contexts),
        "pennylane": {name: id(value) for name, value in vars(qml.math).items()},
        "fx": (fx._is_fx_tracing_flag, fx.CURRENT_PATCHER),
        "modules": (nn.Module.__call__, nn.Module.__getattr__, torch.nn.Parameter.__new__),
        "torch": {name: id(value) for name, value in vars(torch).items() if callable(value)},
        "numbers": (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()),
        "threads": torch.get_num_threads(),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "warnings": list(warnings.filters),
        "numpy": np.geterr(),
        "determinism": torch.are_deterministic_algorithms_enabled(),
    }


def answer(kind):
    layer = KINDS[kind]()
    x = torch.linspace(-1, 1, 2 * N).reshape(2, N).requires_grad_()
    y = layer(x)
    y.pow(2).sum().backward()
    return torch.cat([y.detach().flatten(), x.grad.flatten(), *(p.grad.flatten() for p in layer.parameters())])


def test_eight_threads_build_trace_and_run_layers():
    want = {kind: answer(kind) for kind in KINDS}
    before = process_state()
    answers, errors, dtypes = {}, [], set()
    barrier = threading.Barrier(8)

    def work(number):
        try:
            barrier.wait()
            for kind in list(KINDS)[number], list(KINDS)[number - 3]:
                answers[kind, number] = answer(kind)
                dtypes.add(torch.zeros(1).dtype)
        except Exception as error:
            errors.append((number, error))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that threads meet in the middle of everything
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors
    assert len(answers) == 2 * len(KINDS) == 16
    for (kind, number), got in answers.items():
        torch.testing.assert_close(got, want[kind], atol=1e-5, rtol=0, msg=lambda m, k=(kind, number): f"{k}: {m}")
    assert dtypes == {torch.float32}
    after = process_state()
    assert [name for name in before if before[name] != after[name]] == []
    torch.compile(nn.Linear(3, 2), backend="eager")(torch.rand(4, 3))


def test_a_trace_waits_for_another():
    """The second circuit's function runs only when the first is done, although that waits for it."""
    inside, order, before = threading.Event(), [], qml.math.is_abstract

    def slow(inputs, w):
        order.append("slow")
        inside.set()
        threading.Event().wait(0.2)
        qml.RX(inputs[0] * w, wires=0)
        order.append("done")
        return qml.expval(qml.Z(0))

    def quick(inputs, w):
        order.append("quick")
        qml.RY(inputs[0] * w, wires=0)
        return qml.expval(qml.Z(0))

    first = threading.Thread(target=lambda: trace(slow, {"w": ()}, n_inputs=1))
    first.start()
    inside.wait()
    program = trace(quick, {"w": ()}, n_inputs=1).program
    first.join()
    assert order.index("quick") > max(i for i, word in enumerate(order) if word == "done")
    assert [op.pauli for op in program.ops] == ["Y"] and qml.math.is_abstract is before


@pytest.mark.parametrize("fails", ["in the function", "in a gate"])
def test_a_trace_that_fails_leaves_nothing_behind(fails):
    def circuit(inputs, w):
        if fails == "in the function":
            float(inputs[0])
        qml.QubitUnitary(inputs.reshape(2, 2).numpy(), wires=0)
        return qml.expval(qml.Z(0))

    before = process_state()
    with pytest.raises(Exception, match="circuit"):
        trace(circuit, {"w": 1}, n_inputs=4)
    after = process_state()
    assert [name for name in before if before[name] != after[name]] == []
