"""Angles as functions of inputs and weights: what is traced must be the function itself, for every sample."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from qbp.circuit import fx_graphs
from qbp.circuit.angles import AngleMap, Angles, Terms, trace_angles
from qbp.circuit.fx_graphs import affine_nodes, cast, extract, functional, outputs
from qbp.errors import CircuitError

N_INPUTS, SHAPES = 4, {"w": (2, 2), "b": (2,)}
N_WEIGHTS = 6
TABLE = torch.tensor([[0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4]], dtype=torch.float64)
Function = Callable[[Tensor, Tensor, Tensor], Sequence[Tensor | float]]


def trace(function: Function) -> tuple[AngleMap, list[int | float]]:
    return trace_angles(lambda x, weights: (function(x, weights["w"], weights["b"]), None), N_INPUTS, SHAPES)


def fill(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    angles = torch.zeros(5, dtype=x.dtype)
    angles[0] = x[0] * x[1]
    angles[1] = w[0, 0]
    angles[-1] = x[2] + b[1]
    angles[2:4] = x[:2] * w[1]
    return list(angles)


def in_place(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    x *= 2
    b.add_(1)
    return [x[0], x[1].mul_(w[0, 0]), x[1], b[0]]


# name: (function, Kb affine, Kb of a graph, Ks affine, Ks of a graph)
FUNCTIONS: dict[str, tuple[Function, int, int, int, int]] = {
    "gather": (lambda x, w, b: [x[0], x[3], w[0, 1], b[1]], 2, 0, 2, 0),
    "permuted": (lambda x, w, b: [x[3], x[1], x[0], b[1], x[2], b[0]], 4, 0, 2, 0),
    "repeated": (lambda x, w, b: [x[1], x[1], w[0, 0], x[1], w[0, 0]], 3, 0, 2, 0),
    "nothing": (lambda x, w, b: [], 0, 0, 0, 0),
    "scaled": (lambda x, w, b: [2 * x[0] + 1, x[1] / 3 - 0.5, -w[1, 1], math.pi * b[0], 1 - x[2]], 3, 0, 2, 0),
    "numpy constants": (lambda x, w, b: [np.pi * x[0], np.float64(2) * w[0, 0], x[1] + np.pi], 2, 0, 1, 0),
    "sums": (lambda x, w, b: [x[0] + w[0, 0], x.sum() + b.sum(), x.mean(), x[0] - x[1], b[0] - w[1, 0]], 4, 0, 1, 0),
    "many terms": (lambda x, w, b: [x[0] + 2 * x[1] - 3 * x[2] + w[0, 0] * 0.5 - b[1] + 1], 1, 0, 0, 0),
    "cancelling": (lambda x, w, b: [x[0] - x[0] + 0.3, x[0] + 0 * w[0, 0], 0 * b[0], x[1]], 2, 0, 0, 0),
    "constants": (lambda x, w, b: [0.3, torch.tensor(0.7, dtype=torch.float64), x[0], 2], 1, 0, 0, 0),
    "products": (
        lambda x, w, b: [x[0] * w[0, 0], x[0] * x[1], w[0, 0] * w[0, 1], (math.pi - x[0]) * (math.pi - x[1])],
        *(0, 3, 0, 1),
    ),
    "squares and quotients": (lambda x, w, b: [x[0] ** 2, 1 / (2 + x[1] ** 2), x[2] / (1 + b[0] ** 2)], 0, 3, 0, 0),
    "sines": (lambda x, w, b: [torch.sin(x[0]), torch.cos(w[0, 0]), torch.tanh(x[1] * b[0])], 0, 2, 0, 1),
    "affine of a sine": (lambda x, w, b: [3 * (torch.sin(x[0]) * 2 + x[0]), (x[0] * w[0, 0] + 1) * 3], 0, 2, 0, 0),
    "arctan and softmax": (
        lambda x, w, b: [torch.atan2(x[0], x[1] ** 2 + 1), torch.softmax(x, 0)[1], x.norm(), torch.sigmoid(b[0])],
        *(0, 3, 0, 1),
    ),
    # positive at every value that a tracer might try: only their kind of operation gives them away
    "relu": (lambda x, w, b: [torch.relu(x[0]), torch.relu(x[1] + 100), torch.relu(w[0, 1])], 0, 2, 0, 1),
    "abs, clamp and where": (
        lambda x, w, b: [x[1].abs(), torch.clamp(x[2], -1, 1), torch.where(x[0] > 0, x[1], w[0, 0]), b[0].abs()],
        *(0, 3, 0, 1),
    ),
    "remainder and round": (lambda x, w, b: [x[1] % 1.0, torch.round(x[2]), torch.floor(x[0])], 0, 3, 0, 0),
    "mixed": (lambda x, w, b: [w[0, 0], torch.sin(x[0]), x[1], w[0, 1] ** 2, x[2] * 2, b[0] * b[1]], 2, 1, 1, 2),
    "moves": (
        lambda x, w, b: [
            x.reshape(2, 2).T.flatten()[1],
            torch.stack([x[0], w[0, 0]])[1],
            torch.cat([x, b])[5],
            x.flip(0)[0],
            torch.roll(x, 1)[0],
            x.repeat(2)[6],
            x.unsqueeze(0).expand(3, 4)[2, 1],
        ],
        *(5, 0, 2, 0),
    ),
    "indices": (
        lambda x, w, b: [*x[torch.tensor([3, 0])], *x[[1, 2]], x[..., 2], x[-1], *x[::2], *w[:, 1], *b.unbind()],
        *(8, 0, 4, 0),
    ),
    "matrices": (
        lambda x, w, b: [
            *(TABLE @ x),
            *(w @ b),
            *(w @ x[:2]),
            torch.dot(x, x),
            *torch.nn.functional.linear(x[:2], w, b),
            *(x.reshape(2, 2) @ w).flatten(),
            *torch.addmm(w, w, x.reshape(2, 2), beta=0.5, alpha=3).flatten(),
            *torch.einsum("ij,jk,ik->i", w, x.reshape(2, 2), w),
        ],
        *(2, 15, 0, 2),
    ),
    "tables of constants": (
        lambda x, w, b: [
            *(TABLE * x).sum(1),
            x @ TABLE[0],
            *torch.einsum("ij,j->i", TABLE, x),
            *torch.nn.functional.linear(x, TABLE, b),
            *(w @ TABLE).flatten(),
            torch.dot(TABLE[0, :2], b),
        ],
        *(7, 0, 9, 0),
    ),
    "buffer": (fill, 0, 5, 0, 0),
    "in place": (in_place, 0, 3, 1, 0),
}


def expected(function: Function, x: Tensor, weights: Tensor) -> list[float]:
    values = function(x.clone(), weights[:4].clone().reshape(2, 2), weights[4:].clone())
    return [float(v) for v in values]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_map_is_the_function(name: str):
    function, *kinds = FUNCTIONS[name]
    angle_map, resolved = trace(function)
    graph_widths = [angle_map.n_batched - len(angle_map.inputs), angle_map.n_shared - len(angle_map.shared)]
    assert [len(angle_map.inputs), graph_widths[0], len(angle_map.shared), graph_widths[1]] == kinds
    indices = [v for v in resolved if isinstance(v, int)]
    assert sorted(indices) == list(range(angle_map.n_batched + angle_map.n_shared))
    x, weights = torch.randn(9, N_INPUTS, dtype=torch.float64) * 2, torch.randn(N_WEIGHTS, dtype=torch.float64)
    before = x.clone(), weights.clone()
    for n_samples in (9, 4, 1):
        angles = angle_map(x[:n_samples], weights)
        assert angles.batched.shape == (n_samples, angle_map.n_batched) and angles.shared.shape == (angle_map.n_shared,)
        full = angles.full()
        for i in range(n_samples):
            got = [full[i, v].item() if isinstance(v, int) else v for v in resolved]
            np.testing.assert_allclose(got, expected(function, x[i], weights), atol=1e-12)
    assert torch.equal(x, before[0]) and torch.equal(weights, before[1])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_dtype_equal_rows_empty_batches_and_copies(name: str):
    angle_map, _ = trace(FUNCTIONS[name][0])
    for dtype in (torch.float32, torch.float64):
        x, weights = torch.randn(33, N_INPUTS, dtype=dtype), torch.randn(N_WEIGHTS, dtype=dtype)
        x[[7, 16, 32]] = x[0].clone()
        angles = angle_map(x, weights)
        assert angles.batched.dtype == angles.shared.dtype == dtype
        for row in (7, 16, 32):
            assert torch.equal(angles.batched[0], angles.batched[row])
        mixed = angle_map(x, weights.double())
        assert mixed.shared.dtype == dtype and torch.allclose(mixed.full(), angles.full(), rtol=1e-5)
        precise = angle_map(x.double(), weights.double()).full()
        torch.testing.assert_close(angles.full().double(), precise, rtol=1e-4, atol=1e-4)
        assert angle_map(x[:0], weights).full().shape == (0, angle_map.n_batched + angle_map.n_shared)
        for twin in (pickle.loads(pickle.dumps(angle_map)), copy.deepcopy(angle_map)):
            assert torch.equal(twin(x, weights).full(), angles.full())


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"nothing", "remainder and round"}))
def test_gradients(name: str):
    function, *_ = FUNCTIONS[name]
    angle_map, resolved = trace(function)
    x = torch.randn(3, N_INPUTS, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(N_WEIGHTS, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, weights: Tensor) -> Tensor:
        return torch.sin(angle_map(x, weights).full())

    assert torch.autograd.gradcheck(run, (x, weights))
    assert torch.autograd.gradgradcheck(run, (x, weights))

    def by_hand(x: Tensor, weights: Tensor) -> Tensor:
        rows = []
        for row in x:
            values = function(row.clone(), weights[:4].reshape(2, 2), weights[4:].clone())
            angles = {i: v for i, v in zip(resolved, values, strict=True) if isinstance(i, int)}
            rows.append(torch.stack([angles[i] for i in range(len(angles))]))
        return torch.sin(torch.stack(rows))

    weight = torch.randn(run(x, weights).shape, dtype=torch.float64)
    for got, want in zip(
        torch.autograd.grad((run(x, weights) * weight).sum(), (x, weights), allow_unused=True, materialize_grads=True),
        torch.autograd.grad(
            (by_hand(x, weights) * weight).sum(), (x, weights), allow_unused=True, materialize_grads=True
        ),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_select_and_needs(name: str):
    angle_map, _ = trace(FUNCTIONS[name][0])
    n_angles = angle_map.n_batched + angle_map.n_shared
    x = torch.randn(3, N_INPUTS, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(N_WEIGHTS, dtype=torch.float64, requires_grad=True)
    full = angle_map(x, weights).full()
    rng = np.random.default_rng(0)
    for kept in ([], list(range(n_angles)), sorted(rng.choice(n_angles, n_angles // 2, replace=False).tolist())):
        part = angle_map.select(kept)
        assert part.n_batched + part.n_shared == len(kept)
        assert torch.equal(part(x, weights).full(), full[:, kept])
        everything = angle_map.needs(True, True)
        assert part.needs(True, True) == tuple(everything[k] for k in kept)
    # An angle whose derivative is not zero must be among those that need a gradient, and none where nothing does.
    for inputs, of in ((True, x), (False, weights)):
        needs = angle_map.needs(inputs, not inputs)
        assert len(needs) == n_angles
        for k in range(n_angles):
            (slope,) = torch.autograd.grad(full[:, k].sum(), of, retain_graph=True, allow_unused=True)
            assert needs[k] or slope is None or not slope.any()
    assert not any(angle_map.needs(False, False))


def test_needs_skips_what_no_gradient_can_reach():
    angle_map, _ = trace(lambda x, w, b: [x[0], x[1] + b[0], w[0, 0], torch.sin(x[2]), torch.sin(w[0, 1])])
    assert angle_map.needs(True, False) == (True, True, True, False, False)
    assert angle_map.needs(False, True) == (False, True, False, True, True)


def test_amplitudes():
    def function(x: Tensor, weights: dict[str, Tensor]) -> tuple[list[Tensor], Tensor]:
        return [weights["w"][0, 0]], x / torch.linalg.vector_norm(x)

    angle_map, resolved = trace_angles(function, 4, {"w": (1, 1)})
    x, weights = torch.randn(5, 4, dtype=torch.float64, requires_grad=True), torch.randn(1, dtype=torch.float64)
    psi = angle_map.amplitudes(x, weights)
    assert resolved == [0] and psi is not None
    torch.testing.assert_close(psi, x / x.norm(dim=1, keepdim=True))
    assert torch.autograd.gradcheck(lambda x: angle_map.amplitudes(x, weights), (x,))
    assert angle_map.amplitudes(x.float(), weights.float()).dtype == torch.float32
    assert angle_map.amplitudes(x[:0], weights).shape == (0, 4)
    assert angle_map.select([]).amplitudes(x, weights).shape == (5, 4)
    assert trace(FUNCTIONS["gather"][0])[0].amplitudes(x, weights) is None


def test_without_weights_and_without_inputs():
    angle_map, resolved = trace_angles(lambda x, w: ([x[0], 0 * x[1], x[1] ** 2, 0.5], None), 2, {})
    x = torch.randn(3, 2, dtype=torch.float64)
    full = angle_map(x, torch.empty(0, dtype=torch.float64)).full()
    assert resolved == [0, 0.0, 1, 0.5]
    torch.testing.assert_close(full, torch.stack([x[:, 0], x[:, 1] ** 2], 1))
    angle_map, resolved = trace_angles(lambda x, w: ([w["w"][1], w["w"][0].sin()], None), 0, {"w": (2,)})
    angles = angle_map(torch.empty(3, 0), torch.tensor([0.1, 0.2]))
    assert angles.batched.shape == (3, 0) and angles.n_samples == 3
    torch.testing.assert_close(angles.full(), torch.tensor([[0.2, math.sin(0.1)]]).expand(3, -1))


def test_the_order_of_weights_is_that_of_their_shapes_not_of_their_names():
    angle_map, resolved = trace_angles(
        lambda x, w: ([w["x10"][0], w["x2"][0], w["a"][1, 1]], None), 1, {"x10": (1,), "x2": (1,), "a": (2, 2)}
    )
    full = angle_map(torch.zeros(1, 1), torch.arange(6.0)).full()
    assert full[0, resolved].tolist() == [0.0, 1.0, 5.0]


# ---- what is refused -------------------------------------------------------------------------------------------------

TRAINABLE = torch.nn.Parameter(torch.ones(()))
LINEAR = torch.nn.Linear(4, 2).double()
DATA = "structure of the circuit depends on the values"
REFUSED: dict[str, tuple[Function, str]] = {
    "if of an input": (lambda x, w, b: [x[0] if x[0] > 0 else x[1]], DATA),
    "if of a weight": (lambda x, w, b: [x[0] if w[0, 0] > 0 else x[1]], DATA),
    "float": (lambda x, w, b: [float(x[0])], DATA),
    "item": (lambda x, w, b: [x[0].item()], DATA),
    "item, then arithmetic": (lambda x, w, b: [x[0].item() * 2 + 1], DATA),
    "tolist": (lambda x, w, b: [x.tolist()[0]], DATA),
    "math": (lambda x, w, b: [math.sin(x[0])], DATA),
    "int as an index": (lambda x, w, b: [x[int(w[0, 0])]], DATA),
    "as many gates as an input says": (lambda x, w, b: [x[0] for _ in range(int(x[1]))], DATA),
    "a mask": (lambda x, w, b: list(x[x > 0]), DATA),
    "NumPy": (lambda x, w, b: [np.sin(x[0])], "with NumPy"),
    "numpy()": (lambda x, w, b: [x.detach().numpy()[0]], "with NumPy"),
    "a trainable tensor from outside": (lambda x, w, b: [x[0] * TRAINABLE], "requires_grad=True"),
    "a module from outside": (lambda x, w, b: list(LINEAR(x)), "requires_grad=True"),
    "a vector for one angle": (lambda x, w, b: [x], r"must be one number, but has shape \(4,\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str):
    function, message = REFUSED[name]
    with pytest.raises(CircuitError, match=message):
        trace(function)


def test_a_constant_tensor_from_outside_is_no_weight():
    constant = torch.tensor(0.5, dtype=torch.float64)
    angle_map, resolved = trace(lambda x, w, b: [x[0] * constant])
    assert angle_map(torch.full((1, 4), 3.0), torch.zeros(6)).full()[0, resolved[0]] == 1.5


def test_called_once():
    calls = []
    trace(lambda x, w, b: calls.append(1) or [x[0] * x[1], w[0, 0]])
    assert len(calls) == 1


# ---- parts -----------------------------------------------------------------------------------------------------------


def test_angles():
    batched, shared = torch.tensor([[1.0], [2.0]]), torch.tensor([5.0, 6.0])
    angles = Angles(batched, shared)
    assert angles.n_samples == 2 and angles.full().tolist() == [[1, 5, 6], [2, 5, 6]]
    assert Angles.of(angles) is angles
    plain = Angles.of(batched)
    assert plain.shared.shape == (0,) and torch.equal(plain.full(), batched)


def test_terms_of_a_jacobian():
    terms = Terms.of_jacobian(
        torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, -3.0], [0.0, 0.0, 0.0]]), torch.tensor([1.0, 0, 4])
    )
    assert terms.index == ((1, 0), (0, 2), (0, 0)) and terms.scale == ((2.0, 0.0), (1.0, -3.0), (0.0, 0.0))
    assert terms.offset == (1.0, 0.0, 4.0) and len(terms) == 3 and terms.any()
    assert not Terms.of_jacobian(torch.zeros(2, 3), torch.zeros(2)).any()
    assert terms.select([2, 0]).offset == (4.0, 1.0)


def make(function: Callable[..., list[Tensor]], *example: Tensor):
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*example)


def test_assignments_have_right_gradients_under_vmap():
    """torch's own rule for `select_scatter` under vmap is wrong by the batch size (in 2.13): it must not be met."""
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)

    def assign(x: Tensor) -> list[Tensor]:
        y = torch.zeros(2, 3, dtype=x.dtype)
        y[-1] = x * x
        y[0, 1] = x[0] * x[2]
        return [torch.select_scatter(y, x**3, -1, 0).sum()] if len(y) == 3 else [y.sum(), y[0, 1]]

    graph = extract(*(lambda g: (g, outputs(g)))(functional(make(assign, x[0].detach()), (x[0].detach(),))))
    (got,) = torch.autograd.grad(torch.vmap(graph)(x).sum(), x)
    (want,) = torch.autograd.grad(sum(sum(assign(row)) for row in x), x)
    torch.testing.assert_close(got, want)


