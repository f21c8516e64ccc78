"""The documentation site: `sphinx-build -W --keep-going -c docs . site`, offline, from the root of the repository.

The source is the repository, so that pages may link to each other, to notebooks and to files as they do on GitHub.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from generated import TABLES  # noqa: E402

from qbp import __version__  # noqa: E402

project, author, copyright = "qbp", "The qbp authors", "The qbp authors"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "notebooks/*.ipynb",
    "circuits/README.md",
    "tests/ibm_server/README.md",
    "benchmarks/data/README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
exclude_patterns = [".*", "**/.*", "runs", "site", "dist", "build"]

nb_execution_mode = "off"  # notebooks are shown as they were committed; tests run them
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say shapes and units
autodoc_default_options = {
    "members": True,
    "undoc-members": False,
    "exclude-members": "forward, set_fit_request, set_score_request, set_partial_fit_request, set_predict_request",
}
napoleon_use_rtype = False
napoleon_use_ivar = True
add_module_names = False

html_theme = "pydata_sphinx_theme"
html_title = f"qbp {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_root"]  # index.html, which leads to docs/index.html
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 5,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "navigation_with_keys": False,
    "show_nav_level": 2,
}


def _fill_in(app: Any, name: str, source: list[str]) -> None:
    """Tables that are made of the code and of measurements, where a page asks for them."""
    for marker, table in TABLES.items():
        if f"<!-- {marker} -->" in source[0]:
            source[0] = source[0].replace(f"<!-- {marker} -->", table())


def _keep_together(app: Any, exception: Exception | None) -> None:
    """Copy the pages of trials as they lie here: their table links to them, which single downloads would break."""
    if exception is None:
        trials = Path("examples", "trials")
        shutil.copytree(ROOT / "docs" / trials, Path(app.outdir, "docs", trials), dirs_exist_ok=True)


def setup(app: Any) -> None:
    """What Sphinx calls first."""
    app.connect("source-read", _fill_in)
    app.connect("build-finished", _keep_together)
