"""What a student is compared by, and the lesson: the student as `fit` trains it, with its teachers' words at hand."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qbp.data import Dataset
from qbp.errors import ArgumentError, ConfigError
from qbp.nn.seeding import seeded
from qbp.storage.container import load_state, save_state
from qbp.training.checkpoint import fingerprint, untouched
from qbp.training.metrics import Loss, place

__all__ = [
    "LOSSES",
    "Lesson",
    "Term",
    "activations_of",
    "amplitude_fidelity",
    "attention",
    "fidelity",
    "listening",
    "recall",
    "regressor_of",
    "relational",
    "soft_targets",
]

TEACHERS = "teachers.safetensors"

MOST_QUBITS = 6
"""Columns whose states `fidelity` compares."""


def soft_targets(student: Tensor, teacher: Tensor, temperature: float = 4.0, *, logit_norm: bool = False) -> Tensor:
    """Compare softened class probabilities: ``T^2 KL(softmax(teacher/T) || softmax(student/T))``, the mean over rows.

    Arxiv 1503.02531, section 2: the factor T^2 keeps the size of the gradients when T changes.

    Args:
        student: logits (B, C), or (B, 1) of two classes: the logit of class 1, where that of class 0 is 0.
        teacher: logits likewise.
        temperature: T.
        logit_norm: standardise every row of logits before (arXiv 2403.01427): only their pattern counts then, not
            their scale, which expectation values do not have.

    Returns:
        A scalar.

    Example:
        >>> soft_targets(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])).item()
        0.0
    """
    student, teacher = (F.pad(logits, (1, 0)) if logits.shape[1] == 1 else logits for logits in (student, teacher))
    if logit_norm:
        student, teacher = _standardised(student), _standardised(teacher)
    of_student, of_teacher = (F.log_softmax(logits / temperature, 1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(of_student, of_teacher, reduction="batchmean", log_target=True)


def _standardised(logits: Tensor) -> Tensor:
    # not torch.std: its derivative is infinite where all logits are equal
    spread = (logits.var(1, keepdim=True) + 1e-14).sqrt()
    return (logits - logits.mean(1, keepdim=True)) / spread


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare where activations are large: ``|q_s / |q_s| - q_t / |q_t||^2``, q the squares summed over channels
    (arXiv 1612.03928, section 3.1), the mean over rows.

    Args:
        student: (B, C, H, W), or (B, width) where every unit is a place of its own.
        teacher: the same but for the number of channels.
    """
    maps = [F.normalize(a.square().sum(1).flatten(1) if a.ndim > 2 else a.square()) for a in (student, teacher)]
    return (maps[0] - maps[1]).square().sum(1).mean()


def _distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Distances between the rows of a batch, in units of their mean (arXiv 1904.05068, eq. 5)."""
    pairs = torch.triu_indices(len(student), len(student), 1)
    if not pairs.shape[1]:
        return 0.0 * student.sum()
    distances = []
    for rows in (student.flatten(1), teacher.flatten(1)):
        # not torch.cdist: the derivative of a square root at 0 is infinite
        apart = (rows[pairs[0]] - rows[pairs[1]]).square().sum(1).clamp_min(1e-12).sqrt()
        distances.append(apart / apart.mean())
    return F.smooth_l1_loss(distances[0], distances[1])


def _angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Cosines of the angles of all triangles of rows of a batch (arXiv 1904.05068, eq. 7)."""
    cosines = []
    for rows in (student.flatten(1), teacher.flatten(1)):
        towards = F.normalize(rows[None] - rows[:, None], dim=2)
        cosines.append(towards @ towards.transpose(1, 2))
    return F.smooth_l1_loss(cosines[0], cosines[1])


