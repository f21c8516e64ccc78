"""Noise exactly, beside none and beside PennyLane's density matrices: whole training steps in one interleaved run.

    python benchmarks/noise_speed.py [--rounds 7] [--threads 2] [--plot] [--only 4q-front-32 ...]

Depolarizing (p = 0.01) and amplitude damping (gamma = 0.02) on each wire of each gate. A step is the forward pass and
the gradients of inputs and weights. Outputs and gradients are compared with PennyLane's before anything is timed
(with fewer rows where its density matrices would not fit); all take turns, and ratios are medians over turns.
Trajectories, 16 for each row, have depolarizing alone, or damping too; four qubits of them are compared with exact
noise.

Then models with all of a device's noise: beside the same through Aer, with density matrices and the parameter-shift
rule, and beside the model without noise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pennylane as qml
import torch

import qbp
from qbp.executors.pauli import Pauli
from qbp.executors.qiskit_primitive import QiskitPrimitive
from qbp.executors.qiskit_primitive.fake_devices import fake_device
from qbp.executors.qiskit_primitive.local import Aer

RESULT = Path(__file__).parent / "results" / "noise_speed.json"
P, GAMMA = 0.01, 0.02

# Qubits, layers or blocks, batch, whether inputs come again in each block, rows of default.mixed (0: none).
WORKLOADS = {
    "4q-front-32": (4, 2, 32, False, 32),
    "4q-front-1024": (4, 2, 1024, False, 0),
    "6q-front-32": (6, 3, 32, False, 32),
    "8q-front-64": (8, 4, 64, False, 2),
    "4q-again-64": (4, 8, 64, True, 64),
}

# Of trajectories: qubits, layers, batch, damping.
SAMPLED = {"12q-trajectories": (12, 6, 32, 0.0), "12q-trajectories-damping": (12, 6, 32, GAMMA)}

# Device, features before a linear layer in front (0: none), batch, whether Aer takes part.
DEVICES = {"iris-yorktown": ("yorktown", 0, 16, True), "hybrid-torino": ("torino", 16, 32, False)}


def circuit(n_qubits: int, n_layers: int, again: bool, noise: bool, gamma: float = GAMMA) -> Callable[..., object]:
    """Angle embedding and strongly entangling layers; with the embedding in each of them if the data come again."""

    def disturbed(*wires: int) -> None:
        for w in wires if noise else ():
            qml.DepolarizingChannel(P, wires=w)
            if gamma:
                qml.AmplitudeDamping(gamma, wires=w)

    def function(inputs, weights):
        for layer in range(n_layers):
            for w in range(n_qubits if again or layer == 0 else 0):
                qml.RX(inputs[..., w], wires=w)
                disturbed(w)
            for w in range(n_qubits):
                qml.Rot(weights[layer, w, 0], weights[layer, w, 1], weights[layer, w, 2], wires=w)
                disturbed(w)
            reach = layer % (n_qubits - 1) + 1
            for w in range(n_qubits):
                qml.CNOT(wires=(w, (w + reach) % n_qubits))
                disturbed(w, (w + reach) % n_qubits)
        return [qml.expval(qml.Z(w)) for w in range(n_qubits)]

    return function


def step(model: Callable[..., torch.Tensor], x: torch.Tensor, weights: torch.Tensor, grad: torch.Tensor) -> list:
    """Outputs and gradients."""
    outputs = model(x)
    return [outputs, *torch.autograd.grad(outputs, (x, weights), grad)]


def measure(name: str, rounds: int) -> dict[str, object]:
    """One workload: milliseconds, and ratios within each turn."""
    n_qubits, n_layers, batch, again, rows = WORKLOADS[name]
    shape = {"weights": (n_layers, n_qubits, 3)}
    with_noise, without = (
        qbp.QuantumLayer(circuit(n_qubits, n_layers, again, noise), shape, n_inputs=n_qubits, seed=0)
        for noise in (True, False)
    )
    torch.manual_seed(0)
    x, grad = torch.randn(batch, n_qubits, requires_grad=True), torch.randn(batch, n_qubits)
    device = qml.device("default.mixed", wires=n_qubits)
    node = qml.QNode(circuit(n_qubits, n_layers, again, True), device, interface="torch", diff_method="backprop")

    def mixed(x: torch.Tensor) -> torch.Tensor:
        return torch.stack(node(x, with_noise.weights), -1)

    few = rows or 4
    want = step(mixed, x[:few], with_noise.weights, grad[:few])
    got = step(with_noise, x[:few], with_noise.weights, grad[:few])
    error = max(float((a - b).detach().abs().max()) for a, b in zip(got, want, strict=True))
    if error > 1e-4 * max(1.0, float(grad.abs().sum()) ** 0.5):
        raise SystemExit(f"{name}: the noisy step differs from default.mixed by {error:.2g}")
    peers = {
        "noisy": lambda: step(with_noise, x, with_noise.weights, grad),
        "noiseless": lambda: step(without, x, without.weights, grad),
    }
    slow = {"default_mixed": lambda: step(mixed, x[:rows], with_noise.weights, grad[:rows])} if rows else {}
    times = in_turns(peers, slow, rounds)
    program = with_noise.circuit.program
    result: dict[str, object] = {
        "qubits": n_qubits,
        "layers": n_layers,
        "batch": batch,
        "way": Pauli().way(program, with_noise.circuit.angle_map.n_batched, batch),
        "error": error,
        "noisy_ms": median(times["noisy"]),
        "noiseless_ms": median(times["noiseless"]),
        "noiseless_steps": median(a / b for a, b in zip(times["noisy"], times["noiseless"], strict=True)),
    }
    if rows:
        pairs = zip(times["default_mixed"], times["noisy"], strict=False)
        result |= {"default_mixed_rows": rows, "default_mixed_ms": median(times["default_mixed"])}
        result["times_default_mixed"] = batch / rows * median(a / b for a, b in pairs)  # for as many rows
    return result


def measure_sampled(name: str, rounds: int) -> dict[str, object]:
    """One workload of trajectories: milliseconds, and ratios within each turn."""
    n_qubits, n_layers, batch, gamma = SAMPLED[name]
    torch.manual_seed(0)

    def layer(n: int, noise: bool, backend: str = "auto") -> qbp.QuantumLayer:
        shape = {"weights": (n_layers, n, 3)}
        return qbp.QuantumLayer(circuit(n, n_layers, False, noise, gamma), shape, n_inputs=n, seed=0, backend=backend)

    exact, some, x = layer(4, True), layer(4, True, "trajectories:4000"), torch.randn(4, 4)
    z = ((some(x) - exact(x)) / some.last_stds).detach()
    if float(z.abs().max()) > 5:
        raise SystemExit(f"{name}: trajectories are {float(z.abs().max()):.2g} standard errors from exact noise")
    with_noise, without = layer(n_qubits, True, "trajectories:16"), layer(n_qubits, False)
    x, grad = torch.randn(batch, n_qubits, requires_grad=True), torch.randn(batch, n_qubits)
    times: dict[str, list[float]] = {"noisy": [], "noiseless": []}
    for _ in range(rounds + 1):
        for peer, model in (("noisy", with_noise), ("noiseless", without)):
            seconds = []
            for _ in range(3 if peer == "noisy" else 30):
                before = time.perf_counter()
                step(model, x, model.weights, grad)
                seconds.append(time.perf_counter() - before)
            times[peer].append(1e3 * median(seconds))
    noisy, noiseless = times["noisy"][1:], times["noiseless"][1:]  # the first round compiles
    return {
        "qubits": n_qubits,
        "layers": n_layers,
        "batch": batch,
        "way": "trajectories",
        "error": float(z.abs().max()),
        "noisy_ms": median(noisy),
        "noiseless_ms": median(noiseless),
        "noiseless_steps": median(a / b for a, b in zip(noisy, noiseless, strict=True)),
    }


def in_turns(
    peers: dict[str, Callable[[], object]], slow: dict[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each in each round; of slow ones once in each of three rounds."""
    times: dict[str, list[float]] = {peer: [] for peer in (*peers, *slow)}
    for k in range(rounds):
        for peer, run in peers.items():
            run()
            seconds, start = [], time.perf_counter()
            while len(seconds) < 200 and time.perf_counter() - start < 1.0:
                before = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - before)
            times[peer].append(1e3 * median(seconds))
        for peer, run in slow.items() if k < 3 else ():
            before = time.perf_counter()
            run()
            times[peer].append(1e3 * (time.perf_counter() - before))
    return times


