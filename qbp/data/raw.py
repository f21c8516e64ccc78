"""The data sets that come with qbp or with scikit-learn, as they are, before any split or scaling."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qbp.errors import ArgumentError

__all__ = [
    "Column",
    "Raw",
    "breast_cancer",
    "circles",
    "diabetes",
    "digits",
    "iris",
    "mnist",
    "moons",
    "numbered",
    "parity",
    "wine",
    "xor",
]


class Column(NamedTuple):
    """A column of a table, as it was when a model was trained on it.

    Attributes:
        name: what it is called.
        levels: the words that it may hold, each of which became a column of 0 and 1; none: it holds numbers.
        per_cent: whether its numbers were written in per cent.
        commas: what commas in its numbers are: "decimal", "thousands", or "" where there were none.
    """

    name: str
    levels: tuple[str, ...] = ()
    per_cent: bool = False
    commas: str = ""


class Raw(NamedTuple):
    """What a function of `DATASETS` returns: rows as they are, before any split or scaling."""

    x: np.ndarray  # (n, I)
    y: np.ndarray  # (n,) integers 0..k-1, or (n, T) floats
    classes: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    image: tuple[int, int] | None = None  # height and width, when the columns are pixels (in 0..1)
    table: bool = False  # a truth table: train and test are both the whole of it
    target: str = "label"  # what the labels or targets are called
    columns: tuple[Column, ...] = ()  # of the table that the rows were made of; none: all are numbers
    kind: str = "i"  # of the classes' names: "i" integers, "f" whole floats, "b" booleans, "U" words


def xor() -> Raw:
    """The truth table of exclusive or: 4 rows of 2 bits."""
    return parity(2)


def parity(features: int = 4) -> Raw:
    """The truth table of the parity of `features` bits: 2 ** features rows."""
    if not 1 <= features <= 16:
        raise ArgumentError(f"Argument `features` must be 1 to 16 bits, but is {features}")
    bits = np.array(list(product((0, 1), repeat=features)))
    return Raw(bits, bits.sum(1) % 2, ("even", "odd"), numbered("bit", features), table=True)


def moons(n_samples: int = 200, noise: float = 0.1, seed: int = 0) -> Raw:
    """Two interleaving half circles."""
    from sklearn.datasets import make_moons

    x, y = make_moons(n_samples, noise=noise, random_state=seed)
    return Raw(x, y, ("upper", "lower"))


def circles(n_samples: int = 200, noise: float = 0.1, seed: int = 0) -> Raw:
    """A circle inside a circle."""
    from sklearn.datasets import make_circles

    x, y = make_circles(n_samples, noise=noise, random_state=seed, factor=0.5)
    return Raw(x, y, ("outer", "inner"))


def _bundled(name: str) -> Raw:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    names = tuple(map(str, bunch.feature_names))
    if "target_names" not in bunch:
        return Raw(bunch.data, bunch.target[:, None], (), names)
    return Raw(bunch.data, bunch.target, tuple(map(str, bunch.target_names)), names)


def iris() -> Raw:
    """150 flowers, 4 measures, 3 species (scikit-learn)."""
    return _bundled("iris")


def wine() -> Raw:
    """178 wines, 13 measures, 3 growers (scikit-learn)."""
    return _bundled("wine")


def breast_cancer() -> Raw:
    """569 tumours, 30 measures, malignant or benign (scikit-learn)."""
    return _bundled("breast_cancer")


def diabetes() -> Raw:
    """442 patients, 10 measures; the target is how far the disease went in a year (scikit-learn)."""
    return _bundled("diabetes")


def digits() -> Raw:
    """1,797 images of 8 x 8 pixels of handwritten digits (scikit-learn)."""
    raw = _bundled("digits")
    return raw._replace(x=raw.x / 16.0, image=(8, 8))


def mnist() -> Raw:
    """5,000 images of 28 x 28 pixels of handwritten digits: `datasets/README.md` has source and licence."""
    with np.load(Path(__file__).parent.parent / "datasets" / "mnist5k.npz", allow_pickle=False) as file:
        images, labels = file["x"], file["y"]
    names = tuple(f"pixel_{row}_{column}" for row in range(28) for column in range(28))
    pixels = images.reshape(len(images), -1) / 255.0
    return Raw(pixels, labels.astype(np.int64), tuple(map(str, range(10))), names, (28, 28))


def numbered(prefix: str, count: int) -> tuple[str, ...]:
    """Return the names of columns that have none: "x0", "x1"..."""
    return tuple(f"{prefix}{k}" for k in range(count))
