"""Models with several inputs, images, and rows that may have several labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

import qbp
from qbp.data import preprocessing_of
from qbp.errors import ArgumentError


class TwoInputs(nn.Module):
    """An image through a convolution, words through an embedding, both into a circuit."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.convolution = nn.Conv2d(1, 2, 3)
        self.embedding = nn.Embedding(5, 2)
        self.circuit = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1)
        self.head = nn.Linear(2, 2)

    def forward(self, image: Tensor, word: Tensor) -> Tensor:
        features = F.adaptive_avg_pool2d(self.convolution(image), 1).flatten(1) + self.embedding(word)
        return self.head(self.circuit(features))


@pytest.fixture
def parts(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = rng.normal(size=(48, 1, 5, 5)).astype(np.float32)
    word = rng.integers(0, 5, size=48)
    return image, word, np.where(image.mean((1, 2, 3)) + 0.3 * (word - 2) > 0, "up", "down")


def by_hand(image: np.ndarray, word: np.ndarray, y: np.ndarray, epochs: int) -> tuple[nn.Module, list[float]]:
    """Train in plain torch, on all rows at once."""
    model = TwoInputs()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    labels = torch.tensor([int(name == "up") for name in y])
    losses = []
    for _ in range(epochs):
        loss = F.cross_entropy(model(torch.tensor(image), torch.tensor(word)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


@pytest.mark.parametrize("kind", ["tuple", "mapping", "loader"])
def test_several_inputs_train_as_by_hand(kind: str, parts: Any, tmp_path: Path) -> None:
    image, word, y = parts
    model = TwoInputs()
    numbers = (y == "up").astype(np.int64)
    x: Any = {"image": image, "word": word} if kind == "mapping" else (image, word)
    data: Any = (x, y)
    if kind == "loader":

        class Pairs(TorchDataset):  # type: ignore[type-arg]
            def __len__(self) -> int:
                return 48

            def __getitem__(self, k: int) -> Any:
                return (image[k], word[k]), numbers[k]

        data = DataLoader(Pairs(), batch_size=48)
    options: dict[str, Any] = {"epochs": 6, "lr": 0.05, "batch_size": 48, "shuffle": False}
    history = qbp.fit(model, data, run_dir=tmp_path / "run", **options)
    trained, losses = by_hand(image, word, y, 6)
    assert history.column("loss") == pytest.approx(losses, rel=1e-5)
    for one, two in zip(model.parameters(), trained.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-5)
    with torch.no_grad():
        logits = trained(torch.tensor(image), torch.tensor(word))
    predicted = qbp.predict(model, x)
    names = numbers if kind == "loader" else y
    wanted = logits.argmax(1).numpy() if kind == "loader" else np.array(["down", "up"])[logits.argmax(1).numpy()]
    assert predicted.tolist() == wanted.tolist()
    scores = qbp.evaluate(model, (x, names))
    assert scores["accuracy"] == np.mean(wanted == names)
    if kind == "loader":
        return
    # The checkpoint knows them: loaded into another model, it predicts.
    other = TwoInputs()
    qbp.load_checkpoint(other, tmp_path / "run")
    assert preprocessing_of(other) is not None and qbp.predict(other, x).tolist() == predicted.tolist()
    with pytest.raises(ArgumentError, match="must have the inputs"):
        qbp.predict(model, (image,) if kind == "tuple" else {"image": image, "words": word})
    with pytest.raises(ArgumentError, match="as many rows in each input"):
        qbp.predict(model, (image, word[:3]))


def test_several_inputs_split_shuffle_and_count_by_row(parts: Any) -> None:
    """With shuffled batches, validation, weights and early stopping each image stays with its word."""

    class Checks(TwoInputs):
        def forward(self, image: Tensor, word: Tensor) -> Tensor:
            assert word.dtype == torch.int64 and image.shape[1:] == (1, 5, 5)
            assert torch.equal(image[:, 0, 0, 0].long(), word)
            return super().forward(image, word)

    image, word, y = parts
    image[:, 0, 0, 0] = word
    options: dict[str, Any] = {"epochs": 3, "batch_size": 7, "validation": 0.25, "early_stopping": 2}
    history = qbp.fit(Checks(), ((image, word), y), sample_weight=np.linspace(1, 2, 48), **options)
    assert "val_accuracy" in history.last


def test_images_train_as_they_are(rng: np.random.Generator) -> None:
    image = rng.normal(size=(30, 1, 6, 6)).astype(np.float32)
    y = (image.mean((1, 2, 3)) > 0).astype(int)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1),
        nn.Linear(2, 2),
    )
    history = qbp.fit(model, (image, y), epochs=3, validation=0.2)
    assert history.column("loss")[0] > history.last["loss"] and qbp.predict(model, image).shape == (30,)


@pytest.mark.parametrize("kind", [np.int64, np.bool_])
def test_rows_may_have_several_labels(kind: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    x = rng.normal(size=(80, 3)).astype(np.float32)
    y = (x @ rng.normal(size=(3, 3)) > 0).astype(kind)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1), nn.Linear(2, 3))
    reference = [p.detach().clone() for p in model.parameters()]
    options: dict[str, Any] = {"lr": 0.05, "batch_size": 80, "shuffle": False}
    qbp.fit(model, (x, y), epochs=1, **options)
    other = nn.Sequential(nn.Linear(3, 2), qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1), nn.Linear(2, 3))
    with torch.no_grad():
        for p, value in zip(other.parameters(), reference, strict=True):
            p.copy_(value)
    loss = F.binary_cross_entropy_with_logits(other(torch.tensor(x)), torch.tensor(y, dtype=torch.float32))
    optimizer = torch.optim.Adam(other.parameters(), lr=0.05)
    loss.backward()
    optimizer.step()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-6)
    options |= {"epochs": 40, "validation": 0.2, "monitor": "val_exact_match", "early_stopping": 30}
    history = qbp.fit(model, (x, y), metrics={"any": lambda outputs, has: ((outputs > 0) == has).any()}, **options)
    assert history.best["val_exact_match"] == max(history.column("val_exact_match"))
    scores, said = qbp.evaluate(model, (x, y)), qbp.predict(model, x)
    assert said.dtype == kind and said.shape == (80, 3)
    assert scores["accuracy"] == pytest.approx(np.mean(said == y)) and scores["accuracy"] > 0.7
    assert scores["exact_match"] == pytest.approx(np.mean((said == y).all(1)))
    assert scores["per_label_accuracy"] == pytest.approx((said == y).mean(0).tolist())
    shares = qbp.predict(model, x, probabilities=True)
    assert ((shares > 0.5) == said.astype(bool)).all() and (shares.sum(1) != pytest.approx(1))
    qbp.save_model(model, tmp_path / "model.safetensors")
    assert (qbp.predict(qbp.load_model(tmp_path / "model.safetensors"), x) == said).all()


def test_what_is_no_label_or_input_is_told(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(6, 2)), np.eye(6, 3, dtype=int)
    with pytest.raises(ArgumentError, match="0 or 1 for each of 3 labels"):
        qbp.fit(qbp.mlp(2, 3), (x, 2 * y), epochs=1)
    with pytest.raises(ArgumentError, match=r"shape \(B, 3\) for 3 labels"):
        qbp.fit(qbp.mlp(2, 2), (x, y), epochs=1)
    with pytest.raises(ArgumentError, match="must be one of 'bce' for 3 labels"):
        qbp.fit(qbp.mlp(2, 3), (x, y), epochs=1, loss="cross_entropy")
    with pytest.raises(ArgumentError, match="`class_weight` must be None for rows of several labels"):
        qbp.fit(qbp.mlp(2, 3), (x, y), epochs=1, class_weight="balanced")
    with pytest.raises(ArgumentError, match="must have one input here, but has 2"):
        qbp.lr_range_test(qbp.mlp(2, 3), qbp.data.as_dataset(((x, x), y)))
    with pytest.raises(ArgumentError, match=r"but input '1' is <U1"):
        qbp.fit(qbp.mlp(2, 3), ((x, np.array(list("abcdef"))), y), epochs=1)
