"""The pictures that a command leaves in the folder of a run."""

from __future__ import annotations

import json
from pathlib import Path

from qbp.analysis.diagnosis import Finding
from qbp.report.plots.training import confusion_matrix, diagnosis, training_curves
from qbp.runs.folder import TWIN, run_folder
from qbp.runs.run import DIAGNOSIS
from qbp.training.checkpoint import METRICS, History

__all__ = ["draw_diagnosis", "draw_run"]


def draw_run(directory: str | Path) -> None:
    """Draw what a finished run came to: training.png, confusion.png and, of a model that was diagnosed, diagnosis.png.

    Raises:
        ConfigError: there is no finished run.
    """
    folder = Path(directory)
    result = run_folder(folder).result()
    places = {name: folder / TWIN if name == TWIN else folder for name in result["models"]}
    histories = {name: History.from_jsonl(place / METRICS) for name, place in places.items()}
    training_curves(histories, folder / "training.png")
    for name, score in result["models"].items():
        if counts := score.get("confusion"):
            classes = result.get("classes") or [str(k) for k in range(len(counts))]
            confusion_matrix(counts, classes, places[name] / "confusion.png")
        draw_diagnosis(places[name])


def draw_diagnosis(place: Path) -> None:
    """Draw the diagnosis that is kept in a folder, where there is one."""
    if (place / DIAGNOSIS).is_file():
        kept = json.loads((place / DIAGNOSIS).read_text(encoding="utf-8"))["findings"]
        diagnosis([Finding.from_json(finding) for finding in kept], place / "diagnosis.png")
