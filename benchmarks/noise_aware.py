"""Means against a device's noise: QuantumNAT's three (arXiv 2110.11331), and training under all of it, exactly.

    python benchmarks/noise_aware.py [SEEDS]      (10 seeds: about 20 minutes on two cores; resumes)

Digits 3 and 6 (MNIST-2) and 0 to 3 (MNIST-4), 4 x 4 pixels as angles, two blocks of 4 qubits, each two layers of U3 and
a ring of controlled U3; what the first block measures are the angles of the second one. 500 rows to train, 20 epochs,
Adam. Every model is evaluated under all of the device's noise: exactly on 300 rows, and on 100 of them by Aer with
8,192 shots. Writes results/noise_aware.json and prints the table of docs/noise.md.

Of the paper only its abstract, and its authors' released example (pooling, encoder, cosine schedule), were at hand:
layers, rows and epochs are ours, and its table of accuracies is not repeated here.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent))
import qbp
from qbp.comparison.statistics import holm, paired
from qbp.executors import backend
from qbp.storage.atomic import write_atomic
from qbp.trials.digits import pooled_digits
from qbp.trials.protocols.noise_aware import METHODS, Options, noisy_executors, trained

DEVICES = ("santiago", "yorktown", "belem", "athens")
OPTIONS = Options()
DATA = {"MNIST-2": (3, 6), "MNIST-4": (0, 1, 2, 3)}
SAMPLED, SHOTS = 100, 8192
SAID = (
    "over 94 % (2 classes) and 80 % (4 classes) on quantum computers, up to 43 points by all three means (the abstract)"
)


def aer(device: str) -> Any:
    """The device's noise, simulated by Aer: nothing of it is qbp's."""
    from qiskit_aer import AerSimulator
    from qiskit_ibm_runtime.fake_provider import FakeProviderForBackendV2

    return AerSimulator.from_backend(FakeProviderForBackendV2().backend(f"fake_{device}"))


def run(job: tuple[str, str, int]) -> list[dict[str, Any]]:
    """All methods with one device, one task and one seed."""
    digits, device, seed = job
    torch.set_num_threads(1)
    options = Options(classes=DATA[digits], device=f"fake:{device}")
    sizes = {"test_size": options.test_size, "rows": options.rows, "tests": options.tests}
    train, test = pooled_digits(options.classes, seed, **sizes)
    some, of_aer = test.subset(range(SAMPLED)), backend(aer(device), shots=SHOTS)
    under = noisy_executors(options.device, seed)  # for all models, which share what is transpiled
    on = {"ideal": ("native", test), "exact": (under["exact"], test), "aer": (of_aer, some)}
    rows = []
    for name in METHODS:
        start = time.perf_counter()
        model = trained(name, train, under, options, seed)
        seconds = time.perf_counter() - start
        row = {"digits": digits, "device": device, "seed": seed, "method": name, "seconds": round(seconds, 1)}
        for key, (where, part) in on.items():
            row[key] = round(100 * qbp.evaluate(qbp.on_backend(model, where), part)["accuracy"], 2)
        rows.append(row)
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each task, device and method: accuracies with 95 % intervals over seeds, and what is gained over no means."""
    table, p_values = [], []
    for digits, device in product(DATA, DEVICES):
        here = [row for row in rows if row["digits"] == digits and row["device"] == device]
        by = {name: [row for row in here if row["method"] == name] for name in METHODS}
        plain = [row["exact"] for row in by["no means"]]
        for name, of in by.items():
            entry: dict[str, Any] = {"digits": digits, "device": device, "method": name}
            for key in ("ideal", "exact", "aer"):
                values = [row[key] for row in of]
                reach = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
                entry |= {key: round(float(np.mean(values)), 1), f"{key}_reach": round(float(reach), 1)}
            entry["seconds"] = round(float(np.median([row["seconds"] for row in of])), 1)
            if name != "no means":
                gain = paired([row["exact"] for row in of], plain, rope=1.0, test_share=OPTIONS.tests / OPTIONS.rows)
                entry |= {"gain": round(gain.mean, 1), "low": round(gain.low, 1), "high": round(gain.high, 1)}
                p_values.append(gain.p)
            table.append(entry)
    corrected = iter(holm(p_values))
    for entry in table:
        if "gain" in entry:
            entry["p"] = round(next(corrected), 4)
    return table


def show(table: list[dict[str, Any]]) -> None:
    """The table in Markdown."""
    heads = ("task", "device", "method", "without noise", "under its noise", "by Aer, 8,192 shots", "gain", "p")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in table:
        cells = [f"{row[key]:.1f} ± {row[key + '_reach']:.1f}" for key in ("ideal", "exact", "aer")]
        gain = f"{row['gain']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})" if "gain" in row else "-"
        p = f"{row['p']:.3f}" if "p" in row else "-"
        print("|", " | ".join([row["digits"], row["device"], row["method"], *cells, gain, p]), "|")


def main(seeds: int) -> None:
    path = Path(__file__).parent / "results" / "noise_aware.json"
    what = {"rows": OPTIONS.rows, "test": OPTIONS.tests, "by Aer": SAMPLED, "shots": SHOTS, "epochs": OPTIONS.epochs}
    what["seeds"] = seeds
    what["said in the abstract"] = SAID
    before = json.loads(path.read_text()) if path.exists() else {}
    rows: list[dict[str, Any]] = before["runs"] if before.get("what") == what else []
    done = {(row["digits"], row["device"], row["seed"]) for row in rows}
    jobs = [job for job in product(DATA, DEVICES, range(seeds)) if job not in done]
    start = time.perf_counter()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for job, of_job in zip(jobs, pool.map(run, jobs), strict=True):
            rows += of_job
            write_atomic(path, (json.dumps({"what": what, "runs": rows}, indent=1) + "\n").encode())
            accuracies = {row["method"]: row["exact"] for row in of_job}
            print(f"{time.perf_counter() - start:5.0f} s", *job, accuracies, flush=True)
    table = summary(rows)
    write_atomic(path, (json.dumps({"what": what, "table": table, "runs": rows}, indent=1) + "\n").encode())
    show(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