def test_a_cast_graph_computes_in_the_new_dtype():
    example = torch.zeros(4, dtype=torch.float64)
    graph = make(lambda x: [TABLE @ x + torch.ones(2, dtype=torch.float64)], example)
    graph = cast(extract(graph, outputs(graph)), torch.float32, torch.device("cpu"))
    result = graph(torch.ones(4))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, (TABLE.sum(1) + 1).float().unsqueeze(0))
    assert cast(graph, torch.float64, torch.device("meta")) is not graph and TABLE.dtype == torch.float64


def test_affine_is_decided_by_operations():
    def count(function: Callable[[Tensor], list[Tensor]]) -> list[bool]:
        graph = make(function, torch.zeros(3, dtype=torch.float64))
        affine = affine_nodes(graph)
        return [node in affine for node in outputs(graph)]

    assert count(lambda x: [x[0], x[0] * 2, x.sum() / 3, x[0] + x[1], torch.cat([x, x])[4]]) == [True] * 5
    assert (
        count(lambda x: [x[0] * x[0], x[0] * x[1], 2 / x[0], x[1] / x[0], x[0].exp(), torch.relu(x[0] + 9)])
        == [False] * 6
    )


def test_an_interrupted_trace_is_interrupted(monkeypatch):
    """What tracing imports may not be there yet."""

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fx_graphs, "trace", interrupt)
    monkeypatch.delattr(torch.fx.experimental, "symbolic_shapes", raising=False)
    with pytest.raises(KeyboardInterrupt):
        trace_angles(lambda inputs, weights: (inputs[:1], None), 1, {})
