"""Data of the user's own: tables in CSV, Parquet and NumPy files, and what scikit-learn's loaders return."""

from __future__ import annotations

import codecs
import csv
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qbp.data.cells import MISSING, is_number
from qbp.data.frames import array_of, check_same_order, table_of
from qbp.data.raw import Column, Raw, numbered
from qbp.data.tables import as_arrays, check_names, names_of, read_columns, read_table, read_target
from qbp.errors import ArgumentError, MissingPackageError
from qbp.limits import check_memory

__all__ = ["SUFFIXES", "read", "read_inputs", "read_table"]

_DELIMITERS = (",", ";", "\t", "|")
_BYTES_A_BYTE = 30
"""Memory that a byte of a CSV file takes while it is read: a cell of a few letters is a string of 50 bytes."""


def read(source: Any, target: str | int | None = None) -> Raw:
    """Read rows and their labels or targets.

    Args:
        source: a CSV or Parquet file with named columns; a .npy file, (n, I + 1); a .npz file with `x` and `y`; a pair
            (x, y) of arrays, or of a DataFrame and a Series; or a scikit-learn Bunch.
        target: the column to predict, by name or position; None for the last one.

    Returns:
        The rows as they are. A target of text or of whole numbers makes classes, one of other numbers a regression. A
        column of text becomes a column of 0 and 1 for each of its values.

    Raises:
        ArgumentError: the file is missing, damaged or of another kind; a column is not there, or has gaps.
    """
    if isinstance(source, (str, Path)):
        path = _path(source)
        return SUFFIXES[path.suffix](path, target)
    if isinstance(source, Mapping) and {"data", "target"} <= set(source):
        return _bunch(source)
    if isinstance(source, tuple | list) and len(source) == 2:
        return _pair(*source)
    raise ArgumentError(
        "Argument `source` must be the path of a table, a pair of arrays (x, y) or a scikit-learn Bunch, but is a "
        f"{type(source).__name__}"
    )


def _path(source: str | Path) -> Path:
    path = Path(source)
    if path.suffix not in SUFFIXES:
        raise ArgumentError(f"Argument `source` must end in {', '.join(SUFFIXES)}, but is {str(path)!r}")
    if not path.is_file():
        raise ArgumentError(f"Argument `source` must name a file, but there is no {path}")
    return path


def _pair(x: Any, y: Any) -> Raw:
    """Rows and labels or targets, as arrays or as a table and its target."""
    check_same_order(x, y)
    columns = table_of(x)
    if columns is None:
        return as_arrays(array_of("x", x), array_of("y", y))
    features, kinds = read_columns(columns)
    values = array_of("y", y)
    if values.ndim > 2 or len(values) != len(features):
        raise ArgumentError(f"Labels or targets must have shape ({len(features)},), but have {values.shape}")
    if values.ndim == 2 and values.shape[1] > 1:
        return as_arrays(features, values)._replace(feature_names=names_of(kinds), columns=kinds)
    return read_target(features, values.reshape(-1).tolist(), kinds, str(getattr(y, "name", None) or "y"), "U")


def _bunch(source: Mapping[str, Any]) -> Raw:
    raw = as_arrays(np.asarray(source["data"]), np.asarray(source["target"]))
    names = tuple(map(str, source.get("feature_names", ())))
    labels = tuple(map(str, source.get("target_names", ())))
    if names:
        raw = raw._replace(feature_names=names, columns=tuple(map(Column, names)))
    if not raw.classes or not labels:
        return raw
    if len(labels) > len(raw.classes):
        absent = [label for k, label in enumerate(labels) if str(k) not in raw.classes and label not in raw.classes]
        raise ArgumentError(f"Every class must have rows, but {', '.join(absent)} of `target_names` has none")
    return raw._replace(classes=labels, kind="U") if len(labels) == len(raw.classes) else raw


