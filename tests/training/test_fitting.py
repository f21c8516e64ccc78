"""Training: against hand-written torch, killed and resumed, and left as it was found."""

from __future__ import annotations

import copy
import gc
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

from qbp.data import Dataset, load, split
from qbp.errors import ArgumentError, ConfigError
from qbp.nn.models import hybrid, mlp
from qbp.storage.container import load_state, save_state
from qbp.training import checkpoint
from qbp.training.checkpoint import CHECKPOINT, METRICS
from qbp.training.fitting import DivergenceError, History, evaluate, fit, load_checkpoint
from qbp.training.learning_rate import lr_range_test
from qbp.training.loop import bar
from qbp.training.options import OPTIMIZERS, SCHEDULES


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def blobs(n: int = 60, n_classes: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % n_classes
    x = torch.randn(n, 3, generator=generator) + labels[:, None] * torch.tensor([1.0, -1.0, 0.5])
    return Dataset(x.to(dtype), labels)


def line(n: int = 60) -> Dataset:
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(1))
    return Dataset(x, x @ torch.tensor([[1.0, 0.0], [2.0, -1.0], [0.0, 0.5]]) + 0.3)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().double().reshape(-1) for value in model.state_dict().values()])


def losses(history: History) -> list[tuple[float, ...]]:
    return [tuple(value for key, value in row.items() if key != "seconds") for row in history.rows]


# ---- against torch by hand -------------------------------------------------------------------------------------

BY_HAND = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.05),
    "momentum": lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, 0.05, foreach=False),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, 0.05, foreach=False),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.05, foreach=False),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.05, foreach=False),
    "lbfgs": lambda parameters: torch.optim.LBFGS(parameters, 0.05, line_search_fn="strong_wolfe"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_is_torchs(name: str) -> None:
    data = blobs(50, dtype=torch.float64)  # 16 + 16 + 16 + 2 rows
    model, twin = mlp(3, 4, 2, seed=0).double(), mlp(3, 4, 2, seed=0).double()
    history = fit(model, data, epochs=3, lr=0.05, optimizer=name, batch_size=16, seed=7)

    optimizer, order = BY_HAND[name](twin.parameters()), torch.Generator().manual_seed(7)
    for row in history.rows:
        permutation = torch.randperm(50, generator=order)
        total, correct = 0.0, 0
        for rows in permutation.split(16):
            outputs = twin(data.x[rows])
            loss = F.cross_entropy(outputs, data.y[rows])

            def closure(rows: torch.Tensor = rows) -> torch.Tensor:
                optimizer.zero_grad()
                value = F.cross_entropy(twin(data.x[rows]), data.y[rows])
                value.backward()
                return value

            optimizer.step(closure)
            total += loss.item() * len(rows)
            correct += (outputs.argmax(1) == data.y[rows]).sum().item()
        assert row["loss"] == pytest.approx(total / 50, rel=1e-9) and row["accuracy"] == correct / 50
    assert torch.allclose(weights(model), weights(twin), rtol=1e-9, atol=1e-12)


SCHEDULES_BY_HAND = {
    "step": lambda adam: torch.optim.lr_scheduler.StepLR(adam, 10, 0.5),
    "exponential": lambda adam: torch.optim.lr_scheduler.ExponentialLR(adam, 0.95),
    "cosine": lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, 30),
    "plateau": lambda adam: torch.optim.lr_scheduler.ReduceLROnPlateau(adam, factor=0.5, patience=3),
    "warmup": lambda adam: torch.optim.lr_scheduler.LambdaLR(
        adam, lambda t: [0.25, 0.5, 0.75][t] if t < 3 else 0.5 * (1 + math.cos(math.pi * (t - 3) / 27))
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_schedule_is_torchs(name: str) -> None:
    data, held_out = blobs(20, seed=1), blobs(40, seed=2)
    model = mlp(3, 8, 2, seed=0)
    history = fit(model, data, epochs=30, lr=0.2, schedule=name, validation=held_out, batch_size=10)
    adam = torch.optim.Adam(mlp(3, 2).parameters(), 0.2)
    scheduler = SCHEDULES_BY_HAND[name](adam)
    expected = []
    for row in history.rows:
        expected.append(adam.param_groups[0]["lr"])
        adam.step()
        scheduler.step(*([row["val_loss"]] if name == "plateau" else []))
    assert history.column("lr") == pytest.approx(expected, rel=1e-12)
    assert len(set(history.column("lr"))) >= 3  # the run is long enough to see the schedule work


def test_own_optimizer_schedule_and_loss() -> None:
    model = mlp(3, 2, seed=0)
    history = fit(
        model,
        blobs(),
        epochs=4,
        lr=0.1,
        optimizer=lambda parameters, lr: torch.optim.Adam(parameters, lr, weight_decay=0.1),
        schedule=lambda optimizer, epochs: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1),
        loss=lambda outputs, labels: F.cross_entropy(outputs, labels, label_smoothing=0.1),
    )
    assert history.column("lr") == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert history.last["loss"] < history.rows[0]["loss"]


def test_clip_grad_norm_and_order() -> None:
    data, model = blobs(40), mlp(3, 2, seed=0)
    before = weights(model)
    fit(model, data, epochs=1, lr=1.0, optimizer="sgd", batch_size=40, clip_grad_norm=1e-3)
    assert (weights(model) - before).norm() == pytest.approx(1e-3, rel=1e-3)

    seen: list[torch.Tensor] = []
    spy = nn.Sequential(mlp(3, 2, seed=0))
    spy.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    fit(spy, data, epochs=2, batch_size=16, shuffle=False)
    assert [len(part) for part in seen] == [16, 16, 8] * 2
    assert torch.equal(torch.cat(seen[:3]), data.x) and torch.equal(torch.cat(seen[3:]), data.x)
    seen.clear()
    fit(spy, data, epochs=2, batch_size=16)
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(0).values, data.x.sort(0).values)  # every row once