def relational(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare how the rows of a batch lie to each other: distances, and twice the angles (arXiv 1904.05068).

    Args:
        student: (B, ...).
        teacher: (B, ...); of any width, as only relations are compared.
    """
    return _distance(student, teacher) + 2 * _angle(student, teacher)


def fidelity(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare how alike the rows of a batch are as quantum states: ``|<phi(x_i)|phi(x_j)>|^2`` (arXiv 2508.13054).

    phi is the ZZ feature map of two repetitions (arXiv 1804.11326), simulated exactly, of as many of the first columns
    as both have, `MOST_QUBITS` at most; rows are in units of their mean norm, which makes angles of any activations.

    Args:
        student: (B, ...).
        teacher: (B, ...); of any width.
    """
    rows = [activations.flatten(1) for activations in (student, teacher)]
    width = min(MOST_QUBITS, *(each.shape[1] for each in rows))
    kernels = []
    for each in rows:
        angles = each[:, :width]
        states = _zz_states(angles / angles.norm(dim=1).mean().clamp_min(1e-12))
        kernels.append((states @ states.conj().T).abs().square())
    return F.smooth_l1_loss(kernels[0], kernels[1])


def _zz_states(angles: Tensor) -> Tensor:
    """States (B, 2^n) of the ZZ feature map of angles (B, n)."""
    n = angles.shape[1]
    bits = torch.arange(2**n)[:, None] >> torch.arange(n - 1, -1, -1) & 1
    first, second = torch.triu_indices(n, n, 1)
    parities = torch.cat([bits, bits[:, first] ^ bits[:, second]], 1).to(angles)
    pairs = (math.pi - angles[:, first]) * (math.pi - angles[:, second])
    phases = 2 * torch.cat([angles, pairs], 1) @ parities.T
    diagonal = torch.polar(torch.ones_like(phases), phases)
    walsh = (1 - 2 * (bits @ bits.T % 2)).to(diagonal)
    return diagonal * (diagonal @ walsh) / 2**n


def amplitude_fidelity(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare how alike the rows of a batch are, by squared cosines: fidelities of states whose amplitudes they are.

    Args:
        student: (B, ...).
        teacher: (B, ...); of any width.
    """
    fidelities = []
    for activations in (student, teacher):
        rows = F.normalize(activations.flatten(1))
        fidelities.append((rows @ rows.T).square())
    return F.smooth_l1_loss(fidelities[0], fidelities[1])


# name -> (student's activations, teacher's) -> scalar. "kd" takes the temperature too, "hints" a regressor before.
LOSSES: dict[str, Callable[..., Tensor]] = {
    "kd": soft_targets,
    "logits": F.mse_loss,
    "hints": F.mse_loss,
    "attention": attention,
    "distance": _distance,
    "angle": _angle,
    "relational": relational,
    "fidelity": fidelity,
    "amplitude_fidelity": amplitude_fidelity,
    "expectation": F.mse_loss,
}


class Term(NamedTuple):
    """One method with one teacher, whose activations are kept in columns of the data."""

    name: str
    weight: float
    path: str  # in the student
    start: int  # the first column
    shape: tuple[int, ...]  # of the teacher's activations for a row

    @property
    def width(self) -> int:
        return math.prod(self.shape)


class Lesson(nn.Module):
    """The student as `fit` trains it: rows bring along, in further columns, what the teachers say of them."""

    def __init__(
        self,
        student: nn.Module,
        terms: Sequence[tuple[Term, nn.Module]],
        n_features: int,
        alpha: float,
        temperature: float,
        logit_norm: bool,
    ):
        super().__init__()
        self.student = student
        self.regressors = nn.ModuleList(regressor for _, regressor in terms)
        self.terms, self.n_features = [term for term, _ in terms], n_features
        self.alpha, self.temperature, self.logit_norm = alpha, temperature, logit_norm
        self.heard: dict[str, Tensor] = {}
        self.rows = torch.empty(0)

    def extra_repr(self) -> str:  # `fit` compares it when it resumes
        return f"terms={self.terms}, alpha={self.alpha}, temperature={self.temperature}, logit_norm={self.logit_norm}"

    def hear(self, path: str, activations: Tensor) -> None:
        """Note what the student's module at `path` gave."""
        self.heard[path] = activations

    def forward(self, rows: Tensor) -> Tensor:
        """Outputs of the student for the features in `rows`."""
        self.rows = rows
        outputs: Tensor = self.student(rows[:, : self.n_features])
        return outputs

    def loss(self, outputs: Tensor, targets: Tensor, hard: Loss) -> Tensor:
        """What `fit` minimises, `hard` being the labels' loss; for validation that alone."""
        by_labels = hard(outputs, targets)
        if not self.training:  # validation
            return by_labels
        soft = torch.zeros_like(by_labels)
        for term, regressor in zip(self.terms, self.regressors, strict=True):
            taught = self.rows[:, term.start : term.start + term.width].unflatten(1, term.shape)
            compare = LOSSES[term.name]
            if term.name == "kd":
                compare = partial(compare, temperature=self.temperature, logit_norm=self.logit_norm)
            soft = soft + term.weight * compare(regressor(self.heard[term.path]), taught)
        return self.alpha * by_labels + (1 - self.alpha) * soft


def regressor_of(term: Term, student: Tensor) -> nn.Module:
    """From the student's hidden layer to the teacher's, for "hints"."""
    if term.name != "hints":
        return nn.Identity()
    return nn.Sequential(nn.Flatten(), nn.Linear(student[0].numel(), term.width), nn.Unflatten(1, term.shape))


def activations_of(model: nn.Module, data: Dataset, paths: set[str], seed: int) -> dict[str, Tensor]:
    """Outputs of the modules at `paths` for all rows, in evaluation mode; the model is left as it was."""
    outputs: dict[str, list[Tensor]] = {path: [] for path in {"", *paths}}
    with untouched(model), seeded(seed, model), torch.no_grad():
        model.eval()
        with listening(model, set(outputs), lambda path, activations: outputs[path].append(activations)):
            for part in place(model, data)[0].split(1024):
                model(part)
    for path, parts in outputs.items():
        if len(parts) > len(outputs[""]):
            raise ArgumentError(
                f"Module {path!r} is called {len(parts) // len(outputs[''])} times for a batch, so that it is not "
                "clear what to compare: name in `layers` a module that is called once"
            )
        if not parts or not all(isinstance(part, Tensor) and part.ndim >= 2 for part in parts):
            raise ArgumentError(f"Module {path!r} must give one tensor (B, ...) each time the model is called")
    joined = {path: torch.cat(parts) for path, parts in outputs.items()}
    for path, activations in joined.items():
        if len(activations) != len(data) or not torch.isfinite(activations).all():
            raise ArgumentError(f"Module {path!r} must give {len(data)} rows of finite numbers, but does not")
    return joined


def recall(
    models: Sequence[nn.Module], paths: Sequence[set[str]], data: Dataset, seed: int, run_dir: str | Path | None
) -> list[dict[str, Tensor]]:
    """`activations_of` each model, kept in `run_dir`: asked again for the same, no model runs."""
    if run_dir is None:
        return [activations_of(model, data, wanted, seed) for model, wanted in zip(models, paths, strict=True)]
    digest = hashlib.sha256(repr((data.hash(), seed, [sorted(wanted) for wanted in paths])).encode())
    for model in models:
        digest.update(fingerprint(model).encode())
        for tensor in model.state_dict().values():
            digest.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes())
    file, key = Path(run_dir) / TEACHERS, digest.hexdigest()
    if file.exists():
        kept = load_state(file)
        if kept["key"] != key:
            raise ConfigError(f"{file} holds the words of other teachers, or on other data: use another `run_dir`")
        activations: list[dict[str, Tensor]] = kept["said"]
        return activations
    said = recall(models, paths, data, seed, None)
    save_state(file, {"key": key, "said": said})
    return said


@contextmanager
def listening(model: nn.Module, paths: set[str], hear: Callable[[str, Tensor], object]) -> Iterator[None]:
    """Call ``hear(path, output)`` whenever one of the modules gives an output."""
    modules = dict(model.named_modules(remove_duplicate=False))

    def hook(path: str) -> Any:
        return lambda module, inputs, output: hear(path, output) and None

    handles = [modules[path].register_forward_hook(hook(path)) for path in sorted(paths)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
