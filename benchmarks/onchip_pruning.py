"""On-chip training of MNIST-4 with and without pruning (arXiv 2202.13239), beside the row that its authors printed.

    python benchmarks/onchip_pruning.py [SEEDS [METHOD ...]]     (rows of other methods are kept)

Their notebook: digits 0 to 3, 500 images to train, 4 x 4 pixels as angles, 3 blocks of RX, RY, RZ and CZ on 4 qubits
(36 weights), 8192 shots, batch 25, 15 epochs, Adam 0.05 with weight decay 1e-4 and a cosine; test accuracy of the last
epoch, one seed: 68.0 without and 69.0 with their gradient pruning. Here: 10 seeds, 1,500 test images, and what every
method executes, counted where circuits run. Writes results/onchip_pruning.json.

Found: 69.6 +- 1.3 without (547,500 circuits) and 69.8 +- 1.0 with gradient pruning (367,500): both published figures
are within the spread over seeds, which is larger than what separates the methods. Uniformly random pruning, the largest
half, and no pruning for 10 epochs are as good within that spread. Exact pruning executes the same 367,500 circuits,
skips no gradient and has three CZ less: 69.2 +- 1.3.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import qbp
from qbp.compression.rank import live_parameters
from qbp.executors import backend
from qbp.gradients.stateful import GradientPruning
from qbp.storage.atomic import write_atomic
from qbp.trials.digits import pooled_digits
from qbp.trials.protocols.onchip import Counted, circuit

SHOTS, BATCH, EPOCHS, NOISY = 8192, 25, 15, 300
PUBLISHED = {"no pruning": 68.0, "gradient pruning": 69.0}


METHODS = {
    "no pruning": {},
    "no pruning, 10 epochs": {"epochs": 10},
    "gradient pruning": {"rule": "magnitude"},
    "gradient pruning, uniformly random": {"rule": "random"},
    "gradient pruning, largest half": {"rule": "top"},
    "exact pruning": {"exact": True},
}


def train_one(seed: int, *, rule: str | None = None, exact: bool = False, epochs: int = EPOCHS) -> dict:
    train, test = pooled_digits((0, 1, 2, 3), seed, test_size=0.75)
    counter = Counted(backend("native", shots=SHOTS, generator=torch.Generator().manual_seed(seed)))
    method = "parameter-shift" if rule is None else GradientPruning(0.5, 1, 2, by=rule)
    layer = qbp.QuantumLayer(
        circuit, {"weights": (3, 3, 4)}, n_inputs=16, backend=counter, diff_method=method, seed=seed
    )
    live = live_parameters(layer)
    if exact:
        layer = qbp.prune(layer, by="exact")
    model = torch.nn.Sequential(layer)
    optimizer = partial(torch.optim.Adam, weight_decay=1e-4)
    qbp.fit(model, train, epochs=epochs, lr=0.05, optimizer=optimizer, batch_size=BATCH, schedule="cosine", seed=seed)
    circuits = counter.circuits
    noisy = qbp.on_backend(model, "fake:quito", shots=SHOTS)
    entanglers = sum(len(op.wires) > 1 for op in layer.circuit.program.ops)
    return {
        "accuracy": 100 * qbp.evaluate(model, test)["accuracy"],
        "noisy": 100 * qbp.evaluate(noisy, test.subset(range(NOISY)))["accuracy"],
        "circuits": circuits,
        "weights": layer.weights.numel(),
        "live": live,
        "two_qubit_gates": entanglers,
    }


def main(seeds: int, methods: list[str]) -> None:
    path = Path(__file__).parent / "results" / "onchip_pruning.json"
    for name in methods or METHODS:
        options = METHODS[name]
        began = time.perf_counter()
        runs = [train_one(seed, **options) for seed in range(seeds)]
        row = {key: runs[0][key] for key in ("circuits", "weights", "live", "two_qubit_gates")}
        for key in ("accuracy", "noisy"):
            values = [run[key] for run in runs]
            row |= {key: round(float(np.mean(values)), 2), f"{key}_std": round(float(np.std(values, ddof=1)), 2)}
            row[f"{key}_by_seed"] = [round(value, 2) for value in values]
        before = json.loads(path.read_text())["rows"] if path.exists() else {}
        rows = {key: value for key, value in {**before, name: row}.items() if key in METHODS}
        result = {"published (one seed)": PUBLISHED, "shots": SHOTS, "seeds": seeds, "rows": rows}
        exact, noisy = (f"{row[key]:5.2f} +- {row[key + '_std']:4.2f}" for key in ("accuracy", "noisy"))
        took = f"{row['weights']} weights, {row['two_qubit_gates']} CZ ({time.perf_counter() - began:.0f} s)"
        print(f"{name:36} {row['circuits']:7} circuits  {exact}, noisy {noisy}  {took}", flush=True)
        write_atomic(path, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10, sys.argv[2:])
