"""Keep what `qbp trial --all` came to: the table of the documentation, and the pages that it leads to.

    qbp trial --all --runs-dir runs/trials && python benchmarks/trials.py runs/trials

writes results/trials.json, and docs/examples/trials/NAME.html for every finished trial of a claim that comes with qbp;
index.html there is the table.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from qbp.report.html import to_html
from qbp.report.trial import trial_document
from qbp.report.trials import table_document, table_row
from qbp.trials.claim import load, packaged
from qbp.trials.trial import TRIAL, Trial, load_trial

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "examples" / "trials"


def finished(runs: Path) -> list[Trial]:
    """Trials of claims as they are now; what is missing or was fixed otherwise is named, and left out."""
    trials = []
    for name in packaged():
        if not (runs / name / TRIAL).is_file():
            print(f"{name}: not tried")
            continue
        trial = load_trial(runs / name)
        if trial.sha256 == load(name).sha256:
            trials.append(trial)
        else:
            print(f"{name}: tried, but fixed otherwise")
    return trials


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    trials = finished(Path(sys.argv[1]))
    PAGES.mkdir(parents=True, exist_ok=True)
    for trial in trials:
        (PAGES / f"{trial.directory.name}.html").write_text(to_html(trial_document(trial.directory)))
    (PAGES / "index.html").write_text(to_html(table_document(trials, beside=False)))
    rows = [table_row(trial) for trial in trials]
    (ROOT / "benchmarks" / "results" / "trials.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
