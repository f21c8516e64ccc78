"""Diagnosis: planted faults are named, healthy models are not, and the numbers are what their formulas say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pennylane as qml
import pytest
import torch
from torch import Tensor, nn

import qbp
from qbp.analysis import expressibility, fisher
from qbp.analysis.diagnosis import CHECKS, Finding, diagnose, stalled
from qbp.circuit.channels import Channel
from qbp.circuit.noise_rows import ROWS
from qbp.cli import main
from qbp.data import Dataset
from qbp.errors import ArgumentError, CircuitError
from qbp.executors.native import Native
from qbp.runs import config
from qbp.runs import run as runs

XOR, _ = qbp.data.load("xor")
MOONS, _ = qbp.data.load("moons", seed=0)


def warnings(model: nn.Module, data: Dataset, **options: object) -> set[str]:
    return {finding.code for finding in diagnose(model, data, **options) if finding.warns}  # type: ignore[arg-type]


def bare(n_qubits: int = 2, n_layers: int = 2, **options: object) -> nn.Sequential:
    """A circuit that gets the data as it is."""
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=n_qubits, n_layers=n_layers, seed=0, **options)
    return nn.Sequential(layer, nn.Linear(layer.n_outputs, 2))


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 2), 0.3).to(x)


# ---- planted faults, each named by its code and by nothing that is not its consequence -----------------------------


def test_constant_angles() -> None:
    assert warnings(nn.Sequential(Constant(), *bare()), XOR) == {"ANGLES_CONSTANT", "OUTPUT_CONSTANT"}
    model = qbp.hybrid(2, 2, n_qubits=2, seed=0)
    with torch.no_grad():
        model[0].weight.zero_()
    assert warnings(model, XOR) == {"ANGLES_CONSTANT", "OUTPUT_CONSTANT"}


def test_random_circuit_of_12_qubits_with_a_global_cost() -> None:
    generator = torch.Generator().manual_seed(0)
    data = Dataset(torch.randn(40, 12, generator=generator), torch.arange(40) % 2)
    findings = diagnose(bare(12, 8, observables="Z" * 12), data)
    (warning,) = (finding for finding in findings if finding.warns)
    assert warning.code == "BARREN_PLATEAU" and warning.picture.x[-1] == 12
    assert warning.value == pytest.approx(2**-12 / 2, rel=0.3)  # of a 2-design, arXiv 1803.11173
    sizes, variances = warning.picture.x, warning.picture.y
    rate = (variances[-1] / variances[2]) ** (1 / (sizes[-1] - sizes[2]))
    assert rate == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("before", [[], [nn.Linear(2, 2)]])
def test_inputs_scaled_by_1000(before: list[nn.Module]) -> None:
    data = Dataset(MOONS.x * 1000, MOONS.y)
    assert warnings(nn.Sequential(*before, *bare()), data) == {"ANGLES_WRAP"}


def test_inputs_scaled_by_1000_into_bounded_angles() -> None:
    codes = warnings(qbp.hybrid(2, 2, n_qubits=2, seed=0), Dataset(MOONS.x * 1000, MOONS.y))
    assert codes == {"ANGLES_SATURATED"}


def test_saturated_output() -> None:
    model = qbp.hybrid(2, 2, n_qubits=2, seed=0)
    with torch.no_grad():
        model[-1].weight.mul_(1000)
    assert warnings(model, MOONS) == {"OUTPUT_SATURATED"}
    assert warnings(nn.Sequential(*model, nn.Tanh()), MOONS) == {"OUTPUT_SATURATED", "OUTPUT_RANGE"}


def test_output_that_cannot_reach_the_targets() -> None:
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=2, n_layers=2, seed=0)
    (finding,) = (f for f in diagnose(nn.Sequential(nn.Linear(2, 2), nn.Tanh(), layer), MOONS) if f.warns)
    assert finding.code == "OUTPUT_RANGE"
    assert finding.value == pytest.approx(-math.log(math.exp(1) / (math.exp(1) + math.exp(-1))))
    regression = Dataset(MOONS.x, 3 * MOONS.x)
    assert warnings(nn.Sequential(nn.Linear(2, 2), nn.Tanh(), layer), regression) == {"OUTPUT_RANGE"}
    assert warnings(nn.Sequential(nn.Linear(2, 2), nn.Tanh(), layer, nn.Linear(2, 2)), regression) == set()


def test_no_entanglement_dead_parameters_and_a_state_that_does_not_move() -> None:
    def separable(inputs: Tensor, weights: Tensor) -> list[object]:
        qml.AngleEmbedding(inputs, wires=range(2))
        for wire in range(2):
            qml.Rot(*weights[wire], wires=wire)  # the last rotation of three is about the axis that is measured
        return [qml.expval(qml.Z(wire)) for wire in range(2)]

    model = nn.Sequential(qbp.QuantumLayer(separable, {"weights": (2, 3)}), nn.Linear(2, 2))
    assert "NO_ENTANGLEMENT" in warnings(model, MOONS)

    def idle(inputs: Tensor, weights: Tensor) -> list[object]:
        for wire in range(2):
            qml.RZ(inputs[wire] + weights[wire], wires=wire)
        return [qml.expval(qml.Z(wire)) for wire in range(2)]

    layer = qbp.QuantumLayer(idle, {"weights": (2,)})
    codes = warnings(nn.Sequential(layer, nn.Linear(2, 2)), MOONS)
    assert {"LOW_EXPRESSIBILITY", "NO_ENTANGLEMENT", "OUTPUT_CONSTANT", "DEAD_PARAMETERS"} <= codes


def test_collapse_to_one_class_and_a_stalled_loss() -> None:
    model = qbp.hybrid(2, 2, n_qubits=2, seed=0)
    history = qbp.fit(model, MOONS, epochs=2, lr=1e-7)
    with torch.no_grad():
        model[-1].bias.copy_(torch.tensor([9.0, 0.0]))
    assert {"CLASS_COLLAPSE", "LOSS_STALLED"} <= warnings(model, MOONS, history=history)
    assert warnings(model, MOONS) == set()  # not known to be trained
    assert stalled(history, MOONS)


# ---- healthy models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_healthy_xor_model_gives_no_warning(seed: int) -> None:
    model = qbp.hybrid(2, 2, n_qubits=2, seed=seed)
    assert warnings(model, XOR, seed=seed) == set()
    history = qbp.fit(model, XOR, epochs=100, lr=0.05, batch_size=4, seed=seed)
    assert not stalled(history, XOR)
    assert warnings(model, XOR, history=history, seed=seed) == set()


@pytest.mark.parametrize("circuit", ["basic_entangler", "hardware_efficient", "real_amplitudes", "reuploading"])
def test_healthy_circuits_give_no_warning(circuit: str) -> None:
    assert warnings(qbp.hybrid(2, 2, circuit=circuit, n_qubits=4, seed=0), MOONS) == set()


def test_a_model_that_does_not_train() -> None:
    """Frozen as a whole, or in all that its outputs depend on: no gradient, and no error."""
    data = qbp.data.load("moons")[0]
    frozen = qbp.hybrid(2, 2, n_qubits=2, seed=0).requires_grad_(False)
    codes = {finding.code for finding in qbp.diagnose(frozen, data)}
    assert "BARREN_PLATEAU" in codes and "FLAT_FISHER" not in codes
    frozen.register_module("unused", nn.Identity())
    frozen.unused.weight = nn.Parameter(torch.zeros(2))
    assert {finding.code for finding in qbp.diagnose(frozen, data)} > codes  # its parameters do nothing


def test_a_classical_model_and_a_regression() -> None:
    assert warnings(qbp.mlp(2, 8, 2, seed=0), MOONS) == set()
    train, _ = qbp.data.load("diabetes", features=4)
    model = qbp.hybrid(4, 1, seed=0)
    history = qbp.fit(model, train, epochs=3, lr=0.02)
    codes = {finding.code for finding in diagnose(model, train, history=history)}
    assert "CLASS_COLLAPSE" not in codes and {"LOSS_STALLED", "FLAT_FISHER"} <= codes


def test_bce_and_probabilities() -> None:
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=2, n_layers=2, seed=0)
    assert warnings(nn.Sequential(layer, nn.Linear(2, 1)), MOONS, loss="bce") == set()

    def probs(inputs: Tensor, weights: Tensor) -> object:
        qml.AngleEmbedding(inputs, wires=range(2))
        qml.StronglyEntanglingLayers(weights, wires=range(2))
        return qml.probs(wires=[0])

    model = nn.Sequential(qbp.QuantumLayer(probs, {"weights": (2, 2, 3)}, seed=0))
    (warning,) = (finding for finding in diagnose(model, MOONS) if finding.code == "OUTPUT_RANGE")
    assert warning.warns and warning.picture.limits == (0, 1)


# ---- what it costs and leaves alone --------------------------------------------------------------------------------


class Paid(Native):
    """Stands for hardware: nothing may run there."""

    def __call__(self, *args: object, **options: object) -> Tensor:
        raise AssertionError("a circuit was sent")

    forward = __call__  # type: ignore[assignment]


def test_nothing_is_sent_and_nothing_is_changed() -> None:
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=2, n_layers=2, backend=Paid())
    model = nn.Sequential(layer, nn.Linear(2, 2))
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    first = diagnose(model, MOONS)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()) and model.training
    assert torch.equal(torch.get_rng_state(), random) and layer.executor.__class__ is Paid
    assert diagnose(model, MOONS) == first


def test_a_qnode_that_runs_itself_is_judged_from_outside() -> None:
    @qml.qnode(qml.device("default.mixed", wires=2))
    def circuit(inputs: Tensor, weights: Tensor) -> list[object]:
        qml.AngleEmbedding(inputs, wires=range(2))
        qml.BitFlip(0.1, wires=0)
        qml.StronglyEntanglingLayers(weights, wires=range(2))
        return [qml.purity(wire) for wire in range(2)]

    layer = qbp.QuantumLayer(circuit, {"weights": (1, 2, 3)})
    codes = {f.code for f in diagnose(nn.Sequential(layer, nn.Linear(2, 2)), MOONS.subset(range(4)))}
    assert "BARREN_PLATEAU" not in codes and "FLAT_FISHER" in codes
    with pytest.raises(CircuitError, match="runs itself"):
        expressibility.random_states(layer, MOONS.x)


def test_a_circuit_with_noise_is_judged_but_for_its_states() -> None:
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=2, n_layers=1, seed=0)
    noisy = list(layer.circuit.program.ops)
    noisy.insert(4, Channel.of_matrix("BitFlip", (0,), ROWS["BitFlip"](0.1)))
    circuit = replace(layer.circuit, program=replace(layer.circuit.program, ops=tuple(noisy)))
    codes = {
        f.code for f in diagnose(nn.Sequential(qbp.QuantumLayer(circuit), nn.Linear(2, 2)), MOONS.subset(range(4)))
    }
    assert "BARREN_PLATEAU" in codes and "LOW_EXPRESSIBILITY" not in codes


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ArgumentError, match="features"):
        diagnose(qbp.hybrid(3, 2, seed=0), XOR)


def test_a_stalled_run_diagnoses_itself_and_another_does_not(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "stuck.yaml").write_text("data: {name: moons}\ntrain: {epochs: 2, lr: 1.0e-7}\ntwin: false\n")
    main_ok(["train", str(tmp_path / "stuck.yaml"), "-q", "--runs-dir", str(tmp_path / "runs")])
    said = capsys.readouterr().out
    assert "The hybrid model did not learn. Training took 0.0% off the loss" in " ".join(said.split())
    folder = tmp_path / "runs/stuck"
    kept = [Finding.from_json(f) for f in json.loads((folder / runs.DIAGNOSIS).read_text())["findings"]]
    assert "LOSS_STALLED" in {finding.code for finding in kept if finding.warns}
    assert kept == list(runs.diagnose(folder)) and (folder / "diagnosis.png").stat().st_size > 10_000
    main_ok(["diagnose", str(folder)])
    assert "LOSS_STALLED: Training took 0.0% off" in " ".join(capsys.readouterr().out.split())

    monkeypatch.setattr(runs, "diagnose_model", None)  # a run that learns never gets there
    result = runs.train(config.load("xor", ["train.epochs=40"]), tmp_path / "xor")
    assert "diagnosis" not in result["models"]["hybrid"] and not (tmp_path / "xor" / runs.DIAGNOSIS).exists()


def main_ok(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert not done.value.code


def test_every_finding_says_what_it_is() -> None:
    model = qbp.hybrid(2, 2, n_qubits=2, seed=0)
    history = qbp.fit(model, XOR, epochs=2, seed=0)
    findings = diagnose(model, XOR, history=history)
    assert len(findings) >= 12 and len(CHECKS) == 9
    for finding in findings:
        assert finding.code.isupper() and finding.says.endswith(".") and finding.picture.y, finding
        assert Finding.from_json(json.loads(json.dumps(finding.to_json()))) == finding


# ---- the numbers ---------------------------------------------------------------------------------------------------


def test_expressibility_of_one_qubit() -> None:
    """Circuit A of arXiv 1905.10876, figure 2, has the arcsine law of fidelities; random and equal states are known."""
    angles = torch.rand(400, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 * math.pi
    equator = torch.stack([torch.ones(400), torch.exp(1j * angles[:, 0])], 1) / math.sqrt(2)
    edges = torch.linspace(0, 1, 76, dtype=torch.float64)
    shares = (torch.asin(edges.sqrt()) * 2 / math.pi).diff()
    exact = float((shares * (shares * 75).log()).sum())
    assert expressibility.expressibility(equator) == pytest.approx(exact, abs=0.02)
    haar = torch.randn(400, 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    haar = haar / haar.norm(dim=1, keepdim=True)
    assert expressibility.expressibility(haar) < 0.01
    assert expressibility.expressibility(haar[:1].repeat(10, 1)) == pytest.approx(expressibility.max_divergence(1))


def test_entangling_capability_of_known_states() -> None:
    def q(*amplitudes: float) -> float:
        state = torch.tensor([amplitudes], dtype=torch.complex128)
        return expressibility.entangling_capability(state / state.norm())

    assert q(1, 0, 0, 0, 0, 0, 0, 1) == pytest.approx(1)
    assert q(1, 1, 1, 1) == pytest.approx(0)
    assert q(0, 1, 1, 0, 1, 0, 0, 0) == pytest.approx(8 / 9)  # W
    random = torch.randn(2000, 16, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    random = random / random.norm(dim=1, keepdim=True)
    assert expressibility.entangling_capability(random) == pytest.approx(14 / 17, abs=0.005)  # (2^N - 2) / (2^N + 1)


def test_gradient_variance_on_all_wires_is_that_of_the_layer() -> None:
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=3, n_layers=2)
    x = torch.zeros(1, 3)
    sizes, variances = expressibility.variance_by_qubits(layer, x, n_samples=2000)
    each = qbp.gradient_variance(layer, x, n_samples=2000, seed=1)
    assert sizes == [1, 2, 3]
    assert variances[-1] == pytest.approx(float(each[each > 1e-20].mean()), rel=0.05)


def test_jacobian_and_fisher_information_by_their_definitions() -> None:
    model = qbp.hybrid(2, 3, n_qubits=2, n_layers=1, seed=0, backend="dense").double()
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameters = dict(model.named_parameters())
    slopes = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (x,)))(parameters)
    expected = torch.cat([slopes[name].flatten(2) for name in parameters], 2)
    jacobian = fisher.model_jacobian(model, x)
    torch.testing.assert_close(jacobian, expected)
    native = qbp.hybrid(2, 3, n_qubits=2, n_layers=1, seed=0).double()
    torch.testing.assert_close(fisher.model_jacobian(native, x), expected)

    outputs = model(x).detach()
    information = torch.zeros(jacobian.shape[2], jacobian.shape[2], dtype=torch.float64)
    for b in range(4):
        for c in range(3):
            (log_p,) = model(x[b : b + 1]).log_softmax(1)[:, c]
            score = torch.cat([g.flatten() for g in torch.autograd.grad(log_p, list(model.parameters()))])
            information += log_p.exp().detach() / 4 * torch.outer(score, score)
    factor = fisher.fisher_factor(jacobian, outputs, labels=True)
    torch.testing.assert_close(factor.mT @ factor, information)
    eigenvalues = torch.linalg.eigvalsh(information).flip(0)
    torch.testing.assert_close(fisher.spectrum(factor), eigenvalues[: len(factor)], atol=1e-12, rtol=1e-9)

    one, two = outputs[:, :1], torch.cat([torch.zeros(4, 1), outputs[:, :1]], 1)  # a logit, and the same as two
    pair = torch.cat([torch.zeros_like(jacobian[:, :1]), jacobian[:, :1]], 1)
    a, b = (
        fisher.fisher_factor(jacobian[:, :1], one, labels=True),
        fisher.fisher_factor(pair, two, labels=True),
    )
    torch.testing.assert_close(a.mT @ a, b.mT @ b)


def test_effective_dimension_is_between_the_extremes() -> None:
    """As its definition says, with determinants taken of whole matrices."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(6, 5, 4, dtype=torch.float64, generator=generator)
    fishers = factors.mT @ factors
    k = 500 / (2 * math.pi * math.log(500))
    scaled = 4 * fishers / fishers.diagonal(dim1=1, dim2=2).sum(1).mean()
    roots = torch.linalg.det(torch.eye(4, dtype=torch.float64) + k * scaled).sqrt()
    expected = 2 * math.log(float(roots.mean())) / math.log(k)
    spectra = torch.linalg.eigvalsh(fishers)
    assert fisher.effective_dimension(spectra, 4, 500) == pytest.approx(expected)
    one = torch.tensor([[1.0, 0, 0, 0]])
    assert fisher.effective_dimension(one, 4, 500) < expected < 4.5
    assert fisher.effective_dimension(torch.zeros(2, 4), 4, 500) == 0
    with pytest.raises(ArgumentError, match="at least 19"):
        fisher.effective_dimension(one, 4, 18)


