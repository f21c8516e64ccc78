"""`Training`: said once, taken everywhere; and a run that goes on with another loss is noticed."""

from __future__ import annotations

import inspect
import re
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qbp
from qbp.data import Dataset
from qbp.errors import ArgumentError, ConfigError
from qbp.training.options import TRAINING, Training, training_of


def blobs(n: int = 60) -> Dataset:
    y = torch.arange(n) % 2
    return Dataset(torch.randn(n, 3, generator=torch.Generator().manual_seed(0)) + y[:, None], y)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().reshape(-1).double() for value in model.state_dict().values()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": True}, "`epochs` must be a positive integer, but is True"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer, but is 0"),
        ({"early_stopping": 1.0}, "`early_stopping` must be a positive integer, but is 1.0"),
        ({"lr": True}, "`lr` must be a positive number, but is True"),
        ({"lr": float("nan")}, "`lr` must be a positive number, but is nan"),
        ({"clip_grad_norm": 0}, "`clip_grad_norm` must be a positive number, but is 0"),
        ({"optimizer": None}, "`optimizer` must be one of 'sgd'"),
        ({"schedule": 3}, "`schedule` must be one of 'step'"),
        ({"loss": 3}, "`loss` must be a name, a function or None, but is 3"),
        ({"shuffle": 1}, "`shuffle` must be True or False, but is 1"),
    ],
)
def test_a_wrong_value_is_named_before_anything_is_trained(options: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Training(**options)
    with pytest.raises(ArgumentError, match=message):
        qbp.fit(qbp.mlp(3, 2), blobs(), **options)


def test_options_of_the_call_win_and_unknown_ones_are_refused() -> None:
    training = Training(epochs=7, lr=0.1)
    assert training_of(training, {"epochs": 2}) == Training(epochs=2, lr=0.1)
    assert training_of({"lr": 0.1}, {"epochs": 2}) == Training(epochs=2, lr=0.1)
    assert training_of(None, {}) == Training()
    for call in (
        lambda: qbp.fit(qbp.mlp(3, 2), blobs(), epoch=3),
        lambda: training_of({"epoch": 3}, {}),
        lambda: qbp.distill(qbp.mlp(3, 2), qbp.mlp(3, 2), blobs(), epoch=3),
    ):
        with pytest.raises(TypeError, match=r"epoch.*did you mean `epochs`"):
            call()
    with pytest.raises(ArgumentError, match=r"`training` must be a qbp.Training, but is a int"):
        qbp.fit(qbp.mlp(3, 2), blobs(), 3)


@pytest.mark.parametrize("function", [qbp.fit, qbp.distill])
def test_help_shows_every_option_with_its_default(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    for name in TRAINING:
        assert parameters[name].default == getattr(Training(), name)
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


def test_everything_that_trains_takes_one() -> None:
    training, data = Training(epochs=2, lr=0.05, batch_size=20), blobs()
    one, two = qbp.mlp(3, 4, 2, seed=0), qbp.mlp(3, 4, 2, seed=0)
    qbp.fit(one, data, training)
    qbp.fit(two, data, epochs=2, lr=0.05, batch_size=20)
    assert torch.equal(weights(one), weights(two))
    student = qbp.mlp(3, 2, seed=1)
    taught = [
        qbp.distill(one, student, data, training, method="logits"),
        qbp.distill(one, student, data, method="logits", **vars(training)),
    ]
    assert torch.equal(*map(weights, taught))
    pruned = [qbp.prune(one, data, by="l1", what="neurons", finetune=how) for how in (training, dict(vars(training)))]
    assert torch.equal(*map(weights, pruned))
    hybrid = qbp.hybrid(3, 2, n_qubits=2, n_layers=1, seed=0)
    bills = [
        qbp.plan(hybrid, data, training, backend="aer", shots=10),
        qbp.plan(hybrid, data, epochs=2, batch_size=20, backend="aer", shots=10),
    ]
    assert bills[0] == bills[1] != qbp.plan(hybrid, data, training, epochs=1, backend="aer", shots=10)


# ---- a run that goes on ----------------------------------------------------------------------------------------------


def weighted(second: float) -> nn.Module:
    return nn.CrossEntropyLoss(weight=torch.tensor([1.0, second]))


def closed_over(k: float) -> Any:
    return lambda outputs, labels: k * nn.functional.cross_entropy(outputs, labels)


OTHERS: dict[str, tuple[str, Any, Any]] = {
    "class weights": ("loss", weighted(1.0), weighted(9.0)),
    "closure": ("loss", closed_over(1.0), closed_over(2.0)),
    "momentum": ("optimizer", partial(torch.optim.SGD, momentum=0.9), partial(torch.optim.SGD, momentum=0.1)),
    "decay": (
        "optimizer",
        lambda parameters, lr: torch.optim.Adam(parameters, lr, weight_decay=0.1),
        lambda parameters, lr: torch.optim.Adam(parameters, lr, weight_decay=0.2),
    ),
    "steps": (
        "schedule",
        lambda optimizer, epochs: torch.optim.lr_scheduler.StepLR(optimizer, 2),
        lambda optimizer, epochs: torch.optim.lr_scheduler.StepLR(optimizer, 3),
    ),
}


@pytest.mark.parametrize(("name", "before", "after"), OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("how", ["fit", "distill"])
def test_another_function_of_the_same_name_is_noticed(
    how: str, name: str, before: Any, after: Any, tmp_path: Path
) -> None:
    def run(function: Any, epochs: int) -> torch.Tensor:
        model = qbp.mlp(3, 2, seed=0)
        options = {"epochs": epochs, "run_dir": tmp_path, "resume": True, name: function}
        if how == "fit":
            qbp.fit(model, blobs(), **options)
            return weights(model)
        return weights(qbp.distill(qbp.mlp(3, 2, seed=1), model, blobs(), method="logits", **options))

    wanted = "loss" if how == "distill" and name == "loss" else name
    total = 2 if name == "schedule" else 4  # a schedule of one's own may depend on the number of epochs
    run(before, 2)
    with pytest.raises(ConfigError, match=rf"`{wanted}` was another .*: its code, or the values"):
        run(after, total)
    run(before, total)


def test_a_loss_that_looks_at_the_model_goes_on_though_its_weights_moved(tmp_path: Path) -> None:
    def run(seed: int, epochs: int) -> torch.Tensor:
        model = qbp.mlp(3, 4, 2, seed=seed)

        def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            decay = sum(p.square().sum() for p in model.parameters()) + model[0].weight.abs().sum()
            return nn.functional.cross_entropy(outputs, labels) + 0.01 * decay

        qbp.fit(model, blobs(), epochs=epochs, loss=loss, run_dir=tmp_path, resume=True)
        return weights(model)

    run(0, 2)
    assert torch.equal(run(1, 2), run(2, 2))  # whatever weights the model begins with, the checkpoint's count


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    lock = threading.Lock()

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with lock:
            return nn.functional.cross_entropy(outputs, labels)

    qbp.fit(qbp.mlp(3, 2, seed=0), blobs(), epochs=1, loss=loss, run_dir=tmp_path)
    with pytest.warns(UserWarning, match=r"`loss` \(_thread.lock\) is as when .* cannot be compared"):
        qbp.fit(qbp.mlp(3, 2, seed=0), blobs(), epochs=2, loss=loss, run_dir=tmp_path, resume=True)


# ---- a last batch of one row -----------------------------------------------------------------------------------------


def normalised(seed: int = 0) -> nn.Sequential:
    return nn.Sequential(qbp.mlp(3, 3, seed=seed), nn.BatchNorm1d(3), nn.Dropout(0.1), qbp.mlp(3, 2, seed=seed))


@pytest.mark.parametrize("n", [32, 33, 34])
def test_a_row_left_alone_joins_the_step_before_batch_normalisation(n: int) -> None:
    sizes: list[int] = []
    model = normalised()
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    history = qbp.fit(model, blobs(n), epochs=1, batch_size=16, shuffle=False)
    assert sizes == {32: [16, 16], 33: [16, 17], 34: [16, 16, 2]}[n]
    twin, losses = normalised(), []
    optimizer = torch.optim.Adam(twin.parameters(), 0.01)
    torch.manual_seed(0)
    for x, y in zip(blobs(n).x.split(sizes), blobs(n).y.split(sizes), strict=True):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(twin(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item() * len(x))
    assert torch.allclose(weights(model), weights(twin), atol=1e-6)
    assert history.last["loss"] == pytest.approx(sum(losses) / n, rel=1e-5)


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"train": blobs(33).subset([0])}])
def test_a_row_alone_before_batch_normalisation_is_told(change: dict) -> None:
    with pytest.raises(ArgumentError, match=r"`batch_size` must let each step have two rows or more, .* but one has 1"):
        qbp.fit(**{"model": normalised(), "train": blobs(33), "epochs": 1} | change)


def test_everything_that_trains_does_so() -> None:
    data, training = blobs(33), Training(epochs=1, batch_size=16)
    qbp.distill(qbp.mlp(3, 2, seed=0), normalised(), data, training, method="logits")
    qbp.lr_range_test(normalised(), data, batch_size=16, steps=10)
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=3, n_layers=1, backend="aer", shots=10, seed=0)
    model = nn.Sequential(nn.BatchNorm1d(3), layer, nn.Linear(3, 2))
    bill = qbp.plan(model, data, training, backend="aer", shots=10)
    sent: list[int] = []
    layer.register_forward_pre_hook(lambda module, inputs: sent.append(len(inputs[0])))
    qbp.fit(model, data, training)
    assert sent == [16, 17] and bill.jobs == 2
    plain: list[int] = []  # without batch normalisation a row may be alone
    other = qbp.mlp(3, 2, seed=0)
    other.register_forward_pre_hook(lambda module, inputs: plain.append(len(inputs[0])))
    qbp.fit(other, data, training)
    assert plain == [16, 16, 1]
    assert re.search("epochs=1", repr(training))
