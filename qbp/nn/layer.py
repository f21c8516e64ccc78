"""`QuantumLayer`: a quantum circuit as a `torch.nn.Module`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from qbp.circuit.tracing import Circuit, trace, weight_shapes_of
from qbp.errors import ArgumentError, CircuitError, check_choice, suggests_names
from qbp.executors import Executor, capabilities_of, check_noise, name_of
from qbp.executors import backend as make_backend
from qbp.executors.objects import is_object
from qbp.gradients.autograd import (
    DIFF_METHODS,
    ErrorBars,
    Expectation,
    Task,
    check_bits,
    check_norms,
    evaluate,
    expectations,
)
from qbp.gradients.stateful import rule_of
from qbp.gradients.transforms import Outputs, is_transformed
from qbp.nn.combining import combined
from qbp.nn.compiled import WORKING, compiled, dtypes, numbered
from qbp.nn.noise import circuit_with_noise, executor_with_noise, is_of_pennylane, noise_of, source_with_noise
from qbp.nn.placement import Asked, PlacedModule
from qbp.nn.qnode import FunctionSource, as_torchlayer, check_signature, is_function, qnode_behind
from qbp.nn.translation import Translated
from qbp.nn.weights import Draws, initial_weight
from qbp.nn.without_quantum import WithoutQuantum

__all__ = ["QuantumLayer"]

_is_exporting = getattr(torch.compiler, "is_exporting", bool)  # of torch 2.7
_PROXIES = torch._C._TorchDispatchModeKey.PROXY


@suggests_names
class QuantumLayer(PlacedModule, WithoutQuantum, Translated):
    """A quantum circuit as a layer: ``(*, I) -> (*, M)``, dtype and device in = out.

    It takes the place of `pennylane.qnn.TorchLayer` and of Qiskit Machine Learning's
    ``TorchConnector(EstimatorQNN(...))``; made from a QNode it is an instance of the former, too. Its
    weights train by adjoint or by parameter-shift gradients; its inputs get gradients exactly when they require them.

    Args:
        source: the circuit: anything `qbp.trace` takes. Of a QNode on an exact, noiseless simulator only the circuit
            is taken, and run on the native engine; any other QNode keeps its device, its shots and its noise.
        weight_shapes: for a PennyLane function or QNode the shape of each weight by the name of its argument.
        init_method: a function of `torch.nn.init`, or for each weight such a function or a tensor. Default: uniform in
            [0, 2 pi) radians.
        qnode: PennyLane's name of `source`.
        n_qubits, n_layers: size of a circuit family or of a template.
        coupling_map: which wires a family's two-qubit gates join: edges, a Qiskit `CouplingMap`, or a device's name
            ("fake:torino", "ibm:ibm_torino"), whose first qubits are the wires (all of them without `n_qubits`).
        n_inputs: I, the features of a sample, where the function would take several and the first call shall not
            decide.
        backend: where the circuit runs: "auto", "native", "dense", the name of a PennyLane device,
            "package.module:Thing", a PennyLane device, one of Qiskit's simulators, backends, estimators or samplers, or
            an executor.
        diff_method: "best" (adjoint where the backend has it, else parameter-shift), "adjoint", "parameter-shift",
            "spsa", "finite-diff", or "backprop" (dense backend); to train on a device with fewer circuits or shots a
            rule of `qbp.gradients.stateful`, or the name of one. What is used can be read back.
        noise: of the device: "fake:manila" (the circuit is transpiled to it, and all of its noise applied), a
            `qbp.NoiseModel`, or a noise model of Qiskit Aer or PennyLane; outputs and gradients are exact, or with
            `backend` "trajectories:64" (any number) sampled so many times for each row: for more than about 10 qubits.
        shots: how often each circuit is sampled, for each group of observables that are measured together; None: exact.
        seed: seed of the initial weights and of whatever the layer samples; None for torch's global random state.
        observables: what to measure instead of the source's own; see `qbp.trace`. Default: Z on every wire.
        input_params, weight_params: for a Qiskit circuit which parameters are data and which are weights.

    Raises:
        CircuitError: if the circuit cannot be expressed.
        GradientError: if the backend cannot give the gradients that were asked for.
        ArgumentError: if an argument does not fit.

    Example:
        >>> layer = QuantumLayer("strongly_entangling", n_qubits=4, n_layers=2)
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), layer, torch.nn.Linear(4, 2))
        >>> model(torch.zeros(32, 8)).shape
        torch.Size([32, 2])
    """

    _checks_bits = True
    _is_torchlayer = False

    def __new__(cls, source: Any = None, *args: Any, qnode: Any = None, **options: Any) -> QuantumLayer:
        source = qnode if source is None else source
        made_from_qnode = source is not None and qnode_behind(source) is source
        kind: Any = cls
        ours = kind.__module__.startswith("qbp.") and not kind._is_torchlayer
        return object.__new__(as_torchlayer(kind) if made_from_qnode and ours else kind)

    def __init__(
        self,
        source: Any = None,
        weight_shapes: Mapping[str, Any] | None = None,
        init_method: Callable[..., Tensor] | Mapping[str, Any] | None = None,
        *,
        qnode: Any = None,
        n_qubits: int | None = None,
        n_layers: int | None = None,
        coupling_map: Any = None,
        n_inputs: int | None = None,
        backend: str | Executor = "auto",
        noise: Any = None,
        diff_method: str | Callable[..., Any] = "best",
        shots: int | None = None,
        seed: int | None = None,
        observables: Any = None,
        input_params: Any = None,
        weight_params: Any = None,
    ):
        nn.Module.__init__(self)  # not that of PennyLane's class, where it is one of the bases
        if (source is None) == (qnode is None):
            raise ArgumentError("Give the circuit as `source` (or as `qnode`, PennyLane's name for it)")
        source = qnode if source is None else source
        diff_method, self._rule = rule_of(diff_method)
        if self._rule is None:
            check_choice("diff_method", diff_method, DIFF_METHODS)
        self._generator = None if seed is None else Draws(seed)
        if isinstance(coupling_map, str):
            from qbp.executors.qiskit_primitive.fake_devices import couplings_of

            coupling_map = couplings_of(coupling_map)
        options = {"n_qubits": n_qubits, "n_layers": n_layers, "coupling_map": coupling_map}
        options |= {"observables": observables, "input_params": input_params, "weight_params": weight_params}
        self._input_arg = type(self)._input_arg  # as it is now: `set_input_argument` is for later layers
        self._errors, self._number = ErrorBars(), numbered(self)
        in_circuit = noise is not None and is_of_pennylane(noise)
        self._noise = FunctionSource(noise if in_circuit else None, None, {})
        if in_circuit:
            source = source_with_noise(source, noise)
        elif noise is not None:
            backend, shots = executor_with_noise(noise, backend, shots, self._generator), None
        if is_object(backend):  # the executor shares it between copies of the layer
            backend, shots = make_backend(backend, shots=shots, generator=self._generator), None
        self._asked = Asked(backend, diff_method, shots)
        self._circuits, self._watches, self._variants = {}, {}, {}
        self._source = FunctionSource(source, weight_shapes, options) if is_function(source) else None
        self._n_inputs, self._own, self._executor = n_inputs, None, None
        if self._source is None:
            circuit = trace(source, weight_shapes, n_inputs=n_inputs, input_arg=self._input_arg, **options)
            circuit = circuit_with_noise(circuit, noise) if in_circuit else circuit
            self._circuits, self._n_inputs = {circuit.n_inputs: circuit}, circuit.n_inputs
            self._choose(circuit)
        else:
            check_signature(source, weight_shapes, self._input_arg)
            self._trace_or_run(n_inputs)
        shapes = self.traced.weight_shapes if self._circuits else weight_shapes_of(source, weight_shapes)
        self._weight_names = tuple(shapes)
        self._init_method = FunctionSource(init_method, None, {})  # in copies too, and lost where it cannot be pickled
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        for name, shape in shapes.items():
            self._register(name, nn.Parameter(initial_weight(name, shape, init_method, generator)))

    # ---- what it is --------------------------------------------------------------------------------------------------

    @property
    def n_inputs(self) -> int | None:
        """I, or None where the function takes whatever the first call brings."""
        return self._n_inputs

    @property
    def n_outputs(self) -> int | None:
        """M, or None for a QNode that runs itself."""
        return self.traced.n_outputs if self._circuits else None

    @property
    def backend(self) -> str:
        """Name of what runs the circuit: of the native engine's ways "pauli", with noise, "windows" and
        "pauli-propagation", of wide circuits; also "trajectories:64", with `noise` or with that of the circuit."""
        if self._executor is None:
            return self._own.name  # type: ignore[union-attr]
        return name_of(self._executor, next(reversed(self._circuits.values())).program)

    @property
    def executor(self) -> Executor | None:
        """What runs the circuit; None for a QNode that runs itself."""
        return self._executor

    @property
    def shots(self) -> int | None:
        """How often each circuit is sampled; None where expectation values are exact."""
        return None if self._executor is None else capabilities_of(self._executor).shots

    @property
    def noise(self) -> Any:
        """The noise of what runs the circuit, "fake:NAME" or a `NoiseModel`, or PennyLane's in the circuit; or None."""
        return noise_of(self._executor) or self._noise.function

    @property
    def diff_method(self) -> str:
        """The gradient rule in use."""
        return self._diff_method

    @property
    def rule(self) -> Any:
        """The gradient rule where it remembers earlier steps (see `qbp.gradients.stateful`), else None."""
        return self._rule

    @property
    def last_stds(self) -> Tensor | None:
        """Standard errors (B, M) of the last outputs, where the backend tells them; None on other backends."""
        return self._errors.stds

    @property
    def last_truncation(self) -> Tensor | None:
        """How far the last outputs (B, M) may be off on a backend that approximates; None on other backends."""
        return self._errors.truncation

    @property
    def last_grad_stds(self) -> Tensor | None:
        """Standard errors (P,) of the last gradients of the weights, all of them flattened one after the other."""
        return self._errors.of_weights("stds")

    @property
    def last_grad_truncation(self) -> Tensor | None:
        """How far the last gradients of the weights (P,) may be off on a backend that approximates, else None."""
        return self._errors.of_weights("truncation")

    @property
    def rng_state(self) -> Tensor | None:
        """State of the layer's own random numbers, (bytes,) uint8, to be kept in a checkpoint; None without a seed."""
        return None if self._generator is None else self._generator.get_state()

    @rng_state.setter
    def rng_state(self, state: Tensor | None) -> None:
        if self._generator is not None and state is not None:
            self._generator.set_state(state)

    def describe(self) -> str:
        """What the layer computes apart from its weights, in full: equal for layers that compute the same."""
        traced = [circuit.describe() for circuit in self._circuits.values()][:1]
        shots = None if self._executor is None else capabilities_of(self._executor).shots
        noise = noise_of(self._executor)
        return repr((traced, self.backend, self._rule or self.diff_method, shots, *([] if noise is None else [noise])))

    def extra_repr(self) -> str:
        n_weights = sum(weight.numel() for weight in self.qnode_weights.values())
        size = f"{self.traced.n_qubits} qubits, {self.n_outputs} outputs, " if self._circuits else ""
        return f"{size}{n_weights} weights, backend={self.backend!r}, diff_method={self.diff_method!r}"

    # ---- what it computes --------------------------------------------------------------------------------------------

    def forward(self, inputs: Tensor | None = None) -> Tensor:
        """Outputs (*, M) of inputs (*, I); a function that returns one bare expectation value gives (*).

        A circuit that takes no data needs no argument.
        """
        if inputs is None:
            inputs = next(self.parameters(), torch.empty(0)).new_empty(0)
        if is_dynamo_compiling():
            self._check_recorded(not _is_exporting())
            return compiled(self, inputs)
        return self.outputs_of(inputs)

    def outputs_of(self, inputs: Tensor, weights: Tensor | None = None) -> Tensor:
        """Outputs (*, M) of inputs (*, I), with other weights (P,) in place of the layer's own where they are given."""
        if not isinstance(inputs, Tensor) or inputs.ndim == 0:
            got = f"of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else f"a {type(inputs).__name__}"
            raise ArgumentError(f"Argument `inputs` must be a tensor of shape (..., I), but is {got}")
        kind, shape = inputs.dtype, inputs.shape
        dtype, working = (kind, kind) if kind in WORKING else dtypes(inputs)
        n_inputs, in_jit = shape[-1], False
        if type(n_inputs) is not int:  # torch.jit.trace counts in tensors
            n_inputs, in_jit = int(n_inputs), torch._C._get_tracing_state() is not None
        if _is_exporting() or torch._C._get_dispatch_mode(_PROXIES) is not None:
            able = self._executor is not None and capabilities_of(self._executor).differentiable
            self._check_recorded(able and n_inputs in self._circuits)
        circuit = self._current(n_inputs)
        if circuit is None:
            assert self._own is not None
            x = inputs.to(working)
            return self._own(x, self._weights_like(x.real)).to(dtype)
        if kind.is_complex and (not circuit.program.amplitudes or circuit.reads_numbers):
            raise ArgumentError(f"Argument `inputs` must be real where it is not only amplitudes, but has dtype {kind}")
        is_batch = len(shape) == 2
        lead = () if is_batch else tuple(map(int, shape[:-1]))
        x = inputs if is_batch else inputs.reshape(math.prod(lead), n_inputs)
        x = x if kind is working else x.to(working)  # each operation of torch costs as much as a small circuit
        outputs = self._run(circuit, x, weights, in_jit)
        if circuit.combination is not None:
            outputs = combined(circuit.combination, outputs, x, self.flat_weights(outputs), self._errors)
        if circuit.is_scalar:
            outputs = outputs.reshape(len(x) if is_batch else lead)
        elif not is_batch:
            outputs = outputs.reshape(*lead, outputs.shape[1])
        return outputs if outputs.dtype is dtype else outputs.to(dtype)

    def forward_each(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Outputs (K, B, M) of inputs (K, B, I), where each of K parts has weights (K, P) of its own."""
        circuit = self.traced_for(inputs.shape[-1])
        if circuit.bits and self._checks_bits:
            check_bits(inputs.flatten(0, 1), circuit.bits)
        angles: Any = (inputs, weights)
        if not circuit.angle_map.is_identity:
            angles = torch.vmap(circuit.angle_map)(*angles)
        states: Any = None
        if circuit.program.amplitudes:
            states = torch.vmap(circuit.angle_map.amplitudes)(inputs, weights)
            if circuit.normalized:
                check_norms(states.flatten(0, 1))
        values = expectations(self._task(circuit, inputs, weights), angles[0], angles[1], states)
        return values if circuit.combination is None else torch.vmap(circuit.combination)(values, inputs, weights)

    def _check_recorded(self, can_be: bool) -> None:
        """Raise where `torch.export`, or `make_fx`, would take the outputs of a simulator for constants."""
        if not can_be:
            raise CircuitError(
                f"torch.export keeps torch's operations only, and this layer runs on {self.backend!r}: call "
                '`set_backend("dense")`, run the layer once, and export it with `strict=False`'
            )

    def _run(self, circuit: Circuit, x: Tensor, weights: Tensor | None, in_jit: bool) -> Tensor:
        transformed = is_transformed()
        weight = None if in_jit or transformed or weights is not None else self._only_weight_of(circuit, x)
        if weight is not None:
            return Expectation.apply(x, weight, None, self._task(circuit, x, weight))
        real = x.real if x.is_complex() else x
        weights = self.flat_weights(real) if weights is None else weights
        if not len(x):
            return real.new_zeros(0, circuit.program.n_outputs) + 0 * (real.sum() + weights.sum())
        if circuit.bits and self._checks_bits and not in_jit and not transformed:
            check_bits(real, circuit.bits)
        angles = circuit.angle_map(real, weights)
        amplitudes = circuit.angle_map.amplitudes(x, weights)
        if circuit.normalized and amplitudes is not None and not transformed:
            check_norms(amplitudes)
        if transformed and self._diff_method != "backprop":
            return Outputs.apply(*angles, amplitudes, self._task(circuit, x, weights, every=True))
        wanted = any(t is not None and t.requires_grad for t in (angles.batched, angles.shared, amplitudes))
        task = self._task(circuit, x, weights, every=in_jit)
        if self._diff_method == "backprop" or not (in_jit or (wanted and torch.is_grad_enabled())):
            return evaluate(task, angles, amplitudes)  # torch.jit would keep these outputs as constants
        able = capabilities_of(self._executor)
        if able.standard_errors or able.truncation:
            self._errors.source = circuit.angle_map, x.detach(), weights.detach()
        return Expectation.apply(angles.batched, angles.shared, amplitudes, task)

    def _only_weight_of(self, circuit: Circuit, x: Tensor) -> Tensor | None:
        """The weight, where the angles are the inputs and this weight as they are: no step for autograd to record."""
        names = self._weight_names
        if (
            circuit.combination is not None
            or len(names) != 1
            or not circuit.angle_map.is_identity
            or not torch.is_grad_enabled()
            or not x.numel()
        ):
            return None
        weight = self._parameters.get(names[0])
        if weight is None or weight.dtype is not x.dtype or not (weight.is_cpu and x.is_cpu):
            return None
        takes_it = self._diff_method == "adjoint" and self._executor.capabilities.any_shape  # type: ignore[union-attr]
        return weight if takes_it and (x.requires_grad or weight.requires_grad) else None

    def _task(
        self, circuit: Circuit, x: Tensor, weights: Tensor, every: bool = False, dtype: torch.dtype | None = None
    ) -> Task:
        """The task, with `every` gradient to be expected where tensors do not tell, computed in `dtype`."""
        assert self._executor is not None
        needs = circuit.angle_map.needs(x.requires_grad or every, weights.requires_grad or every)
        executor, method = self._executor, self._diff_method
        errors, rule, training = self._errors, self._rule, self.training
        return Task(circuit.program, executor, method, needs, self._generator, errors, rule, training, dtype)

    def set_circuit(self, circuit: Circuit, weights: Mapping[str, Tensor]) -> None:
        """Put another circuit with its weights in this one's place, as pruning does.

        Backend, gradient rule and random numbers stay; a weight of the same name keeps its dtype, its device and
        whether it trains.
        """
        before = {name: self._parameters[name] for name in self._weight_names}
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        if shapes != circuit.weight_shapes:
            raise ArgumentError(f"Argument `weights` must have shapes {circuit.weight_shapes}, but has {shapes}")
        check_noise(self._executor, circuit.program)
        for name in self._weight_names:
            del self._parameters[name]
        self._circuits, self._n_inputs, self._source = {circuit.n_inputs: circuit}, circuit.n_inputs, None
        self._watches, self._variants = {}, {}
        self._weight_names = tuple(weights)
        if isinstance(self._init_method.function, Mapping):  # of other weights
            self._init_method = FunctionSource(None, None, {})
        for name, value in weights.items():
            old = before.get(name)
            value = value.detach().clone() if old is None else value.detach().to(old, copy=True)
            self._register(name, nn.Parameter(value, requires_grad=old is None or old.requires_grad))