def measure_device(name: str, rounds: int) -> dict[str, object]:
    """A model of four qubits on a device: forward pass, loss, and the gradients of all weights."""
    device, n_features, batch, with_aer = DEVICES[name]
    aer = QiskitPrimitive(Aer(fake_device(device).backend))
    backends = {"noisy": f"fake:{device}", "noiseless": "auto", **({"aer": aer} if with_aer else {})}
    torch.manual_seed(0)
    x, y = torch.randn(batch, n_features or 4), torch.randint(3, (batch,))

    def model(where: object) -> torch.nn.Module:
        torch.manual_seed(0)
        front = [torch.nn.Linear(n_features, 4), torch.nn.Tanh()] if n_features else []
        layer = qbp.QuantumLayer("strongly_entangling", n_qubits=4, n_layers=2, backend=where, seed=0)
        return torch.nn.Sequential(*front, layer, torch.nn.Linear(4, 3))

    def run_of(model: torch.nn.Module) -> Callable[[], tuple[torch.Tensor, ...]]:
        parameters = list(model.parameters())
        return lambda: torch.autograd.grad(torch.nn.functional.cross_entropy(model(x), y), parameters)

    runs = {peer: run_of(model(where)) for peer, where in backends.items()}
    result: dict[str, object] = {"device": device, "qubits": 4, "layers": 2, "batch": batch}
    if with_aer:
        pairs = zip(runs["noisy"](), runs["aer"](), strict=True)
        result["error"] = max(float((a - b).abs().max()) for a, b in pairs)
        if result["error"] > 1e-5:
            raise SystemExit(f"{name}: gradients differ from Aer's by {result['error']:.2g}")
    slow = {"aer": runs.pop("aer")} if with_aer else {}
    times = in_turns(runs, slow, rounds)
    result |= {f"{peer}_ms": median(milliseconds) for peer, milliseconds in times.items()}
    result["noiseless_steps"] = median(a / b for a, b in zip(times["noisy"], times["noiseless"], strict=True))
    if with_aer:
        result["times_aer"] = median(a / b for a, b in zip(times["aer"], times["noisy"], strict=False))
    return result


