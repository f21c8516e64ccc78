"""Training under a fake backend's noise: how accurate a hybrid model gets, and what fine-tuning is worth.

A hybrid classifier of iris on five noisy qubits. For each seed: trained without noise; the same evaluated under noise;
fine-tuned under noise by the one-line recipe, beside as many more epochs without noise; trained under noise from the
start.

    python benchmarks/noise.py                 # 10 seeds, some minutes
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path

import torch
from torch import nn

import qbp

DEVICE = "fake:yorktown"


def model(seed: int) -> nn.Sequential:
    """Linear, circuit of 4 qubits, linear."""
    return qbp.hybrid(4, 3, circuit="basic_entangler", n_qubits=4, n_layers=1, seed=seed)


def run(seed: int, epochs: int) -> dict[str, float]:
    """Accuracies and losses on the held-out rows, and seconds."""
    train, test = qbp.data.load("iris", seed=seed)
    figures: dict[str, float] = {}

    def note(name: str, trained: nn.Module) -> None:
        result = qbp.evaluate(trained, test)
        figures[f"{name}: accuracy"], figures[f"{name}: loss"] = result["accuracy"], result["loss"]

    ideal = model(seed)
    qbp.fit(ideal, train, epochs=epochs, lr=0.1, batch_size=16, seed=seed)
    note("trained without noise, evaluated without", ideal)
    note("trained without noise, evaluated under noise", qbp.on_backend(ideal, DEVICE))
    longer = copy.deepcopy(ideal)
    qbp.fit(longer, train, epochs=2, lr=0.02, batch_size=16, seed=seed)
    note("trained 2 epochs longer without noise, evaluated under noise", qbp.on_backend(longer, DEVICE))
    start = time.perf_counter()
    qbp.fit(tuned := qbp.on_backend(ideal, DEVICE), train, epochs=2, lr=0.02, batch_size=16, seed=seed)
    figures["seconds an epoch under noise"] = (time.perf_counter() - start) / 2
    note("fine-tuned for 2 epochs, evaluated under noise", tuned)
    noisy = qbp.on_backend(model(seed), DEVICE)
    qbp.fit(noisy, train, epochs=epochs, lr=0.1, batch_size=16, seed=seed)
    note("trained under noise, evaluated under noise", noisy)
    return figures


def main() -> None:
    """Run all seeds and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "noise.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in range(options.seeds):
        rows.append(run(seed, options.epochs))
        print(seed, {name: round(value, 4) for name, value in rows[-1].items()}, flush=True)
    table = {}
    for name in rows[0]:
        values = torch.tensor([row[name] for row in rows], dtype=torch.float64)
        table[name] = {"mean": values.mean().item(), "std": values.std().item()}
        print(f"{name:62} {table[name]['mean']:.4f} +- {table[name]['std']:.4f}")
    what = {"device": DEVICE, "data": "iris", "epochs": options.epochs, "seeds": options.seeds}
    options.out.write_text(json.dumps({"what": what, "summary": table, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
