"""What finite shots cost: training steps by the parameter-shift rule, exact and with shots, medians and ratios.

    python benchmarks/shots.py [--seconds 2.0]

Each step is a forward and a backward pass through autograd, the gradients of inputs and weights, in float32; the
variants take turns. Every shifted circuit is sampled on its own, as hardware would.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

import qbp

WORKLOADS = {"W1": (4, 2, 32), "W2": (8, 4, 64)}  # qubits, layers, batch
VARIANTS = (None, 100, 1000, 10_000, 100_000)  # shots


def step_of(n_qubits: int, n_layers: int, batch: int, shots: int | None) -> Callable[[], None]:
    layer = qbp.QuantumLayer(
        "strongly_entangling", n_qubits=n_qubits, n_layers=n_layers, diff_method="parameter-shift", shots=shots, seed=0
    )
    x = torch.randn(batch, n_qubits, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def step() -> None:
        layer(x).sum().backward()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each workload and number of shots")
    args = parser.parse_args()
    rows = []
    for name, sizes in WORKLOADS.items():
        steps = {shots: step_of(*sizes, shots) for shots in VARIANTS}
        times: dict[int | None, list[float]] = {shots: [] for shots in VARIANTS}
        end = time.perf_counter() + args.seconds * len(VARIANTS)
        while time.perf_counter() < end or len(times[None]) < 3:
            for shots, step in steps.items():
                begin = time.perf_counter()
                step()
                times[shots].append(time.perf_counter() - begin)
        exact = 1e3 * median(times[None][1:])
        for shots in VARIANTS:
            ms = 1e3 * median(times[shots][1:])
            rows.append({"workload": name, "shots": shots, "median_ms": ms, "ratio": ms / exact})
            print(f"{name} {shots or 'exact':>8} {ms:10.2f} ms {ms / exact:6.1f} x", flush=True)
    out = Path(__file__).parent / "results" / "shots.json"
    out.with_suffix(".tmp").write_text(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=1) + "\n")
    os.replace(out.with_suffix(".tmp"), out)


if __name__ == "__main__":
    main()
