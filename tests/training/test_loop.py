"""The training loop that people expect, each option against the same by hand, and resumed bit-equal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import qbp
from qbp.data import Dataset
from qbp.errors import ArgumentError, ConfigError
from qbp.training.options import OPTIMIZERS


def blobs(n: int = 48, dtype: torch.dtype = torch.float64) -> Dataset:
    y = torch.arange(n) % 2
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=dtype) + y[:, None]
    return Dataset(x, y)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().double().reshape(-1) for value in model.state_dict().values()])


def net(seed: int = 0) -> nn.Module:
    return qbp.mlp(3, 4, 2, seed=seed).double()


def batches(data: Dataset, size: int, epochs: int, seed: int = 0) -> list[torch.Tensor]:
    order = torch.Generator().manual_seed(seed)
    return [rows for _ in range(epochs) for rows in torch.randperm(len(data), generator=order).split(size)]


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_quantum_weights_have_their_own_rate() -> None:
    data = blobs(32, torch.float32)
    one, two = (qbp.hybrid(3, 2, n_qubits=2, n_layers=1, seed=0) for _ in range(2))
    history = qbp.fit(one, data, epochs=2, lr=0.01, quantum_lr=0.2, batch_size=16, schedule="exponential")
    quantum = list(two[2].parameters())
    classical = [p for p in two.parameters() if not any(p is q for q in quantum)]
    adam = torch.optim.Adam([{"params": classical, "lr": 0.01}, {"params": quantum, "lr": 0.2}])
    schedule = torch.optim.lr_scheduler.ExponentialLR(adam, 0.95)
    for k, rows in enumerate(batches(data, 16, 2)):
        adam.zero_grad()
        F.cross_entropy(two(data.x[rows]), data.y[rows]).backward()
        adam.step()
        if k % 2:
            schedule.step()
    assert torch.allclose(weights(one), weights(two), atol=1e-6)
    assert history.column("quantum_lr") == pytest.approx([0.2, 0.19]) and history.column("lr")[1] == pytest.approx(
        0.0095
    )
    with pytest.raises(ArgumentError, match="`quantum_lr` must be None for a model without weights of quantum layers"):
        qbp.fit(net(), blobs(), quantum_lr=0.1)


@pytest.mark.parametrize("by", ["sample", "class", "balanced"])
def test_a_weight_is_as_good_as_a_repetition(by: str) -> None:
    data = blobs()
    counts = torch.randint(0, 4, (48,), generator=torch.Generator().manual_seed(1))
    if by == "class":
        counts = 1 + 2 * data.y
    if by == "balanced":
        data = data.subset([k for k in range(48) if k % 2 == 0 or k % 6 == 1])  # 24 of one class, 8 of the other
        counts = 1 + 2 * data.y
    repeated = data.subset(torch.repeat_interleave(torch.arange(len(data)), counts))
    options: dict[str, Any] = {
        "sample": {"sample_weight": counts},
        "class": {"class_weight": {"1": 3.0, 0: 1.0}},
        "balanced": {"class_weight": "balanced"},
    }[by]
    one, two = net(), net()
    mine = qbp.fit(one, data, epochs=5, batch_size=1000, **options)
    theirs = qbp.fit(two, repeated, epochs=5, batch_size=1000)
    assert torch.allclose(weights(one), weights(two), rtol=0, atol=1e-12)
    assert mine.column("loss") == pytest.approx(theirs.column("loss"), rel=1e-12)
    in_order = qbp.fit(net(), data, epochs=1, class_weight=[1.0, 3.0], batch_size=1000) if by == "class" else mine
    assert in_order.rows[0]["loss"] == mine.rows[0]["loss"]


@pytest.mark.parametrize("loss", ["mse", "l1", "huber"])
def test_weights_of_regressions(loss: str) -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = Dataset(x, torch.stack([x.sum(1), x[:, 0]], 1))
    counts = torch.arange(20) % 3
    one, two = net(), net()
    qbp.fit(one, data, epochs=3, batch_size=100, loss=loss, sample_weight=counts)
    qbp.fit(two, data.subset(torch.repeat_interleave(torch.arange(20), counts)), epochs=3, batch_size=100, loss=loss)
    assert torch.allclose(weights(one), weights(two), rtol=0, atol=1e-12)


def test_a_loss_of_ones_own_with_weights_gives_a_value_a_row() -> None:
    data, counts = blobs(), torch.arange(48) % 3
    one, two = net(), net()
    qbp.fit(one, data, epochs=2, sample_weight=counts, loss=nn.CrossEntropyLoss(reduction="none"))
    qbp.fit(two, data, epochs=2, sample_weight=counts)
    assert torch.allclose(weights(one), weights(two), rtol=0, atol=1e-12)
    with pytest.raises(ArgumentError, match=r"`loss` must give a value for each row, of shape \(32,\)"):
        qbp.fit(net(), data, sample_weight=counts, loss=F.cross_entropy)
    with pytest.raises(ArgumentError, match=r"`loss` must give one number for a batch, but gives \(32,\)"):
        qbp.fit(net(), data, loss=nn.CrossEntropyLoss(reduction="none"))


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_batches_that_are_accumulated_are_one(optimizer: str) -> None:
    one, two = net(), net()
    options: dict[str, Any] = {"epochs": 3 if optimizer == "adam" else 1, "optimizer": optimizer, "lr": 0.1}
    qbp.fit(one, blobs(50), batch_size=8, accumulate_grad_batches=4, **options)  # 32 + 18 rows
    qbp.fit(two, blobs(50), batch_size=32, **options)
    assert torch.allclose(weights(one), weights(two), rtol=0, atol=1e-10 if optimizer == "adam" else 1e-6)


def test_lbfgs_finds_the_minimum() -> None:
    model = qbp.mlp(3, 2, seed=0).double()
    qbp.fit(model, blobs(), epochs=20, lr=1.0, optimizer="lbfgs", batch_size=1000)
    loss = F.cross_entropy(model(blobs().x), blobs().y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert max(float(g.abs().max()) for g in gradients) < 1e-4


def test_schedules_by_step() -> None:
    seen: list[float] = []

    class Watch:
        def on_step_end(self, row: dict[str, float], model: nn.Module) -> None:
            seen.append(row["lr"])

    options: dict[str, Any] = {"epochs": 3, "batch_size": 16, "lr": 0.1, "schedule_interval": "step"}
    qbp.fit(net(), blobs(), **options, schedule="cosine", callbacks=[Watch()])
    assert seen == pytest.approx([0.05 * (1 + math.cos(math.pi * k / 9)) for k in range(1, 10)])
    seen.clear()
    one_cycle = lambda optimizer, steps: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)  # noqa: E731
    qbp.fit(net(), blobs(), **options, schedule=one_cycle, callbacks=[Watch()])
    assert max(seen) == pytest.approx(0.1, rel=0.05) and len(seen) == 9


def test_the_average_of_weights_is_torchs() -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    data, held_out = blobs(), blobs(20)
    one, two = net(), net()
    history = qbp.fit(one, data, epochs=3, batch_size=16, lr=0.05, ema_decay=0.9, validation=held_out)
    averaged = AveragedModel(two, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    adam = torch.optim.Adam(two.parameters(), 0.05)
    for rows in batches(data, 16, 3):
        adam.zero_grad()
        F.cross_entropy(two(data.x[rows]), data.y[rows]).backward()
        adam.step()
        averaged.update_parameters(two)
    assert torch.allclose(weights(one), weights(averaged.module), rtol=0, atol=1e-10)
    assert history.last["val_loss"] == pytest.approx(F.cross_entropy(averaged(held_out.x), held_out.y).item())


# ---- metrics, early stopping, callbacks ------------------------------------------------------------------------------


def recall(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    chosen = outputs.argmax(1) == 1
    return float(chosen[labels == 1].double().mean())


def test_metrics_of_ones_own_are_columns() -> None:
    model = net()
    history = qbp.fit(model, blobs(), epochs=3, validation=0.25, metrics={"recall": recall})
    assert 0 <= history.last["recall"] <= 1 and 0 <= history.last["val_recall"] <= 1
    scores = qbp.evaluate(model, blobs(), metrics={"recall": recall})
    assert scores["recall"] == scores["per_class_accuracy"][1]


@pytest.mark.parametrize(("monitor", "mode"), [("val_accuracy", None), ("val_recall", "max"), ("val_entropy", "min")])
def test_early_stopping_on_any_of_them_ends_with_the_best_epoch(monitor: str, mode: str | None) -> None:
    metrics = {"recall": recall, "entropy": lambda o, y: -(o.softmax(1) * o.log_softmax(1)).sum(1).mean()}
    weights_of: list[torch.Tensor] = []
    model = qbp.mlp(3, 32, 2, seed=0).double()
    options: dict[str, Any] = {"metrics": metrics, "monitor": monitor, "mode": mode, "validation": blobs(200)}
    history = qbp.fit(
        model, blobs(12), epochs=60, lr=0.1, early_stopping=4, **options,
        callbacks=[lambda row, model: weights_of.append(weights(model))],
    )  # fmt: skip
    column = history.column(monitor)
    best = min(column) if mode == "min" else max(column)
    assert history.best["epoch"] == 1 + column.index(best)
    assert torch.equal(weights(model), weights_of[column.index(best)])
    assert len(column) == 60 or len(column) == history.best["epoch"] + 4
    assert qbp.evaluate(model, options["validation"], metrics=metrics)[monitor.removeprefix("val_")] == pytest.approx(
        best
    )


def test_the_plateau_is_one_of_what_is_monitored() -> None:
    options: dict[str, Any] = {"metrics": {"flat": lambda o, y: 1.0}, "monitor": "flat", "mode": "max"}
    history = qbp.fit(net(), blobs(), epochs=12, lr=0.1, schedule="plateau", **options)
    assert history.column("lr") == [0.1] * 5 + [0.05] * 4 + [0.025] * 3


def test_callbacks_stop_and_a_stopped_run_stays_stopped(tmp_path: Path) -> None:
    rows: list[float] = []

    def third(row: dict[str, float], model: nn.Module) -> bool:
        rows.append(row["epoch"])
        return row["epoch"] == 3

    class Seventh:
        steps = 0

        def on_step_end(self, row: dict[str, float], model: nn.Module) -> bool:
            self.steps += 1
            return self.steps == 7

    history = qbp.fit(net(), blobs(), epochs=9, callbacks=[third], run_dir=tmp_path)
    assert rows == [1, 2, 3] and len(history.rows) == 3
    again = qbp.fit(net(), blobs(), epochs=9, callbacks=[third], run_dir=tmp_path, resume=True)
    assert again.rows == history.rows and rows == [1, 2, 3]
    assert len(qbp.fit(net(), blobs(), epochs=9, batch_size=16, callbacks=[Seventh()]).rows) == 3
    assert len(qbp.fit(net(), blobs(), epochs=3, callbacks=[lambda row, model: "yes"]).rows) == 3  # only True stops
    with pytest.raises(ArgumentError, match="`callbacks` must be functions of"):
        qbp.fit(net(), blobs(), callbacks=[3])


# ---- many seeds ------------------------------------------------------------------------------------------------------


def test_many_seeds_are_as_many_trainings(tmp_path: Path) -> None:
    model = net()
    before = weights(model)
    histories = qbp.fit(model, blobs(), seeds=3, epochs=2, run_dir=tmp_path, validation=0.25)
    assert torch.equal(weights(model), before) and len(histories) == 3
    for seed, history in enumerate(histories):
        alone = qbp.nn.models.renew(model, seed)
        one = qbp.fit(alone, blobs(), seed=seed, epochs=2, validation=0.25)
        assert history.model is not None and history.together == 3
        torch.testing.assert_close(weights(history.model), weights(alone), rtol=0, atol=1e-12)
        assert history.column("val_loss") == pytest.approx(one.column("val_loss"), abs=1e-12)
        assert (tmp_path / f"seed-{seed}" / "metrics.jsonl").exists()
    options: dict[str, Any] = {"epochs": 2, "validation": 0.25, "run_dir": tmp_path, "resume": True}
    assert [h.rows for h in qbp.fit(model, blobs(), seeds=[2], **options)] == [histories[2].rows]
    for wrong in ([1, 1], [], 0, [-1]):
        with pytest.raises(ArgumentError, match="`seeds` must be"):
            qbp.fit(model, blobs(), seeds=wrong)


# ---- resuming --------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    "quantum rate": {"quantum_lr": 0.1, "schedule": "warmup"},
    "weights": {"class_weight": "balanced", "sample_weight": torch.arange(48) % 5},
    "metrics": {"metrics": {"recall": recall}, "monitor": "val_recall", "mode": "max", "early_stopping": 5},
    "accumulated": {"accumulate_grad_batches": 3, "batch_size": 7},
    "by step": {"schedule": "cosine", "schedule_interval": "step"},
    "average": {"ema_decay": 0.8},
    "average of the best": {"ema_decay": 0.8, "early_stopping": 5},
    "lbfgs": {"optimizer": "lbfgs", "batch_size": 24, "accumulate_grad_batches": 2, "lr": 0.5},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_resumes_bit_equal(name: str, tmp_path: Path) -> None:
    def build(seed: int) -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.2), *qbp.hybrid(3, 2, n_qubits=2, n_layers=1, seed=seed))

    class Stop(Exception):
        pass

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise Stop

    data = blobs(dtype=torch.float32)
    options = {"epochs": 5, "lr": 0.05, "validation": 0.25, **OPTIONS[name]}
    straight = build(0)
    history = qbp.fit(straight, data, **options, run_dir=tmp_path / "straight")
    with pytest.raises(Stop):
        qbp.fit(build(0), data, **options, run_dir=tmp_path / "stopped", progress=stop)
    model = build(1)
    resumed = qbp.fit(model, data, **options, run_dir=tmp_path / "stopped", resume=True)
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in h.rows] for h in (history, resumed)]
    assert rows[0] == rows[1] and torch.equal(weights(model), weights(straight))
    files = [(tmp_path / run / "checkpoint.safetensors").read_bytes() for run in ("straight", "stopped")]
    assert files[0] == files[1]
    loaded = build(2)
    qbp.load_checkpoint(loaded, tmp_path / "straight", best="early_stopping" in options)
    assert torch.equal(weights(loaded), weights(straight))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ema_decay", {"ema_decay": 0.7}),
        ("accumulate_grad_batches", {"accumulate_grad_batches": 2}),
        ("class_weight", {"class_weight": [1.0, 2.0]}),
        ("metrics", {"metrics": {"recall": lambda outputs, labels: 0.0}}),
        ("data", {"sample_weight": torch.ones(48)}),
    ],
)
def test_other_options_are_noticed(name: str, change: dict[str, Any], tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 2, "ema_decay": 0.9, "metrics": {"recall": recall}, "run_dir": tmp_path}
    qbp.fit(net(), blobs(), **options)
    with pytest.raises(ConfigError, match=f"`{name}` was"):
        qbp.fit(net(), blobs(), **options | change, resume=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"class_weight": "equal"}, "`class_weight` must be 'balanced', weights by class or None"),
        ({"class_weight": {"2": 1.0}}, r"`class_weight` must name classes of the data \(0, 1\), but names '2'"),
        ({"class_weight": [1.0]}, "must have a weight for each of 2 classes"),
        ({"class_weight": [1.0, -1.0]}, "`class_weight` must be a number of at least 0"),
        ({"class_weight": [0.0, 0.0]}, "`class_weight` must leave rows that count"),
        ({"sample_weight": [1.0]}, r"`sample_weight` must be floating point of shape \(48,\)"),
        ({"metrics": {"loss": recall}}, "names other than those of qbp, but has 'loss'"),
        ({"metrics": recall}, "`metrics` must map names to functions"),
        ({"metrics": {"both": lambda o, y: o}}, "functions that give numbers, but 'both' gives Tensor"),
        ({"monitor": "val_loss"}, "`monitor` must be one of 'loss', 'accuracy', but is 'val_loss'"),
        ({"monitor": "acuracy"}, "did you mean `accuracy`"),
        ({"metrics": {"recall": recall}, "monitor": "recall"}, "`mode` must be 'min' or 'max' for the metric 'recall'"),
        ({"mode": "auto"}, "`mode` must be one of None, 'min', 'max'"),
        ({"accumulate_grad_batches": 0}, "`accumulate_grad_batches` must be a positive integer"),
        ({"schedule_interval": "batch"}, "`schedule_interval` must be one of"),
        ({"schedule": "plateau", "schedule_interval": "step"}, "`schedule_interval` must be 'epoch' for 'plateau'"),
        ({"ema_decay": 1.0}, "`ema_decay` must be above 0 and below 1"),
        ({"quantum_lr": -1.0}, "`quantum_lr` must be a positive number"),
        ({"optimizer": "lbfgs", "quantum_lr": 0.1}, "`quantum_lr` must be None for 'lbfgs'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        qbp.fit(net(), blobs(), epochs=1, **options)


def test_a_line_search_has_no_bill() -> None:
    model = qbp.hybrid(3, 2, n_qubits=2, n_layers=1, seed=0)
    with pytest.raises(ArgumentError, match="but is 'lbfgs', whose line search"):
        qbp.plan(model, blobs(), {"optimizer": "lbfgs"}, backend="aer", shots=10)


def test_configs_have_them(tmp_path: Path) -> None:
    from qbp.runs import config as configs
    from qbp.runs import run as runs

    (tmp_path / "a.yaml").write_text(
        "data: {name: iris}\nmodel: {kind: hybrid, n_qubits: 2, n_layers: 1}\ntwin: false\ntrain:\n  epochs: 2\n"
        "  quantum_lr: 0.1\n  class_weight: {setosa: 2.0}\n  monitor: val_accuracy\n  validation: 0.2\n"
        "  accumulate_grad_batches: 2\n  schedule: cosine\n  schedule_interval: step\n  ema_decay: 0.9\n"
    )
    config = configs.load(tmp_path / "a.yaml")
    assert config.train.class_weight == {"setosa": 2.0} and config.train.ema_decay == 0.9
    result = runs.train(config, tmp_path / "run")
    assert runs.evaluate(tmp_path / "run")["loss"] == result["models"]["hybrid"]["loss"]
    assert configs.load(tmp_path / "run" / "config.yaml").train == config.train
    for line, said in (
        ("train.class_weight=equal", "`train.class_weight`"),
        ("train.mode=best", "must be one of null, min, max"),
        ("train.ema_decay=2", "`train.ema_decay`"),
    ):
        with pytest.raises(ConfigError, match=said):
            configs.load(tmp_path / "a.yaml", [line])


def test_the_optimizers_are_named_in_the_error() -> None:
    with pytest.raises(ArgumentError, match="did you mean `adam`"):
        qbp.fit(net(), blobs(), optimizer="Adam ")
    assert "lbfgs" in OPTIMIZERS
