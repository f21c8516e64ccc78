"""Lottery tickets of variational circuits on Iris and Wine (arXiv 2509.11190), with networks of the same size beside.

    python benchmarks/lottery_ticket.py [SEEDS]

In every round a fifth of what is left goes (rotations, or neurons, of smallest magnitude), the rest starts again from
its first weights and is trained anew. The published claim: weak tickets with 26.0 % of the weights keep the accuracy.
Here: the smallest share whose mean accuracy is at least the unpruned mean less one standard deviation, for magnitudes
and for random choice. Writes results/lottery_ticket.json.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import qbp
from qbp.groups import groups_of
from qbp.models import matched_mlp

ROUNDS, EPOCHS = 10, 30
PUBLISHED = 26.0


def models(n_classes: int, seed: int) -> dict[str, tuple[torch.nn.Module, dict[str, float]]]:
    """By name, with the kinds of groups that are pruned."""
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=4, n_layers=6, seed=seed)
    torch.manual_seed(seed)
    circuit = torch.nn.Sequential(layer, torch.nn.Linear(4, n_classes))
    mlp = matched_mlp(circuit, 4, n_classes, tolerance=0.2, seed=seed)
    return {"circuit": (circuit, {"rotation": 0.8926258}), "mlp": (mlp, {"neuron": 0.8926258})}  # 1 - 0.8 ** 10


def tickets(model, kinds, by: str, train, test, seed: int) -> list[tuple[float, float]]:
    """Share of the groups left, and test accuracy, before the first and after each round."""
    (kind,) = kinds
    settings = {"epochs": EPOCHS, "lr": 0.02, "batch_size": 16, "seed": seed}
    start, total = copy.deepcopy(model), len(groups_of(model, kind))
    qbp.fit(model, train, **settings)
    rows = [(1.0, qbp.evaluate(model, test)["accuracy"])]

    def train_again(small) -> None:
        qbp.fit(small, train, **settings)
        left = len(groups_of(small, kind)) / total
        rows.append((left, qbp.evaluate(small, test)["accuracy"]))

    qbp.prune(
        model,
        train,
        amount=kinds,
        by=by,
        schedule="iterative",
        steps=ROUNDS,
        finetune=train_again,
        rewind=start,
        seed=seed,
    )
    return rows


def main(seeds: int) -> None:
    path = Path(__file__).parent / "results" / "lottery_ticket.json"
    result: dict = {"published: smallest share (percent)": PUBLISHED, "seeds": seeds, "rows": {}}
    for name in ("iris", "wine"):
        for kind in ("circuit", "mlp"):
            for by in ("l1", "random"):
                runs = []
                for seed in range(seeds):
                    options = {"features": 4} if name == "wine" else {}
                    train, test = qbp.data.load(name, scale="standard", test_size=0.4, seed=seed, **options)
                    model, kinds = models(train.n_classes, seed)[kind]
                    runs.append(tickets(model, kinds, by, train, test, seed))
                left = [100 * runs[0][r][0] for r in range(ROUNDS + 1)]
                accuracy = 100 * np.array([[a for _, a in run] for run in runs])
                mean, std = accuracy.mean(0), accuracy.std(0, ddof=1)
                kept = [share for share, value in zip(left, mean, strict=True) if value >= mean[0] - std[0]]
                result["rows"][f"{name}, {kind}, {by}"] = {
                    "left": [round(share, 1) for share in left],
                    "accuracy": [round(float(value), 2) for value in mean],
                    "std": [round(float(value), 2) for value in std],
                    "smallest share": round(min(kept), 1),
                }
                print(
                    f"{name}, {kind}, {by}: {mean[0]:.1f} +- {std[0]:.1f}; smallest share {min(kept):.1f} %", flush=True
                )
                path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
