"""Runs programs on any PennyLane device, by its name or as a device that a user made."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from qbp.circuit.angles import Angles
from qbp.circuit.lock import LOCK
from qbp.circuit.program import Channel, Clifford, Expval, Op, Program, Rotation, wires_of
from qbp.circuit.readout import confused, read
from qbp.errors import ArgumentError, CircuitError, did_you_mean
from qbp.executors import PLAIN, Capabilities, Gradients, Results
from qbp.limits import check_memory

__all__ = ["PennyLaneDevice", "measurements", "operation", "portable"]

SEEDED = ("default.qubit", "default.mixed", "default.clifford", "reference.qubit")
"""Devices that take a seed of their samples, besides lightning's."""

# Simulators by name, with the number of axes that a wire takes of what they hold: a state's one, a density matrix' two.
_AXES = {
    "default.qubit": 1,
    "reference.qubit": 1,
    "lightning.qubit": 1,
    "lightning.kokkos": 1,
    "default.mixed": 2,
}

_ONE_ANGLE = {"X": "RX", "Y": "RY", "Z": "RZ", "XX": "IsingXX", "YY": "IsingYY", "ZZ": "IsingZZ"}


class PennyLaneDevice:
    """Executor on a PennyLane device.

    Args:
        device: name of a device ("lightning.qubit"), or a device. A device by name is made when the first program is
            run, with as many wires as that needs.
        shots: how many times each circuit is sampled, None for expectation values without sampling.
        generator: source of the seeds of sampling devices; None for torch's global one. A device that a user made
            keeps its own.
        wires: the device's wire label for each wire of the program; 0, 1, ... if None.
        name: what the layer's `backend` says; the device's own name if None.
    """

    def __init__(
        self,
        device: Any,
        *,
        shots: int | None = None,
        generator: torch.Generator | None = None,
        wires: tuple[Any, ...] | None = None,
        name: str | None = None,
    ):
        import pennylane as qml

        self.device_name = device if isinstance(device, str) else device.name
        self.name = name or self.device_name
        self._device = None if isinstance(device, str) else device
        self.shots, self.generator, self.wires = shots, generator, wires
        if isinstance(device, str):
            try:
                qml.device(device, wires=1, **_seed(device, None))
            except qml.exceptions.DeviceError as error:
                names = [*PLAIN, "pauli-propagation", "trajectories", *qml.plugin_devices]
                raise ArgumentError(
                    f"Argument `backend` must be 'auto', 'native', 'dense', 'pauli', 'qiskit', 'aer', 'fake:NAME', "
                    f"'ibm:NAME', a PennyLane device, or 'package.module:Thing', but is {device!r}: "
                    f"{str(error).rstrip('.')}{did_you_mean(device, names)}"
                ) from error
        self._made: dict[int, Any] = {}
        self._adjoint_able: dict[Program, bool] = {}

    @property
    def capabilities(self) -> Capabilities:
        """Which programs a device has the adjoint rule for, `has_adjoint` asks it."""
        exact = self.shots is None
        return Capabilities(exact, self.shots, adjoint=exact, channels=self.device_name == "default.mixed")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_made": {}, "_adjoint_able": {}, "_device": portable(self._device)}

    def __deepcopy__(self, memo: dict[int, Any]) -> PennyLaneDevice:
        return self  # holds no state of a model, and devices of compiled simulators cannot be copied

    def _make(self, program: Program) -> Any:
        import pennylane as qml

        self._check_memory(program, 1)
        seed = None if self.shots is None else int(torch.randint(2**31, (), generator=self.generator))
        return qml.device(self.device_name, wires=program.n_qubits, **_seed(self.device_name, seed))

    def _device_for(self, program: Program) -> Any:
        if self._device is not None:
            return self._device
        if self.shots is not None:  # a device of its own for each call, so that torch's seed alone says what it samples
            return self._make(program)
        if program.n_qubits not in self._made:
            self._made[program.n_qubits] = self._make(program)
        return self._made[program.n_qubits]

    def _tape(self, program: Program, columns: Any, amplitudes: Tensor | None) -> Any:
        """The program as PennyLane's tape; `columns[k]` is angle k, one number or one for each sample."""
        import pennylane as qml

        labels = self.wires or tuple(range(program.n_qubits))
        if len(labels) < program.n_qubits:
            raise CircuitError(
                f"A circuit of {program.n_qubits} qubits does not fit on {self.name}, which has {len(labels)} wires"
            )
        ops = [] if amplitudes is None else [qml.StatePrep(amplitudes, wires=labels)]
        ops += [operation(op, columns, labels) for op in program.ops]
        return qml.tape.QuantumScript(ops, measurements(program, labels), shots=self.shots)

    def _execute(self, program: Program, angles: Angles, amplitudes: Tensor | None) -> Tensor:
        import pennylane as qml

        self._check_memory(program, angles.n_samples if angles.batched.shape[1] else 1)
        batched, shared = angles.batched.double().numpy(force=True), angles.shared.double().numpy(force=True)
        norms = None
        if amplitudes is not None:
            norms = torch.linalg.vector_norm(amplitudes, dim=1, keepdim=True)
            amplitudes = (amplitudes.to(torch.complex128) / norms).numpy(force=True)
        with LOCK:
            tape = self._tape(program, (*batched.T, *shared), amplitudes)
            (result,) = qml.execute([tape], self._device_for(program), diff_method=None)
        outputs = torch.from_numpy(confused(program, _rows(result, program, angles.n_samples).numpy(force=True)))
        outputs = outputs.to(angles.batched)
        return outputs if norms is None else outputs * norms.to(outputs) ** 2

    def _check_memory(self, program: Program, n_samples: int) -> None:
        """Refuse what the device would only find out by trying."""
        axes = _AXES.get(self.device_name)
        if axes is not None:
            wires = {w for op in program.ops for w in op.wires} | set(wires_of(program.measurements))
            check_memory(
                f"{len(wires)} qubits and a batch of {n_samples} on {self.device_name}",
                16 * n_samples,
                axes * len(wires),
            )

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Results:
        """Outputs (B, M)."""
        if not angles.n_samples:
            return Results(angles.batched.new_zeros(0, program.n_outputs))
        return Results(self._execute(program, angles, amplitudes))

    # ---- the adjoint rule, by devices that have it -------------------------------------------------------------------

    def has_adjoint(self, program: Program) -> bool:
        """Whether the device gives adjoint gradients of this program (asked of the device itself)."""
        import pennylane as qml

        if program not in self._adjoint_able:
            with LOCK:
                device = self._device_for(program)
                tape = self._tape(program, [0.0] * program.n_angles, None)
                tape.trainable_params = list(range(len(tape.get_parameters(trainable_only=False))))
                config = qml.devices.ExecutionConfig(gradient_method="adjoint")
                able = self.shots is None and not program.amplitudes and device.supports_derivatives(config, tape)
            able = able and not program.is_noisy and all(isinstance(m, Expval) for m in program.measurements)
            self._adjoint_able[program] = bool(able)
        return self._adjoint_able[program]

    def forward(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> tuple[Results, Any]:
        """Outputs (B, M), and what `vjp` wants to find again."""
        with torch.enable_grad():
            leaves = Angles(*(a.detach().double().cpu().requires_grad_() for a in angles))
            results = []
            with LOCK:  # devices differentiate tapes of one sample; lightning does it in one pass for all outputs
                for row in leaves.batched:
                    tape = self._tape(program, (*row.unbind(0), *leaves.shared.unbind(0)), None)
                    results.append(_rows(_differentiable(tape, self._device_for(program)), program, 1))
            outputs = torch.cat(results)
        return Results(outputs.detach().to(angles.batched)), (outputs, leaves)

    def vjp(
        self,
        program: Program,
        angles: Angles,
        amplitudes: Tensor | None,
        saved: Any,
        grad: Tensor,
        needs: tuple[bool, bool, bool] = (True, True, True),
    ) -> Gradients:
        outputs, leaves = saved
        wanted = [x for x, need in zip(leaves, needs[:2], strict=True) if need]
        gradients: tuple[Tensor, ...] = tuple(torch.zeros_like(x) for x in wanted)
        if outputs.requires_grad and wanted:
            with LOCK:
                gradients = torch.autograd.grad(
                    outputs, wanted, grad.to(outputs), retain_graph=True, allow_unused=True, materialize_grads=True
                )
        rest = (g.to(angles.batched) for g in gradients)
        batched, shared = (next(rest) if need else None for need in needs[:2])
        return Gradients(batched, shared)


def _seed(device: str, seed: int | None) -> dict[str, Any]:
    """The option of devices that draw a seed from NumPy's global random numbers unless they are given one."""
    return {"seed": seed} if device in SEEDED or device.startswith("lightning.") else {}


def _differentiable(tape: Any, device: Any) -> Any:
    """The results of one tape as torch's tensors, differentiated by the device itself.

    PennyLane's own torch interface rounds what some devices return to torch's default dtype.
    """
    import pennylane as qml

    config = qml.devices.ExecutionConfig(gradient_method="adjoint", use_device_gradient=True, interface="torch")
    config = device.setup_execution_config(config, tape)
    tapes, post = device.preprocess_transforms(config)([tape])
    parameters = []
    for part in tapes:
        part.trainable_params = qml.math.get_trainable_indices(part.get_parameters(trainable_only=False))
        parameters += part.get_parameters()
    plain = [qml.transforms.convert_to_numpy_parameters(part)[0][0] for part in tapes]
    structure: list[Any] = []
    flat = _OnDevice.apply(device, plain, config, structure, *parameters)
    return post(tree_unflatten(list(flat), structure[0]))[0]


class _OnDevice(torch.autograd.Function):
    """Tapes on a device, which gives the vector-Jacobian products itself."""

    @staticmethod
    def forward(
        ctx: Any, device: Any, tapes: list[Any], config: Any, structure: list[Any], *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        results, tree = tree_flatten(tuple(device.execute(tapes, config)))
        structure.append(tree)
        ctx.device, ctx.tapes, ctx.config, ctx.tree = device, tapes, config, tree
        return tuple(torch.as_tensor(np.asarray(value)) for value in results)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        device, tapes = ctx.device, tuple(ctx.tapes)
        if device.name.startswith("lightning"):  # one pass for all outputs
            cotangents = tree_unflatten([grad.numpy() for grad in grads], ctx.tree)
            products = [np.ravel(p) for p in device.compute_vjp(tapes, cotangents, ctx.config)]
        else:
            rest = iter(grads)
            products = []
            for tape, jacobian in zip(tapes, device.compute_derivatives(tapes, ctx.config), strict=True):
                weights = np.array([float(next(rest)) for _ in tape.measurements])
                products.append(weights @ np.reshape(jacobian, (len(weights), -1)))
        gradients = [torch.as_tensor(value) for product in products for value in product]
        return (None, None, None, None, *gradients)


def _rows(result: Any, program: Program, n_samples: int) -> Tensor:
    """The results of one tape as (n_samples, M)."""
    parts = list(result) if isinstance(result, (tuple, list)) else [result]
    columns = []
    for measurement, part in zip(program.measurements, parts, strict=True):
        width = 1 if isinstance(measurement, Expval) else 2 ** len(measurement.wires)
        values = part if isinstance(part, Tensor) else torch.as_tensor(np.asarray(part))
        columns.append(values.real.reshape(-1, width).expand(n_samples, width))
    return torch.cat(columns, dim=1)


def portable(device: Any) -> Any:
    """A PennyLane device that can be pickled: a compiled one without its last states, which it makes anew."""
    states: dict[str, Any] = {"_statevector": None, "_intermediate_states": {}}
    held = {name: empty for name, empty in states.items() if vars(device).get(name)} if device is not None else {}
    if not held:
        return device
    other = copy.copy(device)
    vars(other).update(held)
    return other


def operation(op: Op, columns: Any, labels: Any) -> Any:
    """One op as a PennyLane operation; `columns[k]` is the value of angle k, `labels[w]` the label of wire w."""
    import pennylane as qml

    wires = [labels[w] for w in op.wires]
    if isinstance(op, Clifford):
        if op.name.startswith("Adjoint("):
            return qml.adjoint(getattr(qml, op.name[8:-1])(wires=wires))
        return getattr(qml, op.name)(wires=wires)
    if isinstance(op, Channel):
        return qml.QubitChannel(op.kraus(), wires=wires)
    angle = _angle(op, columns)
    if op.pauli in _ONE_ANGLE:
        return getattr(qml, _ONE_ANGLE[op.pauli])(angle, wires=wires)
    if set(op.pauli) == {"Z"}:
        return qml.MultiRZ(angle, wires=wires)
    return qml.PauliRot(angle, op.pauli, wires=wires)


def _angle(op: Rotation, columns: Any) -> Any:
    if op.angle is None:
        return op.offset
    value = columns[op.angle]
    if op.scale != 1:
        value = op.scale * value
    return value + op.offset if op.offset else value


def measurements(program: Program, labels: Any) -> list[Any]:
    """What the program measures, as PennyLane measurements."""
    import pennylane as qml

    result = []
    for measurement in read(program):
        if isinstance(measurement, Expval):
            words = [
                qml.pauli.string_to_pauli_word(word, {labels[w]: i for i, w in enumerate(wires)})
                if word
                else qml.Identity(labels[0])
                for _, word, wires in measurement.terms
            ]
            coefficients = [c for c, _, _ in measurement.terms]
            single = len(words) == 1 and coefficients[0] == 1
            result.append(qml.expval(words[0] if single else qml.Hamiltonian(coefficients, words)))
        else:
            result.append(qml.probs(wires=[labels[w] for w in measurement.wires]))
    if not result:
        raise CircuitError("A circuit must measure something: give at least one observable")
    return result
