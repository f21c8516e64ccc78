"""Whether verdicts are right where the truth is known.

    python benchmarks/verdicts.py [aa] [linear] [planted]      (all three without a name; resumes)

aa: 200 comparisons of a trained network with itself, on fresh draws of moons and on splits of breast cancer: two equal
models may differ in 5 of 100. linear: hybrid models on data from a linear rule, which must never beat anything.
planted: labels from the circuit that the subject trains, of fixed random gates: the number of seeds that
`qbp.comparison.power.plan` gives from a pilot must find it in eight of ten comparisons.
Writes results/verdicts.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pennylane as qml
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))
import qbp
from qbp.comparison.cell import Protocol
from qbp.comparison.comparing import compare
from qbp.comparison.grid import Cell, Grid, Source, split_hash
from qbp.comparison.power import plan
from qbp.comparison.statistics import paired, verdict
from qbp.data import DATASETS
from qbp.data.raw import Raw
from qbp.storage.atomic import write_atomic
from qbp.training.options import Training

RESULTS = Path(__file__).parent / "results" / "verdicts.json"
N_AA, N_LINEAR, N_PLANTED = 200, 20, 20
SEEDS = 10
N_QUBITS, REPEATS, N_WEIGHTS = 4, 3, 6
TRAINING = {"epochs": 400, "lr": 0.1, "batch_size": 200}
"""Of the planted truth: so long that the largest rival converges; before that nothing may beat it."""
DIFFERENCE = 0.1
"""What the planted truth is planned for: 10 points."""

AA = {
    "moons": {"name": "moons", "n_samples": 300, "noise": 0.3, "test_size": 0.5},
    "breast_cancer": {"name": "breast_cancer", "features": 4, "n_samples": 300},
}


# ---- a model and itself ----------------------------------------------------------------------------------------------


def aa(name: str, number: int) -> str:
    """One comparison of a network with itself, ten seeds of its own: what the cells of `qbp compare --aa` do."""
    source, seeds = Source(AA[name]), range(SEEDS * number, SEEDS * (number + 1))
    parts = {seed: source.split(seed) for seed in seeds}
    splits = {name: {seed: split_hash(*pair) for seed, pair in parts.items()}}
    protocol = Protocol(Training(epochs=8, lr=0.05), budget=1)
    grid = Grid({name: source}, {"mlp": lambda n_inputs, n_outputs: qbp.mlp(n_inputs, 4, n_outputs)}, protocol, splits)
    scores = [
        [cell["row"]["accuracy"] for cell in grid([Cell(name, model, seed, None) for seed in seeds])]
        for model in ("mlp", "mlp/identical")
    ]
    train, test = parts[seeds[0]]
    return verdict(paired(*scores, test_share=None if source.fresh else len(test) / len(train)))[0]


# ---- a linear rule ---------------------------------------------------------------------------------------------------


def linear(number: int) -> dict[str, str]:
    """One comparison on data that a linear model learns."""
    data = {"linear": {"name": "linearly_separable", "features": 2 + number % 4, "n_samples": 160, "test_size": 0.5}}
    seeds = range(6 * number, 6 * (number + 1))
    model = partial(qbp.hybrid, n_qubits=2, n_layers=1)
    result = compare({"hybrid": model}, data=data, seeds=seeds, budget=1, training={"epochs": 20, "lr": 0.05})
    return {row["control"]: row["verdict"] for row in result.verdicts}


# ---- labels from a circuit -------------------------------------------------------------------------------------------


def circuit(inputs: Any, weights: Any) -> Any:
    """Fixed random gates between encodings of the inputs; at the end angles that train."""
    angles = np.random.default_rng(7).uniform(0, 2 * np.pi, (REPEATS, N_QUBITS, 2))
    for repeat in range(REPEATS):
        for wire in range(N_QUBITS):
            qml.RX(inputs[wire], wire)
            qml.RY(angles[repeat, wire, 0], wire)
            qml.RZ(angles[repeat, wire, 1], wire)
        for wire in range(N_QUBITS):
            qml.CNOT([wire, (wire + 1) % N_QUBITS])
    for wire, angle in enumerate(weights[N_QUBITS:]):
        qml.RX(angle, wire)
    for wire, angle in enumerate(weights[:N_QUBITS]):
        qml.RY(angle, wire)
    return [qml.expval(qml.Z(wire)) for wire in range(N_QUBITS)]


def subject(n_inputs: int, n_outputs: int) -> nn.Module:
    return qbp.hybrid(
        n_inputs, n_outputs, circuit=circuit, weight_shapes={"weights": (N_WEIGHTS,)}, encoder=False, seed=0
    )


def planted(n_samples: int = 500, seed: int = 0) -> Raw:
    """Points of a cube, labelled by the sign of what the circuit's first qubit gives at angles that stay secret."""
    x = np.random.default_rng(seed).uniform(-np.pi, np.pi, (4 * n_samples, N_QUBITS))
    teacher = qbp.QuantumLayer(circuit, {"weights": (N_WEIGHTS,)}, n_inputs=N_QUBITS)
    with torch.no_grad():
        teacher.weights.copy_(torch.from_numpy(np.random.default_rng(8).uniform(0, 2 * np.pi, N_WEIGHTS)))
        value = teacher(torch.from_numpy(x))[:, 0].numpy()
    sure = np.flatnonzero(abs(value) > 0.05)[:n_samples]
    return Raw(x[sure].astype(np.float32), (value[sure] > 0).astype(np.int64), ("0", "1"))


