"""Why a model does not learn: measured, each number with its threshold, a sentence of advice and a picture.

Nothing is sent anywhere: circuits are simulated exactly, whatever the layer itself runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from qbp.analysis.diagnosis import circuits, models
from qbp.analysis.diagnosis.probe import Finding, Picture, Probe, constant_loss, look
from qbp.data import Dataset
from qbp.errors import suggests_names
from qbp.training.checkpoint import History
from qbp.training.metrics import Loss, check_data

__all__ = ["CHECKS", "Finding", "Picture", "diagnose", "stalled"]

CHECKS: dict[str, Callable[[Probe], Iterator[Finding]]] = {
    "loss": models.loss,
    "classes": models.classes,
    "angles": circuits.angles,
    "saturation": models.saturation,
    "outputs": models.outputs,
    "reach": models.reach,
    "gradients": circuits.gradients,
    "states": circuits.states,
    "fisher": models.fisher,
}


@suggests_names
def diagnose(
    model: nn.Module,
    data: Dataset,
    *,
    history: History | None = None,
    loss: str | Loss | None = None,
    seed: int = 0,
) -> tuple[Finding, ...]:
    """Look for the reasons why a model does not learn.

    Args:
        model: any torch model, with or without quantum layers; it is not touched. A QNode that runs itself is judged
            by what goes in and out; states are looked at up to 20 qubits, all else whatever the width.
        data: what it is trained on.
        history: what `fit` returned; without it the model counts as not yet trained, and neither a stalled loss nor a
            collapse to one class is looked for.
        loss: as in `fit`.
        seed: of the random weights that the circuits are tried with.

    Returns:
        The findings of all `CHECKS`, those that warn first.

    Raises:
        ArgumentError: data and model do not fit.

    Example:
        >>> import qbp.data, qbp.nn.models
        >>> train, _ = qbp.data.load("xor")
        >>> findings = diagnose(qbp.nn.models.hybrid(2, 2, n_qubits=2, seed=0), train)
        >>> [finding.code for finding in findings if finding.warns]
        []
    """
    check_data(model, data)
    with torch.enable_grad():  # whatever the caller has switched off
        probe = look(model, data, history, loss, seed)
        findings = [finding for check in CHECKS.values() for finding in check(probe)]
    return tuple(sorted(findings, key=lambda finding: not finding.warns))


def stalled(history: History, data: Dataset, loss: str | Loss | None = None) -> bool:
    """Whether a training achieved nothing: it ends hardly better than the best constant prediction.

    Args:
        history: what `fit` returned.
        data: what it was trained on.
        loss: as in `fit`.
    """
    return min(history.column("loss")) > (1 - models.LEARNT) * constant_loss(data, loss)
