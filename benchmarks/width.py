"""Wide, shallow circuits: a training step by windows and by words beside one of 12 qubits on the whole state.

    python benchmarks/width.py

A step is a forward pass and the gradients of inputs and weights, which have moved a little since the last one. All
workloads take turns; reported are medians over the rounds, and as a ratio to 12 qubits, 6 strongly entangling layers,
batch 128 (W4 of speed.py) the median of the rounds' ratios with its bootstrap interval (95 %). Where the whole state
fits, it is checked first.
Then the border: chains on which both ways are timed, for the rule of `qbp.executors.native.ways`; and what words take
besides steps: how long a graph is built, and what error a cut has.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pennylane as qml
import torch
from checkouts import interval
from speed import RESULTS, _processor

import qbp
from qbp.circuit.angles import Angles
from qbp.executors.native import Native
from qbp.executors.native.ways import way_of
from qbp.executors.native.windows import Windows
from qbp.executors.propagation import PauliPropagation

# The couplings of IBM's heavy-hex devices with 127 qubits: seven rows, and bridges between them.
ROWS = ((0, 13), (18, 32), (37, 51), (56, 70), (75, 89), (94, 108), (113, 126))
BRIDGES = (
    *((0, 14, 18), (4, 15, 22), (8, 16, 26), (12, 17, 30), (20, 33, 39), (24, 34, 43), (28, 35, 47), (32, 36, 51)),
    *((37, 52, 56), (41, 53, 60), (45, 54, 64), (49, 55, 68), (58, 71, 77), (62, 72, 81), (66, 73, 85), (70, 74, 89)),
    *((75, 90, 94), (79, 91, 98), (83, 92, 102), (87, 93, 106), (96, 109, 114), (100, 110, 118), (104, 111, 122)),
    (108, 112, 126),
)


def chain(n_qubits: int) -> list[tuple[int, int]]:
    return [(q, q + 1) for q in range(n_qubits - 1)]


def heavy_hex() -> list[tuple[int, int]]:
    edges = [(q, q + 1) for first, last in ROWS for q in range(first, last)]
    return edges + [edge for a, middle, b in BRIDGES for edge in ((a, middle), (middle, b))]


def layer(n_qubits: int, n_layers: int, edges: list[tuple[int, int]]) -> qbp.QuantumLayer:
    """Data in RY; then CZ on every edge, RY and RZ on every qubit, n_layers times; Z of every qubit."""

    def circuit(inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(n_qubits), rotation="Y")
        for k in range(n_layers):
            for edge in edges:
                qml.CZ(edge)
            for wire in range(n_qubits):
                qml.RY(weights[k, wire, 0], wires=wire)
                qml.RZ(weights[k, wire, 1], wires=wire)
        return [qml.expval(qml.Z(wire)) for wire in range(n_qubits)]

    return qbp.QuantumLayer(circuit, {"weights": (n_layers, n_qubits, 2)}, n_inputs=n_qubits, seed=0)


def step_of(model: torch.nn.Module, n_inputs: int, batch: int) -> Callable[[], None]:
    x = torch.randn(batch, n_inputs, generator=torch.Generator().manual_seed(1), requires_grad=True)

    def step() -> None:
        x.grad = None
        model.zero_grad(set_to_none=True)
        moved(model)(x).sum().backward()

    return step


def moved(model: torch.nn.Module) -> torch.nn.Module:
    """The model with other weights, by almost nothing, as after a step: what depends on them is made anew."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1 + 2**-22)
    return model


class Whole(Native):
    """The native engine on the whole state, always."""

    def engine(self, program):
        return self


def check(quantum: qbp.QuantumLayer) -> None:
    """The way that is taken against the whole state, in float64."""
    circuit = quantum.circuit
    x = torch.randn(3, circuit.n_inputs, dtype=torch.float64)
    angles: Angles = circuit.angle_map(x, quantum.flat_weights(x).detach())
    difference = (Native()(circuit.program, angles).values - Whole()(circuit.program, angles).values).abs().max()
    if difference > 1e-12:
        raise SystemExit(f"the whole state differs by {difference}")


