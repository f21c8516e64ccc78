"""Models as files: structure, circuits and weights in one safetensors file. Loading runs no code of the file.

A pruned or distilled model has no function and no config to build it from: its circuit is kept as data, ops and angles.
A module that stands in several places is kept once, and so is a weight that several modules share. Of a module of
anybody's class what `torch.fx` traces of its forward pass is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from qbp.data.preprocessing import Preprocessing, attach, preprocessing_of
from qbp.errors import ConfigError, QbpError
from qbp.executors.dense import Dense
from qbp.nn.saving.kinds import MODULES
from qbp.nn.saving.reading import Reader
from qbp.nn.saving.rows import check_rows, check_traced, rows_of
from qbp.nn.saving.writing import structure_of, weights_of
from qbp.nn.seeding import seeded
from qbp.storage.container import load_state, save_state

__all__ = ["MODULES", "load_model", "save_model"]

VERSION = 3
READABLE = (1, 2, 3)  # version 1 knew neither shared modules nor rows, version 2 no modules of other classes


def save_model(model: nn.Module, path: str | Path) -> None:
    """Write a model to one file, atomically.

    Of a quantum layer the circuit, the weights, the names of backend and gradient rule and the shots are kept. Modules
    and weights that are shared stay shared. Of modules of your own class the steps that `torch.fx` traces of their
    forward pass are kept, so that the file can be read without the class. What was done to the rows that the model was
    trained on, and what its classes are called, is kept for `qbp.predict`. The file also holds a few random rows (none
    of the user's data) with the model's outputs, which loading checks.

    Args:
        model: the model.
        path: where to, as in "small.safetensors".

    Raises:
        ConfigError: the model holds what a file cannot hold: a module of torch's that is not in `MODULES`, one of your
            own whose steps depend on values, hooks, a QNode that runs itself, a gradient rule of your own; or weights
            that share memory without being one parameter.

    Example:
        >>> import tempfile, torch, qbp
        >>> model, path = qbp.hybrid(8, 2, seed=0), Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> save_model(model, path)
        >>> torch.equal(load_model(path)(torch.ones(1, 8)), model(torch.ones(1, 8)))
        True
    """
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    structure, constants = structure_of(model)
    weights, ties = weights_of(model)
    state = {"format": "model", "version": VERSION, "frozen": frozen, "model": structure}
    if (preprocessing := preprocessing_of(model)) is not None:
        state["preprocessing"] = preprocessing.to_state()
    state |= {"weights": weights | constants, "ties": ties, "rows": rows_of(model)}
    check_traced(model, Reader("memory", state, Dense(), trust=False).read(), state["rows"])
    save_state(path, state)


def load_model(path: str | Path, *, backend: Any = None, trust: bool = False) -> nn.Module:
    """Read what `save_model` wrote.

    Args:
        path: the file.
        backend: where the circuits run, instead of where they ran when the model was saved.
        trust: whether the file may name a backend that has to be imported ("package.module:Thing"), that is a plugin
            of PennyLane's, or that uses your account ("ibm:NAME").

    Returns:
        The model, in training mode, on the CPU. A `TracedModule` stands for each module of a class that only you know.

    Raises:
        ConfigError: the file is missing, damaged or not a model; it names a backend that wants `trust`; or the model
            gives other outputs than it did when it was saved.
        ArgumentError: the backend is unknown.
    """
    state = load_state(path)
    if state.get("format") != "model" or state.get("version") not in READABLE:
        raise ConfigError(f"{path} is not a model of qbp.save_model of version {VERSION}")
    try:
        with seeded(0):  # weights that are drawn first are none of the caller's random numbers
            model = Reader(str(path), state, backend, trust).read()
        check_rows(model, state.get("rows"), str(path))
        if state.get("preprocessing") is not None:
            attach(model, Preprocessing.from_state(state["preprocessing"]))
    except QbpError as error:
        if len(str(error)) < 1000:
            raise
        raise ConfigError(f"The model in {path} is damaged: {str(error)[:300]} ...") from error
    except Exception as error:  # whatever a damaged file makes of it
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ConfigError(f"The model in {path} is damaged: {said}") from error
    return model
