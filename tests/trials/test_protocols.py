"""Protocols of trials: what is paired is equal, and what decides equals an independent computation."""

from __future__ import annotations

import gzip
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

import qbp
from qbp.errors import ConfigError
from qbp.runs.schema import Data
from qbp.trials.cell import Cell
from qbp.trials.digits import pooled_digits
from qbp.trials.protocols import PROTOCOLS, growth, loss_curve, noise_aware, onchip, relational, truncated

TWO = {"low": Data(name="iris", classes=(0, 1), scale="angle")}
TINY = {
    "growth": growth.Options(
        features=(2, 3), n_samples=60, qubits=(2,), layers=(1,), widths=(2,), depths=(1,), epochs=1, threshold=0.2
    ),
    "loss_curve": loss_curve.Options(steps=2, early=1),
    "noise_aware": noise_aware.Options(
        arms=("no means", "exact noise"), classes=(3, 6), rows=8, tests=8, epochs=1, batch_size=4
    ),
    "onchip": onchip.Options(
        arms=("no pruning", "gradient pruning"), device="native", shots=16, test_size=0.99, epochs=1, batch_size=20
    ),
    "relational": relational.Options(arms=("labels", "qrkd"), test_size=0.2, epochs=1, teacher_epochs=1),
    "truncated": truncated.Options(
        data=TWO, circuit="qcnn", n_qubits=4, weights=(1,), controls=False, train=qbp.Training(epochs=1)
    ),
}
METRIC = {"growth": "growth_parameters", "loss_curve": "loss"}


@pytest.mark.filterwarnings("ignore:The teacher's logits span")
@pytest.mark.parametrize("name", TINY)
def test_every_protocol_measures_all_arms_of_a_seed(name, monkeypatch):
    options, protocol = TINY[name], PROTOCOLS[name]
    images = relational.images
    monkeypatch.setattr(relational, "images", lambda *of: [part.subset(range(60)) for part in images(*of)])
    cells = protocol.cells(options, [3, 7])
    assert len(set(cells)) == len(cells) and {cell.seed for cell in cells} == {3, 7}
    by_seed = [{cell[:2] for cell in cells if cell.seed == seed} for seed in (3, 7)]
    assert by_seed[0] == by_seed[1] and len(by_seed[0]) > 1
    own = [cell for cell in cells if cell.seed == 3][:2]
    if hasattr(protocol, "train_together"):
        assert protocol.together(options, own[0]) == protocol.together(options, own[1])
        rows = protocol.train_together(options, own)
    else:
        rows = [protocol.train(options, cell) for cell in own]
    for row in rows:
        assert math.isfinite(row[METRIC.get(name, "accuracy")])
        assert row["n_parameters"] > 0 and row["train_seconds"] > 0
    again = protocol.train(options, own[1])
    assert {k: v for k, v in again.items() if k != "train_seconds"} == {
        k: v for k, v in rows[1].items() if k != "train_seconds"
    }


# ---- what is paired --------------------------------------------------------------------------------------------------


class Seen(Exception):
    """A model and its rows, before anything was trained."""


def before_training(monkeypatch, protocol, options, cell):
    def spy(model, rows, *args, seed, **options):
        raise Seen(model, rows, seed)

    monkeypatch.setattr(protocol, "fit", spy)
    with pytest.raises(Seen) as seen:
        protocol.train(options, cell)
    return seen.value.args


@pytest.mark.parametrize(
    ("protocol", "options"),
    [
        (onchip, onchip.Options(device="native", arms=tuple(onchip.METHODS)[:5])),
        (noise_aware, noise_aware.Options(arms=("no means", "normalisation", "+ quantisation"))),
        (truncated, truncated.Options(data=TWO, n_qubits=4, controls=False)),
    ],
    ids=["onchip", "noise_aware", "truncated"],
)
def test_arms_of_a_seed_begin_alike(monkeypatch, protocol, options):
    monkeypatch.setattr(noise_aware, "noisy_executors", lambda device, seed: {"injected": "native"})
    monkeypatch.setattr(onchip, "live_parameters", lambda layer: 0)
    cells = protocol.cells(options, [5])
    model, rows, seed = before_training(monkeypatch, protocol, options, cells[0])
    for cell in cells[1:]:
        other, other_rows, other_seed = before_training(monkeypatch, protocol, options, cell)
        assert other_rows.hash() == rows.hash() and other_seed == seed
        pairs = zip(model.parameters(), other.parameters(), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs), cell
    another, another_rows, _ = before_training(monkeypatch, protocol, options, cells[0]._replace(seed=6))
    assert another_rows.hash() != rows.hash()
    assert not torch.equal(next(another.parameters()), next(model.parameters()))


