"""A claim of a paper as a YAML file: what was said, how it is measured, and the rule that decides, fixed beforehand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from qbp.comparison.controls import model_behind
from qbp.errors import ConfigError
from qbp.runs.config import Key, checked, meant, read, trusted
from qbp.runs.schema import Name, Number, Section, Share
from qbp.runs.values import among, seeds_of
from qbp.storage.folder import differences
from qbp.trials.models import Published
from qbp.trials.protocols import PROTOCOLS

__all__ = [
    "FEWEST_SEEDS",
    "READ",
    "RULES",
    "Claim",
    "Figure",
    "Rule",
    "Source",
    "left_out",
    "load",
    "packaged",
    "split_primary",
]

CLAIMS = Path(__file__).with_name("claims")
FEWEST_SEEDS = 5
READ = ("full text", "abstract", "released code")
RULES = ("equal", "greater", "not_worse")
PROSE = {"name", "title", "source", "claimed", "deviations"}
"""What is said of a claim, and decides nothing."""


class Source(Section):
    """Where a claim comes from.

    Attributes:
        authors: as they are cited.
        title: of the paper.
        arxiv, doi: one of them at least.
        where: the table, section or file that the figures are from.
        read: what of it was read: "full text", "abstract" or "released code".
    """

    authors: str
    title: str
    arxiv: str | None = None
    doi: str | None = None
    where: str
    read: Annotated[str, among(READ)]


class Rule(Section):
    """When a figure is reproduced.

    Attributes:
        kind: "equal": ours lies within two pooled standard errors and `tolerance` of the published one; where that is
            of one seed, within the range of ours and `tolerance`. "greater": the interval of the difference between
            `arm` and `than` (or of `arm` alone) lies above `size`. "not_worse": it lies above minus `margin`.
        tolerance, size, margin: in the unit of the metric.
    """

    kind: Annotated[str, among(RULES)]
    tolerance: Annotated[Number, Field(ge=0)] = 0.0
    size: Number = 0.0
    margin: Annotated[Number, Field(ge=0)] = 0.01


class Figure(Section):
    """A published figure, or the direction of a difference that was claimed without one.

    Attributes:
        arm: whose it is.
        than: the arm that it is compared with, where the figure is a difference.
        dataset: on which data set; null: over all.
        metric: by default the claim's.
        value: what was published; null where only a direction was.
        deviation: its standard deviation over `n` seeds; or `low` and `high`, its 95 % interval.
        n: seeds of the published figure.
        rule: by default the claim's.
        says: what it is, in a few words.
    """

    arm: str
    than: str | None = None
    dataset: str | None = None
    metric: str | None = None
    value: Number | None = None
    deviation: Annotated[Number, Field(ge=0)] | None = None
    low: Number | None = None
    high: Number | None = None
    n: Annotated[int, Field(strict=True, ge=1)] | None = None
    rule: Rule | None = None
    says: str | None = None


class Claim(Section):
    """A claim that `qbp trial` tries.

    Attributes:
        name: of the file, and of the directory of the trial.
        title: a few words.
        source: where it comes from.
        claimed: what was claimed, in a sentence of one's own.
        protocol: how it is measured: a key of `qbp.trials.protocols.PROTOCOLS`.
        options: what the protocol is given; its `Options` say what there is.
        seeds: how many (0, 1...), or which.
        metric: the column of the protocol's rows that is compared.
        better: whether the larger or the smaller metric is the better one.
        figures: what was published; all of them have to be reproduced.
        rule: the one that decides figures without a rule of their own.
        primary: "ARM/CONTROL": the one comparison by which it is told whether the quantum part does it, fixed
            beforehand and tested at the full level; null where there is nothing to tell.
        controls: other arms that are in the quantum part's place, each of which it has to beat as well. The protocol
            "comparison" has its own.
        rope: half the width of the region of practical equivalence, in the unit of the metric.
        alpha: level of the tests.
        quick: what is otherwise in a quick trial: other values for some keys, null for what is left out.
        deviations: what is done otherwise than in the paper, a sentence each.

    Example:
        >>> claim = load("mari_spirals")
        >>> claim.source.arxiv, claim.protocol, len(claim.sha256)
        ('1912.08278', 'comparison', 64)
    """

    name: Name
    title: str
    source: Source
    claimed: str
    protocol: Annotated[str, among(PROTOCOLS)] = "comparison"
    options: Annotated[dict[str, Any], Field(default_factory=dict)]
    seeds: Annotated[Any, seeds_of(2, "must be 2 or more, or a list of as many different ones")] = 10
    metric: str = "accuracy"
    better: Literal["larger", "smaller"] = "larger"
    figures: Annotated[tuple[Figure, ...], Field(min_length=1)]
    rule: Rule | None = None
    primary: str | None = None
    controls: tuple[str, ...] = ()
    rope: Annotated[Number, Field(gt=0)] = 0.01
    alpha: Share = 0.05
    quick: Annotated[dict[str, Any], Field(default_factory=dict)]
    deviations: tuple[str, ...] = ()

    @property
    def numbers(self) -> list[int]:
        """The seeds."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)

    @property
    def fixed(self) -> dict[str, Any]:
        """What was fixed beforehand, as plain data: everything but prose, with every default filled in."""
        plain: dict[str, Any] = self.model_dump(mode="json", exclude=PROSE | {"quick"})
        for figure in plain["figures"]:
            figure.pop("says")
            figure["rule"] = figure["rule"] or plain["rule"]
        del plain["rule"]
        plain["options"] = self.protocol_options.model_dump(mode="json")
        return plain

    @property
    def sha256(self) -> str:
        """Of `fixed`, which is the same for the same trial, however its file is written."""
        return hashlib.sha256(json.dumps(self.fixed, sort_keys=True).encode()).hexdigest()

    @property
    def protocol_options(self) -> Any:
        """The options as the protocol's own section."""
        return PROTOCOLS[self.protocol].Options.model_validate(self.options)