def comparison(seeds: range) -> qbp.Comparison:
    DATASETS["planted"] = planted
    data = {"planted": {"name": "planted", "n_samples": 500, "test_size": 0.6, "scale": None}}
    return compare({"circuit": subject}, data=data, seeds=seeds, budget=1, training=TRAINING)


def planned() -> dict[str, Any]:
    """The seeds that a pilot says, for the control that needs most of them."""
    pilot = comparison(range(5))
    rows = plan(pilot, DIFFERENCE)
    most = max(rows, key=lambda row: row["seeds"])
    return {"seeds": most["seeds"], "control": most["control"], "difference": DIFFERENCE}


def found_again(n_seeds: int, number: int) -> dict[str, str]:
    result = comparison(range(5 + n_seeds * number, 5 + n_seeds * (number + 1)))
    return {row["control"]: row["verdict"] for row in result.verdicts}


# ---- all of it -------------------------------------------------------------------------------------------------------


def _repeat(results: dict[str, Any], key: str, number: int, run: Callable[[int], Any]) -> list[Any]:
    kept = results.setdefault(key, [])
    while len(kept) < number:
        kept.append(run(len(kept)))
        write_atomic(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    return kept


def main(wanted: list[str]) -> None:
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    began = time.perf_counter()
    if "aa" in wanted:
        for name in AA:
            words = Counter(_repeat(results, f"aa {name}", N_AA, partial(aa, name)))
            print(f"{name}: {dict(words)} of {N_AA} comparisons of a model with itself", flush=True)
    if "linear" in wanted:
        rows = _repeat(results, "linear", N_LINEAR, linear)
        beats = sum(word == "BEATS" for row in rows for word in row.values())
        print(f"linear rule: {beats} BEATS among {sum(map(len, rows))} verdicts of {len(rows)} comparisons", flush=True)
    if "planted" in wanted:
        told = results.setdefault("plan", None) or planned()
        results["plan"] = told
        rows = _repeat(results, "planted", N_PLANTED, partial(found_again, told["seeds"]))
        for group in ("circuit", "all"):
            beats = sum(row[group] == "BEATS" for row in rows)
            print(f"planted, {told['seeds']} seeds: BEATS against {group} in {beats} of {len(rows)}", flush=True)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:] or ["aa", "linear", "planted"])
