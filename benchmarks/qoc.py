"""Training on a device with fewer circuits: what gradient pruning, Guided-SPSA and gCANS save, and what they cost.

    python benchmarks/qoc.py run [FIRST LAST]     # seeds FIRST to LAST - 1; all ten without
    python benchmarks/qoc.py noise [FIRST LAST]   # the trained models with the noise of a fake backend
    python benchmarks/qoc.py tables

The task is the one that arXiv 2202.13239 prints: digits 0 to 3, 500 images to train and 300 to test, 16 pixels as
angles of RY, RZ, RX, RY on 4 qubits, 36 weights in 3 blocks of RX, RY, RZ and CZ; batches of 25, 15 epochs, Adam with
rate 0.05, weight decay 1e-4 and a cosine, 8192 shots. Circuits are counted where they are executed. Test accuracy is
taken with exact expectation values. Results are in results/qoc.json, trained weights with them.
"""

from __future__ import annotations

import fcntl
import json
import math
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pennylane as qml
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))
import qbp
from qbp.angles import Angles
from qbp.data import DATASETS, Dataset
from qbp.executors.native import Native
from qbp.executors.sampled import Sampled
from qbp.files import write_atomic
from qbp.onchip import GCANS, GradientPruning
from qbp.program import Program

RESULTS = Path(__file__).parent / "results" / "qoc.json"
SEEDS = range(10)
GOAL = 0.65


def circuit(inputs: Tensor, weights: Tensor) -> list[Any]:
    """The published circuit; the root of the Hadamard gate as rotations, up to a phase."""
    for k, gate in enumerate((qml.RY, qml.RZ, qml.RX, qml.RY)):
        for wire in range(4):
            gate(inputs[4 * k + wire], wires=wire)
    for wire in range(4):
        qml.RY(-math.pi / 4, wires=wire)
        qml.RZ(math.pi / 2, wires=wire)
        qml.RY(math.pi / 4, wires=wire)
    for block in range(3):
        for k, gate in enumerate((qml.RX, qml.RY, qml.RZ)):
            for wire in range(4):
                gate(weights[block, k, wire], wires=wire)
        for wire in range(3):
            qml.CZ(wires=(wire, wire + 1))
    return [qml.expval(qml.Z(wire)) for wire in range(4)]


def images(seed: int) -> tuple[Dataset, Dataset]:
    """500 and 300 images, pooled 6 x 6 to 4 x 4 as published."""
    raw = DATASETS["mnist"]()
    rows = np.flatnonzero(raw.y < 4)
    train, test = train_test_split(rows, train_size=500, test_size=300, stratify=raw.y[rows], random_state=seed)
    pixels = torch.tensor(raw.x, dtype=torch.float32).reshape(-1, 1, 28, 28)
    angles = (nn.functional.avg_pool2d(pixels, 6).flatten(1) - 0.1307) / 0.3081
    y = torch.tensor(raw.y)
    return Dataset(angles[train], y[train], n_classes=4), Dataset(angles[test], y[test], n_classes=4)


class Counted(Sampled):
    """Counts the circuits that are executed, and their shots."""

    def __init__(self, shots: int, generator: torch.Generator, spent: dict[str, int] | None = None):
        super().__init__(Native(), shots, generator)
        self.spent = {"circuits": 0, "shots": 0} if spent is None else spent

    def with_shots(self, shots: int) -> Counted:
        return Counted(shots, self.generator, self.spent)

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Tensor:
        self.spent["circuits"] += angles.n_samples
        self.spent["shots"] += angles.n_samples * self.shots
        return super().__call__(program, angles, amplitudes)


# name -> (gradient rule, epochs, shots)
METHODS: dict[str, tuple[Any, int, int]] = {
    "all gradients": ("parameter-shift", 15, 8192),
    "all gradients, 10 epochs": ("parameter-shift", 10, 8192),
    "pruning, from the paper": (GradientPruning(), 15, 8192),
    "the same, momentum moves pruned weights": (GradientPruning(mask=False), 15, 8192),
    "pruning as released: uniform draws": (GradientPruning(by="random", mask=False), 15, 8192),
    "random pruning": (GradientPruning(by="random"), 15, 8192),
    "largest half": (GradientPruning(by="top"), 15, 8192),
    "Guided-SPSA": ("guided-spsa", 15, 8192),
    "SPSA": ("spsa", 15, 8192),
    "all gradients, 64 shots": ("parameter-shift", 15, 64),
    "all gradients, 16 shots": ("parameter-shift", 15, 16),
    "gCANS, 16 shots forward": (GCANS(lr=0.05, min_shots=4, max_shots=8192), 15, 16),
}