@pytest.mark.parametrize(
    ("outputs", "data", "loss", "function"),
    [
        (2, blobs(), None, F.cross_entropy),
        (3, blobs(n_classes=3), None, F.cross_entropy),
        (1, blobs(), None, lambda o, y: F.binary_cross_entropy_with_logits(o[:, 0], y.float())),
        (1, blobs(), "bce", lambda o, y: F.binary_cross_entropy_with_logits(o[:, 0], y.float())),
        (2, line(), None, F.mse_loss),
        (2, line(), "l1", F.l1_loss),
        (2, line(), "huber", F.huber_loss),
    ],
)
def test_the_loss_fits_the_data(outputs: int, data: Dataset, loss: str | None, function) -> None:
    model = mlp(3, outputs, seed=0)
    expected = function(model(data.x), data.y).item()
    assert evaluate(model, data, loss=loss)["loss"] == pytest.approx(expected, rel=1e-6)
    history = fit(model, data, epochs=1, lr=1e-9, batch_size=60, loss=loss)  # the weights hardly move
    assert history.last["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("model", "data", "options", "message"),
    [
        (mlp(3, 4), blobs(), {}, r"\(B, 2\) for 2 classes, but gave \(32, 4\): .*torch.nn.Linear\(4, 2\)"),
        (mlp(3, 1), blobs(n_classes=3), {}, r"\(B, 3\) for 3 classes"),
        (mlp(3, 1), line(), {}, r"\(B, 2\) for 2 target"),
        (nn.Sequential(mlp(3, 1), nn.Flatten(0)), blobs(), {}, r"shape \(B, columns\), but gave \(32,\)"),
        (mlp(4, 2), blobs(), {}, "`train` must have rows of 4 features, .* Linear of 4 inputs, but has 3"),
        (mlp(3, 2), blobs(), {"loss": "mse"}, "`loss` must be one of 'cross_entropy' for 2 classes"),
        (mlp(3, 2), blobs(), {"loss": "nll"}, "`loss` must be one of 'cross_entropy', 'bce'"),
        (mlp(3, 2), line(), {"loss": "cross_entropy"}, "`loss` must be one of 'mse', 'l1', 'huber'"),
        (mlp(3, 2), blobs(), {"optimizer": "lion"}, "`optimizer` must be one of 'sgd', 'momentum'"),
        (mlp(3, 2), blobs(), {"schedule": "linear"}, "`schedule` must be one of 'step'"),
        (mlp(3, 2), blobs(), {"epochs": 0}, "`epochs` must be a positive integer, but is 0"),
        (mlp(3, 2), blobs(), {"batch_size": 2.0}, "`batch_size` must be a positive integer, but is 2.0"),
        (mlp(3, 2), blobs(), {"early_stopping": -1}, "`early_stopping` must be a positive"),
        (mlp(3, 2), blobs(), {"lr": "0.1"}, "`lr` must be a positive number, but is '0.1'"),
        (mlp(3, 2), blobs(), {"lr": 0.0}, "`lr` must be a positive number, but is 0.0"),
        (mlp(3, 2), blobs(), {"clip_grad_norm": math.inf}, "`clip_grad_norm` must be a positive number"),
        (mlp(3, 2), blobs(), {"seed": -1}, "`seed` must be an integer in 0"),
        (mlp(3, 2), blobs(), {"resume": True}, "`run_dir` must name a directory"),
        (mlp(3, 2), blobs(), {"validation": 1.5}, "`test_size` must be above 0"),
        (mlp(3, 2), blobs(), {"validation": 3}, "`validation` must be a qbp.data.Dataset, but is a int"),
        (mlp(3, 2), "iris", {}, "`train` must be a qbp.data.Dataset, but is a str"),
        (nn.Identity(), blobs(), {}, "`model` must have parameters that want a gradient"),
    ],
)
def test_bad_arguments(model: nn.Module, data: Dataset, options: dict, message: str) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ArgumentError, match=message):
        fit(model, data, **options)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# ---- evaluation ------------------------------------------------------------------------------------------------


