"""Lottery tickets of variational circuits on Iris and Wine (arXiv 2509.11190), with networks of the same size beside.

    python benchmarks/lottery_ticket.py [SEEDS ["DATA, MODEL, SCORE" ...]]     (other rows are kept)

In every round a fifth of what is left goes (rotations, or neurons, of smallest magnitude), the rest starts again from
its first weights and is trained anew. The published claim: weak tickets with 26.0 % of the weights keep the accuracy.
Here: the smallest share whose mean accuracy is at least the unpruned mean less one standard deviation, for magnitudes
and for random choice. Writes results/lottery_ticket.json.

Found, 10 seeds: circuits keep their accuracy with 33 % (Iris) and 40 % (Wine) of the rotations, less far down than the
published 26.0 %; networks of the same size with 18 % of the neurons. Magnitudes of angles are no better than random
choice, and on Wine worse below a third: the tickets are no evidence for the magnitude of an angle as a score.
"""

from __future__ import annotations

import copy
import json
import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import qbp
from qbp.compression.groups import groups_of
from qbp.nn.models import matched_mlp
from qbp.storage.atomic import write_atomic

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


def main(seeds: int, asked: list[str]) -> None:
    path = Path(__file__).parent / "results" / "lottery_ticket.json"
    every = [", ".join(parts) for parts in product(("iris", "wine"), ("circuit", "mlp"), ("l1", "random"))]
    for case in asked or every:
        name, kind, by = case.split(", ")
        runs = []
        for seed in range(seeds):
            options = {"features": 4} if name == "wine" else {}
            train, test = qbp.data.load(name, scale="standard", test_size=0.4, seed=seed, **options)
            model, kinds = models(train.n_classes, seed)[kind]
            runs.append(tickets(model, kinds, by, train, test, seed))
        left = [100 * share for share, _ in runs[0]]
        accuracy = 100 * np.array([[value for _, value in run] for run in runs])
        mean, std = accuracy.mean(0), accuracy.std(0, ddof=1)
        smallest = min(share for share, value in zip(left, mean, strict=True) if value >= mean[0] - std[0])
        row = {"left": left, "accuracy": mean.tolist(), "std": std.tolist(), "smallest share": smallest}
        rounded = {
            key: [round(v, 2) for v in value] if isinstance(value, list) else value for key, value in row.items()
        }
        before = json.loads(path.read_text())["rows"] if path.exists() else {}
        rows = {key: value for key, value in {**before, case: rounded}.items() if key in every}
        result = {"published: smallest share (percent)": PUBLISHED, "seeds": seeds, "rows": dict(sorted(rows.items()))}
        print(f"{case}: {mean[0]:.1f} +- {std[0]:.1f}; smallest share {smallest:.1f} %", flush=True)
        write_atomic(path, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10, sys.argv[2:])