def workloads() -> dict[str, Callable[[], None]]:
    """Steps by name; the first is the measure."""

    reference = qbp.QuantumLayer("strongly_entangling", n_qubits=12, n_layers=6, seed=0)
    steps = {"12 qubits, 6 layers, batch 128, whole state": step_of(reference, 12, 128)}
    for name, n, n_layers, edges, batch in (
        ("156 qubits, chain, 4 layers, batch 64", 156, 4, chain(156), 64),
        ("127 qubits, chain, 3 layers, batch 32", 127, 3, chain(127), 32),
        ("127 qubits, heavy-hex, 2 layers, batch 32", 127, 2, heavy_hex(), 32),
        ("127 qubits, heavy-hex, 3 layers, batch 32", 127, 3, heavy_hex(), 32),
    ):
        steps[name] = step_of(layer(n, n_layers, edges), n, batch)
        by_windows = layer(n, n_layers, edges)
        by_windows.set_backend("windows")
        steps[f"{name}, by windows"] = step_of(by_windows, n, batch)
    steps["1,000 qubits, tree of neighbours, batch 32, cut at 1e-2"] = step_of(tree(1000), 1000, 32)
    steps["50 qubits, chain, 6 layers, batch 32, cut at 3e-5"] = step_of(cut(), 50, 32)
    narrow = layer(20, 4, chain(20))
    check(narrow)
    steps["20 qubits, chain, 4 layers, batch 32"] = step_of(narrow, 20, 32)
    by_windows = layer(20, 4, chain(20))
    by_windows.set_backend("windows")
    steps["20 qubits, chain, 4 layers, batch 32, by windows"] = step_of(by_windows, 20, 32)
    whole = layer(20, 4, chain(20))
    whole.set_backend(Whole())
    steps["20 qubits, chain, 4 layers, batch 32, whole state"] = step_of(whole, 20, 32)
    return steps


def tree(n_qubits: int) -> qbp.QuantumLayer:
    """Data in RY; then pairs of neighbours, of which one goes on, until one is left, as in a quantum convolutional
    network (arXiv 1810.03787): all qubits reach the output, in more words than can be counted."""

    def circuit(inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(n_qubits), rotation="Y")
        left, k = list(range(n_qubits)), 0
        while len(left) > 1:
            for a, b in zip(left[::2], left[1::2], strict=False):
                qml.RY(weights[k, 0], wires=a)
                qml.RY(weights[k, 1], wires=b)
                qml.CZ([a, b])
                qml.RY(weights[k, 2], wires=a)
                k += 1
            left = left[::2]
        return qml.expval(qml.Z(0))

    backend = "pauli-propagation:min_coefficient=1e-2"
    quantum = qbp.QuantumLayer(circuit, {"weights": (n_qubits - 1, 3)}, n_inputs=n_qubits, seed=0, backend=backend)
    with torch.no_grad():
        quantum.weights.copy_(0.3 * torch.randn(n_qubits - 1, 3, generator=torch.Generator().manual_seed(0)))
    return quantum


CUT = "min_coefficient=3e-5"
"""Of 50 qubits and 6 layers with weights of 0.3, as near to where training begins (arXiv 2203.09376)."""


def cut() -> qbp.QuantumLayer:
    quantum = layer(50, 6, chain(50))
    with torch.no_grad():
        quantum.weights.copy_(0.3 * torch.randn(quantum.weights.shape, generator=torch.Generator().manual_seed(0)))
    quantum.set_backend(f"pauli-propagation:{CUT},max_words=20000000")
    return quantum


def words() -> dict[str, float]:
    """How long the graph of 127 qubits and 3 layers is built, and the error of the cut: told, and true in 4 rows."""
    program = layer(127, 3, heavy_hex()).circuit.program
    PauliPropagation().words(layer(3, 1, chain(3)).circuit.program, 3)  # compiles
    start = time.perf_counter()
    n_words = PauliPropagation().words(program, 127).n_words
    figures: dict[str, float] = {"built_s": time.perf_counter() - start, "words": n_words}
    quantum, x = cut(), torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs = quantum(x)
        figures["error_told"] = float(quantum.last_truncation.max())
        quantum.set_backend("windows")
        figures["error"] = float((outputs - quantum(x)).abs().max())
    return figures


