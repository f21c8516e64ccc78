"""Where the circuit of a layer runs: traced, on an executor, or as a QNode that runs itself."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from qbp.circuit.lock import LOCK
from qbp.circuit.tracing import Circuit
from qbp.circuit.tracing.pennylane_tapes import parts_of_transforms
from qbp.circuit.tracing.watch import TRAINED, Watch
from qbp.errors import ArgumentError, CircuitError, UnsteadyError
from qbp.executors import Executor, capabilities_of
from qbp.executors import backend as make_backend
from qbp.gradients.autograd import choose_diff_method
from qbp.gradients.stateful import rule_of
from qbp.nn.combining import check_exact, whole
from qbp.nn.compiled import numbered
from qbp.nn.own_qnode import OwnQNode
from qbp.nn.qnode import FunctionSource, as_qnode, changes_circuit, executor_of, keeps_device, qnode_behind
from qbp.nn.torchlayer import TorchLayerNames

__all__ = ["Asked", "PlacedModule"]


_VARIANTS = 8
"""Circuits of one number of inputs that are kept, for states that come back."""


class Asked(NamedTuple):
    """What a layer was asked to run on."""

    backend: Any
    diff_method: str
    shots: int | None


class PlacedModule(TorchLayerNames):
    """A layer whose circuit has a place to run."""

    _asked: Asked
    _noise: FunctionSource
    _circuits: dict[int, Circuit]  # by the number of inputs
    _watches: dict[int, Watch]  # likewise
    _variants: dict[int, list[tuple[Watch, Circuit]]]  # those of other states of what the function reads, too
    _n_inputs: int | None
    _executor: Executor | None
    _diff_method: str
    _rule: Any
    _generator: torch.Generator | None
    _number: int

    @property
    def circuit(self) -> Circuit:
        """The traced circuit: program, and the map from inputs and weights to its angles. It is all that the layer
        computes: one whose outputs are made of what is measured raises a CircuitError."""
        return whole(self.traced)

    @property
    def traced(self) -> Circuit:
        """The traced circuit, also where outputs are made of what it measures (`Circuit.combination`)."""
        if not self._circuits:
            raise CircuitError("This QNode runs itself: its circuit is no program of gates and expectation values")
        return self.traced_for(next(reversed(self._circuits)))

    @property
    def is_combined(self) -> bool:
        """Whether the outputs are made of what the circuit measures: a variance, or an observable whose coefficients
        train."""
        return any(circuit.combination is not None for circuit in self._circuits.values())

    def __dir__(self) -> list[str]:
        """Without what would raise here: `torch.jit` reads all that is listed."""
        hidden = set() if self._circuits else {"circuit", "traced"}
        hidden |= {"circuit"} if self.is_combined else set()
        return [name for name in super().__dir__() if name not in hidden]

    def _choose(self, circuit: Circuit) -> None:
        """The executor and the gradient rule, as they were asked for."""
        backend, diff_method, shots = self._asked
        executor, asked = executor_of(self.qnode, backend, shots, diff_method, self._generator)
        check_exact(executor, circuit)
        self._executor, self._diff_method = executor, choose_diff_method(executor, asked, circuit.program)

    def _trace_or_run(self, n_inputs: int | None) -> None:
        """Trace the function for so many inputs, or let its QNode run itself."""
        assert self._source is not None
        source, auto = self._source.function, self._asked.backend == "auto"
        changed = changes_circuit(source)
        if changed and not auto:
            raise CircuitError(
                f"The QNode {changed}, which another backend would leave out: give no `backend`, so that it runs "
                "itself, or its plain function"
            )
        if auto and (changed or keeps_device(source)):
            return self._run_itself()
        watch = _watch(source)
        try:
            if watch is not None and watch.obstacle:
                raise UnsteadyError(f"The circuit's function {watch.obstacle}: a trace would keep those of one call")
            circuit = self._source.trace(n_inputs, self._input_arg)
            if self._executor is None:
                self._choose(circuit)
            else:
                check_exact(self._executor, circuit)
                if self._diff_method == "adjoint":  # not every device has it for every circuit
                    self._diff_method = choose_diff_method(self._executor, "best", circuit.program)
        except UnsteadyError as error:
            if not auto:
                raise
            return self._run_itself(str(error))
        except CircuitError:
            if not auto or qnode_behind(source) is None:
                raise
            return self._run_itself()
        if watch is not None:
            watch.settle()
            self._watches[circuit.n_inputs] = watch
            self._variants.setdefault(circuit.n_inputs, []).insert(0, (watch, circuit))
            del self._variants[circuit.n_inputs][_VARIANTS:]
        self._circuits[circuit.n_inputs] = circuit

    def _run_itself(self, reason: str = "") -> None:
        """From now on the QNode runs itself; a plain function becomes one."""
        assert self._source is not None
        if self._asked.diff_method != "best" or self._asked.shots is not None:
            raise ArgumentError(
                "This QNode runs on its own device, since qbp does not know all that it does or it is no program of "
                f"gates, expectation values and probabilities: set `diff_method` and `shots` on the QNode. {reason}"
            )
        if qnode_behind(self._source.function) is None:
            self._source = replace(self._source, function=as_qnode(self._source.function))
        own = OwnQNode(self._source, self._input_arg)
        if TRAINED in reason and not own.is_torch():
            raise ArgumentError(
                f"{reason}: only a QNode on default.qubit or default.mixed, by backpropagation and without shots, "
                "gives it gradients. Make it an argument of the function, with a shape in `weight_shapes`"
            )
        if reason:
            warnings.warn(f"{reason}. So it runs by itself, more slowly", stacklevel=6)
        self._own = own
        self._circuits, self._watches, self._variants, self._executor = {}, {}, {}, None
        self._diff_method = self._own.diff_method

    def set_backend(
        self, backend: str | Executor, *, shots: int | None = None, diff_method: str | Callable[..., Any] | None = None
    ) -> None:
        """Let the circuit run elsewhere; weights and random numbers stay.

        Args:
            backend, shots: as in the constructor.
            diff_method: None keeps "spsa", "parameter-shift" and a rule that remembers steps, where the backend can run
                it, and is "best" otherwise.

        Raises:
            CircuitError: if a QNode runs itself, since its circuit is no program.
            GradientError: if the backend cannot give the gradients that were asked for.

        Example:
            >>> import qbp
            >>> layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1)
            >>> layer.set_backend("dense")
            >>> layer.backend, layer.diff_method
            ('dense', 'backprop')
        """
        rule, asked = self._rule, diff_method
        if diff_method is None:
            stays = rule is not None or self._diff_method in ("spsa", "parameter-shift")
            diff_method = self._diff_method if stays else "best"
        else:
            diff_method, rule = rule_of(diff_method)
        executor = make_backend(backend, shots=shots, generator=self._generator)
        able = capabilities_of(executor)
        if asked is None and diff_method == "gcans" and not (able.shots and able.with_shots):
            diff_method, rule = "best", None
        check_exact(executor, self.traced)
        method = choose_diff_method(executor, diff_method, self.traced.program)
        self._executor, self._diff_method, self._rule = executor, method, rule
        self._asked = Asked(executor, diff_method, None)

    def circuit_for(self, n_inputs: int) -> Circuit:
        """The traced circuit for so many inputs; a function that takes whatever comes is traced for each number once.

        Raises:
            ArgumentError: if the layer has another number of inputs.
            CircuitError: if a QNode runs itself, for so many inputs at least, or outputs are made of what is measured.
        """
        return whole(self.traced_for(n_inputs))

    def traced_for(self, n_inputs: int) -> Circuit:
        """As `circuit_for`, also where outputs are made of what is measured."""
        circuit = self._current(n_inputs)
        if circuit is None:
            raise CircuitError("This QNode runs itself: its circuit is no program of gates and expectation values")
        return circuit

    def _current(self, n_inputs: int) -> Circuit | None:
        """The circuit as its function says now; None where the QNode runs itself."""
        circuit = self._circuits.get(n_inputs)
        watch = self._watches.get(n_inputs)
        if circuit is None or (watch is not None and not watch.is_current()):
            return torch.compiler.disable(self._new_circuit)(n_inputs)  # no part of what torch compiles
        return circuit

    def _new_circuit(self, n_inputs: int) -> Circuit | None:
        with LOCK:
            return self._traced_again(n_inputs)

    def _traced_again(self, n_inputs: int) -> Circuit | None:
        for watch, circuit in self._variants.get(n_inputs, ()):
            if watch.is_current():
                self._circuits[n_inputs], self._watches[n_inputs] = circuit, watch
                return circuit
        is_traced = n_inputs in self._circuits
        if not is_traced and self._own is None and (self._source is None or self._n_inputs not in (None, n_inputs)):
            raise ArgumentError(f"Argument `inputs` must have shape (..., {self._n_inputs}), but has (..., {n_inputs})")
        if self._own is None:
            self._trace_or_run(n_inputs)
        return self._circuits.get(n_inputs)

    def _put(self, qnode: Any) -> None:
        """Another QNode with the same weights in the place of this one."""
        weight_shapes = {name: tuple(weight.shape) for name, weight in self.qnode_weights.items()}
        other: Any = type(self)(qnode, weight_shapes, n_inputs=self._n_inputs)
        for name in (
            "_source",
            "_own",
            "_circuits",
            "_watches",
            "_variants",
            "_executor",
            "_diff_method",
            "_asked",
            "_input_arg",
        ):
            self.__dict__[name] = other.__dict__[name]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_watches": {}, "_variants": {}, "_asked": tuple(self._asked)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._number = numbered(self)
        self._watches, self._variants = {}, {}
        self.__dict__.setdefault("_noise", FunctionSource(None, None, {}))
        if "_asked" in state:
            self._asked = Asked(*state["_asked"])
        else:  # pickled by qbp 0.1.0
            own = self.__dict__.pop("_own_qnode")
            self._asked = Asked(self._executor or "auto", "best", None)
            self._own = OwnQNode(self._source, self._input_arg) if own and self._source is not None else None
        watch = _watch(self.qnode) if self._own is None else None
        if watch is not None:
            self._watches = dict.fromkeys(self._circuits, watch)
            self._variants = {n: [(watch, circuit)] for n, circuit in self._circuits.items()}


def _watch(source: Any) -> Watch | None:
    """Over what a function, or that of a QNode, reads; None where there is no such function."""
    if source is None or inspect.isclass(source):
        return None
    if qnode_behind(source) is not source:
        return Watch(source)
    return Watch(source.func, *parts_of_transforms(source))
