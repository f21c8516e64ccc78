"""`python -m qbp` is `qbp`."""

from qbp.cli import main

main()