def test_gradients_do_not_depend_on_what_the_caller_switched_off():
    train, _ = qbp.data.load("xor")
    model = qbp.nn.models.hybrid(2, 2, n_qubits=2, seed=0)
    with torch.no_grad():
        findings = qbp.diagnose(model, train)
        jacobian = qbp.analysis.fisher.model_jacobian(model, train.x[:3])
        small = qbp.prune(model, train, amount=0.5, by="taylor")
    assert findings == qbp.diagnose(model, train)
    assert jacobian.abs().sum() > 0
    assert torch.equal(jacobian, qbp.analysis.fisher.model_jacobian(model, train.x[:3]))
    torch.testing.assert_close(small(train.x), qbp.prune(model, train, amount=0.5, by="taylor")(train.x))


def test_circuits_wider_than_any_state_are_diagnosed(monkeypatch):
    """All but their states; and the variance at their own width is that of the whole series."""
    layer = qbp.QuantumLayer("hardware_efficient", n_qubits=40, n_layers=1, seed=0)
    train = Dataset(torch.rand(30, 40), torch.arange(30) % 2)
    codes = {finding.code: finding for finding in diagnose(nn.Sequential(layer, nn.Linear(40, 2)), train)}
    assert {"BARREN_PLATEAU", "ANGLES_WRAP", "DEAD_PARAMETERS"} <= set(codes) and "LOW_EXPRESSIBILITY" not in codes
    assert codes["BARREN_PLATEAU"].picture.x == (40,)
    small = qbp.QuantumLayer("hardware_efficient", n_qubits=5, n_layers=2, seed=0)
    rows = torch.rand(20, 5)
    sizes, variances = expressibility.variance_by_qubits(small, rows)
    monkeypatch.setattr(expressibility, "WIDEST_STATE", 4)
    assert len(sizes) > 1 and expressibility.variance_by_qubits(small, rows) == ([5], variances[-1:])
