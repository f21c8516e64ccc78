"""Models that train together: every one as if it trained alone, whatever it is made of and however it is trained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qbp
from qbp.data import Dataset
from qbp.nn.models import renew
from qbp.training.checkpoint import CHECKPOINT, History, load_checkpoint
from qbp.training.ensemble import Ensemble, train_together
from qbp.training.loop import train as train_alone
from qbp.training.members import DivergenceError, Member
from qbp.training.options import Training

SEEDS = (3, 0, 7)


def blobs(n: int = 45, n_classes: int = 2) -> Dataset:
    draws = torch.Generator().manual_seed(1)
    y = torch.arange(n) % n_classes
    x = torch.randn(n, 4, generator=draws, dtype=torch.float64) + y[:, None]
    return Dataset(x, y, name="blobs", n_classes=n_classes, classes=tuple(map(str, range(n_classes))))


def curve() -> Dataset:
    data = blobs()
    return Dataset(data.x, data.x[:, :2].sin(), name="curve")


def hybrid(n_outputs: int = 2, **options: Any) -> nn.Module:
    return qbp.hybrid(4, n_outputs, n_qubits=2, n_layers=1, seed=0, **options)


class Wave(nn.Module):
    """A module of the user's own."""

    vmaps = True

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(4))
        self.register_buffer("shift", torch.arange(4.0))

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.slope)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.slope * x + self.shift)


class Opaque(Wave):
    """One that does not say that it may be vmapped."""

    vmaps = False


def tied() -> nn.Module:
    one, two = nn.Linear(4, 4), nn.Linear(4, 4)
    two.weight = one.weight
    return nn.Sequential(one, nn.Tanh(), two, nn.ReLU(), nn.Linear(4, 2))


def frozen() -> nn.Module:
    model = hybrid()
    model[2].requires_grad_(False)
    return model


def layer(circuit: str, n_inputs: int, **options: Any) -> nn.Module:
    quantum = qbp.QuantumLayer(circuit, n_qubits=3, n_layers=2, **options)
    return nn.Sequential(nn.Linear(4, n_inputs), quantum, nn.Linear(quantum.n_outputs or 1, 2))


def amplitudes() -> nn.Module:
    import pennylane as qml

    def circuit(inputs: Any, weights: Any) -> Any:
        qml.AmplitudeEmbedding(inputs, wires=range(2), normalize=True)
        qml.StronglyEntanglingLayers(weights, wires=range(2))
        return qml.probs(wires=range(2))

    return nn.Sequential(nn.Linear(4, 4), qbp.QuantumLayer(circuit, {"weights": (1, 2, 3)}), nn.Linear(4, 2))


def two_weights() -> nn.Module:
    import pennylane as qml

    def circuit(inputs: Any, scale: Any, angles: Any) -> Any:
        for wire in range(2):
            qml.RX(scale[wire] * inputs[wire], wires=wire)
            qml.RY(angles[wire] ** 2, wires=wire)
        qml.CNOT([0, 1])
        return qml.expval(qml.Z(0)), qml.expval(qml.Y(1))

    quantum = qbp.QuantumLayer(circuit, {"scale": 2, "angles": (2,)})
    return nn.Sequential(nn.Linear(4, 2), quantum, nn.Linear(2, 2))


