"""What a classical computer has of a circuit, and in what time, beside what a device would take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Expval, Measurement, Program
from qbp.circuit.tracing import Circuit
from qbp.errors import ArgumentError, check_count
from qbp.executors import execute

__all__ = ["Output", "Simulability", "seconds_told", "simulability"]

ROWS = 32
"""Rows of a call whose time is taken."""

WIDEST_STATE = 20
"""Qubits of the widest whole state whose time is taken."""

SECONDS = 0.2
"""For so long calls are repeated; the quickest counts."""

SECONDS_OF_OUTPUT = 0.01
"""The same where one output is run alone."""


@dataclass(frozen=True)
class Output:
    """What an output of a circuit takes.

    Attributes:
        qubits: that it sees.
        words: most Pauli words, at a time, that it becomes on its way back to the data; None: more than the limit.
        seconds: measured, of a row of it alone by words; None where there are more. Of outputs that see as many qubits
            and become as many words one is run.
        device: seconds of a row of it alone on a device.
    """

    qubits: int
    words: int | None
    seconds: float | None
    device: float


@dataclass(frozen=True)
class Simulability:
    """What a circuit takes on this computer and on a device.

    Attributes:
        n_qubits: N.
        outputs: what each takes.
        limit: words up to which they are counted.
        words, windows, state: measured seconds of a row, forward, by words carried back, by windows and by the whole
            state; None where that way is none.
        device: seconds of a row on a device, by IBM's formula for executions; `shots` for each basis.
        without: the noise that the layer's circuit is run with and that is left out here; None for none.
    """

    n_qubits: int
    outputs: tuple[Output, ...]
    limit: int
    words: float | None
    windows: float | None
    state: float | None
    device: float
    shots: int
    without: str | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return asdict(self) | {"outputs": [asdict(output) for output in self.outputs]}

    @staticmethod
    def from_json(kept: Mapping[str, Any]) -> Simulability:
        """What `to_json` gave."""
        return Simulability(**{**kept, "outputs": tuple(Output(**output) for output in kept["outputs"])})

    def __str__(self) -> str:
        counted = [output.words for output in self.outputs if output.words is not None]
        many = len(self.outputs) - len(counted)
        words = f"at most {max(counted):,} Pauli words" if counted else f"more than {self.limit:,} Pauli words"
        if many and counted:
            words += f", {many} of {len(self.outputs)} more than {self.limit:,}"
        ways = {
            "by words": self.words,
            "by windows": self.windows,
            f"by the whole state of 2^{self.n_qubits} amplitudes": self.state,
        }
        told = ", ".join(f"{seconds_told(seconds)} {way}" for way, seconds in ways.items() if seconds is not None)
        cannot = " or ".join(way for way, seconds in list(ways.items())[::2] if seconds is None)
        here = f"{told} (not {cannot})" if told and cannot else told or "this computer too much"
        begin = "Outputs" if self.without is None else f"Without the noise of {self.without}, outputs"
        return (
            f"{begin} see at most {max(output.qubits for output in self.outputs)} of {self.n_qubits} qubits and become "
            f"{words}: a row takes {here}, and about {seconds_told(self.device)} on a device with {self.shots:,} shots."
        )


def simulability(
    circuit: Circuit, weights: Tensor, limit: int = 1_000_000, shots: int = 4096, without: str | None = None
) -> Simulability:
    """Count and measure what a circuit takes; see `QuantumLayer.simulability`."""
    check_count("limit", limit)
    check_count("shots", shots)
    from qbp.executors.native import Native
    from qbp.executors.native.windows import NARROW, WIDEST, Windows, windowed
    from qbp.executors.pauli import Pauli
    from qbp.executors.propagation import PauliPropagation

    class Whole(Native):
        def engine(self, program: Program) -> Any:
            return Pauli() if program.is_noisy else self

    program = circuit.program
    if program.amplitudes:
        raise ArgumentError("A circuit that starts from amplitudes has no words to count: its outputs see whole states")
    rows = torch.zeros(ROWS, circuit.n_inputs, dtype=weights.dtype)
    angles = circuit.angle_map(rows, weights.detach())
    words = PauliPropagation(max_words=limit).count(program, limit)
    by_words = PauliPropagation(max_words=10 * limit)
    alone = [replace(program, measurements=(m,)) for m in program.measurements for _ in range(_size(m))]
    seconds: dict[tuple[int, int], float | None] = {}
    outputs = []
    for qubits, n_words, one in zip(_seen(program), words, alone, strict=True):
        if n_words is not None and (qubits, n_words) not in seconds:
            seconds[qubits, n_words] = _seconds(by_words, one, angles, SECONDS_OF_OUTPUT)
        took = None if n_words is None else seconds[qubits, n_words]
        outputs.append(Output(qubits, n_words, took, _on_device(one, shots)))
    most = min(program.n_qubits - 2, WIDEST)
    has_windows = program.n_qubits > NARROW and not program.is_noisy and windowed(program, most=most) is not None
    narrow = program.n_qubits <= (WIDEST_STATE // 2 if program.is_noisy else WIDEST_STATE)
    return Simulability(
        n_qubits=program.n_qubits,
        outputs=tuple(outputs),
        limit=limit,
        words=_seconds(by_words, program, angles) if None not in words else None,
        windows=_seconds(Windows(Whole()), program, angles) if has_windows else None,
        state=_seconds(Whole(), program, angles) if narrow else None,
        device=_on_device(program, shots),
        shots=shots,
        without=without,
    )


def _size(measurement: Measurement) -> int:
    """How many outputs it gives."""
    return 1 if isinstance(measurement, Expval) else 2 ** len(measurement.wires)


def _seen(program: Program) -> list[int]:
    """For each output how many qubits it sees."""
    from qbp.executors.native.windows import windows_of

    if program.is_noisy:
        counts = []
        for m in program.measurements:
            counts += [len(replace(program, measurements=(m,)).seen_wires())] * _size(m)
        return counts
    seen = [0] * program.n_outputs
    for shape in windows_of(program, 0).shapes:
        for output in shape.columns.tolist():
            seen[output] = max(seen[output], shape.program.n_qubits)
    return seen


def _seconds(executor: Any, program: Program, angles: Angles, so_long: float = SECONDS) -> float | None:
    """Of a row; None where the executor has no memory for it."""

    def call() -> Any:
        return execute(executor, program, angles)

    try:
        call()  # compiles, and fills caches
    except ArgumentError:
        return None
    return _quickest(call, so_long) / angles.n_samples


def _quickest(call: Callable[[], Any], so_long: float) -> float:
    until, best = time.perf_counter() + so_long, float("inf")
    while best == float("inf") or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def _on_device(program: Program, shots: int) -> float:
    from qbp.executors.qiskit_primitive.billing import EXECUTION_SECONDS
    from qbp.executors.sampled import measurement_groups

    return len(measurement_groups(program)) * shots * EXECUTION_SECONDS


def seconds_told(seconds: float) -> str:
    """Seconds as a person reads them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"