def test_evaluate_classification() -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix, recall_score

    data, model = blobs(90, 3), mlp(3, 3, seed=1)
    result = evaluate(model, data, batch_size=7)
    truth, predicted = data.y.numpy(), model(data.x).argmax(1).numpy()
    assert result["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert result["confusion"] == confusion_matrix(truth, predicted).tolist()
    assert result["per_class_accuracy"] == pytest.approx(recall_score(truth, predicted, average=None))
    assert json.loads(json.dumps(result)) == result
    without = data.subset(torch.nonzero(data.y != 1)[:, 0])
    assert evaluate(model, without)["per_class_accuracy"][1] is None


def test_evaluate_regression() -> None:
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    data, model = line(), mlp(3, 2, seed=1)
    result, outputs = evaluate(model, data, batch_size=7), model(data.x).detach()
    assert result["mse"] == result["loss"] == pytest.approx(mean_squared_error(data.y, outputs), rel=1e-5)
    assert result["mae"] == pytest.approx(mean_absolute_error(data.y, outputs), rel=1e-5)
    assert result["r2"] == pytest.approx(r2_score(data.y, outputs), rel=1e-5)
    constant = Dataset(data.x, torch.ones(60, 2))
    assert evaluate(model, constant)["r2"] == 0.0


def test_evaluate_leaves_modes_and_needs_no_parameters() -> None:
    model = nn.Sequential(mlp(3, 2, seed=0), nn.Dropout(0.5))
    model[0].eval()
    first = evaluate(model, blobs())
    assert first == evaluate(model, blobs())  # no dropout
    assert model.training and not model[0].training and model[1].training
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(ArgumentError, match="`batch_size`"):
        evaluate(model, blobs(), batch_size=0)
    assert evaluate(nn.Identity(), blobs(n_classes=3))["confusion"]


# ---- seeds, early stopping, divergence -------------------------------------------------------------------------


def test_one_seed_drives_dropout_and_order_and_the_global_state_stays() -> None:
    def run(seed: int) -> tuple[History, torch.Tensor]:
        torch.manual_seed(torch.seed())  # whatever state the caller has
        before = torch.get_rng_state()
        model = nn.Sequential(mlp(3, 8, 2, seed=0), nn.Dropout(0.3))
        history = fit(model, blobs(), epochs=3, seed=seed, validation=0.25)
        assert torch.equal(torch.get_rng_state(), before) and model.training
        return history, weights(model)

    (one, end), (again, end_again), (other, _) = run(1), run(1), run(2)
    assert losses(one) == losses(again) and torch.equal(end, end_again)
    assert losses(one) != losses(other)


def test_early_stopping_restores_the_best() -> None:
    train, held_out = blobs(12, seed=3), blobs(200, seed=4)
    model = mlp(3, 64, 2, seed=0)
    states: list[torch.Tensor] = []
    history = fit(
        model,
        train,
        epochs=500,
        lr=0.05,
        validation=held_out,
        early_stopping=5,
        progress=lambda row: states.append(weights(model)),
    )
    values = history.column("val_loss")
    best = values.index(min(values))
    assert len(values) == best + 1 + 5 < 500
    assert history.best == history.rows[best]
    assert torch.equal(weights(model), states[best]) and not torch.equal(weights(model), states[-1])
    assert evaluate(model, held_out)["loss"] == pytest.approx(min(values), rel=1e-5)


def test_validation_share_is_held_out() -> None:
    data = blobs(100)
    rest, held_out = split(data, 0.2, seed=5)
    one, two = mlp(3, 2, seed=0), mlp(3, 2, seed=0)
    by_share = fit(one, data, epochs=2, validation=0.2, seed=5)
    by_hand = fit(two, rest, epochs=2, validation=held_out, seed=5)
    assert losses(by_share) == losses(by_hand)
    assert by_share.last["val_loss"] == pytest.approx(evaluate(one, held_out)["loss"], rel=1e-6)
    assert by_share.last["val_accuracy"] == evaluate(one, held_out)["accuracy"]


def test_regression_metrics() -> None:
    history = fit(mlp(3, 2, seed=0), line(), epochs=200, lr=0.05, validation=0.25)
    assert history.last["val_r2"] > 0.999 and history.last["val_mae"] < 0.05
    assert list(history.last) == ["epoch", "loss", "mae", "r2", "val_loss", "val_mae", "val_r2", "lr", "seconds"]


def test_divergence_is_an_error_and_the_checkpoint_is_finite(tmp_path: Path) -> None:
    data = line()
    model = nn.Linear(3, 2)
    with pytest.raises(DivergenceError, match="not finite in epoch"):
        fit(model, data, epochs=300, lr=10.0, optimizer="sgd", run_dir=tmp_path)
    load_checkpoint(model, tmp_path)
    assert torch.isfinite(weights(model)).all()
    assert all(math.isfinite(value) for value in History.from_jsonl(tmp_path / METRICS).column("loss"))


def test_xor() -> None:
    train, test = load("xor")
    solved = 0
    for seed in range(5):
        model = mlp(2, 4, 2, seed=seed)
        fit(model, train, epochs=200, lr=0.05, seed=seed)
        solved += evaluate(model, test)["accuracy"] == 1.0
    assert solved >= 4


# ---- checkpoints -----------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stop_at(epoch: int):
    def progress(row: dict) -> None:
        if row["epoch"] == epoch:
            raise Stop

    return progress


def dropout_net(seed: int = 0) -> nn.Sequential:
    """Dropout draws random numbers; batch normalisation has buffers, and integers among them."""
    return nn.Sequential(mlp(3, 8, seed=seed), nn.BatchNorm1d(8), nn.Dropout(0.3), mlp(8, 2, seed=seed))


def net() -> nn.Sequential:
    return nn.Sequential(mlp(3, 6, seed=0), nn.Dropout(0.3), mlp(6, 2, seed=0))


@pytest.mark.parametrize("schedule", [None, *SCHEDULES])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resume_is_bit_equal(optimizer: str, schedule: str | None, tmp_path: Path) -> None:
    options = {
        "epochs": 12,
        "lr": 0.05,
        "optimizer": optimizer,
        "schedule": schedule,
        "validation": 0.25,
        "early_stopping": 11,
        "batch_size": 16,
    }
    straight = dropout_net()
    history = fit(straight, blobs(), **options, run_dir=tmp_path / "straight")
    for epoch in (1, 7):
        with pytest.raises(Stop):
            fit(dropout_net(), blobs(), **options, run_dir=tmp_path / "stopped", resume=True, progress=stop_at(epoch))
    model = dropout_net(seed=9)  # other initial weights: the checkpoint's count
    resumed = fit(model, blobs(), **options, run_dir=tmp_path / "stopped", resume=True)
    assert losses(resumed) == losses(history)
    assert torch.equal(weights(model), weights(straight))
    assert losses(History.from_jsonl(tmp_path / "stopped" / METRICS)) == losses(history)
    one, two = ((tmp_path / run / CHECKPOINT).read_bytes() for run in ("straight", "stopped"))
    assert one == two


def test_a_finished_run_resumes_to_itself_and_to_more_epochs(tmp_path: Path) -> None:
    straight = net()
    history = fit(straight, blobs(), epochs=6, schedule="step", run_dir=tmp_path / "straight")
    model = net()
    first = fit(model, blobs(), epochs=4, schedule="step", run_dir=tmp_path / "more")
    again = fit(net(), blobs(), epochs=4, schedule="step", run_dir=tmp_path / "more", resume=True)
    assert first.rows == again.rows
    more = fit(model, blobs(), epochs=6, schedule="step", run_dir=tmp_path / "more", resume=True)
    assert losses(more) == losses(history) and torch.equal(weights(model), weights(straight))
    with pytest.raises(ConfigError, match="has 6 epochs, more than `epochs` = 5"):
        fit(net(), blobs(), epochs=5, schedule="step", run_dir=tmp_path / "more", resume=True)


def test_an_early_stopped_run_stays_stopped(tmp_path: Path) -> None:
    options = {"lr": 0.05, "validation": blobs(200, seed=4), "early_stopping": 3, "run_dir": tmp_path}
    model, again = mlp(3, 64, 2, seed=0), mlp(3, 64, 2, seed=1)
    history = fit(model, blobs(12, seed=3), epochs=300, **options)
    resumed = fit(again, blobs(12, seed=3), epochs=400, **options, resume=True)
    assert len(history.rows) < 300 and resumed.rows == history.rows
    assert torch.equal(weights(again), weights(model))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("lr", {"lr": 0.02}),
        ("batch_size", {"batch_size": 8}),
        ("optimizer", {"optimizer": "sgd"}),
        ("schedule", {"schedule": "step"}),
        ("schedule", {"epochs": 9}),  # the cosine is over 2 epochs
        ("loss", {"loss": F.cross_entropy}),
        ("seed", {"seed": 1}),
        ("shuffle", {"shuffle": False}),
        ("clip_grad_norm", {"clip_grad_norm": 1.0}),
        ("early_stopping", {"early_stopping": 3}),
        ("validation", {"validation": None, "train": split(blobs(), 0.25)[0]}),
        ("data", {"train": blobs(seed=1), "validation": split(blobs(), 0.25)[1]}),
        ("model", {"model": mlp(3, 6, 2)}),
        ("model", {"model": nn.Sequential(mlp(3, 6, seed=0), nn.Dropout(0.2), mlp(6, 2, seed=0))}),
    ],
)
def test_resume_with_other_arguments_is_an_error(name: str, change: dict, tmp_path: Path) -> None:
    options = {"epochs": 2, "schedule": "cosine", "validation": 0.25, "run_dir": tmp_path}
    fit(net(), blobs(), **options)
    arguments = {"model": net(), "train": blobs()} | options | change
    with pytest.raises(ConfigError) as raised:
        fit(**arguments, resume=True)
    assert name in re.findall(r"`(\w+)` was", str(raised.value))


