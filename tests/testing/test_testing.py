"""The conformance suite breaks when something is broken: one saboteur a row, every one has to be noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.gates import GATES
from qbp.circuit.program import Clifford, Expval, Probs, Program, Rotation, gate_ops
from qbp.executors import AdjointExecutor, Capabilities, Gradients, Results
from qbp.executors.dense import Dense
from qbp.gradients.evaluations import Evaluations, Point, Shifts
from qbp.gradients.rules import Needs, finite_diff, parameter_shift, spsa
from qbp.gradients.shifts import Shift
from qbp.testing import NASTY, check_executor, check_rule, gradcheck, random_angles, random_program
from qbp.testing.reference import CLIFFORD

Run = Callable[[Program, Angles, Tensor | None], Tensor]


def dense(program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Tensor:
    return Dense()(program, angles, amplitudes).values


class Good:
    """An executor with the adjoint rule, by torch; and hooks for saboteurs."""

    name, capabilities = "good", Capabilities(adjoint=True)

    def __init__(
        self,
        run: Run = dense,
        gradients: Callable[[Gradients], Gradients] = lambda g: g,
        run_backward: Run | None = None,
    ):
        self.run, self.change, self.run_backward = run, gradients, run_backward or run

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Tensor:
        return self.run(program, angles, amplitudes)

    def forward(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> tuple[Results, Any]:
        return Results(self(program, angles, amplitudes)), None

    def has_adjoint(self, program: Program) -> bool:
        return True

    def vjp(self, program, angles, amplitudes, saved, grad, needs=(True, True, True)) -> Gradients:
        leaves = [None if t is None else t.clone() for t in (angles.batched, angles.shared, amplitudes)]
        wanted = [t.requires_grad_() for t, need in zip(leaves, needs, strict=True) if need]
        outputs = self.run_backward(program, Angles(*leaves[:2]), leaves[2])
        if not outputs.requires_grad:
            gradients = iter([torch.zeros_like(t) for t in wanted])
        else:
            loss = (outputs * grad).sum()
            gradients = iter(torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True))
        return self.change(Gradients(*(next(gradients) if need else None for need in needs)))


# ---- what can be wrong with outputs ----------------------------------------------------------------------------------


def at(change: Callable[[Tensor], Tensor]) -> Run:
    """Runs at other angles."""
    return lambda program, angles, amplitudes: dense(program, Angles.of(change(angles.full())), amplitudes)


def of(change: Callable[[Program], Program]) -> Run:
    """Runs another program."""
    return lambda program, angles, amplitudes: dense(change(program), angles, amplitudes)


def then(change: Callable[[Tensor], Tensor]) -> Run:
    """Changes the outputs."""
    return lambda program, angles, amplitudes: change(dense(program, angles, amplitudes))


def start(change: Callable[[Tensor], Tensor]) -> Run:
    """Starts from other amplitudes."""
    return lambda program, angles, amplitudes: dense(
        program, angles, None if amplitudes is None else change(amplitudes)
    )


def each_op(change: Callable[[Any], Any]) -> Run:
    """Every op becomes another op, None, or several."""

    def edit(program: Program) -> Program:
        ops: list[Any] = []
        for op in program.ops:
            new = change(op)
            ops += new if isinstance(new, tuple) else [new] if new else []
        return replace(program, ops=tuple(ops))

    return of(edit)


def each_rotation(**change: Any) -> Run:
    def edit(op: Any) -> Any:
        return (
            op
            if isinstance(op, Clifford)
            else replace(op, **{k: f(op) if callable(f) else f for k, f in change.items()})
        )

    return each_op(edit)


def swap_gate(name: str, to: str, flip: bool = False) -> Run:
    def edit(op: Any) -> Any:
        if isinstance(op, Clifford) and op.name == name:
            return gate_ops(GATES[to], op.wires[::-1] if flip else op.wires, [])
        return op

    return each_op(edit)


def each_term(change: Callable[[float, str, tuple[int, ...]], Any]) -> Run:
    def edit(program: Program) -> Program:
        return replace(
            program,
            measurements=tuple(
                m if isinstance(m, Probs) else Expval(tuple(change(*term) for term in m.terms))
                for m in program.measurements
            ),
        )

    return of(edit)


def reversed_wires(program: Program) -> Program:
    def flip(wires: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(program.n_qubits - 1 - w for w in wires)

    return replace(program, ops=tuple(replace(op, wires=flip(op.wires)) for op in program.ops))


def sorted_probs(program: Program) -> Program:
    wires = [Probs(tuple(sorted(m.wires))) if isinstance(m, Probs) else m for m in program.measurements]
    return replace(program, measurements=tuple(wires))


def float32_inside(program: Program, angles: Angles, amplitudes: Tensor | None) -> Tensor:
    small = Angles(angles.batched.float(), angles.shared.float())
    return dense(program, small, amplitudes).to(angles.batched.dtype)


def shared_first(program: Program, angles: Angles, amplitudes: Tensor | None) -> Tensor:
    full = torch.cat([angles.shared.expand(angles.n_samples, -1), angles.batched], dim=1)
    return dense(program, Angles.of(full), amplitudes)


def unit_rows(program: Program, angles: Angles, amplitudes: Tensor | None) -> Tensor:
    """Equal rows rounded in another way, as engines do with the last rows of a batch."""
    outputs = dense(program, angles, amplitudes)
    return outputs * (1 + 1e-15 * torch.arange(len(outputs), dtype=outputs.dtype).unsqueeze(1))


def by_storage(program: Program, angles: Angles, amplitudes: Tensor | None) -> Tensor:
    """Reads memory as if every tensor were contiguous."""
    batched = angles.batched.untyped_storage()
    flat = torch.tensor([], dtype=angles.batched.dtype).set_(batched)[: angles.batched.numel()]
    return dense(program, Angles(flat.reshape(angles.batched.shape), angles.shared), amplitudes)


def changes_its_arguments(program: Program, angles: Angles, amplitudes: Tensor | None) -> Tensor:
    outputs = dense(program, angles, amplitudes)
    angles.batched.remainder_(2 * np.pi)
    return outputs


def normalises_its_arguments(program: Program, angles: Angles, amplitudes: Tensor | None) -> Tensor:
    outputs = dense(program, angles, amplitudes)
    if amplitudes is not None:
        amplitudes[0] *= 1 + 1e-12
    return outputs


class OneBuffer(dict):
    """Outputs live in memory that the next call of the same shape uses again."""

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None) -> Tensor:
        outputs = dense(program, angles, amplitudes)
        return self.setdefault((outputs.shape, outputs.dtype), torch.empty_like(outputs)).copy_(outputs)


def tail(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Changes the rows after the last full lane of four."""
    return lambda y: torch.cat([y[: len(y) // 4 * 4], change(y[len(y) // 4 * 4 :])])


WRONG_OUTPUTS: dict[str, Run] = {
    "angles: sign": at(lambda a: -a),
    "angles: factor 2": at(lambda a: 2 * a),
    "angles: half": at(lambda a: a / 2),
    "angles: in degrees": at(lambda a: a * 180 / np.pi),
    "angles: one turn and a controlled rotation is not itself": at(lambda a: a.remainder(2 * np.pi)),
    "angles: the last one dropped": at(lambda a: torch.cat([a[:, :-1], 0 * a[:, -1:]], 1)),
    "angles: the first one dropped": at(lambda a: torch.cat([0 * a[:, :1], a[:, 1:]], 1)),
    "angles: in reverse order": at(lambda a: a.flip(1)),
    "angles: off by one": at(lambda a: a.roll(1, 1)),
    "angles: shared before batched": shared_first,
    "angles: shared ones ignored": lambda p, a, s: dense(p, Angles(a.batched, 0 * a.shared), s),
    "batch: off by one": at(lambda a: a.roll(1, 0)),
    "batch: first row for all": at(lambda a: a[:1].expand_as(a)),
    "batch: reversed": at(lambda a: a.flip(0)),
    "batch: rows of the tail are zero": then(tail(torch.zeros_like)),
    "batch: rows of the tail repeat the first": then(tail(lambda y: y[:1].expand_as(y))),
    "batch: rows depend on others": then(lambda y: y + 1e-8 * y.sum(0)),
    "batch: last row left out": then(lambda y: y[:-1] if len(y) > 1 else y),
    "batch: sizes below two lose their axis": then(lambda y: y.squeeze(0)),
    "batch: equal rows, other bits": unit_rows,
    "ops: the first one dropped": of(lambda p: replace(p, ops=p.ops[1:])),
    "ops: the last one dropped": of(lambda p: replace(p, ops=p.ops[:-1])),
    "ops: in reverse order": of(lambda p: replace(p, ops=p.ops[::-1])),
    "ops: wires reversed": of(reversed_wires),
    "ops: wires of a word sorted": each_rotation(wires=lambda op: tuple(sorted(op.wires))),
    "ops: words of three letters and more cut": each_rotation(
        pauli=lambda op: op.pauli[:2], wires=lambda op: op.wires[:2]
    ),
    "ops: Y for Z": each_rotation(pauli=lambda op: op.pauli.replace("Z", "Y")),
    "ops: sign of Y": each_op(
        lambda op: replace(op, scale=-op.scale, offset=-op.offset) if "Y" in getattr(op, "pauli", "") else op
    ),
    "ops: scales ignored": each_rotation(scale=1.0),
    "ops: sign of scales ignored": each_rotation(scale=lambda op: abs(op.scale)),
    "ops: offsets of angles ignored": each_rotation(offset=lambda op: op.offset if op.angle is None else 0.0),
    "ops: fixed rotations ignored": each_op(lambda op: None if getattr(op, "angle", 0) is None else op),
    "ops: Clifford gates ignored": each_op(lambda op: None if isinstance(op, Clifford) else op),
    "ops: an angle turns its first rotation only": of(
        lambda p: (
            p.drop_ops(
                [
                    i
                    for i, op in enumerate(p.ops)
                    if getattr(op, "angle", None) is not None and getattr(p.ops[i - 1], "angle", None) == op.angle and i
                ]
            )[0]
            if p.drop_ops(())[1] == tuple(range(p.n_angles))
            else p
        )
    ),
    **{
        f"gates: {name} is forgotten": each_op(lambda op, name=name: None if getattr(op, "name", "") == name else op)
        for name in sorted(set(CLIFFORD) - {"Identity"})
    },
    "gates: S is its adjoint": swap_gate("S", "Adjoint(S)"),
    "gates: SX is its adjoint": swap_gate("SX", "Adjoint(SX)"),
    "gates: CY is CNOT": swap_gate("CY", "CNOT"),
    "gates: ISWAP is SWAP": swap_gate("ISWAP", "SWAP"),
    "gates: Y is X": swap_gate("PauliY", "PauliX"),
    **{f"gates: {name} the other way round": swap_gate(name, name, flip=True) for name in ("CNOT", "CY", "ECR")},
    "measurements: coefficients ignored": each_term(lambda c, word, wires: (1.0, word, wires)),
    "measurements: identity ignored": each_term(lambda c, word, wires: (c if word else 0.0, word, wires)),
    "measurements: wires of a word sorted": each_term(lambda c, word, wires: (c, word, tuple(sorted(wires)))),
    "measurements: sign of Y": each_term(lambda c, word, wires: (c * (-1) ** word.count("Y"), word, wires)),
    "measurements: X for Y": each_term(lambda c, word, wires: (c, word.replace("Y", "X"), wires)),
    "measurements: words of three letters cut": each_term(lambda c, word, wires: (c, word[:2], wires[:2])),
    "measurements: only the first term": of(
        lambda p: replace(
            p, measurements=tuple(Expval(m.terms[:1]) if isinstance(m, Expval) else m for m in p.measurements)
        )
    ),
    "measurements: wires of probabilities sorted": of(sorted_probs),
    "measurements: wires of probabilities reversed": of(
        lambda p: replace(
            p, measurements=tuple(Probs(m.wires[::-1]) if isinstance(m, Probs) else m for m in p.measurements)
        )
    ),
    "measurements: in reverse order": of(lambda p: replace(p, measurements=p.measurements[::-1])),
    "outputs: swapped": then(lambda y: y.flip(1)),
    "outputs: sign": then(lambda y: -y),
    "outputs: NaN": then(lambda y: y.where(y.abs() < 0.99, torch.nan)),
    "outputs: probabilities as expectation values": then(lambda y: (1 - y) / 2),
    "outputs: float32 inside": float32_inside,
    "outputs: float64 for float32": then(torch.Tensor.double),
    "outputs: noise": then(lambda y: y + 1e-8 * torch.randn_like(y)),
    "outputs: last bits differ between calls": then(lambda y: y * (1 + 1e-15 * torch.rand((), dtype=torch.float64))),
    "outputs: one buffer for all calls": OneBuffer(),
    "arguments: angles changed": changes_its_arguments,
    "arguments: amplitudes changed": normalises_its_arguments,
    "arguments: read as if contiguous": by_storage,
    "amplitudes: ignored": start(lambda a: torch.eye(1, a.shape[1], dtype=a.dtype).expand_as(a)),
    "amplitudes: conjugate": start(torch.Tensor.conj),
    "amplitudes: only the real part": start(lambda a: a.real if a.is_complex() else a),
    "amplitudes: little-endian": start(
        lambda a: (
            a.reshape(-1, *[2] * (a.shape[1].bit_length() - 1))
            .permute(0, *range(a.shape[1].bit_length() - 1, 0, -1))
            .reshape(a.shape)
        )
    ),
    "amplitudes: first row for all": start(lambda a: a[:1].expand_as(a)),
}


class OutputsOnly:
    """An executor without the adjoint rule."""

    name, exact, shots = "outputs only", True, None

    def __init__(self, run: Run):
        self.run = run

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Tensor:
        return self.run(program, angles, amplitudes)


def test_the_good_one_passes():
    assert isinstance(Good(), AdjointExecutor)
    check_executor(Good(), n_programs=15, batch_sizes=(1, 7))


@pytest.mark.parametrize("name", WRONG_OUTPUTS)
def test_wrong_outputs_are_noticed(name: str):
    with pytest.raises(AssertionError, match=r"program"):
        check_executor(OutputsOnly(WRONG_OUTPUTS[name]))


class Claims:
    """The right outputs, and what is said of them."""

    name = "claims"

    def __init__(
        self, change: Callable[[Tensor], Any] = Results, attributes: dict[str, Any] | None = None, **said: Any
    ):
        self.change, self.capabilities = change, Capabilities(**said)
        self.__dict__.update(attributes or {})

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Any:
        return self.change(dense(program, angles, amplitudes))


def noisy(told: float, size: float = 0.03) -> Callable[[Tensor], Results]:
    return lambda y: Results(y + size * torch.randn_like(y), torch.full_like(y, told))


def off_by(bound: float) -> Callable[[Tensor], Results]:
    return lambda y: Results(y + 0.01, truncation=torch.full_like(y, bound))


NOISY: dict[str, Any] = {"exact": False, "shots": 1000, "standard_errors": True}
WRONG_CLAIMS: dict[str, Any] = {
    "exact, with shots": Claims(shots=100),
    "exact, with noise": Claims(lambda y: Results(y + 1e-12 * torch.randn_like(y))),
    "exact: a word": Claims(exact="yes"),
    "shots: none at all": Claims(exact=False, shots=0),
    "adjoint without the methods": Claims(adjoint=True),
    "adjoint for no program": Claims(adjoint=True, attributes=dict.fromkeys(("forward", "vjp"), max) | {
        "has_adjoint": lambda program: False}),
    "differentiable, yet detached": Claims(lambda y: Results(y.detach()), differentiable=True),
    "differentiable, yet half": Claims(lambda y: Results(y.detach() + (y - y.detach()) / 2), differentiable=True),
    "standard errors that are not there": Claims(standard_errors=True, exact=False),
    "standard errors that are not said": Claims(lambda y: Results(y, torch.zeros_like(y)), exact=False),
    "standard errors too small": Claims(noisy(0.01), **NOISY),
    "standard errors too large": Claims(noisy(0.06), **NOISY),
    "standard errors zero": Claims(noisy(0.0), **NOISY),
    "standard errors negative": Claims(noisy(-0.03), **NOISY),
    "standard errors of another shape": Claims(lambda y: Results(y, torch.zeros(1)), **NOISY),
    "truncation that is not there": Claims(truncation=True, exact=False),
    "truncation that is not said": Claims(off_by(0.1), exact=False),
    "truncation too small": Claims(off_by(0.009), truncation=True, exact=False),
    "truncation, yet exact": Claims(off_by(0.1), truncation=True),
    "with_shots: others": Claims(lambda y: y, exact=False, shots=9, with_shots=True, attributes={
        "with_shots": lambda shots: Claims(exact=False, shots=9)}),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_CLAIMS)
def test_wrong_capabilities_are_noticed(name: str):
    with pytest.raises(AssertionError):
        check_executor(WRONG_CLAIMS[name], n_programs=15, batch_sizes=(3,))


def test_true_capabilities_pass():
    for claims in (Claims(), Claims(differentiable=True), Claims(noisy(0.03), **NOISY)):
        check_executor(claims, n_programs=5, batch_sizes=(3,))
    check_executor(Claims(off_by(0.0101), truncation=True, exact=False), n_programs=5, batch_sizes=(3,))


@pytest.mark.parametrize("name", ["name", "exact", "shots"])
def test_wrong_attributes_are_noticed(name: str):
    executor = OutputsOnly(dense)
    setattr(executor, name, {"name": "", "exact": "yes", "shots": 0}[name])
    with pytest.raises(AssertionError, match=f"`{name}` must be"):
        check_executor(executor, n_programs=0)


def test_nothing_checked_is_an_error():
    with pytest.raises(AssertionError, match="nothing was checked"):
        check_executor(Dense(), accepts=lambda program: False)


def test_a_sampling_executor_is_held_to_its_standard_error():
    class Sampled(OutputsOnly):
        exact, shots = False, 10_000

    def noise(size: float) -> Run:
        return then(lambda y: y + size * torch.randn_like(y))

    check_executor(Sampled(noise(0.01)), n_programs=10, batch_sizes=(3,))
    with pytest.raises(AssertionError, match="outputs"):
        check_executor(Sampled(noise(0.04)), n_programs=10, batch_sizes=(3,))
    with pytest.raises(AssertionError, match="outputs"):
        check_executor(Sampled(then(lambda y: y * 0.8)), n_programs=10, batch_sizes=(3,))


# ---- what can be wrong with adjoint gradients ------------------------------------------------------------------------


def part(name: str, change: Callable[[Tensor], Tensor | None]) -> Good:
    """Changes one of the gradients."""

    def edit(g: Gradients) -> Gradients:
        gradient = getattr(g, name)
        return g if gradient is None else g._replace(**{name: change(gradient)})

    return Good(gradients=edit)


def backward_of(run: Run) -> Good:
    """Right outputs, gradients of something else."""
    return Good(run_backward=run)


class NotAsked(Good):
    """Gives all gradients whatever was asked for."""

    def vjp(self, program, angles, amplitudes, saved, grad, needs=(True, True, True)):
        return super().vjp(program, angles, amplitudes, saved, grad, (True, True, amplitudes is not None))


class NoUpstream(Good):
    """Forgets the gradient of the outputs."""

    def vjp(self, program, angles, amplitudes, saved, grad, needs=(True, True, True)):
        return super().vjp(program, angles, amplitudes, saved, torch.ones_like(grad), needs)


class LastForward(Good):
    """Remembers the last forward pass, and so mixes up two layers."""

    def forward(self, program, angles, amplitudes=None):
        self.last = angles
        return super().forward(program, angles, amplitudes)

    def vjp(self, program, angles, amplitudes, saved, grad, needs=(True, True, True)):
        return super().vjp(program, self.last, amplitudes, saved, grad, needs)


class ChangesGrad(Good):
    """Works in the memory of its argument."""

    def vjp(self, program, angles, amplitudes, saved, grad, needs=(True, True, True)):
        gradients = super().vjp(program, angles, amplitudes, saved, grad, needs)
        grad.mul_(2)
        return gradients


class OtherForward(Good):
    """`forward` is not what a call gives."""

    def forward(self, program, angles, amplitudes=None):
        return super().forward(program, Angles(angles.batched + 1e-6, angles.shared + 1e-6), amplitudes)


AMPLITUDES_FIRST = dict(reversed(NASTY.items()))  # to notice sooner

WRONG_GRADIENTS: dict[str, Good] = {
    **{f"{name}: sign": part(name, torch.Tensor.neg) for name in ("batched", "shared", "amplitudes")},
    **{f"{name}: factor 2": part(name, lambda g: 2 * g) for name in ("batched", "shared", "amplitudes")},
    **{f"{name}: zero": part(name, torch.zeros_like) for name in ("batched", "shared", "amplitudes")},
    **{f"{name}: None": part(name, lambda g: None) for name in ("batched", "shared", "amplitudes")},
    **{f"{name}: float32": part(name, lambda g: g.to(torch.float32)) for name in ("batched", "shared")},
    **{
        f"{name}: {1e-7} off": part(name, lambda g: g + 1e-7 * torch.randn_like(g))
        for name in ("batched", "shared", "amplitudes")
    },
    "batched: reversed rows": part("batched", lambda g: g.flip(0)),
    "batched: reversed angles": part("batched", lambda g: g.flip(1)),
    "batched: last angle dropped": part("batched", lambda g: torch.cat([g[:, :-1], 0 * g[:, -1:]], 1)),
    "batched: mean over the batch": part("batched", lambda g: g / len(g)),
    "batched: rows of the tail are zero": part("batched", tail(torch.zeros_like)),
    "batched: summed over the batch": part("batched", lambda g: g.sum(0).expand_as(g)),
    "shared: reversed angles": part("shared", lambda g: g.flip(0)),
    "shared: one column": part("shared", lambda g: g.unsqueeze(0)),
    "shared: last bits differ between calls": part(
        "shared", lambda g: g * (1 + 1e-15 * torch.rand((), dtype=torch.float64)).to(g.dtype)
    ),
    "amplitudes: conjugate": part("amplitudes", lambda g: g.conj().resolve_conj()),
    "amplitudes: half": part("amplitudes", lambda g: g / 2),
    "all: those not asked for": NotAsked(),
    "all: upstream gradient forgotten": NoUpstream(),
    "all: of the last forward pass": LastForward(),
    "all: upstream gradient changed": ChangesGrad(),
    "all: forward is another function": OtherForward(),
    "all: scales ignored": backward_of(each_rotation(scale=1.0)),
    "all: offsets ignored": backward_of(each_rotation(offset=lambda op: op.offset if op.angle is None else 0.0)),
    "all: sign of Y": backward_of(WRONG_OUTPUTS["ops: sign of Y"]),
    "all: identity terms": backward_of(each_term(lambda c, word, wires: (c, word or "Z", wires or (0,)))),
    "all: first output only": backward_of(then(lambda y: y * torch.eye(1, y.shape[1], dtype=y.dtype))),
    "all: float32 inside": backward_of(float32_inside),
    "all: first measurement only": backward_of(
        then(lambda y: torch.cat([y[:, :1], y[:, 1:].detach()], 1) if y.shape[1] > 1 else y)
    ),
    "all: last op dropped": backward_of(WRONG_OUTPUTS["ops: the last one dropped"]),
}


@pytest.mark.parametrize("name", WRONG_GRADIENTS)
def test_wrong_gradients_are_noticed(name: str):
    check_executor(OutputsOnly(WRONG_GRADIENTS[name]), n_programs=5, programs={}, batch_sizes=(3,))  # right outputs
    with pytest.raises(AssertionError, match="program"):
        check_executor(WRONG_GRADIENTS[name], programs=AMPLITUDES_FIRST, batch_sizes=(3, 7))


# ---- what can be wrong with gradient rules ---------------------------------------------------------------------------


def simple_shift(
    coefficient: float = 0.5, shift: float = np.pi / 2, sign: int = -1, scaled: bool = False
) -> Callable[..., Evaluations]:
    """The two-term rule for every angle, whatever it turns."""

    def rule(program, needs, angles, amplitudes, **_):
        terms = []
        for k, rotations in enumerate(program.angle_rotations()):
            if needs.angles[k] and rotations:
                scale = abs(rotations[0].scale) if scaled else 1.0
                terms.append(Shift(k, shift / scale, ((k, coefficient * scale),)))
                terms.append(Shift(k, -shift / scale, ((k, sign * coefficient * scale),)))
        return Evaluations(angles, amplitudes, needs, (Shifts(tuple(terms)),))

    return rule


class Changed(Evaluations):
    """The right rule, its result changed."""

    change: Callable[[Gradients, Angles], Gradients]

    def combine(self, results, grad):
        return self.change(super().combine(results, grad), self.angles)


def changed(change: Callable[[Gradients, Angles], Gradients], kind: type[Evaluations] = Changed):
    def rule(program, needs, angles, amplitudes, **_):
        plan = kind(angles, amplitudes, needs, parameter_shift(program, needs, angles, amplitudes).blocks)
        plan.change = change
        return plan

    return rule


def part_of_rule(name: str, change: Callable[[Tensor], Tensor | None]) -> Callable[..., Evaluations]:
    return changed(lambda g, angles: g if getattr(g, name) is None else g._replace(**{name: change(getattr(g, name))}))


class AllWanted(Evaluations):
    """Gives the gradients of all angles."""

    def combine(self, results, grad):
        gradients = super().combine(results, grad)
        n_batched, wanted = self.angles.batched.shape[1], self.asked.angles
        return Gradients(
            gradients.batched if any(wanted[:n_batched]) else None,
            gradients.shared if any(wanted[n_batched:]) else None,
            gradients.amplitudes,
        )


def all_wanted(program, needs, angles, amplitudes, **_):
    everything = Needs((True,) * program.n_angles, needs.amplitudes)
    plan = AllWanted(angles, amplitudes, everything, parameter_shift(program, everything, angles, amplitudes).blocks)
    plan.asked = needs
    return plan


class ForNothing(Changed):
    """Runs the program once more."""

    def points(self):
        yield Point(self.angles, self.amplitudes)
        yield from super().points()

    def combine(self, results, grad):
        next(results)
        return super().combine(results, grad)


class Moving(Changed):
    """Changes its arguments."""

    def points(self):
        yield from super().points()
        self.angles.batched.add_(0.1)

    def combine(self, results, grad):
        gradients = super().combine(results, grad)
        next(results, None)
        return gradients


def first_sample(gradients: Gradients, angles: Angles) -> Gradients:
    return (
        gradients
        if gradients.batched is None
        else gradients._replace(batched=gradients.batched[:1].expand_as(gradients.batched))
    )


def as_it_is(gradients: Gradients, angles: Angles) -> Gradients:
    return gradients


WRONG_RULES: dict[str, Callable[..., Evaluations]] = {
    "two terms also for CRX": simple_shift(),
    "two terms of the scaled angle also for CRX": simple_shift(scaled=True),
    "sum instead of difference": simple_shift(sign=1),
    "coefficient 1": simple_shift(coefficient=1.0),
    "shift pi": simple_shift(shift=np.pi),
    "shift pi/4 with the coefficient of pi/2": simple_shift(shift=np.pi / 4),
    "large finite difference": simple_shift(coefficient=50.0, shift=0.01),
    "not wanted, yet given": all_wanted,
    "runs for nothing": changed(as_it_is, ForNothing),
    "moves the angles": changed(as_it_is, Moving),
    "the first sample for all": changed(first_sample),
    "batched: sign": part_of_rule("batched", torch.Tensor.neg),
    "batched: factor 2": part_of_rule("batched", lambda g: 2 * g),
    "batched: reversed angles": part_of_rule("batched", lambda g: g.flip(1)),
    "batched: None": part_of_rule("batched", lambda g: None),
    "shared: mean over the batch": changed(
        lambda g, angles: g if g.shared is None else g._replace(shared=g.shared / angles.n_samples)
    ),
    "shared: not summed": part_of_rule("shared", lambda g: g.expand(3, -1)),
    "shared: sign": part_of_rule("shared", torch.Tensor.neg),
    "shared: zero": part_of_rule("shared", torch.zeros_like),
    "amplitudes: half": part_of_rule("amplitudes", lambda g: g / 2),
    "amplitudes: conjugate": part_of_rule("amplitudes", lambda g: g.conj().resolve_conj()),
    "amplitudes: None": part_of_rule("amplitudes", lambda g: None),
}


def test_right_rules_pass():
    check_rule(parameter_shift, Dense())
    check_rule(finite_diff, Dense(), atol=1e-7, amplitudes=False, n_programs=10)


@pytest.mark.parametrize("name", WRONG_RULES)
def test_wrong_rules_are_noticed(name: str):
    with pytest.raises(AssertionError, match="program"):
        check_rule(WRONG_RULES[name], Dense())


def test_two_terms_are_right_where_an_angle_is_that_of_one_rotation():
    """The saboteur of the two-term rule is right where it should be: what was noticed is the controlled rotation."""
    check_rule(
        simple_shift(), Dense(), accepts=lambda p: all(len(r) < 2 and r[0].scale == 1 for r in p.angle_rotations() if r)
    )


RANDOM = {
    "programs": {name: NASTY[name] for name in ("asymmetric", "both orders of two wires", "ends in Hadamards")},
    **{"repeats": 100, "atol": 1e-2, "amplitudes": False, "n_programs": 3, "batch_sizes": (2,)},
}


class ChangedSPSA(Changed):
    """SPSA, its result changed."""


def random_rule(change: Callable[[Gradients], Gradients] = lambda g: g) -> Callable[..., Evaluations]:
    def rule(program, needs, angles, amplitudes, **_):
        plan = ChangedSPSA(angles, amplitudes, needs, spsa(program, needs, angles, amplitudes).blocks)
        plan.change = lambda gradients, _: change(gradients)
        return plan

    return rule


def scaled_by(factor: float) -> Callable[..., Evaluations]:
    return random_rule(lambda g: Gradients(*(None if t is None else factor * t for t in (g.batched, g.shared))))


def same_signs(*arguments, **options):
    torch.manual_seed(1)
    return random_rule()(*arguments, **options)


def test_a_random_rule_passes_by_its_mean():
    check_rule(random_rule(), Dense(), **RANDOM)


@pytest.mark.parametrize(
    "rule", [scaled_by(2), scaled_by(-1), scaled_by(0.5), scaled_by(0), same_signs], ids=["2", "-1", "0.5", "0", "same"]
)
def test_wrong_random_rules_are_noticed(rule: Callable[..., Gradients]):
    with pytest.raises(AssertionError, match="gradient of"):
        check_rule(rule, Dense(), **RANDOM)


# ---- gradcheck -------------------------------------------------------------------------------------------------------


class Scaled(torch.autograd.Function):
    """The product of two tensors, with gradients that are factors off."""

    @staticmethod
    def forward(ctx, x, w, of_x, of_w):
        ctx.save_for_backward(x, w)
        ctx.factors = of_x, of_w
        return x * w

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad * w * ctx.factors[0], (grad * x * ctx.factors[1]).sum(0), None, None


class Product(torch.nn.Module):
    def __init__(self, of_x: float = 1.0, of_w: float = 1.0):
        super().__init__()
        self.inner = torch.nn.Linear(3, 3)
        self.scale = torch.nn.Parameter(torch.randn(3))
        self.of_x, self.of_w = of_x, of_w

    def forward(self, x: Tensor) -> Tensor:
        return Scaled.apply(torch.tanh(self.inner(x)), self.scale, self.of_x, self.of_w)


def test_gradcheck_passes_and_leaves_the_module_alone():
    module, x = Product(), torch.randn(4, 3)
    before = {name: p.clone() for name, p in module.named_parameters()}
    gradcheck(module, x)
    gradcheck(torch.nn.Embedding(5, 2), torch.tensor([0, 3, 3]))
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in module.named_parameters())
    assert not x.requires_grad and x.dtype == torch.float32


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Product(of_w=2.0), r"The gradient of parameter 'scale': 3 of 3 entries are wrong; entry \(\d,\) is"),
        (Product(of_w=-1.0), "parameter 'scale'"),
        (Product(of_w=1.001), "parameter 'scale'"),
        (Product(of_x=1.001), "The gradient of input 0"),
        (Product(of_x=0.0), "input 0"),
    ],
)
def test_gradcheck_names_what_is_wrong(module: torch.nn.Module, message: str):
    with pytest.raises(AssertionError, match=message):
        gradcheck(module, torch.randn(4, 3))


