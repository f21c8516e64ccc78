"""Distillation: losses against torchdistill and against their formulas, and the training around them."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pennylane as qml
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import qbp
from qbp.compression.distillation import LOSSES, distill
from qbp.compression.distillation_losses import (
    TEACHERS,
    amplitude_fidelity,
    attention,
    fidelity,
    relational,
    soft_targets,
)
from qbp.data import Dataset
from qbp.errors import ArgumentError, ConfigError


def blobs(n: int = 60, n_classes: int = 3, seed: int = 0) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % n_classes
    centres = 2 * torch.randn(n_classes, 4, generator=torch.Generator().manual_seed(9))
    return Dataset(torch.randn(n, 4, generator=generator) + centres[y], y)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    model = qbp.mlp(4, 16, 3, seed=0)
    qbp.fit(model, blobs(), epochs=20, lr=0.02)
    return model


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


# ---- the losses ------------------------------------------------------------------------------------------------------


def both(module) -> dict:
    return {"": {"output": module}}


@pytest.mark.parametrize("alpha", [0.25, 0.9])
@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("logit_norm", [False, True])
def test_kd_is_torchdistills(n_classes: int, temperature: float, alpha: float, logit_norm: bool) -> None:
    theirs = pytest.importorskip("torchdistill.losses.mid_level")
    kind = theirs.LogitStdKDLoss if logit_norm else theirs.KDLoss
    logits, taught = (5 * torch.randn(7, n_classes, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(n_classes, (7,))
    want = kind("", "output", "", "output", temperature, alpha=alpha)(both(logits), both(taught), labels)
    soft = soft_targets(logits, taught, temperature, logit_norm=logit_norm)
    assert (alpha * F.cross_entropy(logits, labels) + (1 - alpha) * soft).item() == pytest.approx(
        want.item(), abs=1e-7 if logit_norm else 1e-10
    )
    assert soft_targets(logits.float(), taught.float(), temperature, logit_norm=logit_norm) == pytest.approx(
        soft.item(), abs=1e-6 * max(1, temperature**2)
    )


def test_relations_and_attention_are_torchdistills() -> None:
    theirs = pytest.importorskip("torchdistill.losses.mid_level")
    student, taught = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    distances = theirs.RKDLoss("", "", 1.0, 0.0, "mean")(both(student), both(taught))
    angles = theirs.RKDLoss("", "", 0.0, 1.0, "mean")(both(student), both(taught))
    # theirs is the mean over all 36 pairs, of which 6 are of a row with itself
    torch.testing.assert_close(LOSSES["distance"](student, taught), distances * 36 / 30)
    torch.testing.assert_close(LOSSES["angle"](student, taught), angles)
    torch.testing.assert_close(relational(student, taught), distances * 36 / 30 + 2 * angles)
    image, other = torch.randn(6, 3, 4, 5), torch.randn(6, 2, 4, 5)
    pair = {"student": {"io": "output", "path": ""}, "teacher": {"io": "output", "path": ""}}
    # theirs is the mean over the 20 places too
    torch.testing.assert_close(attention(image, other), 20 * theirs.ATLoss({"one": pair})(both(image), both(other)))


def test_kd_by_hand() -> None:
    z, t, temperature = np.array([[1.0, -2.0, 0.5], [0.0, 0.3, 2.0]]), np.array([[3.0, 1.0, 0], [-1.0, 0.0, 4]]), 2.5
    q, p = (np.exp(a / temperature) / np.exp(a / temperature).sum(1, keepdims=True) for a in (z, t))
    want = temperature**2 * (p * np.log(p / q)).sum() / 2
    assert soft_targets(torch.tensor(z), torch.tensor(t), temperature).item() == pytest.approx(want, abs=1e-12)


def test_a_high_temperature_compares_centred_logits() -> None:
    """arXiv 1503.02531, section 2.1: T^2 KL tends to |z - t|^2 / 2C for logits with mean 0."""
    z, t = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    want = ((z - z.mean(1, keepdim=True)) - (t - t.mean(1, keepdim=True))).square().sum(1).mean() / 8
    assert soft_targets(z, t, 1e4).item() == pytest.approx(want.item(), rel=1e-3)


def test_one_logit_is_two_of_which_one_is_zero() -> None:
    z, t = torch.randn(5, 1), torch.randn(5, 2)
    padded = torch.cat([torch.zeros(5, 1), z], 1)
    assert soft_targets(z, t) == soft_targets(padded, t)
    assert soft_targets(t, z) == soft_targets(t, padded)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_zero_for_the_teacher_itself_and_has_finite_gradients_there(name: str) -> None:
    rows = torch.randn(5, 3, dtype=torch.float64)
    rows[1] = rows[0]  # two equal rows: distance 0
    rows[2] = 0  # no direction, and equal logits
    for norm in (False, True) if name == "kd" else (False,):
        loss = partial(LOSSES[name], logit_norm=True) if norm else LOSSES[name]
        student = rows.clone().requires_grad_()
        value = loss(student, rows.clone())
        value.backward()
        assert value.item() == pytest.approx(0, abs=1e-12)
        assert torch.isfinite(student.grad).all() and student.grad.abs().max() < 1e-6
        assert loss(torch.randn(5, 3, dtype=torch.float64), rows) > 1e-3


def test_relations_do_not_change_with_scale_or_place() -> None:
    rows = torch.randn(6, 3, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    assert relational(3 * rows @ turn + 5, rows).item() == pytest.approx(0, abs=1e-12)
    assert relational(rows[:1], rows[:1]).item() == 0  # a last batch of one row


# ---- training --------------------------------------------------------------------------------------------------------


def test_fidelities_are_those_of_the_feature_map():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(5, 3, generator=generator, dtype=torch.float64).requires_grad_()
    taught = torch.randn(5, 7, generator=generator, dtype=torch.float64)

    @qml.qnode(qml.device("default.qubit", wires=3))
    def state(x):
        for _ in range(2):
            for i in range(3):
                qml.Hadamard(i)
                qml.PhaseShift(2 * x[i], wires=i)
            for i, j in ((0, 1), (0, 2), (1, 2)):
                qml.CNOT([i, j])
                qml.PhaseShift(2 * (math.pi - x[i]) * (math.pi - x[j]), wires=j)
                qml.CNOT([i, j])
        return qml.state()

    kernels = []
    for rows in (student.detach().numpy(), taught.numpy()[:, :3]):  # as many columns as both have
        rows = rows / np.linalg.norm(rows, axis=1).mean()
        states = np.array([state(row) for row in rows])
        kernels.append(abs(states @ states.conj().T) ** 2)
    expected = np.mean(np.square(kernels[0] - kernels[1])) / 2  # smooth L1 below 1
    assert fidelity(student, taught).item() == pytest.approx(expected, abs=1e-12) and expected > 1e-3
    assert torch.autograd.gradcheck(lambda rows: fidelity(rows, taught), student)
    assert fidelity(taught, taught).item() == 0


def test_fidelities_of_amplitudes_are_squared_cosines():
    rows, others = torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 2.0, 0.0], [5.0, 0.0, 0.0]])
    assert amplitude_fidelity(rows, others).item() == pytest.approx(2 * (0.5**2 / 2) / 4)


@pytest.mark.parametrize("logit_norm", [False, True])
def test_a_step_is_the_formulas(teacher: nn.Module, logit_norm: bool) -> None:
    data, alpha, temperature, lr = blobs(12), 0.3, 3.0, 0.1
    student = qbp.mlp(4, 3, 3, seed=1)
    options = {"alpha": alpha, "temperature": temperature, "lr": lr, "logit_norm": logit_norm}
    got = distill(teacher, student, data, **options, epochs=1, optimizer="sgd", batch_size=12)
    z, t = student(data.x), teacher(data.x).detach()
    if logit_norm:
        z, t = ((a - a.mean(1, keepdim=True)) / a.std(1, keepdim=True) for a in (z, t))
    soft = (
        F.softmax(t / temperature, 1) * (F.log_softmax(t / temperature, 1) - F.log_softmax(z / temperature, 1))
    ).sum(1)
    loss = alpha * F.cross_entropy(student(data.x), data.y) + (1 - alpha) * temperature**2 * soft.mean()
    slopes = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*student.parameters()])])
    torch.testing.assert_close(weights(got), weights(student) - lr * slopes, rtol=0, atol=1e-6)


def test_labels_alone_are_fit_bit_by_bit(teacher: nn.Module) -> None:
    student = qbp.hybrid(4, 3, n_qubits=2, n_layers=1, seed=1)
    got = distill(teacher, student, blobs(), alpha=1.0, epochs=3, seed=5)
    qbp.fit(student, blobs(), epochs=3, seed=5)
    assert torch.equal(weights(got), weights(student))


def test_teacher_and_student_stay_as_they_are_and_the_teacher_runs_once(teacher: nn.Module) -> None:
    model = nn.Sequential(copy.deepcopy(teacher), nn.Dropout(0.5), nn.BatchNorm1d(3))
    model.train()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(model.training))
    student = qbp.mlp(4, 3, seed=1)
    before, state = weights(student), copy.deepcopy(model.state_dict())
    draw = torch.get_rng_state()
    trained = distill(model, student, blobs(), epochs=4)
    assert calls == [False] and model.training
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(weights(student), before) and not torch.equal(weights(trained), before)
    assert torch.equal(torch.get_rng_state(), draw)
    assert not trained._forward_hooks


def test_several_teachers_teach_their_mean(teacher: nn.Module) -> None:
    """The gradient is that of KL to the mean of their probabilities."""
    other = qbp.mlp(4, 5, 3, seed=3)
    qbp.fit(other, blobs(), epochs=5, lr=0.05)
    data, student = blobs(12), qbp.mlp(4, 3, seed=1)
    options = {"alpha": 0.0, "temperature": 2.0, "epochs": 1, "optimizer": "sgd", "lr": 0.1, "batch_size": 12}
    got = distill([teacher, other], student, data, **options)
    p = (F.softmax(teacher(data.x) / 2, 1) + F.softmax(other(data.x) / 2, 1)).detach() / 2
    loss = 4 * -(p * F.log_softmax(student(data.x) / 2, 1)).sum(1).mean()
    slopes = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*student.parameters()])])
    torch.testing.assert_close(weights(got), weights(student) - 0.1 * slopes, rtol=0, atol=1e-6)


def agreement(one: nn.Module, other: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        return (one(x).argmax(1) == other(x).argmax(1)).double().mean().item()


HYBRID = partial(qbp.hybrid, 4, 3, n_qubits=3)


@pytest.mark.parametrize(
    ("of", "to"),
    [
        (lambda: qbp.mlp(4, 16, 3, seed=0), lambda: HYBRID(n_layers=1, seed=1)),
        (lambda: HYBRID(n_layers=3, seed=0), lambda: qbp.mlp(4, 3, 3, seed=1)),
        (lambda: HYBRID(n_layers=3, seed=0), lambda: qbp.hybrid(4, 3, n_qubits=2, n_layers=1, seed=1)),
        (lambda: HYBRID(n_layers=1, seed=0), lambda: HYBRID(n_layers=1, seed=0)),
    ],
    ids=["classical to hybrid", "hybrid to classical", "hybrid to smaller hybrid", "to itself"],
)
def test_every_direction_without_a_label(of, to) -> None:
    """The teacher calls the classes by other names than the labels: whoever learns from it does so too."""
    data, test = blobs(90), blobs(90, seed=1)
    renamed = Dataset(data.x, (data.y + 1) % 3)
    model = of()
    qbp.fit(model, renamed, epochs=30, lr=0.03)
    student = distill(model, to(), data, alpha=0.0, temperature=2.0, epochs=30, lr=0.03)
    assert qbp.evaluate(student, test)["accuracy"] < 0.2
    assert agreement(student, model, test.x) > 0.8


@pytest.mark.parametrize(
    ("method", "layers"),
    [
        ("logits", None),
        ("hints", ("0", "0")),
        ("attention", ("2", "2")),
        ("relational", None),
        ("distance", ("0", "0")),
        ("angle", None),
        ("expectation", None),
        ({"kd": 0.5, "hints": 2.0, "expectation": 1.0}, {"hints": ("1", "0")}),
    ],
    ids=str,
)
def test_every_method_brings_the_student_closer(method, layers) -> None:
    data = blobs(90)
    model = HYBRID(n_layers=3, seed=0)
    qbp.fit(model, data, epochs=20, lr=0.03)
    losses = []
    distill(
        model, HYBRID(n_layers=2, seed=1), data, method=method, layers=layers, alpha=0.0, temperature=2.0,
        epochs=15, lr=0.03, progress=lambda row: losses.append(row["loss"]),
    )  # fmt: skip
    assert losses[-1] < 0.5 * losses[0]


def test_expectation_values_are_matched_where_they_can_be() -> None:
    data, model = blobs(60), HYBRID(n_layers=1, seed=0)
    student = HYBRID(n_layers=1, seed=0)
    with torch.no_grad():
        student[2].weights += 0.3
    student = distill(model, student, data, method="expectation", alpha=0.0, epochs=60, lr=0.02)
    with torch.no_grad():
        difference = student[:3](data.x) - model[:3](data.x)
    assert difference.square().mean() < 1e-3


def test_a_regression_is_taught_by_its_outputs() -> None:
    train, test = qbp.data.load("diabetes", features=4)
    model = qbp.mlp(4, 8, 1, seed=0)
    qbp.fit(model, train, epochs=20)
    student = distill(model, qbp.mlp(4, 1, seed=1), train, method="logits", alpha=0.2, epochs=30, lr=0.05)
    with torch.no_grad():
        assert torch.corrcoef(torch.stack([student(test.x)[:, 0], model(test.x)[:, 0]]))[0, 1] > 0.9


def test_validation_is_of_the_labels(teacher: nn.Module) -> None:
    rows, test = [], blobs(30, seed=1)
    options = {"epochs": 3, "alpha": 0.1, "progress": rows.append}
    student = distill(teacher, qbp.mlp(4, 3, seed=1), blobs(), validation=test, **options)
    assert rows[-1]["val_loss"] == pytest.approx(qbp.evaluate(student, test)["loss"], abs=1e-6)
    distill(teacher, qbp.mlp(4, 3, seed=1), blobs(), validation=0.25, **options)
    assert "val_loss" in rows[-1]


# ---- interrupted -----------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stop(row: dict) -> None:
    if row["epoch"] == 2:
        raise Stop


@pytest.mark.parametrize("method", ["kd", {"kd": 1.0, "hints": 1.0, "relational": 0.1}], ids=["kd", "more"])
def test_a_killed_run_resumes_bit_equal_and_asks_no_teacher_again(teacher: nn.Module, method, tmp_path: Path) -> None:
    student = nn.Sequential(*qbp.hybrid(4, 3, n_qubits=2, n_layers=1, seed=2), nn.Dropout(0.2))
    run = partial(distill, teacher, student, blobs(), method=method, layers=("0", "0"), epochs=5, schedule="cosine")
    straight = run()
    with pytest.raises(Stop):
        run(run_dir=tmp_path, progress=stop)
    calls = []
    handle = teacher.register_forward_hook(lambda *_: calls.append(1))
    resumed, again = run(run_dir=tmp_path, resume=True), run(run_dir=tmp_path, resume=True)
    handle.remove()
    assert not calls
    assert torch.equal(weights(straight), weights(resumed)) and torch.equal(weights(straight), weights(again))
    with pytest.raises(ConfigError, match="holds a checkpoint already"):
        run(run_dir=tmp_path)
    for change in ({"alpha": 0.7}, {"temperature": 3.0}, {"seed": 1}, {"logit_norm": True}):
        with pytest.raises(ConfigError, match=r"Cannot resume|other teachers"):
            run(run_dir=tmp_path, resume=True, **change)
    with torch.no_grad():
        other = copy.deepcopy(teacher)
        other[0].weight[0, 0] += 1e-3
    kept = (tmp_path / TEACHERS).read_bytes()
    with pytest.raises(ConfigError, match="the words of other teachers"):
        distill(other, student, blobs(), epochs=5, run_dir=tmp_path, resume=True)
    assert (tmp_path / TEACHERS).read_bytes() == kept


# ---- warnings and errors ---------------------------------------------------------------------------------------------


def test_a_warning_where_the_temperature_leaves_nothing(teacher: nn.Module) -> None:
    bare = qbp.QuantumLayer("strongly_entangling", n_qubits=4, n_layers=1, seed=0)
    data = Dataset(blobs(40, 4).x, blobs(40, 4).y)
    wide = qbp.mlp(4, 16, 4, seed=0)
    qbp.fit(wide, data, epochs=30, lr=0.05)
    with pytest.warns(UserWarning, match=r"The student's logits span .* less than the temperature 4.*logit_norm"):
        distill(wide, bare, data, epochs=1)
    with pytest.warns(UserWarning, match="The teacher's logits span"):
        distill(bare, qbp.mlp(4, 4, seed=0), data, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distill(wide, bare, data, epochs=1, logit_norm=True)
        distill(wide, bare, data, epochs=1, alpha=1.0)
        distill(wide, bare, data, epochs=1, method="logits")
        distill(wide, wide, data, epochs=1)


def test_standardised_logits_teach_what_flat_ones_do_not() -> None:
    """The trap: at T = 20 expectation values say nearly nothing beside the labels; standardised, they say it all."""
    x = blobs(60, 4).x
    model = qbp.QuantumLayer("strongly_entangling", n_qubits=4, n_layers=2, seed=0)
    with torch.no_grad():
        z = model(x)
    span = (F.softmax(z / 20, 1).amax(1) - F.softmax(z / 20, 1).amin(1)).mean()
    assert span < 0.03
    norm = (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)
    assert (F.softmax(norm, 1).amax(1) - F.softmax(norm, 1).amin(1)).mean() > 0.4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.5}, r"`alpha` must be at least 0 and at most 1, but is 1.5"),
        ({"temperature": 0.0}, r"`temperature` must be a positive number, but is 0.0"),
        ({"temperature": math.inf}, "`temperature` must be a positive number"),
        ({"teacher": []}, "`teacher` must be a model or several"),
        ({"teacher": "lenet"}, "`teacher` must be a model or several"),
        ({"teacher": qbp.mlp(5, 3)}, "rows of 5 features"),
        ({"student": qbp.mlp(4, 2)}, r"must give outputs of shape \(B, 3\) for 3 classes"),
        ({"teacher": qbp.mlp(4, 2)}, r"student's is \(B, 3\) and the teacher's \(B, 2\)"),
        ({"method": "fitnets"}, "`method` must be one of 'kd', 'logits', 'hints'"),
        ({"method": {"kd": -1.0}}, "must give 'kd' a positive weight, but gives -1.0"),
        ({"method": {}}, "must name at least one loss"),
        ({"method": "hints"}, r"`layers` must name the layers that 'hints' compares \(in the student: 0, 1, 2"),
        ({"method": "hints", "layers": ("0", "9")}, "`layers` for the `teacher` must be one of"),
        ({"method": "hints", "layers": "0"}, r"must be \(student's path, teacher's path\)"),
        ({"method": "attention", "layers": ("0", "0")}, r"student's is \(B, 5\) and the teacher's \(B, 16\)"),
        ({"method": "expectation"}, "`student` must have a quantum layer for 'expectation'"),
        ({"epochs": 0}, "`epochs` must be a positive integer"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(teacher: nn.Module, change: dict, message: str, quiet: None) -> None:
    arguments = {"teacher": teacher, "student": qbp.mlp(4, 5, 3, seed=0), "data": blobs(), "epochs": 1} | change
    with pytest.raises(ArgumentError, match=message):
        distill(**arguments)


def test_kd_of_a_regression_is_refused() -> None:
    train, _ = qbp.data.load("diabetes", features=4)
    with pytest.raises(ArgumentError, match="another than 'kd' for a regression"):
        distill(qbp.mlp(4, 1), qbp.mlp(4, 1), train)


def test_shared_modules_teach_and_learn_and_hints_name_one_call() -> None:
    data, act = blobs(40), nn.Tanh()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), act, nn.Linear(5, 5), act, nn.Linear(5, 3))
    student = distill(model, model, data, method={"kd": 1.0, "hints": 1.0}, layers={"hints": ("2", "2")}, epochs=1)
    assert student[1] is student[3] and student(data.x).shape == (40, 3)
    for path in ("1", "3"):  # the same module, whichever of its places is named
        with pytest.raises(ArgumentError, match=f"Module '{path}' is called 2 times for a batch"):
            distill(model, model, data, method="hints", layers=(path, "2"), epochs=1)


def test_bounded_is_what_the_outputs_come_from_not_what_was_registered_last() -> None:
    class Model(nn.Module):
        def __init__(self, ends_bounded: bool) -> None:
            super().__init__()
            self.ends_bounded, self.head, self.act = ends_bounded, nn.Linear(4, 3), nn.Tanh()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(self.head(x)) if self.ends_bounded else self.head(self.act(x))

    data, teacher = blobs(20), qbp.mlp(4, 3, seed=0)
    with torch.no_grad():
        teacher[0].weight *= 100
    with pytest.warns(UserWarning, match="student's logits"):
        distill(teacher, Model(True), data, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distill(teacher, Model(False), data, epochs=1)
