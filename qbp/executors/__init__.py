"""Executors: where a program runs, from angles (B, K) to outputs (B, M).

One file each; the conformance suite of `qbp.testing` is what they are held to.
An executor is called as ``executor(program, angles, amplitudes=None) -> Results`` and says by its `Capabilities` what
it can do besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Channel, Program
from qbp.errors import ArgumentError, ConfigError
from qbp.executors.objects import executor_of_object, is_object

if TYPE_CHECKING:
    from qbp.executors.qiskit_primitive.options import Options

__all__ = [
    "AdjointExecutor",
    "Capabilities",
    "Draws",
    "Executor",
    "Gradients",
    "Results",
    "backend",
    "capabilities_of",
    "check_noise",
    "check_trusted",
    "execute",
    "has_adjoint",
    "name_of",
]


@dataclass(frozen=True)
class Capabilities:
    """What an executor can do; `qbp.testing.check_executor` proves it.

    Attributes:
        exact: whether equal angles always give equal, noiseless outputs.
        shots: how many times each circuit is sampled, or None where expectation values come without sampling.
        adjoint: whether it has the adjoint rule (`AdjointExecutor`), if not for every program.
        differentiable: whether it is made of torch's operations, so that torch differentiates its outputs
            (``diff_method="backprop"``).
        one_job: whether all executions of a training step, those of its gradients too, are to be one call.
        standard_errors: whether its results have `stds`.
        truncation: whether it approximates, and its results say how far.
        any_shape: whether the Ks shared angles may have any shape, and so has their gradient.
        with_shots: whether ``executor.with_shots(n)`` is the same executor with n shots.
        channels: whether it runs programs with noise: channels and readout errors.
        engines: whether it has several ways to run a program, and ``executor.engine(program)`` is the one it takes.
    """

    exact: bool = True
    shots: int | None = None
    adjoint: bool = False
    differentiable: bool = False
    one_job: bool = False
    standard_errors: bool = False
    truncation: bool = False
    any_shape: bool = False
    with_shots: bool = False
    channels: bool = False
    engines: bool = False


class Results(NamedTuple):
    """What an executor returns.

    Attributes:
        values: outputs (B, M), of the dtype and device of the angles.
        stds: their standard errors (B, M): independent, of mean 0, and smaller in a mean; None where there are none.
        truncation: (B, M), how far an approximation may be off; in sums and means it adds up, and no average makes it
            smaller. None for none.
        sources: (B,), which execution each row was read from, where equal rows are executed once and so err alike;
            None where each row has its own.
    """

    values: Tensor
    stds: Tensor | None = None
    truncation: Tensor | None = None
    sources: Tensor | None = None


class Draws(NamedTuple):
    """What a gradient that was sampled is the sum of.

    Attributes:
        gradients: (L, K) of all angles, batched ones first, of each pattern of errors: it has that share in the sum.
        rows: (L,) the sample that it was drawn for.
        counts: (L,) how often it was.
        n: how many were drawn for each sample.
    """

    gradients: Tensor
    rows: Tensor
    counts: Tensor
    n: int


class Gradients(NamedTuple):
    """The vector-Jacobian product of a circuit: one tensor for each of its arguments, None where it was not asked for.

    Attributes:
        batched: (B, Kb).
        shared: (Ks,), summed over the batch.
        amplitudes: (B, 2^N), real or complex as the amplitudes are (torch's convention for complex gradients).
        draws: where they are sampled, what they are the sum of, one for each independent part.
    """

    batched: Tensor | None = None
    shared: Tensor | None = None
    amplitudes: Tensor | None = None
    draws: tuple[Draws, ...] = ()


@runtime_checkable
class Executor(Protocol):
    """Runs programs. One of your own that can no more than that may have the attributes `exact` and `shots` in place of
    `capabilities`, and return the outputs as they are."""

    @property
    def name(self) -> str:
        """What a user writes to get it (``backend="native"``), and what `QuantumLayer.backend` says."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Results:
        """Outputs (B, M), of the dtype and device of the angles."""
        ...


@runtime_checkable
class AdjointExecutor(Executor, Protocol):
    """An executor that gives the vector-Jacobian product in a single backward pass."""

    def has_adjoint(self, program: Program) -> bool:
        """Whether it does so for this program."""
        ...

    def forward(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> tuple[Results, Any]:
        """The results, and whatever `vjp` wants to find again."""
        ...

    def vjp(
        self,
        program: Program,
        angles: Angles,
        amplitudes: Tensor | None,
        saved: Any,
        grad: Tensor,
        needs: tuple[bool, bool, bool] = (True, True, True),
    ) -> Gradients:
        """Gradients of ``sum(grad * outputs)`` with respect to batched angles, shared angles and amplitudes.

        Args:
            saved: the second result of `forward` for the same arguments; used once.
            grad: (B, M).
            needs: which of the three are wanted.
        """
        ...


def capabilities_of(executor: Any) -> Capabilities:
    """What an executor can do; one without `capabilities` says whether it is `exact` and how many `shots` it takes."""
    said = getattr(executor, "capabilities", None)
    return Capabilities(executor.exact, executor.shots) if said is None else said


def has_adjoint(executor: Any, program: Program) -> bool:
    """Whether an executor has the adjoint rule for a program."""
    return capabilities_of(executor).adjoint and bool(executor.has_adjoint(program))


def check_noise(executor: Any, program: Program) -> None:
    """Raise `ArgumentError` where a program has noise that the executor would not run."""
    if program.is_noisy and executor is not None and not capabilities_of(executor).channels:
        what = next((op.name for op in program.ops if isinstance(op, Channel)), "readout errors")
        raise ArgumentError(
            f"Argument `backend` must run noise for this circuit, which has {what}, but {executor.name!r} does not: "
            "'auto', 'native', 'pauli', 'trajectories', 'pauli-propagation' and 'default.mixed' do"
        )


def name_of(executor: Any, program: Program) -> str:
    """The name of what runs a program."""
    return str(executor.engine(program).name if capabilities_of(executor).engines else executor.name)


def execute(executor: Any, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Results:
    """Run a program; outputs that come alone are results without errors.

    Raises:
        ArgumentError: the program has noise, and the executor runs none.
    """
    if program.is_noisy:
        check_noise(executor, program)
    results = executor(program, angles, amplitudes)
    return results if isinstance(results, Results) else Results(results)


def backend(
    spec: Any,
    *,
    shots: int | None = None,
    generator: torch.Generator | None = None,
    options: Options | None = None,
) -> Executor:
    """The executor that a backend string names.

    Args:
        spec: "auto", which is "native", since that was faster than lightning.qubit at every size measured
            (`benchmarks/choices.py`), and the ways that it takes by itself: "pauli", for noise, "windows" and
            "pauli-propagation", which carries the measured words back, for wide and shallow circuits. With its
            options the latter leaves words out ("pauli-propagation:max_weight=6"); "trajectories:64", which samples
            noise so many times for each sample (16 times without a number); "dense"; "qiskit" (exact), "aer",
            "fake:NAME" (with the noise of that device), "ibm:NAME" (a quantum computer); the name of any PennyLane
            device ("lightning.qubit", "default.mixed", ...); the path of a class or function of your own
            ("package.module:Thing", called as ``Thing(shots=shots, generator=generator)``); a PennyLane device, or
            Qiskit's simulator, backend, estimator or sampler, as an
            object with its own noise, method, shots and seed; or an executor, which is returned as it is.
        shots: how many times each circuit is sampled, for each group of observables that are measured together; None
            for exact expectation values.
        generator: source of the samples; None for torch's global one.
        options: how Qiskit's primitives transpile, measure and mitigate.

    Raises:
        ArgumentError: if there is no such backend, or it cannot sample.
        MissingPackageError: if the backend needs a package that is not installed.
    """
    if shots is not None and (not isinstance(shots, int) or isinstance(shots, bool) or shots < 1):
        raise ArgumentError(f"Argument `shots` must be None or a positive integer, but is {shots!r}")
    if is_object(spec):
        return cast(Executor, executor_of_object(spec, shots, generator, options))
    if not isinstance(spec, str):
        if not callable(spec) or not (hasattr(spec, "capabilities") or hasattr(spec, "exact")):
            raise ArgumentError(
                "Argument `backend` must be a name, a PennyLane device, one of Qiskit's backends, estimators or "
                f"samplers (of version 2), or an executor, but is {spec!r}"
            )
        own = capabilities_of(spec).shots
        if shots not in (None, own):
            raise ArgumentError(f"Argument `shots` must be {own} as the executor's, or None, but is {shots}")
        return spec
    if spec.startswith("fake:"):
        from qbp.executors.noisy_device import NoisyDevice
        from qbp.executors.qiskit_primitive.fake_devices import fake_device

        return NoisyDevice(fake_device(spec[5:]), shots=shots, options=options, generator=generator)
    if spec.split(":")[0] in ("qiskit", "aer", "fake", "ibm"):
        from qbp.executors.qiskit_primitive import qiskit_backend

        return qiskit_backend(spec, shots=shots, options=options, generator=generator)
    if options is not None:
        raise ArgumentError(
            f"Argument `backend` must be 'qiskit', 'aer', 'fake:NAME' or 'ibm:NAME' where options of theirs are "
            f"given, but is {spec!r}"
        )
    if spec.partition(":")[0] == "trajectories":
        return _trajectories(spec, shots, generator)
    if spec in ("auto", "native", "dense", "pauli", "windows") or _is_propagation(spec):
        simulator = _simulator(spec)
        if shots is None:
            return simulator
        from qbp.executors.sampled import Sampled

        return Sampled(simulator, shots, generator)
    module, colon, name = spec.partition(":")
    if colon:
        try:
            thing = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ArgumentError(f"Argument `backend` names {spec!r}, which cannot be imported: {error}") from error
        return backend(thing(shots=shots, generator=generator))
    from qbp.executors.pennylane_device import PennyLaneDevice

    return PennyLaneDevice(spec, shots=shots, generator=generator)


# Names that import nothing but what qbp, PennyLane and Qiskit bring along, and connect to nothing.
PLAIN = ("auto", "native", "dense", "pauli", "windows", "qiskit", "aer")
PENNYLANE = ("default.qubit", "default.mixed", "default.clifford", "default.tensor", "null.qubit", "reference.qubit")


def check_trusted(spec: Any, source: str, trust: bool) -> None:
    """Refuse a backend's name that comes from a file, where it would run more than simulators do, unless trusted.

    Args:
        spec: the name, as in `backend`.
        source: which file names it, as in "The model in small.safetensors".
        trust: whether the user has said that the file is to be trusted.

    Raises:
        ConfigError: the name is no text, or would import, load or connect to something; it says what.
    """
    if not isinstance(spec, str):
        raise ConfigError(f"{source} must have a name as its backend, but has a {type(spec).__name__}")
    if spec.endswith(" (object)"):
        raise ConfigError(
            f"{source} ran on {spec[:-9]!r}, an object of its user's, which no file can hold: give `backend`"
        )
    kind, colon, name = spec.partition(":")
    lightning = not colon and kind.startswith("lightning.") and kind.count(".") == 1
    ours = spec in PLAIN or _is_propagation(spec) or kind == "trajectories"
    if trust or ours or spec in PENNYLANE or lightning or (kind == "fake" and colon):
        return
    if kind == "ibm":
        does = "connect to IBM Quantum with your account"
    elif colon:
        does = f"import the module {kind!r} and call its {name!r}"
    else:
        does = f"load the PennyLane plugin {spec!r}"
    raise ConfigError(
        f"{source} names the backend {spec[:80]!r}, which would {does[:200]}: if you trust it, say so (`trust=True`, "
        "or `--trust` on the command line), or name another backend"
    )


def _is_propagation(name: str) -> bool:
    """Whether a name is that of words carried back, with or without options."""
    return name.partition(":")[0] == "pauli-propagation"


def _trajectories(spec: str, shots: int | None, generator: torch.Generator | None) -> Executor:
    from qbp.executors.trajectories import Trajectories

    _, colon, number = spec.partition(":")
    if colon and not number.isdecimal():
        raise ArgumentError(f"Argument `backend` must be 'trajectories' or 'trajectories:64', but is {spec!r}")
    if shots is not None:
        raise ArgumentError(
            f"Argument `shots` must be None on backend {spec!r}, which samples noise and no outcomes, but is {shots}"
        )
    return Trajectories(int(number), generator=generator) if colon else Trajectories(generator=generator)


def _simulator(name: str) -> Executor:
    if name == "dense":
        from qbp.executors.dense import Dense

        return Dense()
    if name == "pauli":
        from qbp.executors.pauli import Pauli

        return Pauli()
    if _is_propagation(name):
        from qbp.executors.propagation import PauliPropagation

        return PauliPropagation.named(name.partition(":")[2])
    if name == "windows":
        from qbp.executors.native.windows import Windows

        return Windows(_simulator("native"))
    from qbp.executors.native import Native

    return Native()