def plot(results: dict[str, dict]) -> None:
    """A picture of the result beside it."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3))
    names = list(results)
    kinds = (("noiseless_ms", "no noise"), ("noisy_ms", "noise, exactly"))
    kinds = (*kinds, ("default_mixed_ms", "default.mixed"), ("aer_ms", "Aer, parameter-shift"))
    for k, (key, label) in enumerate(kinds):
        at = [i + 0.27 * (min(k, 2) - 1) for i, name in enumerate(names) if key in results[name]]
        rows = [results[name] for name in names if key in results[name]]
        share = [row["batch"] / row["default_mixed_rows"] if key == "default_mixed_ms" else 1 for row in rows]
        axes.bar(at, [row[key] * by for row, by in zip(rows, share, strict=True)], width=0.25, label=label)
    axes.set_xticks(range(len(names)), names, fontsize=7)
    axes.set_yscale("log")
    axes.set_ylabel("ms a training step")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(RESULT.with_suffix(".png"), dpi=150)


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plot", action="store_true")
    every = [*WORKLOADS, *SAMPLED, *DEVICES]
    parser.add_argument("--only", nargs="*", choices=every, default=every)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    before = json.loads(RESULT.read_text())["workloads"] if RESULT.exists() else {}
    results = dict(before)
    load = os.getloadavg()[0]
    for name in args.only:
        how = measure_sampled if name in SAMPLED else measure_device if name in DEVICES else measure
        results[name] = how(name, args.rounds)
        print(name, json.dumps(results[name]), flush=True)
    load = max(load, os.getloadavg()[0])
    machine = {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count(), "threads": args.threads}
    busy = {"load": round(load, 1), "busy": load > args.threads + 0.5}
    RESULT.write_text(json.dumps({"machine": machine | busy, "workloads": results}, indent=1) + "\n")
    if args.plot:
        plot(results)


if __name__ == "__main__":
    main()
