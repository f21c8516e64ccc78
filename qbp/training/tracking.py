"""Trackers: the metrics of a training for TensorBoard and MLflow, beside the plain files that stay the truth."""

from __future__ import annotations

import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from qbp.errors import ArgumentError, MissingPackageError, check_choice
from qbp.storage.folder import RunFolder

__all__ = ["TRACKERS", "Tracking"]

Row = Mapping[str, Any]


class TensorBoard:
    """Writes events into `tensorboard/` of a run: `tensorboard --logdir runs` shows all runs there."""

    package = "tensorboard"

    def __init__(self, folder: Path, name: str, params: Mapping[str, Any], store: Path) -> None:
        self.folder, self.params = folder, params
        self.writer: Any = None

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self.writer is None:  # of a run that goes on: what is later than its checkpoint is made again
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step)
            if self.params:
                text = "\n".join(f"    {key}: {value}" for key, value in self.params.items())
                self.writer.add_text("config", text, step)
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)
        self.writer.flush()

    def close(self, is_finished: bool) -> None:
        if self.writer is not None:
            self.writer.close()


class MLflow:
    """Logs to the server of `MLFLOW_TRACKING_URI`, or else to `mlflow.db` beside the run; no network is needed."""

    package = "mlflow"
    note = "mlflow.json"  # of the run's folder: under which id it goes on

    def __init__(self, folder: Path, name: str, params: Mapping[str, Any], store: Path) -> None:
        self.folder, self.name, self.params, self.store = folder, name, params, store
        self.client: Any = None
        self.run = ""

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self.client is None:
            self._open()
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.run, metrics=[Metric(key, value, now, step) for key, value in values.items()])

    def close(self, is_finished: bool) -> None:
        if self.client is not None:
            self.client.set_terminated(self.run, "FINISHED" if is_finished else "KILLED")

    def _open(self) -> None:
        with _quiet_mlflow():
            from mlflow import MlflowClient
            from mlflow.entities import Param
            from mlflow.exceptions import MlflowException

            uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(self.store / 'mlflow.db').as_posix()}"
            client = MlflowClient(tracking_uri=uri)
            kept = RunFolder(self.folder).load(self.note, missing={"run": None})["run"]
            if kept is not None:
                try:
                    client.update_run(kept, status="RUNNING")
                except MlflowException:  # of another server, or removed there
                    kept = None
            if kept is None:
                experiment = client.get_experiment_by_name("qbp")
                where = {"artifact_location": (self.store / "mlartifacts").as_uri()} if uri.startswith("sqlite") else {}
                number = client.create_experiment("qbp", **where) if experiment is None else experiment.experiment_id
                kept = client.create_run(number, run_name=self.name).info.run_id
                params = [Param(key, str(value)[:500]) for key, value in self.params.items()]
                client.log_batch(kept, params=params[:100])
                RunFolder(self.folder).write(self.note, {"run": kept})
            self.client, self.run = client, kept


TRACKERS: dict[str, Any] = {"tensorboard": TensorBoard, "mlflow": MLflow}


class Tracking:
    """A callback of `qbp.fit` that hands every epoch's row on. A tracker that fails warns once, and is left alone.

    Args:
        names: keys of `TRACKERS`, one or several.
        folder: the run's; it need not be there yet.
        name: of the run, by default its folder's.
        params: what it is made with, by name.
        store: where MLflow's database is, by default beside the run's folder.

    Raises:
        ArgumentError: a name is unknown.
        MissingPackageError: its package is not installed.

    Example:
        >>> import qbp
        >>> train, test = qbp.data.load("iris")
        >>> watch = Tracking("tensorboard", "runs/iris")  # doctest: +SKIP
        >>> history = qbp.fit(qbp.mlp(4, 8, 3), train, callbacks=[watch])  # doctest: +SKIP
    """

    def __init__(
        self,
        names: str | Sequence[str],
        folder: str | Path,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        store: str | Path | None = None,
    ) -> None:
        where = (Path(folder).parent if store is None else Path(store)).absolute()
        chosen = [names] if isinstance(names, str) else list(names)
        self.trackers: dict[str, Any] = {}
        for each in chosen:
            check_choice("names", each, TRACKERS)
            need(each)
            self.trackers[each] = TRACKERS[each](Path(folder), name or Path(folder).name, dict(params or {}), where)
        if not chosen:
            raise ArgumentError(f"Argument `names` must be one of {', '.join(TRACKERS)}, but is empty")

    def on_epoch_end(self, row: Row, model: nn.Module | None = None) -> None:
        """Log a row of metrics."""
        values = {key: float(value) for key, value in row.items() if key != "epoch"}
        self._all("log", values, int(row["epoch"]))

    def finish(self, result: Row | None = None, step: int = 0) -> None:
        """Log what it came to, and close; None where it was cut off."""
        numbers = {k: float(v) for k, v in (result or {}).items() if isinstance(v, int | float)}
        if numbers:
            self._all("log", numbers, step)
        self._all("close", result is not None)

    def _all(self, method: str, *arguments: Any) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                getattr(tracker, method)(*arguments)
            except Exception as error:  # whatever it is: the run is not its fault
                del self.trackers[name]
                said = re.sub(r"//[^/\s@]*@", "//", str(error).split("\n")[0])[:200]  # without a password of an address
                warnings.warn(
                    f"{name} does not track this run any more, which goes on: {type(error).__name__}: {said}",
                    stacklevel=3,
                )


def need(name: str) -> None:
    """Raise `MissingPackageError` where a tracker's package is not installed."""
    try:
        if name == "mlflow":
            with _quiet_mlflow():
                import alembic  # noqa: F401
                import mlflow  # noqa: F401
                import sqlalchemy  # noqa: F401
        else:
            import tensorboard  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(f"Tracking by {name} needs it: pip install 'qbp[tracking]' ({error})") from error


@contextmanager
def _quiet_mlflow() -> Iterator[None]:
    """Let MLflow report its use to nobody, unless the user says otherwise, and say nothing of the tables it makes."""
    told = os.environ.get("MLFLOW_DISABLE_TELEMETRY")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
        if told is None:
            os.environ.pop("MLFLOW_DISABLE_TELEMETRY")
