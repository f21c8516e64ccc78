"""Noise models as plain data of a file, and back."""

from __future__ import annotations

from typing import Any

from qbp.circuit.noise_model import GateError, NoiseModel
from qbp.circuit.stored import channel_of, channel_to_data
from qbp.circuit.stored_values import as_dict, as_list, as_number, as_text, as_whole

__all__ = ["noise_from_data", "noise_to_data"]

MOST_WIRES = 4096


def noise_to_data(noise: NoiseModel) -> dict[str, Any]:
    """A noise model as lists, names and numbers, which JSON can hold."""
    return {
        "errors": [
            {
                "gate": error.gate,
                "wires": None if error.wires is None else list(error.wires),
                "channels": [channel_to_data(channel) for channel in error.channels],
            }
            for error in noise.errors
        ],
        "readout": [list(entry) for entry in noise.readout],
        "basis": list(noise.basis),
    }


def noise_from_data(data: Any) -> NoiseModel:
    """The noise model of `noise_to_data`, from data that anybody may have written.

    Raises:
        ConfigError, ArgumentError: the data are no noise model.
    """
    data = as_dict(data, "a noise model")
    errors = []
    for item in as_list(data["errors"], "errors"):
        error = as_dict(item, "an error")
        wires = None if error["wires"] is None else tuple(_wire(wire) for wire in as_list(error["wires"], "wires"))
        channels = tuple(channel_of(as_dict(c, "a channel")) for c in as_list(error["channels"], "channels"))
        errors.append(GateError(as_text(error["gate"]), channels, wires))
    readout = []
    for item in as_list(data["readout"], "readout"):
        wire, ones, zeros = as_list(item, "readout errors")
        where = None if wire is None else _wire(wire)
        readout.append((where, as_number(ones, "a probability"), as_number(zeros, "a probability")))
    basis = tuple(as_text(name) for name in as_list(data["basis"], "basis"))
    return NoiseModel(tuple(errors), tuple(readout), basis)


def _wire(value: Any) -> int:
    return as_whole(value, "a wire", 0, MOST_WIRES)
