"""Noise in configs: training, pruning, distillation, comparison and the noise table under a device's noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import qbp
from qbp.cli import main
from qbp.errors import ConfigError
from qbp.runs import config as configs
from qbp.runs.run import restore

pytest.importorskip("qiskit_aer")

NOISY = """\
data: {name: iris, classes: [0, 2], n_samples: 30}
model: {kind: hybrid, n_qubits: 2, n_layers: 1, noise: "fake:manila"}
train: {epochs: 1, lr: 0.05}
twin: false
"""
STAGES = """\
prune: {amount: 0.3, what: gates, finetune: {epochs: 1}}
distill: {temperature: 1.0, logit_norm: true, student: {kind: hybrid, n_qubits: 2, n_layers: 1, noise: "fake:manila"}}
"""


def qbp_ok(*arguments: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    assert ended.value.code == 0


def test_runs_under_noise(tmp_path: Path, capsys):
    """Trained, pruned and taught under a device's noise, and evaluated with and without."""
    (tmp_path / "stages.yaml").write_text(NOISY + STAGES)
    qbp_ok("run", tmp_path / "stages.yaml", "-q", "--runs-dir", tmp_path / "runs")
    (tmp_path / "noisy.yaml").write_text(NOISY)
    qbp_ok("train", tmp_path / "noisy.yaml", "-q", "--runs-dir", tmp_path / "runs")
    qbp_ok("noise", tmp_path / "runs/noisy", "--shots", 100)
    assert "fake:manila" in capsys.readouterr().out
    small = qbp.load_model(next((tmp_path / "runs/stages").glob("*-distill/*.safetensors")))
    layers = [module for module in small.modules() if isinstance(module, qbp.QuantumLayer)]
    assert [layer.noise for layer in layers] == ["fake:manila"]


@pytest.mark.slow
def test_runs_under_sampled_noise(tmp_path: Path):
    """By a config's keys alone: equal seeds train to equal bits, and what was trained is loaded as it ran."""
    sampled = NOISY.replace("n_qubits: 2,", 'n_qubits: 2, backend: "trajectories:8",')
    weights = []
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(sampled)
        qbp_ok("train", tmp_path / f"{name}.yaml", "-q", "--runs-dir", tmp_path / "runs")
        _, model, _ = restore(tmp_path / "runs" / name)
        layer = next(m for m in model.modules() if isinstance(m, qbp.QuantumLayer))
        assert layer.backend == "trajectories:8" and layer.noise == "fake:manila"
        weights.append(layer.weights.detach())
    assert torch.equal(*weights) and configs.load(tmp_path / "a.yaml").model.backend == "trajectories:8"


def test_models_stay_noisy():
    model = qbp.hybrid(3, 2, n_qubits=2, n_layers=2, noise="fake:manila", seed=0)
    x = torch.randn(40, 3)
    data = qbp.data.Dataset(x, (x[:, 0] > 0).long(), n_classes=2)
    pruned = qbp.prune(model, data, amount=0.3, what="gates")
    assert pruned[2].noise == "fake:manila" and len(pruned[2].circuit.program.ops) < len(model[2].circuit.program.ops)
    table = qbp.noise_table(model, data, shots=100)
    assert table["fake:manila"].stds["accuracy"] == 0 and table["exact"].distance == 0 < table["fake:manila"].distance
    assert torch.equal(qbp.on_backend(model, "fake:manila")(x), model(x))


@pytest.mark.parametrize("noise", ["ibm:ibm_torino", "fake:", "os:system", "fake:../x"])
def test_only_fake_devices_are_noise_in_a_file(tmp_path: Path, noise: str):
    path = tmp_path / "config.yaml"
    path.write_text(NOISY.replace('noise: "fake:manila"', f'noise: "{noise}"', 1))
    with pytest.raises(ConfigError, match=r"model\.noise"):
        configs.load(path)
