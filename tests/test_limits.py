"""What does not fit is refused before it is begun, by every executor, and says what it would take."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import qbp
from qbp import limits
from qbp.circuit.angles import Angles
from qbp.circuit.frame import in_frame
from qbp.circuit.program import Clifford, Expval, Probs, Program, Rotation
from qbp.errors import ArgumentError, QbpError
from qbp.executors import backend
from qbp.executors.native import ways
from qbp.limits import check_gates, check_memory, physical_memory
from qbp.runs import config

Z0 = (Expval.word("Z", 0),)


def chain(n_qubits: int, measured=Z0) -> Program:
    """A turn and an entangler on every wire, so that no wire can be left out."""
    turns = tuple(Rotation("Y", (w,), w) for w in range(n_qubits))
    return Program(n_qubits, turns + tuple(Clifford("CZ", (w, w + 1)) for w in range(n_qubits - 1)), measured, n_qubits)


@pytest.mark.parametrize("n_qubits", [33, 48, 62, 63, 64, 127, 300])
@pytest.mark.parametrize("where", ["native", "dense", "default.qubit", "lightning.qubit", "default.mixed", "qiskit"])
def test_every_simulator_refuses_a_state_that_does_not_fit(where, n_qubits, monkeypatch):
    monkeypatch.setattr(ways, "MOST_STEPS", 0)  # or the native engine would carry these few words back
    everything = Expval.word("X" * n_qubits, *range(n_qubits))  # else the native engine would run the parts it sees
    program = chain(n_qubits, (*(Expval.word("Z", w) for w in range(n_qubits)), everything))
    with pytest.raises(ArgumentError, match=rf"{n_qubits} qubits.* take .*, but there are"):
        backend(where)(program, Angles(torch.zeros(2, n_qubits), torch.zeros(0)))


@pytest.mark.parametrize("n_qubits", [33, 64, 300])
def test_local_outputs_of_such_states_are_no_trouble(n_qubits):
    program = chain(n_qubits, tuple(Expval.word("Z", w) for w in range(n_qubits)))
    angles = torch.linspace(0, 3, n_qubits, dtype=torch.float64).expand(2, -1)
    torch.testing.assert_close(backend("native")(program, Angles(angles, angles.new_zeros(0))).values, angles.cos())


@pytest.mark.parametrize("where", ["native", "dense", "default.qubit", "qiskit"])
def test_shots_do_not_change_that(where, monkeypatch):
    monkeypatch.setattr(ways, "MOST_STEPS", 0)
    for n_qubits in (40, 63, 64, 100):
        program = chain(n_qubits, (Probs((0, n_qubits - 1)),))
        with pytest.raises(ArgumentError, match="but there are"):
            backend(where, shots=10)(program, Angles(torch.zeros(1, n_qubits), torch.zeros(0)))


@pytest.mark.parametrize("n_wires", [48, 63, 64, 1000])
def test_more_outputs_than_there_is_memory_are_no_circuit(n_wires):
    with pytest.raises(ArgumentError, match=f"The probabilities of {n_wires} qubits take .*, but there are"):
        chain(n_wires, (Probs(tuple(range(n_wires))),))


def test_nor_do_wires_by_the_billion():
    program = Program(10**9, (Rotation("Y", (10**9 - 1,), 0),), (Expval.word("Z", 0),), 1)
    angles = Angles(torch.zeros(1, 1), torch.zeros(0))
    with pytest.raises(ArgumentError, match=r"1000000000 qubits .* take 2\^10000000\d\d bytes"):
        backend("dense")(program, angles)
    assert backend("native")(program, angles).values.tolist() == [[1.0]]  # its window is empty
    everything = Program(10**9, program.ops, (Probs((0, 10**9 - 1)), Expval.word("Z", 10**9 - 1)), 1)
    assert backend("native")(everything, angles).values.tolist() == [[1.0, 0.0, 0.0, 0.0, 1.0]]


def test_memory_is_what_the_process_may_take(monkeypatch, tmp_path):
    machine = physical_memory()
    (tmp_path / "memory.max").write_text("123456789\n")
    monkeypatch.setattr(limits, "_CGROUP", tmp_path / "memory.max")
    assert physical_memory() == 123456789 < machine
    (tmp_path / "memory.max").write_text("max\n")
    assert physical_memory() == machine or machine < physical_memory()
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**7, resource.RLIM_INFINITY))
    assert physical_memory() == 10**7


@pytest.mark.parametrize(
    ("n_bytes", "n_qubits", "said"),
    [
        (3 * 2**29, 0, "1.5 GiB"),
        (16, 26, "1.0 GiB"),
        (16, 63, "128.0 EiB"),
        (16, 66, "2^70 bytes"),
        (24.0, 10**9, "2^1000000005 bytes"),
        (10**400, 0, "2^1329 bytes"),
    ],
)
def test_sizes_are_said_as_they_are(n_bytes, n_qubits, said):
    with pytest.raises(ArgumentError) as told:
        check_memory("States", n_bytes, n_qubits, most=2**20)
    assert str(told.value) == f"States take {said}, but there are 1.0 MiB"
    check_memory("States", 2**20, 0, most=2**20)


def test_gates():
    check_gates(limits.MOST_GATES, "A circuit")
    with pytest.raises(ArgumentError, match="would have at least 100,001 gates"):
        check_gates(limits.MOST_GATES + 1, "A circuit")
    with pytest.raises(ArgumentError, match=r"at least about 10\^18 gates"):
        check_gates(3 * 10**18, "A circuit")


def slow_visible(turns, measured):
    """Which turns do not commute with everything that comes after them: by letters, not by masks."""

    def letters(word, n=200):
        return [(word.x >> b & 1, word.z >> b & 1) for b in range(n)]

    def anticommute(a, b):
        return sum(p != q and (0, 0) not in (p, q) for p, q in zip(letters(a), letters(b), strict=True)) % 2 == 1

    later, kept = list(measured), []
    for turn in reversed(turns):
        if any(anticommute(turn.word, word) for word in later):
            kept.append(turn)
            later.append(turn.word)
    return kept[::-1]


@pytest.mark.parametrize("n_qubits", [5, 62, 63, 64, 65, 127, 128, 190])
def test_the_frame_of_any_number_of_qubits(n_qubits):
    rng = np.random.default_rng(n_qubits)
    ops = []
    for k in range(60):
        wires = tuple(map(int, rng.choice(n_qubits, 2, replace=False)))
        ops.append(Clifford("CNOT", wires) if k % 3 == 0 else Rotation("".join(rng.choice(list("XYZ"), 2)), wires, k))
    program = Program(n_qubits, tuple(ops), tuple(Expval.word(p, wires[0]) for p in "XZ"), 60)
    rotations, measured = in_frame(program)
    assert rotations.turns == slow_visible(rotations.turns, [word for _, _, word in measured.terms])
    everything = in_frame(
        replace(program, measurements=tuple(Expval.word(p, w) for w in range(n_qubits) for p in "XZ"))
    )
    seen = slow_visible(everything[0].turns, [word for _, _, word in measured.terms])
    assert [t.angle for t in rotations.turns] == [t.angle for t in seen], "no rotation is kept or dropped wrongly"
    assert 0 < len(seen) <= 40 and (n_qubits < 10 or len(seen) < 30)


@pytest.mark.parametrize("name", ["pipe.safetensors", "pipe.yaml", "pipe.qasm", "pipe.csv"])
def test_what_is_no_file_is_not_waited_for(name, tmp_path):
    """A pipe that nobody writes to, a device without an end."""
    reads = {
        ".safetensors": qbp.load_model,
        ".yaml": config.load,
        ".qasm": qbp.trace,
        ".csv": qbp.data.load,
    }
    os.mkfifo(tmp_path / name)
    endless = tmp_path / f"endless{Path(name).suffix}"
    endless.symlink_to("/dev/zero")
    for path in (tmp_path / name, endless):
        with pytest.raises(QbpError, match=r"no file|name a file|neither a file|must be an OpenQASM"):
            reads[Path(name).suffix](path)
