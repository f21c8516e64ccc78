"""Optuna's side of a sweep: what is tried next, what is pruned, which keys mattered.

Every answer depends on the trials that are given and on a seed alone, not on when and where something ran.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from qbp.errors import MissingPackageError
from qbp.runs.config import Sweep
from qbp.runs.search.space import Space, labels_of, number_of

__all__ = ["COSTS", "ask", "importance", "judge", "need_optuna", "write_journal"]

Trial = Mapping[str, Any]
COSTS = ("n_parameters", "two_qubit_gates", "quantum_seconds")
STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}


def need_optuna() -> Any:
    """Return the module `optuna`; raise `MissingPackageError` where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise MissingPackageError("Sweeps need Optuna: pip install 'qbp[search]'") from error
    return optuna


def ask(sweep: Sweep, mode: str, seed: int, before: Sequence[Trial], count: int) -> list[dict[str, Any]]:
    """Return the values of the next trials, which know those before them and of each other.

    Args:
        sweep: what is searched, and by what.
        mode: "min" or "max".
        seed: of all draws.
        before: the trials that are over.
        count: how many.
    """
    optuna = need_optuna()
    kinds = _distributions(optuna, sweep.search)
    with _quiet(optuna):
        study = _study(optuna, sweep, mode, before)
        given = []
        for number in range(len(before), len(before) + count):
            own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            if sweep.sampler == "random":
                study.sampler = optuna.samplers.RandomSampler(seed=own)
            else:  # one that is being tried counts as bad, so that those beside it look elsewhere
                study.sampler = optuna.samplers.TPESampler(seed=own, constant_liar=True)
            given.append(_values(sweep.search, study.ask(kinds).params))
    return given


def judge(sweep: Sweep, mode: str, before: Sequence[Trial]) -> Callable[[float, int], bool]:
    """Return what is told the scores of a trial, with the number of the epoch, and says whether it is to end."""
    if sweep.pruner is None:
        return lambda score, step: False
    optuna = need_optuna()
    with _quiet(optuna):
        pruner = optuna.pruners.MedianPruner(n_warmup_steps=sweep.warmup_epochs)
        study = _study(optuna, sweep, mode, before, pruner=pruner)
        trial = study.ask()

    def is_to_end(score: float, step: int) -> bool:
        trial.report(score, step)
        return bool(trial.should_prune())

    return is_to_end


def importance(sweep: Sweep, mode: str, trials: Sequence[Trial]) -> dict[str, float]:
    """Return how much of the spread of the scores each key explains (fANOVA), largest first; {} of too few trials."""
    optuna = need_optuna()
    complete = [trial for trial in trials if trial["state"] == "complete"]
    if len(complete) < 4 or len({trial["score"] for trial in complete}) < 2:
        return {}
    with _quiet(optuna):
        study = _study(optuna, sweep, mode, complete)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(share) for key, share in shares.items()}


def write_journal(path: Path, name: str, sweep: Sweep, mode: str, trials: Sequence[Trial]) -> None:
    """Write the trials as a study in one of Optuna's journals, for its dashboard and its pictures.

    It is written anew whenever there are more: what is read when a sweep goes on are the files of the trials.
    """
    optuna = need_optuna()
    fresh = path.with_suffix(".tmp")
    fresh.unlink(missing_ok=True)
    with _quiet(optuna):
        backend = optuna.storages.journal.JournalFileBackend(str(fresh))
        _study(optuna, sweep, mode, trials, storage=optuna.storages.JournalStorage(backend), study_name=name)
    fresh.replace(path)


def _direction(mode: str) -> str:
    return "maximize" if mode == "max" else "minimize"


def _study(optuna: Any, sweep: Sweep, mode: str, before: Sequence[Trial], **options: Any) -> Any:
    study = optuna.create_study(direction=_direction(mode), **options)
    kinds = _distributions(optuna, sweep.search)
    study.add_trials([_frozen(optuna, trial, sweep.search, kinds) for trial in before])
    return study


def _frozen(optuna: Any, trial: Trial, space: Space, kinds: Mapping[str, Any]) -> Any:
    """A trial as Optuna has it."""
    params = {
        key: labels_of(values)[number_of(values, trial["values"][key])]
        if isinstance(values, tuple)
        else trial["values"][key]
        for key, values in space.items()
    }
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState[STATES[trial["state"]]],
        value=trial["score"] if trial["state"] == "complete" else None,
        params=params,
        distributions=dict(kinds),
        intermediate_values=dict(enumerate(trial["scores"])),
        user_attrs={key: trial[key] for key in COSTS},
    )


def _distributions(optuna: Any, space: Space) -> dict[str, Any]:
    kinds = optuna.distributions
    by_key: dict[str, Any] = {}
    for key, values in space.items():
        if isinstance(values, tuple):
            by_key[key] = kinds.CategoricalDistribution(labels_of(values))
            continue
        make = kinds.IntDistribution if isinstance(values["low"], int) else kinds.FloatDistribution
        step = {} if values.get("step") is None else {"step": values["step"]}
        by_key[key] = make(values["low"], values["high"], log=values["log"], **step)
    return by_key


def _values(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial's parameters are as values of the config."""
    by_key = {}
    for key, values in space.items():
        is_choice = isinstance(values, tuple)
        by_key[key] = values[labels_of(values).index(params[key])] if is_choice else params[key]
    return by_key


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Let Optuna say nothing: neither of each study, nor that it may change, which its range of versions allows for."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