def beside(python: str, rounds: int) -> dict[str, float]:
    """Values of the 50 qubits by pauli-prop and here, in turn: seconds of a row of the one, of 32 rows of the other."""
    quantum, x = cut(), torch.randn(32, 50, generator=torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder) / "circuit.npz"
        np.savez(file, data=x.double().numpy(), angles=quantum.weights.double().numpy())
        exact = layer_like(quantum, "windows")(x)
        peer = Path(__file__).with_name("peers") / "pauli_prop_values.py"
        command, clean = (
            [python, str(peer), str(file), "3e-5"],
            {k: v for k, v in os.environ.items() if "PYTHON" not in k},
        )
        theirs, ours, errors = [], [], []
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean) as process:
            for row in range(rounds):
                process.stdin.write("next\n")
                process.stdin.flush()
                answer = json.loads(process.stdout.readline())
                theirs.append(answer["seconds"])
                errors.append(float((torch.tensor(answer["values"]) - exact[row]).abs().max()))
                start = time.perf_counter()
                moved(quantum)(x)
                ours.append(time.perf_counter() - start)
            process.stdin.close()
    ratios = [a / b for a, b in zip(theirs[1:], ours[1:], strict=True)]
    low, high = interval(ratios)
    figures = {"pauli_prop_s": median(theirs[1:]), "qbp_batch_32_s": median(ours[1:]), "error": max(errors)}
    return figures | {"ratio": median(ratios), "low": low, "high": high}


def layer_like(quantum: qbp.QuantumLayer, backend: str) -> qbp.QuantumLayer:
    """The same layer on another backend."""
    other = copy.deepcopy(quantum)
    other.set_backend(backend)
    return other


def border(seconds: float) -> list[dict[str, float | bool]]:
    """Chains of several lengths, depths and batches by windows and on the whole state."""
    rows = []
    for n_qubits in (12, 13, 14, 15, 16):
        for n_layers in (1, 3):
            quantum = layer(n_qubits, n_layers, chain(n_qubits))
            chosen = way_of(quantum.circuit.program) != "native"
            for batch in (1, 8, 32, 128):
                times = []
                for executor in (Whole(), Windows(Whole())):
                    quantum.set_backend(executor)
                    step = step_of(quantum, n_qubits, batch)
                    step()
                    times.append(turn(step, seconds))
                row = {"n_qubits": n_qubits, "n_layers": n_layers, "batch": batch, "chosen": chosen}
                rows.append(row | {"windows_to_whole": times[1] / times[0]})
                print("{n_qubits} qubits, {n_layers} layers, batch {batch}: {windows_to_whole:.2f}".format(**rows[-1]))
    return rows


def turn(step: Callable[[], None], seconds: float) -> float:
    """The median milliseconds of a step."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a workload's turn, at least one step")
    parser.add_argument("--only", help="workloads with this in their name; their rows replace those that are there")
    parser.add_argument(
        "--pauli-prop", help="a Python that has pauli-prop: measure it beside the cut, and nothing else"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "width.json")
    args = parser.parse_args()
    if args.pauli_prop:
        result = json.loads(args.out.read_text())
        result["pauli_prop"] = beside(args.pauli_prop, args.rounds)
        print(result["pauli_prop"])
        args.out.write_text(json.dumps(result, indent=1) + "\n")
        return
    steps = workloads()
    first = next(iter(steps))
    steps = {name: step for name, step in steps.items() if not args.only or args.only in name or name == first}
    for step in steps.values():
        step()
    rounds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            rounds[name].append(turn(step, args.seconds))
    measure = next(iter(rounds.values()))
    rows = []
    for name, times in rounds.items():
        ratios = [a / b for a, b in zip(times, measure, strict=True)]
        low, high = interval(ratios)
        rows.append({"name": name, "ms": median(times), "ratio": median(ratios), "low": low, "high": high})
        print("{name}: {ms:.2f} ms, {ratio:.2f} ({low:.2f} to {high:.2f})".format(**rows[-1]))
    if args.only:
        result = json.loads(args.out.read_text())
        again = {row["name"]: row for row in rows if row["name"] != first}
        result["rows"] = [again.pop(row["name"], row) for row in result["rows"]] + [*again.values()]
        result["words"] = words()
        args.out.write_text(json.dumps(result, indent=1) + "\n")
        return
    machine = {"processor": _processor(), "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    result = {"machine": machine, "rows": rows, "words": words(), "border": border(args.seconds / 4)}
    print("127 qubits, 3 layers: graph of {words:,} words in {built_s:.2f} s".format(**result["words"]))
    print("50 qubits, 6 layers, cut: {error:.1e} off, told {error_told:.1e}".format(**result["words"]))
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
