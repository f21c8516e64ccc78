"""The learning-rate range test."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qbp.data import as_dataset, preprocessing_of
from qbp.errors import ArgumentError, check_count, check_positive, check_seed
from qbp.nn.seeding import seeded
from qbp.training.batches import Batch, batch_sizes
from qbp.training.checkpoint import untouched
from qbp.training.fitting import DivergenceError
from qbp.training.metrics import Loss, check_data, objective, place
from qbp.training.options import Training, new_optimizer
from qbp.training.state import take_step

__all__ = ["LearningRateTest", "lr_range_test"]


@dataclass(frozen=True)
class LearningRateTest:
    """What `lr_range_test` found: rates, smoothed losses at them, and the rate of the steepest descent."""

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float


def lr_range_test(
    model: nn.Module,
    data: Any,
    *,
    lr_min: float = 1e-5,
    lr_max: float = 1.0,
    steps: int = 100,
    optimizer: str | Callable[..., Optimizer] = "adam",
    batch_size: int = 32,
    loss: str | Loss | None = None,
    smoothing: float = 0.9,
    seed: int = 0,
) -> LearningRateTest:
    """Raise the learning rate exponentially, step by step, and watch the loss (Smith, arXiv 1506.01186).

    The loss is smoothed by an exponential moving average without bias. The test ends early when that is four
    times its smallest value. Model, gradients and random states are left as they were.

    Args:
        model, data, optimizer, batch_size, loss: as in `fit`; take the optimiser to train with.
        lr_min, lr_max: the first and the last rate.
        steps: mini-batches, at least 10.
        smoothing: weight of the past in the average, at least 0 and below 1.
        seed: of the order of the rows and of torch's global generator.

    Returns:
        The curve, and the rate where the smoothed loss falls fastest over log(rate), before its minimum.

    Raises:
        ArgumentError: an argument is wrong, or data and model do not fit.
        DivergenceError: the loss explodes at once.
    """
    data = as_dataset(data, preprocessing_of(model))
    check_data(model, data)
    check_count("steps", steps)
    check_positive("lr_min", lr_min)
    check_positive("lr_max", lr_max)
    check_seed("seed", seed)
    training = Training(lr=lr_min, optimizer=optimizer, batch_size=batch_size, loss=loss)
    if not (lr_min < lr_max < math.inf and 0 <= smoothing < 1 and steps >= 10):
        raise ArgumentError(
            "Arguments must have `lr_min` < `lr_max`, 0 <= `smoothing` < 1 and `steps` >= 10, but are "
            f"{lr_min}, {lr_max}, {smoothing} and {steps}"
        )
    parameters, adapt = new_optimizer(model, training)
    target = objective(data, loss)
    x, y = place(model, data)
    sizes = batch_sizes(model, len(x), batch_size)
    order = torch.Generator().manual_seed(seed)
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    batches: list[Tensor] = []
    with untouched(model), seeded(seed, model):
        model.train()
        for step in range(steps):
            rate = lr_min * (lr_max / lr_min) ** (step / (steps - 1))
            for group in adapt.param_groups:
                group["lr"] = rate
            batches = batches or list(torch.randperm(len(x), generator=order).to(x.device).split(sizes))
            rows = batches.pop(0)
            value = take_step(model, [Batch(x[rows], y[rows])], target, adapt, parameters, None)[1][0].item()
            average = smoothing * average + (1 - smoothing) * value
            smooth = average / (1 - smoothing ** (step + 1))
            if not math.isfinite(smooth) or (losses and smooth > 4 * min(losses)):
                break
            rates.append(rate)
            losses.append(smooth)
    # Slopes over a tenth of the test each way: neighbours differ by the luck of their batches.
    window = steps // 10
    if len(losses) <= 3 * window:
        raise DivergenceError(f"The loss explodes within {len(losses)} steps: use an `lr_min` below {lr_min}")
    last = max(2 * window, losses.index(min(losses)) - window)
    steepest = min(range(2 * window, last + 1), key=lambda k: losses[k + window] - losses[k - window])
    return LearningRateTest(tuple(rates), tuple(losses), rates[steepest])
