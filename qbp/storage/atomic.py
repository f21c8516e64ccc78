"""Files that are whole at any moment."""

from __future__ import annotations

import csv
import io
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["sweep", "write_atomic", "write_table"]

_TEMPORARY = re.compile(r"\.(\d+)-\d+\.tmp$")  # process and thread


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, finds either the old content or the new.

    Threads and processes may write the same file: each has a temporary one of its own, and the last one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def sweep(folder: Path) -> None:
    """Remove the temporary files that processes which were killed have left in a folder."""
    for path in folder.glob("*.tmp"):
        owner = _TEMPORARY.search(path.name)
        if owner and not _lives(int(owner[1])):
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    if os.name != "posix":
        return True  # asking would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return True


def write_table(path: Path, columns: Iterable[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, atomically; what a row lacks is left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())