MODELS: dict[str, Any] = {
    "hybrid": hybrid,
    "mlp": lambda: qbp.mlp(4, 6, 5, 2, activation="gelu"),
    "dropout": lambda: nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.4), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 2)),
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2)),
    "layer norm": lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 6, bias=False), nn.PReLU(), nn.Linear(6, 2)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 2)), nn.Conv1d(2, 4, 2, padding=1, groups=2), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(4, 2)
    ),
    "own module": lambda: nn.Sequential(nn.Linear(4, 4), Wave(), nn.Softmax(1), nn.Linear(4, 2)),
    "tied weights": tied,
    "frozen circuit": frozen,
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Identity()), hybrid()),
    "affine angles": lambda: layer("reuploading", 3),
    "dense": lambda: hybrid(backend="dense"),
    "amplitudes": amplitudes,
    "two weights": two_weights,
    "eight qubits": lambda: qbp.hybrid(4, 2, n_qubits=8, n_layers=1, seed=0),
}
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"optimizer": name} for name in ("sgd", "momentum", "rmsprop", "adagrad", "adam", "adamw")},
    "plateau": {"schedule": "plateau", "validation": 0.3, "lr": 0.3, "epochs": 8},
    "warmup by step": {"schedule": "warmup", "schedule_interval": "step"},
    "cosine": {"schedule": "cosine"},
    "clipped": {"clip_grad_norm": 0.1, "quantum_lr": 0.1},
    "average": {"ema_decay": 0.8, "validation": 0.3},
    "accumulated": {"accumulate_grad_batches": 2, "batch_size": 7},
    "class weights": {"class_weight": [1.0, 3.0], "validation": 0.3},
    "row weights": {"sample_weight": torch.arange(45) % 4, "batch_size": 10},
    "early stopping": {"early_stopping": 2, "validation": 0.3, "lr": 0.3, "epochs": 20},
    "own loss": {"loss": nn.CrossEntropyLoss(label_smoothing=0.1), "validation": 0.3},
    "own metric": {
        "metrics": {"largest": lambda outputs, y: outputs.max()},
        "monitor": "val_largest",
        "mode": "max",
        "validation": 0.3,
    },
    "in order": {"shuffle": False},
}


def alone(model: nn.Module, data: Any, **options: Any) -> list[History]:
    return [qbp.fit(renew(model, seed), data, seed=seed, **options) for seed in SEEDS]


def assert_equal(together: list[History], apart: list[History], atol: float) -> None:
    for one, other in zip(together, apart, strict=True):
        assert one.together == len(SEEDS) and other.together == 1 and len(one.rows) == len(other.rows)
        assert one.model is not None and other.model is not None
        states = one.model.state_dict(), other.model.state_dict()
        torch.testing.assert_close(*states, rtol=0, atol=atol)
        for row, other_row in zip(one.rows, other.rows, strict=True):
            pairs = {key: (row[key], other_row[key]) for key in other_row if key != "seconds"}
            assert row.keys() == other_row.keys() and all(a == pytest.approx(b, abs=atol) for a, b in pairs.values())


@pytest.mark.parametrize("name", MODELS)
def test_models_of_many_kinds(name: str) -> None:
    model = MODELS[name]().double()
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16, "validation": 0.2}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        together = qbp.fit(model, blobs(), seeds=SEEDS, **options)
    assert_equal(together, alone(model, blobs(), **options), 1e-7)


@pytest.mark.parametrize("name", MODELS)
def test_one_step_of_one_batch_is_the_same(name: str) -> None:
    model = MODELS[name]().double()
    options: dict[str, Any] = {"epochs": 1, "batch_size": 45, "optimizer": "sgd", "lr": 0.5}
    assert_equal(qbp.fit(model, blobs(), seeds=SEEDS, **options), alone(model, blobs(), **options), 1e-12)


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str) -> None:
    model, options = hybrid().double(), {"epochs": 3, "batch_size": 16, **OPTIONS[name]}
    assert_equal(qbp.fit(model, blobs(), seeds=SEEDS, **options), alone(model, blobs(), **options), 1e-8)


def test_regression_and_two_classes_by_one_output() -> None:
    for model, data in ((hybrid(), curve()), (hybrid(1), blobs())):
        together = qbp.fit(model.double(), data, seeds=SEEDS, epochs=2, validation=0.2)
        assert_equal(together, alone(model, data, epochs=2, validation=0.2), 1e-10)


def test_batches_of_unlike_sizes_and_rates_of_their_own() -> None:
    """As the folds and configurations of a comparison."""
    model, data = hybrid().double(), blobs()
    parts = [(data.subset(torch.arange(n).numpy()), lr) for n, lr in ((40, 0.01), (39, 0.03), (38, 0.03), (45, 0.1))]

    def members() -> list[Member]:
        return [
            Member.new(renew(model, k), part, Training(epochs=3, batch_size=16, lr=lr, quantum_lr=2 * lr), k)
            for k, (part, lr) in enumerate(parts)
        ]

    together, apart = members(), members()
    assert train_together(together) == ([None] * 4, None)
    for one, other in zip(together, apart, strict=True):
        train_alone(other)
        torch.testing.assert_close(one.model.state_dict(), other.model.state_dict(), rtol=0, atol=1e-9)
        assert one.history().together == 4
        assert one.history().column("loss") == pytest.approx(other.history().column("loss"), abs=1e-10)


