"""How many circuits, and how many shots, until a model trained on a device is good: four gradient rules, 10 seeds.

    python benchmarks/fewer_circuits.py [SEEDS]

The task is that of arXiv 2202.13239: digits 0 to 3 as 16 angles on 4 qubits, 36 weights, batches of 25 of 500 images,
Adam 0.05 with weight decay 1e-4, a cosine over 15 epochs. After every fifth step the test accuracy is taken with exact
expectation values on 1,500 images; training stops at 65 %, or after the 15 epochs. Circuits and shots are counted where
they are executed, forward passes included. arXiv 2404.15751 reports 15 to 25 % fewer circuits for Guided-SPSA than for
the shift rule. Writes results/fewer_circuits.json, and goes on where it was stopped: 4 of 10 seeds have run, too few to
say more than that every rule but SPSA (2 of 4) reached 65 % each time.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))
import qbp
from qbp.circuit.angles import Angles
from qbp.circuit.program import Program
from qbp.executors.native import Native
from qbp.executors.sampled import Sampled
from qbp.gradients.stateful import GCANS, GradientPruning, GuidedSPSA, prepare
from qbp.storage.atomic import write_atomic
from qbp.trials.digits import pooled_digits
from qbp.trials.protocols.onchip import circuit

PATH = Path(__file__).parent / "results" / "fewer_circuits.json"
GOAL, EPOCHS, BATCH, SIZE = 0.65, 15, 25, 500

# name -> (gradient rule, shots)
METHODS: dict[str, tuple[Any, int]] = {
    "parameter-shift, 8192 shots": ("parameter-shift", 8192),
    "gradient-pruning, 8192 shots": (GradientPruning(), 8192),
    "guided-spsa, 8192 shots": (GuidedSPSA(), 8192),
    "spsa, 8192 shots": ("spsa", 8192),
    "parameter-shift, 64 shots": ("parameter-shift", 64),
    "parameter-shift, 16 shots": ("parameter-shift", 16),
    "guided-spsa, 64 shots": (GuidedSPSA(), 64),
    "gcans, from 4 shots": (GCANS(lr=0.05, min_shots=4), 16),
}


class Counted(Sampled):
    """Counts the circuits that are executed, and their shots."""

    def __init__(self, shots: int, generator: torch.Generator, spent: dict[str, int]):
        super().__init__(Native(), shots, generator)
        self.spent = spent

    def with_shots(self, shots: int) -> Counted:
        return Counted(shots, self.generator, self.spent)

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Tensor:
        self.spent["circuits"] += angles.n_samples
        self.spent["shots"] += angles.n_samples * self.shots
        return super().__call__(program, angles, amplitudes)


def until_good(name: str, seed: int) -> dict[str, Any]:
    rule, shots = METHODS[name]
    train, test = pooled_digits((0, 1, 2, 3), seed, test_size=0.75)
    spent = {"circuits": 0, "shots": 0}
    executor = Counted(shots, torch.Generator().manual_seed(seed), spent)
    shape = {"weights": (3, 3, 4)}
    layer = qbp.QuantumLayer(circuit, shape, n_inputs=16, backend=executor, diff_method=rule, seed=seed)
    exact = qbp.QuantumLayer(circuit, shape, n_inputs=16)
    steps = EPOCHS * math.ceil(SIZE / BATCH)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    prepare(layer, optimizer, steps)
    torch.manual_seed(seed)
    accuracy, step = 0.0, 0
    for _ in range(EPOCHS):
        for rows in torch.randperm(SIZE).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(train.x[rows]), train.y[rows]).backward()
            optimizer.step()
            schedule.step()
            step += 1
            if step % 5 == 0:
                exact.load_state_dict(layer.state_dict())
                accuracy = qbp.evaluate(exact, test)["accuracy"]
                if accuracy >= GOAL:
                    return {"steps": step, "accuracy": accuracy, **spent}
    return {"steps": None, "accuracy": accuracy, **spent}


def main(seeds: int) -> None:
    results: dict[str, dict[str, Any]] = json.loads(PATH.read_text()) if PATH.exists() else {}
    for seed in range(seeds):
        for name in METHODS:
            if str(seed) not in results.setdefault(name, {}):
                results[name][str(seed)] = until_good(name, seed)
                write_atomic(PATH, (json.dumps(results, indent=1) + "\n").encode())
                print(seed, name, results[name][str(seed)], flush=True)
    print("| method | reached | steps | circuits | beside the first | shots |\n|---|---|---|---|---|---|")
    first = next(iter(METHODS))
    for name, runs in results.items():
        good = {seed: run for seed, run in runs.items() if run["steps"]}
        pairs = [
            good[seed]["circuits"] / results[first][seed]["circuits"] for seed in good if results[first][seed]["steps"]
        ]
        columns = [name, f"{len(good)} of {len(runs)}"]
        if len(pairs) > 1:
            columns.append(f"{mean(run['steps'] for run in good.values()):.0f}")
            columns.append(f"{mean(run['circuits'] for run in good.values()):,.0f}")
            columns.append(f"{mean(pairs):.2f} ± {stdev(pairs) / math.sqrt(len(pairs)):.2f}")
            columns.append(f"{mean(run['shots'] for run in good.values()):.2g}")
        print(f"| {' | '.join(columns)} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
