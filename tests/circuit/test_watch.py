"""What a circuit's function reads from outside: a change is seen at the next call, and nothing else is."""

from __future__ import annotations

import argparse
import functools
import os
import random
import threading
import time
import warnings
import weakref
from collections import deque
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pennylane as qml
import pytest
import torch
from torch import nn

from qbp import QuantumLayer, trace
from qbp.circuit.tracing.watch import Watch
from qbp.errors import ArgumentError, CircuitError

TURN = 0.3


class Settings:
    depth = 1

    def __init__(self):
        self.mode, self.turns, self.table = "a", [0.1, 0.2], {"b": {"c": 0.5}}

    @property
    def angle(self):
        return 0.1 if self.mode == "a" else 0.7

    def turn(self, wire):
        qml.RX(self.turns[0], wires=wire)


class Slots:
    __slots__ = ("value",)

    def __init__(self):
        self.value = 0.2


def helper(settings):
    for _ in range(settings.depth):
        qml.RY(TURN, wires=0)


def change_global():
    globals()["TURN"] = TURN + 0.5


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.tensor(0.4))
        self.inner = nn.BatchNorm1d(1)
        self.frozen = nn.Parameter(torch.tensor(0.2), requires_grad=False)


def load(model, name, value):
    model.load_state_dict(model.state_dict() | {name: torch.tensor(value)})


def cases():
    """By name: what a function does besides, and how that is changed."""
    settings, slots, model, array = Settings(), Slots(), Model(), np.array([0.1, 0.2])
    cell, flags = 0.2, {1}

    numbers, queue, data = np.array([0.1]), deque([0.1, 0.9]), bytearray(b"\x01")
    reference, table = weakref.ref(settings), {"a": 0.1}
    shared, space, parsed = torch.from_numpy(numbers), SimpleNamespace(angle=0.1), argparse.Namespace(angle=0.1)

    def close():
        nonlocal cell
        cell += 0.4

    def memory(angle=0.1):
        return memory.factor * angle

    memory.factor = 1

    return {
        "closure": (lambda: qml.RX(cell, 0), close),
        "global": (lambda: qml.RX(TURN, 0), change_global),
        "global of a helper": (lambda: helper(settings), change_global),
        "attribute of the class": (lambda: helper(settings), lambda: setattr(Settings, "depth", Settings.depth + 1)),
        "attribute that hides the class's": (lambda: helper(settings), lambda: setattr(settings, "depth", 3)),
        "attribute": (lambda: qml.RX(0.2, 0) if settings.mode == "a" else None, lambda: setattr(settings, "mode", "b")),
        "property": (lambda: qml.RX(settings.angle, 0), lambda: setattr(settings, "mode", "b")),
        "method": (lambda: settings.turn(0), lambda: settings.turns.__setitem__(0, 0.9)),
        "getattr": (lambda: qml.RX(getattr(settings, "weight", 0.1), 0), lambda: setattr(settings, "weight", 0.7)),
        "nested": (lambda: qml.RX(settings.table["b"]["c"], 0), lambda: settings.table["b"].update(c=0.9)),
        "slots": (lambda: qml.RX(slots.value, 0), lambda: setattr(slots, "value", 0.8)),
        "set": (lambda: qml.RX(0.1 * len(flags), 0), lambda: flags.add(2)),
        "array": (lambda: qml.RX(array[0], 0), lambda: array.__setitem__(0, 0.9)),
        "buffer": (lambda: qml.RX(model.shift, 0), lambda: load(model, "shift", 1.1)),
        "tensor anew": (lambda: qml.RX(model.shift, 0), lambda: setattr(model, "shift", torch.tensor(1.0))),
        "parameter": (lambda: qml.RX(model.frozen, 0), lambda: load(model, "frozen", 1.3)),
        "training": (lambda: qml.RX(0.2, 0) if model.training else None, lambda: model.eval()),
        "inner module": (lambda: qml.RX(0.2, 0) if model.inner.training else None, lambda: model.inner.eval()),
        "the data of a buffer": (lambda: qml.RX(model.shift, 0), lambda: model.shift.data.add_(0.7)),
        "memory of NumPy's": (lambda: qml.RX(shared[0], 0), lambda: numbers.fill(0.8)),
        "what hides nothing yet": (lambda: helper(Bare), lambda: setattr(Bare, "depth", 3)),
        "deque": (lambda: qml.RX(queue[0], 0), lambda: queue.rotate(1)),
        "bytes": (lambda: qml.RX(data[0] / 10, 0), lambda: data.__setitem__(0, 9)),
        "namespace": (lambda: qml.RX(space.angle, 0), lambda: setattr(space, "angle", 0.9)),
        "arguments of a command": (lambda: qml.RX(parsed.angle, 0), lambda: setattr(parsed, "angle", 0.9)),
        "environment": (lambda: qml.RX(float(os.environ["QBP_TEST_ANGLE"]), 0), change_environment),
        "getenv": (lambda: qml.RX(float(os.getenv("QBP_TEST_ANGLE", "0")), 0), change_environment),
        "name in globals()": (lambda: qml.RX(globals()["TURN"], 0), change_global),
        "weak reference": (lambda: helper(reference()), lambda: setattr(settings, "depth", 7)),
        "attribute of a function": (lambda: qml.RX(memory(), 0), lambda: setattr(memory, "factor", 5)),
        "defaults": (lambda: qml.RX(memory(), 0), lambda: setattr(memory, "__defaults__", (0.9,))),
        "method of a dictionary": ((lambda get: lambda: qml.RX(get("a"), 0))(table.get), lambda: table.update(a=0.9)),
        "partial": (functools.partial(helper, settings), lambda: setattr(settings, "depth", 4)),
    }


