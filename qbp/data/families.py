"""Benchmark families: those of arXiv 2403.07059 (Bowles, Ahmed, Schuld), written from its text, spirals and a disc.

Each set is one draw of the family: another seed is another task, not another sample of the same one (but for linearly
separable data, bars and stripes, spirals and the disc, whose rule is fixed). `published` gives the study's very sets.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.random import RandomState

from qbp.data.raw import Raw
from qbp.errors import ArgumentError

__all__ = [
    "GROUPS",
    "bars_and_stripes",
    "disc",
    "hidden_manifold",
    "hyperplanes",
    "linearly_separable",
    "published",
    "spiral_arms",
    "spirals",
    "two_curves",
]

_XY = tuple[np.ndarray, np.ndarray]
_CLASSES = ("-1", "+1")  # the study's labels; here -1 is class 0


def linearly_separable(features: int = 4, n_samples: int = 300, margin: float = 0.02, seed: int = 0) -> Raw:
    """Points of a hypercube on either side of sum(x) = 0, none within `margin` times `features` of that plane."""
    return Raw(*_linearly_separable(RandomState(seed), n_samples, features, margin * features), _CLASSES)


def hidden_manifold(features: int = 10, n_samples: int = 300, dimension: int = 6, seed: int = 0) -> Raw:
    """Points on a curved manifold of few dimensions, labelled by a network that sees those (arXiv 1909.11500)."""
    return Raw(*_hidden_manifold(RandomState(seed), n_samples, features, dimension), _CLASSES)


def two_curves(
    features: int = 4, n_samples: int = 300, degree: int = 5, offset: float = 0.1, noise: float = 0.01, seed: int = 0
) -> Raw:
    """Two closed curves, each coordinate a Fourier series of `degree`; the second is the first, moved by `offset`."""
    return Raw(*_two_curves(RandomState(seed), n_samples, features, degree, offset, noise), _CLASSES)


def hyperplanes(features: int = 10, n_samples: int = 300, planes: int = 3, dimension: int = 3, seed: int = 0) -> Raw:
    """The parity of the sides on which a point lies of `planes` hyperplanes in a hidden space of `dimension`."""
    return Raw(*_hyperplanes(RandomState(seed), n_samples, features, planes, dimension), _CLASSES)


def bars_and_stripes(features: int = 16, n_samples: int = 300, noise: float = 0.5, seed: int = 0) -> Raw:
    """Square images of `features` pixels, of bars (columns, class 0) or of stripes (rows, class 1), with noise."""
    side = math.isqrt(features)
    if side * side != features:
        raise ArgumentError(f"Argument `features` must be the square of a side, but is {features}")
    x, y = _bars_and_stripes(RandomState(seed), n_samples, side, noise)
    return Raw(x, y, ("bars", "stripes"))


def spirals(n_samples: int = 400, turns: float = 1.52, noise: float = 0.7, seed: int = 0) -> Raw:
    """Two interleaving spirals (arXiv 1912.08278); `noise` is the side of the square that each point is spread over."""
    rng = RandomState(seed)
    half = _half(n_samples)
    angle = np.sqrt(rng.rand(half, 1)) * turns * 2 * np.pi
    horizontal = -np.cos(angle) * angle + rng.rand(half, 1) * noise
    arm = np.hstack([horizontal, np.sin(angle) * angle + rng.rand(half, 1) * noise])
    return Raw(np.vstack([arm, -arm]), np.repeat([0, 1], half), ("first", "second"), ("x", "y"))


def disc(n_samples: int = 400, seed: int = 0) -> Raw:
    """Points of the square [-1, 1]^2 inside and outside of a circle that halves its area (arXiv 1907.02085)."""
    x = RandomState(seed).uniform(-1, 1, (n_samples, 2))
    return Raw(x, ((x**2).sum(1) < 2 / np.pi).astype(np.int64), ("outside", "inside"), ("x", "y"))


def spiral_arms(
    features: int = 10,
    n_samples: int = 1500,
    arms: int = 3,
    turns: float = 1.0,
    noise: float | None = None,
    seed: int = 0,
) -> Raw:
    """Arms of a spiral in two columns, sines of random directions of these in the others (after arXiv 2412.04991).

    Each seed draws its own sines: another seed is another task. The paper gives rows, classes and noise, which grows
    with the columns; the arms' length and the sines are ours.

    Args:
        features: columns, at least 2.
        n_samples: rows.
        arms: classes.
        turns: of an arm, from the middle to radius 2.
        noise: standard deviation in each column; None: ``0.1 + 0.003 features``.
        seed: of everything random.
    """
    if features < 2 or arms < 2:
        name, value = ("features", features) if features < 2 else ("arms", arms)
        raise ArgumentError(f"Argument `{name}` must be 2 or more, but is {value}")
    rng = RandomState(seed)
    y = np.arange(n_samples) % arms
    share = np.sqrt(rng.rand(n_samples))
    angle = 2 * np.pi * (turns * share + y / arms)
    plane = 2 * share[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    waves = np.sin(plane @ rng.normal(size=(2, features - 2)) + 2 * np.pi * rng.rand(features - 2))
    x = np.hstack([plane, waves])
    spread = 0.1 + 0.003 * features if noise is None else noise
    return Raw(x + spread * rng.normal(size=x.shape), y, tuple(f"arm_{k}" for k in range(arms)))


# ---- how they are made: the study's draws in the study's order -----------------------------------------------------


def _linearly_separable(rng: RandomState, n: int, d: int, margin: float) -> _XY:
    x = 2 * rng.rand(2 * n, d) - 1
    x = x[np.abs(x.sum(1)) > margin]
    while len(x) < n:
        more = 2 * rng.rand(2 * n, d) - 1
        x = np.concatenate([x, more[np.abs(more.sum(1)) > margin]])
    x = x[:n]
    return x, (x.sum(1) < 0).astype(np.int64)


def _hidden_manifold(rng: RandomState, n: int, d: int, m: int) -> _XY:
    embedding = rng.normal(size=(m, d))
    hidden = rng.normal(size=(n, m))
    biases = 2 * rng.uniform(size=d) - 1
    x = np.tanh(hidden @ embedding / np.sqrt(m) - biases)
    first, second = rng.normal(size=(m, m)), rng.normal(size=m)
    score = np.tanh(hidden @ first.T) @ second / np.sqrt(m)
    return x, (score >= np.median(score)).astype(np.int64)


def _two_curves(rng: RandomState, n: int, d: int, degree: int, offset: float, noise: float) -> _XY:
    coefficients = rng.uniform(size=(d, degree + 1, 2))
    coefficients /= np.linalg.norm(coefficients)
    half = _half(n)
    points = np.empty((2 * half, d))
    frequencies = np.arange(degree + 1) * np.pi
    for row in points:
        t = rng.rand()
        waves = coefficients[:, 1:, 0] * np.cos(frequencies[1:] * t) + coefficients[:, 1:, 1] * np.sin(
            frequencies[1:] * t
        )
        row[:] = coefficients[:, 0].sum(1) + waves.sum(1) + rng.normal(scale=noise, size=d)
    points[half:] += offset
    return points, np.repeat([0, 1], half)


def _hyperplanes(rng: RandomState, n: int, d: int, planes: int, dimension: int) -> _XY:
    normals, biases = rng.uniform(size=(planes, dimension)), rng.uniform(size=planes)
    half, hidden = _half(n), np.empty((0, dimension))
    for _ in range(1000):
        hidden = np.concatenate([hidden, rng.normal(size=(4 * n, dimension))])
        odd = ((hidden @ normals.T + biases > 0).sum(1) % 2).astype(bool)
        if min(odd.sum(), (~odd).sum()) >= half:
            break
    else:
        raise ArgumentError(f"Argument `planes` must leave points on both sides, but {planes} of this seed do not")
    hidden = np.concatenate([hidden[~odd][:half], hidden[odd][:half]])
    return hidden @ rng.uniform(size=(dimension, d)), np.repeat([0, 1], half)


def _bars_and_stripes(rng: RandomState, n: int, side: int, noise: float) -> _XY:
    images, labels = -np.ones((n, side, side)), np.empty(n, dtype=np.int64)
    for k, image in enumerate(images):
        labels[k] = rng.rand() > 0.5
        lines = rng.rand(side) > 0.5
        (image if labels[k] else image.T)[lines] = 1.0
        image += rng.normal(0, noise, size=(side, side))
    return images.reshape(n, -1), labels


def _half(n: int) -> int:
    if n < 2 or n % 2:
        raise ArgumentError(f"Argument `n_samples` must be even, half for each class, but is {n}")
    return n // 2


# ---- the study's own sets ------------------------------------------------------------------------------------------

# Group -> the groups of its stream of random numbers, whose sets come one after the other, and the seed.
GROUPS = {
    "linearly_separable": (("linearly_separable",), 42),
    "hidden_manifold": (("hidden_manifold", "hidden_manifold_diff"), 3),
    "hidden_manifold_diff": (("hidden_manifold", "hidden_manifold_diff"), 3),
    "two_curves": (("two_curves", "two_curves_diff"), 3),
    "two_curves_diff": (("two_curves", "two_curves_diff"), 3),
    "hyperplanes_diff": (("hyperplanes_diff",), 1),
}


def published(group: str) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Make the 19 sets of one group of arXiv 2403.07059: 300 rows each, 240 to train and 60 to test.

    The study scales the curves and the hyperplanes by ALL rows, those of the test too; so do these sets, to be its.

    Args:
        group: a key of `GROUPS`.

    Returns:
        For each set, by the name of its file, (train x, test x, train y, test y); labels -1 and +1.

    Raises:
        ArgumentError: there is no such group.

    Example:
        >>> sets = published("linearly_separable")
        >>> len(sets), sets["linearly_separable_2d"][0].shape
        (19, (240, 2))
    """
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    from qbp.errors import check_choice

    check_choice("group", group, GROUPS)
    stream, seed = GROUPS[group]
    rng, sets = RandomState(seed), {}
    for member in stream:
        for k in range(2, 21):
            name, (x, y) = _member(rng, member, k)
            if "manifold" not in member and "separable" not in member:
                x = StandardScaler().fit_transform(x)
            parts = train_test_split(x, 2 * y - 1, test_size=0.2, random_state=rng)
            if member == group:
                sets[name] = tuple(parts)
    return sets


def _member(rng: RandomState, group: str, k: int) -> tuple[str, _XY]:
    if group == "linearly_separable":
        return f"linearly_separable_{k}d", _linearly_separable(rng, 300, k, 0.02 * k)
    if group == "hidden_manifold":
        return f"hidden_manifold-6manifold-{k}d", _hidden_manifold(rng, 300, k, 6)
    if group == "hidden_manifold_diff":
        return f"hidden_manifold-10d-{k}manifold", _hidden_manifold(rng, 300, 10, k)
    if group == "two_curves":
        return f"two_curves-5degree-0.1offset-{k}d", _two_curves(rng, 300, k, 5, 0.1, 0.01)
    if group == "two_curves_diff":
        return f"two_curves-10d-{k}degree", _two_curves(rng, 300, 10, k, 1 / (2 * k), 0.01)
    return f"hyperplanes-10d-from3d-{k}n", _hyperplanes(rng, 300, 10, k, 3)