def test_gradcheck_sees_what_torch_is_not_told():
    class Detached(torch.nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.detach())

    with pytest.raises(AssertionError, match=r"input 0 .torch found no way from it to the outputs"):
        gradcheck(Detached(3, 2), torch.randn(2, 3))

    class Nothing(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach()

    with pytest.raises(AssertionError, match="depend on no input and no parameter"):
        gradcheck(Nothing(), torch.randn(2, 3))


# ---- the programs ----------------------------------------------------------------------------------------------------


def test_random_programs_are_of_all_kinds(rng: np.random.Generator):
    programs = [random_program(rng) for _ in range(300)]
    ops = [op for p in programs for op in p.ops]
    assert {op.name for op in ops if isinstance(op, Clifford)} == set(CLIFFORD) - {"Identity"}
    rotations = [op for op in ops if isinstance(op, Rotation)]
    assert {len(op.pauli) for op in rotations} == {1, 2, 3, 4, 5}
    assert any(op.angle is not None and op.offset for op in rotations)
    assert {p.n_qubits for p in programs} == {1, 2, 3, 4, 5}
    assert any(not p.n_angles for p in programs) and any(len(g) > 2 for p in programs for g in p.angle_rotations())
    assert any(not group for p in programs for group in p.angle_rotations()), "no angle that turns nothing"
    measurements = [m for p in programs for m in p.measurements]
    assert any(isinstance(m, Probs) and list(m.wires) != sorted(m.wires) for m in measurements)
    assert any(not word for m in measurements if isinstance(m, Expval) for _, word, _ in m.terms)


def test_rotations_of_one_angle_stand_together_and_commute(rng: np.random.Generator):
    for program in [*NASTY.values(), *(random_program(rng) for _ in range(200))]:
        for k, group in enumerate(program.angle_rotations()):
            where = [i for i, op in enumerate(program.ops) if getattr(op, "angle", None) == k]
            assert where == list(range(where[0], where[0] + len(group))) if group else not where
            words = [program.word(op) for op in group]
            assert not any(a.anticommutes(b) for a in words for b in words)


def test_random_programs_repeat_and_obey():
    def draw(seed: int, **options: Any) -> Program:
        return random_program(np.random.default_rng(seed), **options)

    assert draw(3) == draw(3) != draw(4)
    small = [draw(s, n_qubits=(2, 3), n_ops=(1, 2), n_angles=(4, 4), gates=["RX", "CNOT"]) for s in range(30)]
    for program in small:
        assert program.n_qubits in (2, 3) and program.n_angles == 4
        assert set(program.counts()) <= {"RX", "CNOT", "Hadamard"}
    assert draw(0, amplitudes=True).amplitudes
    assert draw(0, measurements=[Expval.word("Y", 0)]).measurements == (Expval.word("Y", 0),)


def test_random_angles(rng: np.random.Generator):
    program = replace(NASTY["controlled rotations"])
    angles = random_angles(rng, program, 3, n_batched=4, dtype=torch.float32)
    assert angles.batched.shape == (3, 4) and angles.shared.shape == (7,) and angles.full().dtype == torch.float32


def test_the_reference_knows_every_clifford_gate():
    assert set(CLIFFORD) == {gate.name for gate in GATES.values() if gate.is_clifford}