class Bare:
    depth = 1


def change_environment():
    os.environ["QBP_TEST_ANGLE"] = "0.9"


@pytest.fixture(autouse=True)
def unchanged(monkeypatch):
    monkeypatch.setenv("QBP_TEST_ANGLE", "0.1")
    monkeypatch.setattr(Bare, "depth", 1)
    monkeypatch.setitem(globals(), "TURN", 0.3)
    monkeypatch.setattr(Settings, "depth", 1)


def layer_and_qnode(does, device="default.qubit", **options):
    def circuit(inputs, w):
        qml.RX(inputs[..., 0] + w, wires=0)
        does()
        return qml.expval(qml.Z(0))

    qnode = qml.QNode(circuit, qml.device(device, wires=1, seed=None))
    return QuantumLayer(qnode, {"w": 1}, seed=0, **options), qnode


@pytest.mark.parametrize("name", cases())
def test_a_change_is_seen_at_the_next_call(name):
    does, change = cases()[name]
    layer, qnode = layer_and_qnode(does)
    x = torch.tensor([[0.4], [1.0]])
    answers = []
    for _ in range(2):
        answers.append(layer(x))
        torch.testing.assert_close(answers[-1], qnode(x, layer.w).to(x), atol=1e-6, rtol=0)
        assert layer.backend == "native"
        change()
    assert not torch.allclose(*answers)


def test_nothing_is_traced_again_without_need(monkeypatch):
    settings, calls = Settings(), []

    def does():
        calls.append(1)
        settings.turn(0)
        if settings.mode == "b":
            qml.RY(0.3, wires=0)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer, qnode = layer_and_qnode(does)
    x, count = torch.ones(2, 1), len(calls)
    for _ in range(3):
        layer(x)
        settings.unread = object()
    assert len(calls) == count, "no call without a change"
    for mode in "babab":
        settings.mode = mode
        torch.testing.assert_close(layer(x), qnode(x, layer.w).to(x), atol=1e-6, rtol=0)
        calls.clear()
    settings.mode = "a"
    layer(x)
    assert not calls, "what a state gave is kept"
    settings.mode = "".join(["a"])
    assert layer.circuit is layer.circuit_for(1) and not calls


