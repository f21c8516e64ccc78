"""The page of a run, a comparison or a sweep, as one HTML file, or its tables as Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qbp.comparison.comparing import CONFIG as COMPARISON
from qbp.errors import check_choice
from qbp.report.document import Document
from qbp.report.html import to_html
from qbp.report.text import latex, markdown
from qbp.storage.atomic import write_atomic

__all__ = ["FORMATS", "read", "write"]

FORMATS: dict[str, Callable[[Document], str]] = {"html": to_html, "md": markdown, "tex": latex}


def read(directory: str | Path) -> Document:
    """Tell what a run of `qbp train` or `qbp run`, a comparison of `qbp compare` or a sweep of `qbp sweep` came to.

    Args:
        directory: where it was written.

    Returns:
        The page, still without a format.

    Raises:
        ConfigError: it is neither, or not finished.
    """
    if (Path(directory) / COMPARISON).is_file():
        from qbp.report.comparison import comparison_document

        return comparison_document(directory)
    if (Path(directory) / "trial.json").is_file():
        from qbp.report.trial import trial_document

        return trial_document(directory)
    if (Path(directory) / "sweep.yaml").is_file():
        from qbp.report.search import sweep_document

        return sweep_document(directory)
    from qbp.runs.folder import read_config, run_folder

    read_config(Path(directory), trust=True)  # says so where there is no run
    if "stages" in run_folder(Path(directory)).result():
        from qbp.report.stages import stages_document

        return stages_document(directory)
    from qbp.report.run import run_document

    return run_document(directory)


def write(directory: str | Path, output: str | Path | None = None, *, format: str = "html") -> Path:
    """Write the page of a run or of a comparison.

    Args:
        directory: where the run or the comparison was written.
        output: the file; by default `report.html` (or `.md`, `.tex`) in the directory.
        format: a key of `FORMATS`. HTML holds everything; Markdown and LaTeX hold the words and the tables.

    Returns:
        The file.

    Raises:
        ArgumentError: the format is unknown.
        ConfigError: the directory is neither, or not finished.
    """
    check_choice("format", format, FORMATS)
    path = Path(directory) / f"report.{format}" if output is None else Path(output)
    write_atomic(path, FORMATS[format](read(directory)).encode())
    return path