def test_students_of_a_seed_begin_alike(monkeypatch):
    seen = []
    monkeypatch.setattr(relational, "distill", lambda teacher, student, rows, **how: seen.append((student, rows, how)))
    monkeypatch.setattr(relational, "fit", lambda model, rows, **how: seen.append((model, rows, how)))
    monkeypatch.setattr(relational, "evaluate", lambda model, rows: {"accuracy": 0.5})
    monkeypatch.setattr(relational, "n_parameters", lambda model: 1)
    options = relational.Options(test_size=0.98)
    relational.train_together(options, relational.cells(options, [4]))
    _, *students = seen  # the teacher comes first
    assert len(students) == 5
    for student, rows, how in students[1:]:
        assert rows.hash() == students[0][1].hash() and how["seed"] == 4 and how["epochs"] == options.epochs
        assert all(torch.equal(a, b) for a, b in zip(student.parameters(), students[0][0].parameters(), strict=True))
    methods = [how.get("method") for _, _, how in students]
    assert methods[2:] == [
        {"kd": 0.25, "relational": 1.0},
        {"kd": 0.25, "relational": 1.0, "fidelity": 1.0},
        {"kd": 0.25, "relational": 1.0, "amplitude_fidelity": 1.0},
    ]


# ---- what decides, computed otherwise --------------------------------------------------------------------------------


def test_sizes_of_candidates_are_those_counted_by_hand():
    options = growth.Options(qubits=(2, 3), layers=(1, 2), widths=(2, 4), depths=(1, 2))
    classical = growth.candidates(options, "classical", 10, 3)
    counted = {}
    for width, depth in ((2, 1), (2, 2), (4, 1), (4, 2)):
        matrices = 10 * width + (depth - 1) * width * width + width * 3
        counted[f"{width} x {depth}"] = (matrices + depth * width + 3, matrices)
    assert {name: (size, cost) for size, cost, name, _ in classical} == counted
    assert [each.parameters for each in classical] == sorted(size for size, _ in counted.values())
    # RY of the data, L layers of Rot (3 rotations) a qubit, Z on every qubit: 4 * 2^n a rotation, 2 * 2^n an output
    hybrid = {name: (size, cost) for size, cost, name, _ in growth.candidates(options, "hybrid", 10, 3)}
    for n, layers in ((2, 1), (2, 2), (3, 1), (3, 2)):
        size = (10 + 1) * n + 3 * n * layers + (n + 1) * 3
        cost = 10 * n + 3 * n + 2**n * (4 * (n + 3 * n * layers) + 2 * n)
        assert hybrid[f"{n} qubits, {layers} layers"] == (size, cost)
    removed = growth.candidates(options, "hybrid/removed", 10, 3)
    assert [each.parameters for each in removed] == [11 * n + (n + 1) * 3 for n in (2, 3)]


def test_growth_is_of_the_smallest_models_that_are_good_enough(monkeypatch):
    options = growth.Options(features=(10, 30), widths=(2, 4), depths=(1,))
    good = {10: 0.9, 30: 0.0}  # with 30 columns the first model is not good enough

    def best(candidate, train_rows, test_rows, options, seed):
        return 0.95 if candidate.name == "4 x 1" else good[train_rows.x.shape[1]]

    monkeypatch.setattr(growth, "_best", best)
    row = growth.train(options, Cell("spiral_arms", "classical", 0))
    sizes = 10 * 2 + 2 + 2 * 3 + 3, 30 * 4 + 4 + 4 * 3 + 3
    assert (row["parameters_10"], row["parameters_30"], row["tried_10"], row["tried_30"]) == (*sizes, 1, 2)
    assert row["growth_parameters"] == pytest.approx((sizes[1] - sizes[0]) / sizes[1]) and row["reached"] == 1
    monkeypatch.setattr(growth, "_best", lambda candidate, train_rows, *_: good[train_rows.x.shape[1]])
    row = growth.train(options, Cell("spiral_arms", "classical", 0))
    assert row["growth_parameters"] == row["growth_multiply_adds"] == 1.0 and row["reached"] == 0.5
    monkeypatch.setattr(growth, "_best", lambda candidate, train_rows, *_: 0.9 - good[train_rows.x.shape[1]])
    row = growth.train(options, Cell("spiral_arms", "classical", 0))  # to fail where it is easy is no slow growth
    assert row["growth_parameters"] == 1.0 and row["reached"] == 0.5


def test_models_of_the_loss_curve_are_those_of_the_paper():
    from qiskit.circuit.library import real_amplitudes, zz_feature_map
    from qiskit.quantum_info import Statevector

    for arm in loss_curve.ARMS:
        assert qbp.nn.models.n_parameters(loss_curve.model_of(arm, 4, 0)) == 8, arm
    x, model = torch.rand(3, 4), loss_curve.model_of("quantum", 4, 1)
    weights = model[0].weights.detach().flatten().tolist()
    circuit = zz_feature_map(4, reps=2).compose(real_amplitudes(4, entanglement="full", reps=1))
    for row, told in zip(x, model(x).exp(), strict=True):
        values = dict(zip([*circuit.parameters], [0.0] * len(circuit.parameters), strict=True))
        for parameter in values:
            values[parameter] = weights[parameter.index] if parameter.name[0] == "θ" else row[parameter.index].item()
        state = Statevector(circuit.assign_parameters(values)).probabilities()
        even = sum(p for k, p in enumerate(state) if k.bit_count() % 2 == 0)
        assert told.tolist() == pytest.approx([even, 1 - even], abs=1e-5)