def layer_of(rule: Any, backend: Any = "native") -> qbp.QuantumLayer:
    init = partial(nn.init.uniform_, a=-math.pi, b=math.pi)
    return qbp.QuantumLayer(circuit, {"weights": (3, 3, 4)}, init, n_inputs=16, backend=backend, diff_method=rule)


def train(name: str, seed: int) -> dict[str, Any]:
    rule, epochs, shots = METHODS[name]
    data, test = images(seed)
    torch.manual_seed(seed)
    executor = Counted(shots, torch.Generator().manual_seed(seed))
    layer = layer_of(rule, executor)
    exact = layer_of("best")
    curve: list[tuple[int, int, float]] = []  # circuits, shots, accuracy after every epoch

    def measure(_: object) -> None:
        exact.load_state_dict(layer.state_dict())
        curve.append((executor.spent["circuits"], executor.spent["shots"], qbp.evaluate(exact, test)["accuracy"]))

    adam = partial(torch.optim.Adam, weight_decay=1e-4)
    options = {"lr": 0.05, "batch_size": 25, "schedule": "cosine", "seed": seed, "progress": measure}
    qbp.fit(nn.Sequential(layer), data, epochs=epochs, optimizer=adam, **options)
    reached = next(((circuits, spent) for circuits, spent, accuracy in curve if accuracy >= GOAL), (None, None))
    return {
        "accuracy": curve[-1][2],
        "circuits": curve[-1][0],
        "shots": curve[-1][1],
        "circuits to the goal": reached[0],
        "shots to the goal": reached[1],
        "weights": [round(w, 6) for w in layer.weights.flatten().tolist()],
    }


def noisy(result: dict[str, Any], seed: int) -> float:
    """Test accuracy of trained weights with 1024 shots and the noise of IBM's Quito, as a fake backend has it."""
    layer = qbp.QuantumLayer(
        circuit, {"weights": (3, 3, 4)}, {"weights": torch.tensor(result["weights"]).reshape(3, 3, 4)},
        n_inputs=16, backend="fake:quito", shots=1024, seed=seed,
    )  # fmt: skip
    return qbp.evaluate(layer, images(seed)[1])["accuracy"]


def merge(new: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Add to the results, which several processes may do, and return them."""
    with open(Path(tempfile.gettempdir()) / "qbp-qoc.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        if new:
            for name, runs in new.items():
                for seed, result in runs.items():
                    found.setdefault(name, {}).setdefault(seed, {}).update(result)
            write_atomic(RESULTS, (json.dumps(found, sort_keys=True) + "\n").encode())
    return found


def run(seeds: range, missing: str, work: Callable[[str, int], dict[str, Any]]) -> None:
    for seed in seeds:
        for name in METHODS:
            if missing not in merge({}).get(name, {}).get(str(seed), {}):
                result = work(name, seed)
                merge({name: {str(seed): result}})
                print(seed, name, {key: value for key, value in result.items() if key != "weights"}, flush=True)


def tables() -> None:
    found = merge({})
    print(
        "| method | n | circuits | shots | test accuracy | with noise | reach 65 % | circuits to 65 % | shots to 65 % |"
    )
    print("|---" * 9 + "|")
    for name in METHODS:
        runs = list(found.get(name, {}).values())
        if len(runs) < 2:
            continue
        scores = [100 * result["accuracy"] for result in runs]
        noise = [100 * result["noisy"] for result in runs if "noisy" in result]
        there = [result for result in runs if result["circuits to the goal"]]
        columns = [name, str(len(runs)), f"{mean(r['circuits'] for r in runs):,.0f}"]
        columns += [f"{mean(r['shots'] for r in runs):.3g}", f"{mean(scores):.2f} ± {stdev(scores):.2f}"]
        columns.append(f"{mean(noise):.2f} ± {stdev(noise):.2f} (n = {len(noise)})" if len(noise) > 1 else "-")
        columns.append(f"{len(there)} of {len(runs)}")
        columns += [f"{mean(r[f'{what} to the goal'] for r in there):,.0f}" for what in ("circuits", "shots") if there]
        print(f"| {' | '.join(columns)} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, *bounds = sys.argv[1:]
    seeds = range(*map(int, bounds)) if bounds else SEEDS
    if what == "run":
        run(seeds, "accuracy", train)
    elif what == "noise":
        run(seeds, "noisy", lambda name, seed: {"noisy": noisy(merge({})[name][str(seed)], seed)})
    else:
        tables()