DRAWS = {
    "Python's": random.random,
    "NumPy's": np.random.rand,
    "a generator's": np.random.default_rng(0).random,
    "torch's": lambda: float(torch.rand(())),
    "an iterator": iter(np.linspace(0, 3, 1000).tolist()).__next__,
    "a counter": (lambda counts: lambda: counts.append(1) or 0.1 * len(counts))([]),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_function_that_is_another_at_each_call_runs_by_itself(name):
    draw = DRAWS[name]
    numbers = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    with pytest.warns(UserWarning, match="runs by itself"):
        layer, _ = layer_and_qnode(lambda: qml.RX(draw(), 0))
    after = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    assert numbers[:2] == after[:2] and torch.equal(numbers[2], after[2]), "building draws nothing"
    x = torch.ones(2, 1)
    assert layer.backend == "qnode on default.qubit"
    assert len({float(layer(x)[0].detach()) for _ in range(5)}) > 1
    with pytest.raises(CircuitError):
        layer_and_qnode(lambda: qml.RX(draw(), 0), backend="native")


UNSEEN = {
    "a file": lambda: float(open(FILE).read()),  # noqa: SIM115
    "a path": lambda: float(FILE.read_text()),
    "a context": ContextVar("angle", default=0.1).get,
    "a clock by another name": (lambda now: lambda: now() // 1e7)(time.time),
    "a clock": lambda: time.time() // 1e7,
    "evaluated text": lambda: eval("TURN"),  # as some write it
    "a thread's own": (lambda own: lambda: own.__dict__.setdefault("angle", 0.1))(threading.local()),
    "a table of another library": (lambda table: lambda: float(table["angle"][0]))(pandas.DataFrame({"angle": [0.1]})),
}
FILE = Path(__file__).parent / "no such file"


@pytest.mark.parametrize("name", UNSEEN)
def test_what_cannot_be_watched_runs_by_itself(name, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "FILE", tmp_path / "angle")
    FILE.write_text("0.1")
    read = UNSEEN[name]
    with pytest.warns(UserWarning, match="runs by itself"):
        layer, qnode = layer_and_qnode(lambda: qml.RX(read(), 0))
    x = torch.ones(2, 1)
    torch.testing.assert_close(layer(x), qnode(x, layer.w).to(x))


class Trained(nn.Module):
    """Its circuit reads a layer and a parameter of its own besides its weights."""

    def __init__(self, device="default.qubit"):
        super().__init__()
        self.inside, self.scale = nn.Linear(1, 1), nn.Parameter(torch.tensor(0.7))
        self.layer = QuantumLayer(qml.QNode(self.circuit, qml.device(device, wires=1)), {"w": 1}, seed=0)

    def circuit(self, inputs, w):
        qml.RX(self.inside(inputs)[..., 0] * self.scale + w, wires=0)
        return qml.expval(qml.Z(0))


def test_what_is_trained_outside_is_trained():
    with pytest.warns(UserWarning, match="from outside that is trained"):
        model = Trained()
    x = torch.tensor([[0.3], [-0.8]])
    outputs = model.layer(x)
    want = torch.cos((model.inside(x)[:, 0]) * model.scale + model.layer.w)
    torch.testing.assert_close(outputs, want)
    parts = [*model.inside.parameters(), model.scale, model.layer.w]
    expected = torch.autograd.grad(want.sum(), parts)
    torch.testing.assert_close(torch.autograd.grad(outputs.sum(), parts), expected)
    with pytest.raises(ArgumentError, match="Make it an argument of the function"):
        Trained("lightning.qubit")


def test_a_plain_function_that_draws_becomes_a_qnode():
    def circuit(inputs, w):
        qml.RX(inputs[0] * w * random.random(), wires=0)
        return [qml.expval(qml.Z(0))]

    with pytest.warns(UserWarning, match="random numbers"):
        layer = QuantumLayer(circuit, {"w": 1})
    assert layer(torch.ones(3, 2)).shape == (3, 1) and layer.backend == "qnode on default.qubit"
    with pytest.raises(CircuitError, match="random numbers"):
        trace(circuit, {"w": ()}, n_inputs=2)


def test_random_numbers_that_come_later():
    """In training mode only, as dropout of gates."""
    model = Model().eval()

    def does():
        if model.training and np.random.rand() < 0.5:
            qml.RX(0.7, wires=0)

    layer, _ = layer_and_qnode(does)
    x = torch.ones(1, 1)
    assert len({float(layer(x).detach()) for _ in range(9)}) == 1 and layer.backend == "native"
    model.train()
    with pytest.warns(UserWarning, match="random numbers"):
        assert len({float(layer(x).detach()) for _ in range(20)}) == 2


def test_a_change_of_the_outputs():
    settings = Settings()

    def circuit(inputs, w):
        qml.RX(inputs[..., 0] + w, wires=0)
        return qml.probs(wires=[0, 1]) if settings.mode == "b" else [qml.expval(qml.Z(0))]

    layer = QuantumLayer(qml.QNode(circuit, qml.device("default.qubit", wires=2)), {"w": 1})
    assert layer(torch.ones(3, 1)).shape == (3, 1)
    settings.mode = "b"
    assert layer(torch.ones(3, 1)).shape == (3, 4)
    settings.mode = "a"
    assert layer(torch.ones(3, 1)).shape == (3, 1) and layer.n_outputs == 1


def test_only_what_the_code_reads_is_watched():
    model, settings = Model(), Settings()
    watch = Watch(lambda: helper(settings) if model.training else None)
    settings.mode, model.other = "z", 3
    model.shift.add_(1)
    assert watch.is_current()
    settings.depth = 5
    assert not watch.is_current()


def test_values_of_tensors_read_as_numbers_are_watched():
    mask, scales = torch.tensor([True, False]), torch.tensor([0.3, 0.9])

    def circuit(inputs, w):
        for k in range(2):
            if mask[k]:
                qml.RY(float(scales[k]) * inputs[k] * w, wires=k)
        return [qml.expval(qml.Z(k)) for k in range(2)]

    layer, x = QuantumLayer(circuit, {"w": 1}, n_inputs=2), torch.tensor([[0.4, 0.7]])
    assert layer.backend == "native"
    for change in (lambda: None, lambda: mask.logical_not_(), lambda: scales.mul_(2)):
        change()
        want = torch.where(mask, torch.cos(scales * x * layer.w), 1.0)
        torch.testing.assert_close(layer(x), want, atol=1e-6, rtol=0)