def read_inputs(source: str | Path, columns: Sequence[Column]) -> Mapping[str, Any] | np.ndarray:
    """Read the columns of a table that a model is to be asked about; it may have others, as the target.

    Args:
        source: a file as of `read`.
        columns: of the table that the model was trained on. Where that had no names ("x0", "x1"), a file with as many
            columns is read by their order.

    Returns:
        The columns by name, or an array of them in their order.

    Raises:
        ArgumentError: the file is missing, damaged or of another kind, or has no rows.
    """
    path = _path(source)
    names = [column.name for column in columns]
    has_names = not all(re.fullmatch(r"x\d+", name) for name in names)
    if path.suffix == ".parquet":
        return _parquet_columns(path)
    if path.suffix in (".npy", ".npz"):
        table = _npy_table(path) if path.suffix == ".npy" else _npz_arrays(path, ("x",))["x"]
        is_named = table.ndim == 2 and table.shape[1] != len(names) and set(names) <= {*numbered("x", table.shape[1])}
        return {name: table[:, k] for k, name in enumerate(numbered("x", table.shape[1]))} if is_named else table
    check_memory(f"The columns of {path}", _BYTES_A_BYTE * path.stat().st_size)
    rows = _rows(path, _decoded(path), names if has_names else ())
    if not rows:
        raise ArgumentError(f"{path} must have rows, but is empty")
    headed = bool(set(names) & set(rows[0])) or has_names or (len(rows) > 1 and _has_header(path, rows))
    header = rows.pop(0) if headed else list(numbered("x", len(rows[0])))
    if not has_names and len(header) == len(names):
        header = names
    if not rows:
        raise ArgumentError(f"{path} must have rows below the names of the columns, but has none")
    return _columns(path, header, rows)


# ---- CSV -----------------------------------------------------------------------------------------------------------


def _csv(path: Path, target: str | int | None) -> Raw:
    check_memory(f"The columns of {path}", _BYTES_A_BYTE * path.stat().st_size)
    rows = _rows(path, _decoded(path))
    if len(rows) < 2:
        raise ArgumentError(f"{path} must have rows, but is empty")
    header = rows.pop(0) if _has_header(path, rows) else list(numbered("x", len(rows[0])))
    return read_table(_columns(path, header, rows), target)


