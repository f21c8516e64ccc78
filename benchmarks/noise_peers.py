"""Exact noise beside the density matrices of other torch packages: whole training steps in one interleaved run.

    pip install deepquantum==4.5.0
    python benchmarks/noise_peers.py [--rounds 5]

The workloads with the data in front, and the noise, are those of `noise_speed.py`. Outputs and gradients of the
inputs and weights are compared before anything is timed. TorchQuantum (torchquantum-ng 0.2.0) is not among them: it has
no channels, and its density matrices are multiplied by conj(U) where U's adjoint belongs, so that RY(0.7) on |0>
leaves a matrix of trace 0.76.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median

import deepquantum
import pennylane as qml
import torch
from noise_speed import GAMMA, WORKLOADS, P, circuit, in_turns, step

import qbp

RESULT = Path(__file__).parent / "results" / "noise_peers.json"
NAMES = ("4q-front-32", "6q-front-32")


def deepquantum_step(
    n_qubits: int, n_layers: int, x: torch.Tensor, weights: torch.Tensor, grad: torch.Tensor
) -> Callable[[], list[torch.Tensor]]:
    """Its channels take the angle whose squared sine is the probability; a U3 is a Rot up to a global phase."""
    model = deepquantum.QubitCircuit(n_qubits, den_mat=True)

    def disturbed(*wires: int) -> None:
        for w in wires:
            model.depolarizing(w, inputs=math.asin(math.sqrt(P)))
            model.amp_damp(w, inputs=math.asin(math.sqrt(GAMMA)))

    for w in range(n_qubits):
        model.rx(w, encode=True)
        disturbed(w)
    for layer in range(n_layers):
        for w in range(n_qubits):
            model.u3(w)
            disturbed(w)
        reach = layer % (n_qubits - 1) + 1
        for w in range(n_qubits):
            model.cnot(w, (w + reach) % n_qubits)
            disturbed(w, (w + reach) % n_qubits)
    for w in range(n_qubits):
        model.observable(w)
    angles = list(model.parameters())
    with torch.no_grad():
        for angle, value in zip(angles, weights[..., [1, 2, 0]].flatten(), strict=True):  # theta, omega, phi
            angle.copy_(value)

    def run() -> list[torch.Tensor]:
        model(x)
        outputs = model.expectation()
        by_input, *by_weight = torch.autograd.grad(outputs, (x, *angles), grad)
        return [outputs, by_input, torch.stack(by_weight).reshape(weights.shape)[..., [2, 0, 1]]]

    return run


def measure(name: str, rounds: int) -> dict[str, object]:
    """Milliseconds of a step of each, and how many of ours the others take in the same turn."""
    n_qubits, n_layers, batch, again, _ = WORKLOADS[name]
    function = circuit(n_qubits, n_layers, again, True)
    ours = qbp.QuantumLayer(function, {"weights": (n_layers, n_qubits, 3)}, n_inputs=n_qubits, seed=0)
    torch.manual_seed(0)
    x, grad = torch.randn(batch, n_qubits, requires_grad=True), torch.randn(batch, n_qubits)
    device = qml.device("default.mixed", wires=n_qubits)
    node = qml.QNode(function, device, interface="torch", diff_method="backprop")
    mixed = lambda x: torch.stack(node(x, ours.weights), -1)  # noqa: E731
    peers = {
        "default_mixed": lambda: step(mixed, x, ours.weights, grad),
        "deepquantum": deepquantum_step(n_qubits, n_layers, x, ours.weights, grad),
    }
    want = step(ours, x, ours.weights, grad)
    for peer, run in peers.items():
        error = max(float((a - b).detach().abs().max()) for a, b in zip(want, run(), strict=True))
        if error > 1e-4:
            raise SystemExit(f"{name}: {peer} differs by {error:.2g}")
    times = in_turns({"noisy": lambda: step(ours, x, ours.weights, grad)}, peers, rounds)
    result: dict[str, object] = {f"{peer}_ms": median(each) for peer, each in times.items()}
    for peer in peers:
        result[f"times_{peer}"] = median(a / b for a, b in zip(times[peer], times["noisy"], strict=False))
    return result


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    results = {name: measure(name, args.rounds) for name in NAMES}
    print(json.dumps(results, indent=1))
    machine = {"cpus": os.cpu_count(), "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 1)}
    versions = {"deepquantum": deepquantum.__version__, "pennylane": qml.__version__, "torch": torch.__version__}
    RESULT.write_text(json.dumps({"machine": machine, "versions": versions, "workloads": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
