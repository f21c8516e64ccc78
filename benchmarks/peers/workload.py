"""What is measured, and how a peer is asked to do it. Needs numpy only, so that it runs in every peer's environment.

A peer is a file beside this one with ``build(workload) -> step`` where ``step()`` does one whole training step
(forward,
gradients of inputs and weights) and returns ``(outputs, input gradients, weight gradients)`` as NumPy arrays, or
``(outputs, None, None)`` for a forward workload. It is run by ``python workload.py PEER`` with one JSON request a line.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Workload:
    """AngleEmbedding (RX), then StronglyEntanglingLayers, Z on every wire; the loss is ``sum(cotangent * outputs)``.

    Attributes:
        n_qubits, n_layers, batch: sizes; inputs (batch, n_qubits), weights (n_layers, n_qubits, 3).
        blocks: with re-uploading, how often the encoding and one layer alternate (n_layers == blocks); 0 without.
        mode: "step", "forward" (no gradients), or "shift" (weight and input gradients by the parameter-shift rule).
    """

    name: str
    n_qubits: int
    n_layers: int
    batch: int
    blocks: int = 0
    mode: str = "step"

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs, weights (radians) and cotangent; the same in every process."""
        rng = np.random.default_rng([self.n_qubits, self.n_layers, self.batch])
        inputs = rng.normal(size=(self.batch, self.n_qubits))
        weights = rng.uniform(0, 2 * np.pi, size=(self.n_layers, self.n_qubits, 3))
        cotangent = rng.normal(size=(self.batch, self.n_qubits))
        return inputs.astype(np.float32), weights.astype(np.float32), cotangent.astype(np.float32)

    def cost(self) -> int:
        """Grows with the work of one step, to compare workloads of one mode."""
        return self.batch * 2**self.n_qubits * self.n_layers * self.n_qubits

    def ranges(self) -> list[int]:
        """For each layer the distance between control and target of its ring of CNOTs."""
        n = self.n_qubits
        every = self.blocks or self.n_layers
        return [0 if n == 1 else 1 if self.blocks else layer % (n - 1) + 1 for layer in range(every)]


WORKLOADS = {
    w.name: w
    for w in (
        Workload("W1", 4, 2, 32),
        Workload("W2", 8, 4, 64),
        Workload("W3", 10, 5, 128),
        Workload("W4", 12, 6, 128),
        Workload("W5", 16, 6, 16),
        Workload("W6", 20, 4, 1),
        Workload("W7", 6, 8, 64, blocks=8),
        Workload("W3 forward", 10, 5, 128, mode="forward"),
        Workload("W1 parameter-shift", 4, 2, 32, mode="shift"),
    )
}


SWEEPS = {
    w.name: w
    for w in (
        *(Workload(f"{n} qubits", n, 4, 32) for n in (4, 6, 8, 10, 12, 14, 16)),
        *(Workload(f"batch {batch}", 8, 4, batch) for batch in (1, 4, 16, 64, 256, 1024)),
    )
}
"""Time against the number of qubits, and against the batch."""


def serve(name: str) -> None:
    """Answer requests: build a workload, do its first step, time it."""
    if hasattr(os, "sched_setaffinity"):  # holds XLA, Kokkos and OpenBLAS to as many threads as OpenMP
        mine = sorted(os.sched_getaffinity(0))[: int(os.environ["OMP_NUM_THREADS"])]
        os.sched_setaffinity(0, mine)
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a peer prints goes to stderr
    peer = importlib.import_module(name)
    step = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "build":
                start = time.perf_counter()
                step = peer.build(Workload(**request["workload"]))
                arrays = step()
                first = time.perf_counter() - start
                np.savez(request["to"], **{k: a for k, a in zip("ogw", arrays, strict=True) if a is not None})
                answer = {"first_s": first, "version": peer.version()}
            else:
                times, until = [], time.perf_counter() + request["seconds"]
                while not times or (time.perf_counter() < until and len(times) < request["steps"]):
                    start = time.perf_counter()
                    step()
                    times.append(time.perf_counter() - start)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
                answer = {"times": times, "peak_mb": round(peak)}
        except NotImplementedError as error:
            answer = {"error": str(error)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), file=protocol, flush=True)


def to_json(workload: Workload) -> dict[str, object]:
    return asdict(workload)


if __name__ == "__main__":
    serve(sys.argv[1])