def test_a_checkpoint_is_never_overwritten_by_accident(tmp_path: Path) -> None:
    fit(net(), blobs(), epochs=2, run_dir=tmp_path, resume=True)  # nothing there: a fresh start
    content = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(ConfigError, match="holds a checkpoint already"):
        fit(net(), blobs(), epochs=2, run_dir=tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, METRICS]


def test_lost_rows_are_noticed(tmp_path: Path) -> None:
    fit(net(), blobs(), epochs=3, run_dir=tmp_path)
    lines = (tmp_path / METRICS).read_text().splitlines(keepends=True)
    (tmp_path / METRICS).write_text("".join(lines[:1] + lines[2:]))
    with pytest.raises(ConfigError, match="must have a row for each of the 3 epochs"):
        fit(net(), blobs(), epochs=3, run_dir=tmp_path, resume=True)


def test_load_checkpoint(tmp_path: Path) -> None:
    train, held_out = blobs(12, seed=3), blobs(200, seed=4)
    model = mlp(3, 64, 2, seed=0)
    history = fit(model, train, epochs=60, lr=0.05, validation=held_out, run_dir=tmp_path)
    last, best = mlp(3, 64, 2), mlp(3, 64, 2)
    assert load_checkpoint(last, tmp_path) == 60 and torch.equal(weights(last), weights(model))
    epoch = load_checkpoint(best, tmp_path, best=True)
    assert epoch == history.best["epoch"] < 60
    assert evaluate(best, held_out)["loss"] == pytest.approx(history.best["val_loss"], rel=1e-5)
    with pytest.raises(ConfigError, match="does not fit the model"):
        load_checkpoint(mlp(3, 5, 2), tmp_path)
    with pytest.raises(ConfigError, match="Cannot read checkpoint"):
        load_checkpoint(model, tmp_path / "nowhere")
    with safe_open(tmp_path / CHECKPOINT, framework="pt") as file:  # plain safetensors, of readable names
        assert torch.equal(file.get_tensor("model/0.weight"), model[0].weight)
    for damage in (lambda content: content[: len(content) // 2], lambda content: b"\x80\x04" + content):
        content = (tmp_path / CHECKPOINT).read_bytes()
        (tmp_path / CHECKPOINT).write_bytes(damage(content))
        with pytest.raises(ConfigError, match="Cannot read checkpoint"):
            load_checkpoint(model, tmp_path)


def test_state_files(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    state = {
        "a": {3: shared, 4: shared[::2]},
        "b": [1, 2.5, None, "text", True, math.inf, {"step": torch.tensor(7)}],
        "c": (0.1, 1 / 3),
        "empty": {},
    }
    save_state(tmp_path / "state", state)
    back = load_state(tmp_path / "state")
    assert torch.equal(back["a"][3], shared) and torch.equal(back["a"][4], shared[::2])
    assert back["b"][:6] == state["b"][:6] and back["b"][6]["step"].item() == 7
    assert back["c"] == [0.1, 1 / 3] and back["empty"] == {}
    with pytest.raises(ConfigError, match="cannot hold c/0, a object"):
        save_state(tmp_path / "state", {"c": [object()]})
    assert load_state(tmp_path / "state")["b"][3] == "text"  # the old file is whole
    with pytest.raises(ConfigError, match="not a qbp checkpoint"):
        from safetensors.torch import save_file

        save_file({"x": shared}, tmp_path / "foreign")
        load_state(tmp_path / "foreign")


KILLS = '''
import json, os, random, signal, sys, time
import torch
torch.set_num_threads(1)
import sklearn.model_selection
from qbp.storage import container
from qbp.training import fitting as train, members
from qbp.training import state
from qbp.data import Dataset
from torch import nn

root = sys.argv[1]
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
to_line, replace, write_atomic = members.to_line, os.replace, container.write_atomic

def torn(path, content):
    with open(path.with_name(path.name + ".tmp"), "wb") as file:
        file.write(content[: len(content) // 2])
    kill()

def plant(point):
    if point in ("row without checkpoint", "torn row"):
        state.save_state = kill
    if point == "torn row":
        members.to_line = lambda row: to_line(row)[:20]
    if point == "torn checkpoint":
        container.write_atomic = torn
    if point == "before replace":
        os.replace = kill
    if point == "after replace":
        os.replace = lambda a, b: (replace(a, b), kill())

def job(run, point=None):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(80) % 2
    x = torch.randn(80, 3, generator=generator) + y[:, None]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 2))
    train.fit(
        model, Dataset(x, y), epochs=40, lr=0.02, batch_size=8, schedule="plateau", validation=0.25,
        early_stopping=39, seed=3, run_dir=os.path.join(root, run), resume=True,
        progress=lambda row: row["epoch"] == 3 and plant(point),
    )

def child(run, point=None, after=None):
    """Run the job in a process of its own; return whether it came to its end."""
    pid = os.fork()
    if not pid:
        try:
            job(run, point)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("the job failed")
    return os.WIFEXITED(status)

job("warm")  # loads what torch imports at first use
began = time.perf_counter()
assert child("undisturbed")
whole = time.perf_counter() - began

kills, seeds = 0, random.Random(int(sys.argv[2]))
while not child("random", after=seeds.uniform(0, whole / 8)):
    kills += 1
    if kills == 60:
        assert child("random")
        break
points = ["row without checkpoint", "torn row", "torn checkpoint", "before replace", "after replace"]
for point in points:
    assert not child(point, point)
    assert child(point)
print(json.dumps({"kills": kills, "runs": ["random", *points]}))
'''


def test_killed_at_any_moment_resumes_bit_equal(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLS, str(tmp_path), "0"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=Path(checkpoint.__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kills"] >= 5
    undisturbed = History.from_jsonl(tmp_path / "undisturbed" / METRICS)
    assert undisturbed.column("epoch") == list(range(1, 41))
    for run in report["runs"]:
        assert losses(History.from_jsonl(tmp_path / run / METRICS)) == losses(undisturbed), run
        assert (tmp_path / run / CHECKPOINT).read_bytes() == (tmp_path / "undisturbed" / CHECKPOINT).read_bytes()


# ---- history, learning rate, progress, memory -------------------------------------------------------------------


def test_history(tmp_path: Path) -> None:
    rows = ({"epoch": 1, "loss": 0.9, "val_loss": 0.5}, {"epoch": 2, "loss": 0.1, "val_loss": 1 / 3 + 0.3})
    history = History(rows)
    assert history.best is rows[0] and history.last is rows[1] and history.column("loss") == [0.9, 0.1]
    assert History(({"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0})).best["epoch"] == 2
    history.to_jsonl(tmp_path / "rows")
    assert History.from_jsonl(tmp_path / "rows") == history
    with open(tmp_path / "rows", "a") as file:
        file.write('{"epoch": 3, "lo')  # a process was killed here
    assert History.from_jsonl(tmp_path / "rows") == history
    with pytest.raises(ArgumentError, match="`name` must be one of 'epoch', 'loss', 'val_loss'"):
        history.column("accuracy")
    (tmp_path / "bad").write_text("nonsense\n")
    for name in ("bad", "missing"):
        with pytest.raises(ConfigError, match="Cannot read metrics"):
            History.from_jsonl(tmp_path / name)


def test_metrics_file_grows_with_every_epoch(tmp_path: Path) -> None:
    seen = []

    def progress(row: dict) -> None:
        seen.append(History.from_jsonl(tmp_path / METRICS).last == row)
        assert load_state(tmp_path / CHECKPOINT)["epoch"] == row["epoch"]

    fit(net(), blobs(), epochs=3, run_dir=tmp_path, progress=progress)
    assert seen == [True] * 3


@pytest.mark.parametrize(("optimizer", "low", "high"), [("adam", 1e-3, 0.3), ("sgd", 1e-2, 5.0)])
def test_lr_range_test_suggests_a_rate_that_trains(optimizer: str, low: float, high: float) -> None:
    data = load("iris")[0]
    for seed in range(3):
        model = mlp(4, 8, 3, seed=seed)
        result = lr_range_test(model, data, lr_max=10.0, optimizer=optimizer, seed=seed)
        assert low < result.suggestion < high and result.suggestion in result.lrs
        assert len(result.lrs) == len(result.losses) <= 100
        ratios = np.diff(np.log(result.lrs))
        assert result.lrs[0] == 1e-5 and np.allclose(ratios, np.log(1e6) / 99)
        assert fit(model, data, lr=result.suggestion, optimizer=optimizer).last["accuracy"] > 0.8


def test_lr_range_test_stops_when_the_loss_explodes() -> None:
    result = lr_range_test(mlp(3, 2, seed=0), line(), lr_max=1e3, optimizer="sgd")
    assert len(result.lrs) < 100 and result.lrs[-1] < 1e3
    assert all(loss <= 4 * min(result.losses[: k + 1]) for k, loss in enumerate(result.losses))
    with pytest.raises(DivergenceError, match="use an `lr_min` below 50"):
        lr_range_test(mlp(3, 2, seed=0), line(), lr_min=50.0, lr_max=100.0, optimizer="sgd")
    for options in ({"lr_max": 1e-6}, {"steps": 5}, {"smoothing": 1.0}):
        with pytest.raises(ArgumentError, match="`lr_min` < `lr_max`"):
            lr_range_test(mlp(3, 2, seed=0), line(), **options)


def test_lr_range_test_leaves_everything_as_it_was() -> None:
    model = dropout_net()
    model[1].eval()
    model[0][0].weight.grad = torch.ones(8, 3)
    before, torch_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    gradient = model[0][0].weight.grad
    one = lr_range_test(model, blobs())
    with pytest.raises(ArgumentError):
        lr_range_test(model, blobs(n_classes=3))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model[0][0].weight.grad is gradient and torch.equal(gradient, torch.ones(8, 3))
    assert model[3][0].weight.grad is None
    assert model.training and not model[1].training
    assert one == lr_range_test(model, blobs())


def test_progress(capsys: pytest.CaptureFixture) -> None:
    rows: list[dict] = []
    history = fit(net(), blobs(), epochs=3, progress=rows.append)
    assert tuple(rows) == history.rows and capsys.readouterr().out == ""
    fit(net(), blobs(), epochs=3, progress=True)
    assert "epoch 3/3" in capsys.readouterr().out


@pytest.mark.parametrize("done", [0, 40])  # a fresh run, and a resumed one
def test_time_left_after_three_epochs(done: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import rich.progress

    clock, bars = [100.0], []

    class Spy(rich.progress.Progress):
        def __init__(self, *columns, **options) -> None:
            bars.append(self)
            super().__init__(*columns, **options, get_time=lambda: clock[0], disable=True)

    monkeypatch.setattr(rich.progress, "Progress", Spy)
    with bar(True, epochs=50, steps=37) as tick:
        for epoch in range(done + 1, done + 4):
            for step in range(1, 38):
                clock[0] += 0.5
                tick(epoch, step)
            clock[0] += 1.5  # validation: an epoch takes 20 seconds
    assert bars[0].tasks[0].time_remaining == pytest.approx((47 - done) * 20, rel=0.15)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("build", [net, lambda: hybrid(3, 2, n_qubits=3, n_layers=1, seed=0)])
def test_memory_does_not_grow(build, tmp_path: Path) -> None:
    model, data = build(), blobs(320)
    sizes: list[int] = []

    def progress(row: dict) -> None:
        if row["epoch"] in (20, 220):
            gc.collect()
            sizes.append(resident())

    fit(model, data, epochs=220, batch_size=32, progress=progress, run_dir=tmp_path, validation=blobs())
    assert sizes[1] - sizes[0] < 5e6  # over 2,000 steps


# ---- with a circuit inside -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer_seed", [None, 4])
@pytest.mark.parametrize("diff_method", ["best", "spsa"])
def test_hybrid_resumes_bit_equal(diff_method: str, layer_seed: int | None, tmp_path: Path) -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return hybrid(3, 2, n_qubits=2, n_layers=1, diff_method=diff_method, seed=layer_seed)

    options = {"epochs": 4, "lr": 0.05, "batch_size": 16, "seed": 1}
    straight, resumed = model(), model()
    history = fit(straight, blobs(), **options)
    with pytest.raises(Stop):
        fit(model(), blobs(), **options, run_dir=tmp_path, progress=stop_at(2))
    assert losses(fit(resumed, blobs(), **options, run_dir=tmp_path, resume=True)) == losses(history)
    assert torch.equal(weights(straight), weights(resumed))
    if diff_method == "spsa":  # the random directions do matter here
        other = model()
        fit(other, blobs(), **options | {"seed": 2}, shuffle=False)
        again = model()
        fit(again, blobs(), **options, shuffle=False)
        assert torch.equal(weights(other), weights(again)) == (layer_seed is not None)


def test_hybrid_solves_xor_and_the_rate_test_leaves_it() -> None:
    train, test = load("xor")
    model = hybrid(2, 2, n_qubits=2, n_layers=2, seed=0)
    before = weights(model)
    lr_range_test(model, train, steps=20)
    assert torch.equal(weights(model), before)
    fit(model, train, epochs=100, lr=0.05)
    assert evaluate(model, test)["accuracy"] == 1.0