SECTIONS: dict[str, type[Section]] = {"source": Source, "figures": Figure, "rule": Rule, "published": Published}


def packaged() -> tuple[str, ...]:
    """Return the names of the claims that come with qbp."""
    return tuple(sorted(path.stem for path in CLAIMS.glob("*.yaml")))


def load(claim: str | Path, *, quick: bool = False, trust: bool = False) -> Claim:
    """Read and check a claim.

    Args:
        claim: the path of a YAML file, or the name of a claim that comes with qbp (see `packaged`).
        quick: with what the file says of a quick trial.
        trust: as in `qbp.runs.config.load`.

    Returns:
        The claim.

    Raises:
        ConfigError: no such file; not YAML; a key is unknown, missing or twice there; a value is wrong; a figure is of
            an arm or a data set that the protocol does not have; a backend wants `trust`.
    """
    path = _path_of(claim)
    values, lines = read(path)
    values.setdefault("name", path.stem)
    whole = _checked(values, path, lines, trust)
    return _checked(_merged(values, whole.quick), path, lines, trust) if quick else whole


def left_out(claim: str | Path, trust: bool = False) -> list[str]:
    """Return what is otherwise in a quick trial of a claim, as in "seeds: 10 / 5"."""
    whole, quick = (load(claim, quick=quick, trust=trust).fixed for quick in (False, True))
    return differences(whole, quick)


def _path_of(claim: str | Path) -> Path:
    path = Path(claim)
    if path.is_file():
        return path
    if str(claim) not in packaged():
        raise ConfigError(
            f"Claim {str(claim)!r} is neither a file nor one of {', '.join(packaged())}{meant(str(claim), packaged())}"
        )
    return CLAIMS / f"{claim}.yaml"


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values with others in place of some; None takes a key out."""
    merged = dict(values)
    for key, change in changes.items():
        if change is None:
            merged.pop(key, None)
        elif isinstance(change, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merged(merged[key], change)
        else:
            merged[key] = change
    return merged


def _checked(values: Mapping[str, Any], path: Path, lines: Mapping[Key, int], trust: bool) -> Claim:
    claim: Claim = checked(values, path, lines, Claim, sections=SECTIONS)
    protocol = PROTOCOLS[claim.protocol]
    options = checked(claim.options, path, lines, protocol.Options, above=("options",), sections=SECTIONS)
    if claim.protocol == "comparison":
        options = trusted(options, path, lines, trust, ("options",))
    claim = claim.model_copy(update={"options": options.model_dump()})
    cells = protocol.cells(options, claim.numbers)
    datasets, arms = list(dict.fromkeys(c.dataset for c in cells)), list(dict.fromkeys(c.arm for c in cells))
    for k, figure in enumerate(claim.figures):
        key = f"figures.{k}"
        _check(path, f"{key}.arm", figure.arm, arms)
        if figure.than is not None:
            _check(path, f"{key}.than", figure.than, arms)
        if figure.dataset is not None:
            _check(path, f"{key}.dataset", figure.dataset, datasets)
        _check_rule(path, key, figure, figure.rule or claim.rule)
    for k, control in enumerate(claim.controls):
        _check(path, f"controls.{k}", control, arms)
    if claim.primary is not None:
        subject, control = split_primary(claim.primary, arms)
        _check(path, "primary", subject, arms)
        _check(path, "primary", control, arms)
    return claim


def split_primary(primary: str, arms: Sequence[str]) -> tuple[str, str]:
    """Return both arms of "ARM/CONTROL"; a control that is an arm's own, as in "hybrid/frozen", may be named so."""
    subject, _, control = primary.partition("/")
    return subject, model_behind(control, subject, arms)


def _check(path: Path, key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(
            f"{path}: key `{key}` must be one of {', '.join(choices)}, but is {value}{meant(value, choices)}"
        )


def _check_rule(path: Path, key: str, figure: Figure, rule: Rule | None) -> None:
    if rule is None:
        raise ConfigError(f"{path}: key `{key}.rule` is missing, and so is the claim's own `rule`")
    if rule.kind == "not_worse" and figure.than is None:
        raise ConfigError(f"{path}: key `{key}.than` is missing: `not_worse` needs it")
    if rule.kind != "equal":
        return
    if figure.value is None:
        raise ConfigError(f"{path}: key `{key}.value` is missing: `equal` needs it")
    spread = figure.deviation is not None, figure.low is not None and figure.high is not None
    if not any(spread) and figure.n != 1:
        raise ConfigError(
            f"{path}: key `{key}.deviation` is missing: `equal` needs it, or `low` and `high`, or `n: 1` for one seed"
        )
    if figure.deviation is not None and (figure.n or 1) < 2:
        raise ConfigError(f"{path}: key `{key}.n` must be 2 or more, as there is a `deviation`, but is {figure.n}")