def test_no_word_left_out_is_the_circuit():
    options = truncated.Options(data=TWO, n_qubits=4, weights=(2, 4), train=qbp.Training(epochs=2, lr=0.05))
    exact, low, whole = (truncated.train(options, Cell("low", arm, 0)) for arm in ("circuit", "weight 2", "weight 4"))
    assert whole["truncation"] < 0.01 < low["truncation"] and whole["accuracy"] == exact["accuracy"]
    x = torch.rand(5, 4)
    models = [
        qbp.nn.models.renew(truncated.model_of(options, arm, 2), 0) for arm in ("circuit", "weight 4", "weight 2")
    ]
    outputs = [model(x) for model in models]
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-5, rtol=1e-5)
    assert (outputs[2] - outputs[0]).abs().max() > 1e-3


def test_circuits_are_counted_where_they_run():
    options = replace_options(TINY["onchip"], arms=("no pruning", "gradient pruning"), epochs=3)
    full, pruned = (onchip.train(options, Cell("digits", arm, 0))["circuits"] for arm in options.arms)
    train_rows, _ = pooled_digits(options.classes, 0, test_size=options.test_size)
    assert len(train_rows) == 20  # one step an epoch
    assert full == 3 * 20 * (1 + 2 * 36) and pruned == 20 * (3 + 2 * (36 + 18 + 18))


def replace_options(options, **changes):
    return type(options)(**{**options.model_dump(), **changes})


def test_a_rotated_teacher_is_the_same_function():
    x = torch.rand(100, 784)
    teacher = relational.network(1, 4, 6, seed=0)
    teacher[11] = nn.Tanh()  # no column is constant
    turned = relational.rotated(teacher, x)
    torch.testing.assert_close(turned(x), teacher(x), atol=1e-5, rtol=1e-4)
    hidden, before = turned[: relational.FEATURES + 1](x), teacher[:12](x)
    torch.testing.assert_close(torch.cdist(hidden, hidden), torch.cdist(before, before), atol=1e-3, rtol=1e-3)
    covariance = torch.cov(hidden.T)
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-5
    assert covariance.diag().diff().max() <= 1e-6  # the largest first
    sizes = [
        sum(p.numel() for p in relational.network(*sizes, seed=0).parameters()) for sizes in ((1, 18, 31), (19, 4, 4))
    ]
    assert sizes == [6690, 1725]  # those of the paper's networks


def test_idx_files_take_the_place_of_the_images_that_qbp_has(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("train", 6), ("t10k", 4)):
        pixels, labels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8)
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(b"\0" * 16 + pixels.tobytes())
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\0" * 8 + labels.tobytes()))
    train_rows, test_rows = relational.images(relational.Options(idx=str(tmp_path)), seed=0)
    assert train_rows.x.shape == (6, 784) and test_rows.y.tolist() == [0, 1, 2, 3]
    back = (test_rows.x * 0.3081 + 0.1307) * 255
    assert np.allclose(back.reshape(4, 28, 28), pixels, atol=1e-3)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(ConfigError, match="t10k-images-idx3-ubyte"):
        relational.images(relational.Options(idx=str(tmp_path)), seed=0)


@pytest.mark.parametrize(
    ("protocol", "options", "says"),
    [
        (onchip, {"device": "package.module:Thing"}, "device"),
        (onchip, {"classes": (3, 6)}, "classes"),
        (noise_aware, {"device": "native"}, "device"),
        (noise_aware, {"classes": (0, 1, 2)}, "classes"),
        (growth, {"arms": ("hybrid", "classic")}, "arms"),
        (growth, {"features": (10,)}, "features"),
        (growth, {"circuit": "circuit.qasm"}, "circuit"),
        (truncated, {"data": {}}, "data"),
        (relational, {"arms": ("qrkd",)}, "arms"),
        (loss_curve, {"lr": 0}, "lr"),
    ],
)
def test_options_are_checked(protocol, options, says):
    with pytest.raises(ValidationError, match=says):
        protocol.Options(**options)


def test_a_circuit_has_as_many_qubits_as_its_data_columns():
    options = truncated.Options(data={"few": Data(name="mnist", features=4)}, n_qubits=8)
    with pytest.raises(ConfigError, match=r"`data.few.features` must be 8, but is 4"):
        truncated.cells(options, [0])
