"""OpenQASM: the circuits of ``circuits/`` and files of your own, read, written and drawn."""

from qbp.circuit.qasm.listing import Call, Listing, in_order_of_numbers
from qbp.circuit.qasm.writer import available, circuits_dir, dumps, find, load, loads, text_of

__all__ = [
    "Call",
    "Listing",
    "available",
    "circuits_dir",
    "dumps",
    "find",
    "in_order_of_numbers",
    "load",
    "loads",
    "text_of",
]
