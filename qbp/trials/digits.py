"""Handwritten digits as small circuits take them: 4 x 4 pixels, as in the released examples of TorchQuantum."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn.functional import avg_pool2d

from qbp.data import Dataset, load

__all__ = ["MEAN", "SPREAD", "pooled_digits"]

MEAN, SPREAD = 0.1307, 0.3081
"""Of the pixels of all of MNIST, 0 to 1."""


def pooled_digits(
    classes: Sequence[int], seed: int, *, test_size: float, rows: int | None = None, tests: int | None = None
) -> tuple[Dataset, Dataset]:
    """Images of some digits, averaged over windows of 6 x 6 pixels and standardised: (B, 16).

    Args:
        classes: the digits.
        seed: of the split.
        test_size: share of the rows for test.
        rows, tests: the first so many rows of train and of test; None: all.
    """

    def pooled(part: Dataset, most: int | None) -> Dataset:
        part = part if most is None else part.subset(range(min(most, len(part))))
        pixels = avg_pool2d(part.x.reshape(-1, 1, 28, 28), 6).flatten(1)
        return Dataset((pixels - MEAN) / SPREAD, part.y, part.name)

    train, test = load("mnist", classes=classes, test_size=test_size, scale=None, seed=seed)
    return pooled(train, rows), pooled(test, tests)