# ---- who cannot ------------------------------------------------------------------------------------------------------


class Summed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.linear(x.flip(0))


def hooked() -> nn.Module:
    model = qbp.mlp(4, 3, 2)
    model[0].register_forward_hook(lambda module, args, output: 2 * output)
    return model


ALONE: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a container of one's own": (Summed, {}, "not known what a Summed does"),
    "a module of one's own": (lambda: nn.Sequential(Opaque(), nn.Linear(4, 2)), {}, "not known what a Opaque does"),
    "shots": (lambda: hybrid(shots=100), {}, "run one by one"),
    "noise": (lambda: hybrid(noise=qbp.NoiseModel.of({}, 0.02)), {}, "run one by one"),
    "parameter-shift": (lambda: hybrid(diff_method="parameter-shift"), {}, "run one by one"),
    "lbfgs": (hybrid, {"optimizer": "lbfgs", "lr": 1.0}, "does not update each number by itself"),
    "an optimiser of one's own": (hybrid, {"optimizer": torch.optim.Adamax}, "does not update each number by itself"),
    "softmax over rows": (lambda: nn.Sequential(nn.Linear(4, 2), nn.Softmax(0)), {}, "may mix rows"),
    "eleven qubits": (lambda: qbp.hybrid(4, 2, n_qubits=11, n_layers=1), {}, "no cheaper with others"),
}


@pytest.mark.parametrize("name", ALONE)
def test_what_is_trained_one_after_the_other_says_so(name: str) -> None:
    make, options, why = ALONE[name]
    model, options = make().double(), {"epochs": 1, "batch_size": 45, **options}
    with pytest.warns(UserWarning, match=f"one after the other: .*{why}"):
        histories = qbp.fit(model, blobs(), seeds=SEEDS, **options)
    for history, other in zip(histories, alone(model, blobs(), **options), strict=True):
        assert history.together == 1 and history.model is not None and other.model is not None
        torch.testing.assert_close(history.model.state_dict(), other.model.state_dict(), rtol=0, atol=0)


def test_hooks_are_not_forgotten() -> None:
    model = hooked()
    members = [Member.new(model, blobs(), Training(epochs=1), seed) for seed in SEEDS[:2]]
    assert train_together(members)[1] == "a Linear has hooks, or a `forward` of its own"


def test_callbacks_see_one_training_after_the_other() -> None:
    seen: list[float] = []
    histories = qbp.fit(hybrid(), blobs(), seeds=2, epochs=2, callbacks=[lambda row, model: seen.append(row["epoch"])])
    assert seen == [1, 2, 1, 2] and [history.together for history in histories] == [1, 1]


# ---- one ends before the others --------------------------------------------------------------------------------------


def test_one_that_diverges_takes_no_other_with_it(tmp_path: Path) -> None:
    model = qbp.mlp(4, 3, 2).double()
    rates = (0.01, 1e308, 0.02)
    members = [
        Member.new(renew(model, k), blobs(), Training(epochs=4, optimizer="sgd", lr=lr), k)
        for k, lr in enumerate(rates)
    ]
    errors, _ = train_together(members)
    assert isinstance(errors[1], DivergenceError) and errors[0] is errors[2] is None
    for k in (0, 2):
        other = renew(model, k)
        qbp.fit(other, blobs(), epochs=4, optimizer="sgd", lr=rates[k], seed=k)
        torch.testing.assert_close(members[k].model.state_dict(), other.state_dict(), rtol=0, atol=1e-12)
    with pytest.raises(DivergenceError, match="Seed 0: The loss is not finite in epoch"):
        qbp.fit(model, blobs(), seeds=2, epochs=4, optimizer="sgd", lr=1e308)


