"""OpenQASM: the circuits of ``circuits/`` and files of your own, read, written and drawn."""

from qbp.circuit.qasm.listing import Call, Listing
from qbp.circuit.qasm.writer import available, circuits_dir, dumps, find, load, loads

__all__ = ["Call", "Listing", "available", "circuits_dir", "dumps", "find", "load", "loads"]