def _columns(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Sequence[str]]:
    """The columns of a file by name."""
    check_names(header)
    return dict(zip(header, zip(*rows, strict=True), strict=True))


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ArgumentError(
            f"{path} must be UTF-8 text, but line {line} holds the byte 0x{data[error.start]:02x}: save it as UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ArgumentError(f"{path} must be UTF-8 text, but line {line} holds a zero byte: save it as UTF-8")
    return text


def _rows(path: Path, text: str, names: Sequence[str] = ()) -> list[list[str]]:
    """The cells of every line that has any, by the delimiter that makes the first lines a table of numbers; where the
    names of columns are known, by one that finds all of them in the first line."""
    beginning = text[: 2**16].splitlines()[:20]
    finds = [each for each in _DELIMITERS if set(names) <= _cells(beginning, each)] if names else []
    delimiter = max(finds or _DELIMITERS, key=lambda each: _fit(beginning, each))
    if len(finds) == len(_DELIMITERS) and not _fit(beginning, delimiter)[0]:
        delimiter = "\t"  # one column, whose numbers may have commas
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
        rows = [[cell.strip() for cell in row] for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ArgumentError(f"{path}, line {reader.line_num}: {error}") from None
    for k, row in enumerate(rows[1:]):
        if len(row) != len(rows[0]):
            raise ArgumentError(f"{path}: row {k + 1} has {len(row)} columns, not {len(rows[0])}")
    return rows


def _cells(lines: list[str], delimiter: str) -> set[str]:
    """The cells of the first line that has any."""
    try:
        rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        return {cell.strip() for cell in next((row for row in rows if row), [])}
    except csv.Error:
        return set()


def _fit(lines: list[str], delimiter: str) -> tuple[bool, bool, float, int]:
    """How well a delimiter makes a table: as many columns in each line, more than one, more numbers, more columns."""
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return False, False, 0.0, 0
    widths = {len(row) for row in rows}
    cells = [cell for row in rows for cell in row]
    numbers = sum(map(is_number, cells)) / max(1, len(cells))
    widest = max(widths, default=0)
    return len(widths) == 1 and widest > 1, widest > 1, numbers, widest


def _has_header(path: Path, rows: list[list[str]]) -> bool:
    """Whether the first row names the columns: it has no number above a column of numbers, or where no column holds
    numbers, a word that its column does not hold."""
    first, rest = rows[0], rows[1:101]
    numeric = [all(is_number(row[k]) or row[k].casefold() in MISSING for row in rest) for k in range(len(first))]
    above = [is_number(cell) for cell, is_numeric in zip(first, numeric, strict=True) if is_numeric]
    if not any(numeric):
        return not all(any(row[k] == cell for row in rows[1:]) for k, cell in enumerate(first))
    if not any(above):
        return True
    words = [k for k, is_numeric in enumerate(numeric) if not is_numeric and not is_number(first[k])]
    if all(above) and all(any(row[k] == first[k] for row in rows[1:]) for k in words):
        return False
    raise ArgumentError(
        f"{path}: the first row must name the columns or be data, but looks like neither ({', '.join(first)[:60]}): "
        "write a name above each column"
    )


# ---- other files ---------------------------------------------------------------------------------------------------


def _parquet(path: Path, target: str | int | None) -> Raw:
    return read_table(_parquet_columns(path), target)


def _parquet_columns(path: Path) -> dict[str, Sequence[Any]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackageError("Parquet files need pyarrow: pip install 'qbp[compare]'") from error
    try:
        with parquet.ParquetFile(path) as file:
            check_names(file.schema_arrow.names)
            cells = file.metadata.num_rows * file.metadata.num_columns
            check_memory(f"The {cells} cells of {path}", 64 * cells)
            columns: dict[str, Sequence[Any]] = file.read().to_pydict()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"Cannot read {path}: {str(error)[:200]}") from None
    return columns


def _npy(path: Path, target: str | int | None) -> Raw:
    table = _npy_table(path)
    if table.shape[1] < 2:
        raise ArgumentError(f"{path} must hold an array (n, I + 1), but holds {table.dtype} {table.shape}")
    names = numbered("x", table.shape[1])
    return read_table({name: table[:, k].tolist() for k, name in enumerate(names)}, target)


def _npy_table(path: Path) -> np.ndarray:
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)  # whose size is checked against the file's
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        raise ArgumentError(f"Cannot read {path}: {str(error)[:200]}") from None
    if not isinstance(table, np.ndarray) or table.ndim != 2 or not table.shape[1] or table.dtype.kind not in "biufUS":
        about = f"{table.dtype} {table.shape}" if isinstance(table, np.ndarray) else "several arrays"
        raise ArgumentError(f"{path} must hold an array (n, I + 1) of numbers or words, but holds {about}")
    check_memory(f"The {table.size} cells of {path}", 64 * table.size)
    return table


def _npz(path: Path, target: str | int | None) -> Raw:
    if target is not None:
        raise ArgumentError(f"Argument `target` must be None for {path}, whose labels are `y`, but is {target!r}")
    arrays = _npz_arrays(path, ("x", "y"))
    return as_arrays(arrays["x"], arrays["y"])


def _npz_arrays(path: Path, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > 2**28 and size > 200 * path.stat().st_size:
                raise ArgumentError(f"Cannot read {path}: it would unpack to {size} bytes, 200 times its own size")
            check_memory(f"The arrays of {path}", 3 * size)
        with np.load(path, allow_pickle=False) as file:
            names = list(file)
            arrays = {name: file[name] for name in wanted if name in names}
    except ArgumentError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds for damaged files
        raise ArgumentError(f"Cannot read {path}: {str(error)[:200]}") from None
    if len(arrays) < len(wanted) or not all(isinstance(array, np.ndarray) for array in arrays.values()):
        needed = " and ".join(f"`{name}`" for name in wanted)
        raise ArgumentError(f"{path} must hold the arrays {needed}, but holds {', '.join(names)[:200]}")
    return arrays


SUFFIXES = {".csv": _csv, ".parquet": _parquet, ".npy": _npy, ".npz": _npz}