def test_models_have_weights_of_their_own_afterwards() -> None:
    one, two = (history.model for history in qbp.fit(hybrid(), blobs(), seeds=2, epochs=1))
    assert one is not None and two is not None
    before = {name: value.clone() for name, value in two.state_dict().items()}
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(two.state_dict(), before, rtol=0, atol=0)
    storages = {p.untyped_storage().data_ptr() for model in (one, two) for p in model.parameters()}
    assert len(storages) == len(list(one.parameters())) * 2
    assert all(module.training for module in one.modules())


def test_global_random_numbers_stay() -> None:
    model, before = MODELS["dropout"](), torch.get_rng_state()
    qbp.fit(model, blobs(), seeds=2, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


# ---- kept and gone on with -------------------------------------------------------------------------------------------

KEPT: dict[str, dict[str, Any]] = {
    "adam": {"validation": 0.3, "early_stopping": 9},
    "momentum": {"optimizer": "momentum", "schedule": "plateau", "ema_decay": 0.9},
    "two rates": {"quantum_lr": 0.1, "optimizer": "rmsprop"},
}


@pytest.mark.parametrize("name", KEPT)
def test_it_goes_on_together_or_alone(tmp_path: Path, name: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3), hybrid()).double()
    options: dict[str, Any] = {"batch_size": 16, **KEPT[name]}
    whole = qbp.fit(model, blobs(), seeds=SEEDS, epochs=5, **options)
    for folder in ("together", "alone"):
        qbp.fit(model, blobs(), seeds=SEEDS, epochs=2, run_dir=tmp_path / folder, **options)
    gone_on = qbp.fit(model, blobs(), seeds=SEEDS, epochs=5, run_dir=tmp_path / "together", resume=True, **options)
    assert_equal_states(gone_on, whole)
    one = tmp_path / "alone" / f"seed-{SEEDS[0]}"
    single = qbp.fit(renew(model, SEEDS[0]), blobs(), seed=SEEDS[0], epochs=5, run_dir=one, resume=True, **options)
    assert_equal_states([single], whole[:1])
    fresh = renew(model, 0)
    assert load_checkpoint(fresh, tmp_path / "together" / f"seed-{SEEDS[0]}") == 5


def assert_equal_states(some: list[History], others: list[History]) -> None:
    for one, other in zip(some, others, strict=True):
        assert one.model is not None and other.model is not None
        torch.testing.assert_close(one.model.state_dict(), other.model.state_dict(), rtol=0, atol=1e-9)
        assert one.column("loss") == pytest.approx(other.column("loss"), abs=1e-9)


SCRIPT = """
import sys, torch, qbp
sys.path.insert(0, sys.argv[2])
from test_ensemble import blobs, hybrid
torch.set_num_threads(1)
qbp.fit(hybrid().double(), blobs(), seeds=4, epochs=60, batch_size=16, run_dir=sys.argv[1], resume=True)
"""


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path: Path) -> None:
    def start(folder: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / folder), str(Path(__file__).parent)]
        root = Path(qbp.__file__).parents[1]
        return subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})

    assert start("whole").wait() == 0
    for after in (0.0, 0.1, 0.25):
        process, waited = start("killed"), time.monotonic() + 60
        while not (tmp_path / "killed" / "seed-3" / CHECKPOINT).exists() and time.monotonic() < waited:
            time.sleep(0.005)
        time.sleep(after)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert start("killed").wait() == 0
    for seed in range(4):
        one, other = (History.from_jsonl(tmp_path / f / f"seed-{seed}" / "metrics.jsonl") for f in ("whole", "killed"))
        assert len(one.rows) == 60 and one.column("loss") == pytest.approx(other.column("loss"), abs=1e-9)


def test_one_step_costs_one_call_of_the_circuit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes it worth it: ten models call the engine as often as one."""
    from qbp.executors.native import Native

    calls: list[int] = []
    forward = Native.forward
    monkeypatch.setattr(Native, "forward", lambda *args: calls.append(1) or forward(*args))
    members = [Member.new(renew(hybrid(), seed), blobs(), Training(), seed) for seed in range(10)]
    ensemble = Ensemble(members)
    ensemble._join()
    ensemble.step(ensemble._batches()[:1])
    assert len(calls) == 1
