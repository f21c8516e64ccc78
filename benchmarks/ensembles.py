"""Models that train together beside models that train one after the other: seconds, and what they come to.

    python benchmarks/ensembles.py --rounds 7

Writes results/ensembles.json: the time of ten seeds of the digits model (`qbp train digits`) in times that of one, with
the accuracies of both ways, and how many times faster the cells of `qbp compare moons` are together, for each model
that torch trains. Rounds take turns, and each ratio is of one round, so that what else the machine does meets both;
seconds are of the processor, on one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import qbp
from qbp.comparison.cell import Job, Protocol, run_jobs
from qbp.comparison.controls import RIVALS, controls_of
from qbp.nn.models import renew
from qbp.storage.provenance import versions

SEEDS = 10
APART = 2  # of them, on which cells are timed one by one
FIGURES = ("seconds of a cell one by one", "seconds of a cell together")
DIGITS: dict[str, Any] = {"epochs": 30, "lr": 0.01, "batch_size": 32, "schedule": "cosine", "validation": 0.2}


def seconds(function) -> tuple[float, Any]:
    began = time.process_time()
    result = function()
    return time.process_time() - began, result


def digits(rounds: int) -> dict[str, Any]:
    """Ten seeds beside one."""
    train, test = qbp.data.load("mnist", classes=(3, 6), features=8, seed=0)
    model = qbp.hybrid(8, 2, n_qubits=4, n_layers=2, seed=0)
    one = lambda seed=0: qbp.fit(renew(model, seed), train, seed=seed, **DIGITS)  # noqa: E731
    together = lambda: qbp.fit(model, train, seeds=SEEDS, **DIGITS)  # noqa: E731
    one(), together()  # compiles what there is to compile
    times = [(seconds(one)[0], seconds(together)[0]) for _ in range(rounds)]
    alone = [one(seed) for seed in range(SEEDS)]
    ten = together()
    accuracies = [[qbp.evaluate(history.model, test)["accuracy"] for history in each] for each in (alone, ten)]
    losses = [[history.last["val_loss"] for history in each] for each in (alone, ten)]
    return {
        "seconds of one": median(a for a, _ in times),
        "seconds of ten together": median(b for _, b in times),
        "ratio": median(b / a for a, b in times),
        "ratio of the quickest": min(b for _, b in times) / min(a for a, _ in times),
        "ratios": sorted(b / a for a, b in times),
        "test accuracies alone": accuracies[0],
        "test accuracies together": accuracies[1],
        "largest difference of validation losses": max(abs(a - b) for a, b in zip(*losses, strict=True)),
    }


def grid(rounds: int) -> dict[str, Any]:
    """The cells of `qbp compare moons` that torch trains, all seeds of a model at once and one by one."""
    parts = [qbp.data.load("moons", n_samples=400, noise=0.2, test_size=0.75, seed=seed) for seed in range(SEEDS)]
    subject = qbp.hybrid(2, 2, seed=0)
    protocol = Protocol(qbp.Training(epochs=40), budget=3, folds=3)
    models = {"subject": subject, **controls_of(subject, 2, 2)}
    figures: dict[str, Any] = {}
    for name, model in models.items():
        jobs = [Job(model, *part, seed, name in RIVALS) for seed, part in enumerate(parts)]
        times, apart, together = [], [], []
        for _ in range(rounds):
            b, together = seconds(lambda jobs=jobs: run_jobs(jobs, protocol))
            a, apart = seconds(lambda jobs=jobs: run_jobs(jobs[:APART], protocol, exact=True))
            times.append((a / APART, b / SEEDS))
        figures[name] = {
            "seconds of a cell one by one": median(a for a, _ in times),
            "seconds of a cell together": median(b for _, b in times),
            "times faster": median(a / b for a, b in times),
            "test accuracies one by one": [each["row"]["accuracy"] for each in apart],
            "test accuracies together": [each["row"]["accuracy"] for each in together],
        }
        print(
            name, {key: round(value, 3) for key, value in figures[name].items() if isinstance(value, float)}, flush=True
        )
    total = [sum(each[key] for each in figures.values()) for key in FIGURES]
    return {"models": figures, "times faster": total[0] / total[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    results = {"digits": digits(rounds), "versions": versions()}
    print({key: value for key, value in results["digits"].items() if not isinstance(value, list)}, flush=True)
    results["grid"] = grid(max(1, rounds // 5))
    print("grid:", results["grid"]["times faster"])
    path = Path(__file__).parent / "results" / "ensembles.json"
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
