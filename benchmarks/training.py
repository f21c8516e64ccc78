"""What training costs beside the circuit: the loop's own share of a step, and whether 2,000 steps drift or grow.

    python benchmarks/training.py

Writes results/training.json: milliseconds of a step of `qbp.fit` beside the same step written out by hand, the
medians of
the first and of the last hundred of 2,000 steps, resident memory after 200 and after 2,000 steps, and the Python
function calls of a step for batches of 1 and of 256 rows.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import qbp
from qbp.data import Dataset

BATCH, STEPS = 32, 2000


def model() -> torch.nn.Module:
    return qbp.hybrid(8, 2, n_qubits=4, n_layers=2, seed=0)


def step_of(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor):
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


def resident() -> float:
    """Resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def calls_of(step) -> int:
    """Python function calls of one step."""
    count = 0

    def profile(frame, event, argument) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    step()
    sys.setprofile(None)
    return count


def main() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(BATCH * 50, 8), torch.randint(0, 2, (BATCH * 50,))
    step = step_of(model(), x[:BATCH], y[:BATCH])
    times, memory = [], []
    for i in range(STEPS):
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
        if i + 1 in (200, STEPS):
            memory.append(resident())

    data = Dataset(x, y, name="noise", n_classes=2, classes=("0", "1"))
    by_hand, by_fit = [], []
    for _ in range(7):
        net, epochs = model(), 10
        hand = step_of(net, x[:BATCH], y[:BATCH])
        start = time.perf_counter()
        for _ in range(50 * epochs):
            hand()
        by_hand.append(1e3 * (time.perf_counter() - start) / (50 * epochs))
        start = time.perf_counter()
        qbp.fit(model(), data, epochs=epochs, lr=0.01, batch_size=BATCH)
        by_fit.append(1e3 * (time.perf_counter() - start) / (50 * epochs))

    calls = {}
    for batch in (1, 256):
        one = step_of(model(), torch.randn(batch, 8), torch.zeros(batch, dtype=torch.int64))
        one()
        calls[str(batch)] = calls_of(one)
    result = {
        "model": "hybrid(8, 2, n_qubits=4, n_layers=2)",
        "batch": BATCH,
        "step_by_hand_ms": median(by_hand),
        "step_of_fit_ms": median(by_fit),
        "loop_share": 1 - median(by_hand) / median(by_fit),
        "steps_100_to_200_ms": median(times[100:200]),
        "last_100_steps_ms": median(times[-100:]),
        "resident_growth_mb": memory[1] - memory[0],
        "python_calls_by_batch": calls,
    }
    print(json.dumps(result, indent=1))
    (Path(__file__).parent / "results" / "training.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
