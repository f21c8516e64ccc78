"""Where the angles of a circuit come from: `AngleMap`, a differentiable function of inputs and weights, in torch.

torch owns everything before the angles (sharing, scaling, re-uploading, products of features), so that a circuit is a
function of its angles only. Angles that depend on the inputs are *batched*, the rest *shared*: those are the same for
all samples and are never copied for each of them. Batched angles come first in a program's numbering.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule

from qbp.circuit import fx_graphs as graphs
from qbp.errors import CircuitError, UnsteadyError

__all__ = ["AngleMap", "Angles", "Terms", "trace_angles"]


class Angles(NamedTuple):
    """The angles of a batch, in radians: the first Kb of a program are per sample, the other Ks shared by all samples.

    Attributes:
        batched: (B, Kb).
        shared: (Ks,).
    """

    batched: Tensor
    shared: Tensor

    @staticmethod
    def of(angles: Tensor | Angles) -> Angles:
        """A plain (B, K) tensor as `Angles` without shared ones."""
        return angles if isinstance(angles, Angles) else Angles(angles, angles.new_empty(0))

    @property
    def n_samples(self) -> int:
        return self.batched.shape[0]

    def full(self) -> Tensor:
        """All angles of every sample, (B, K)."""
        if not len(self.shared):
            return self.batched
        return torch.cat([self.batched, self.shared.expand(self.n_samples, -1)], dim=1)


@dataclass(frozen=True)
class Terms:
    """Affine functions ``y[k] = offset[k] + sum_r scale[k, r] * source[index[k, r]]``; nearly always one term for
    each k.

    The terms are added one after the other with elementwise operations, so that equal samples give equal bits, which a
    matrix product does not promise.
    """

    index: tuple[tuple[int, ...], ...]
    scale: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]

    @staticmethod
    def of_jacobian(jacobian: Tensor, offset: Tensor) -> Terms:
        """From a dense (K, V) matrix and (K,) offsets."""
        rows = [[(v, float(row[v])) for v in torch.nonzero(row).flatten().tolist()] for row in jacobian]
        width = max([1, *map(len, rows)])
        padded = [row + [(0, 0.0)] * (width - len(row)) for row in rows]
        return Terms(
            tuple(tuple(v for v, _ in row) for row in padded),
            tuple(tuple(s for _, s in row) for row in padded),
            tuple(offset.tolist()),
        )

    def select(self, kept: Sequence[int]) -> Terms:
        return Terms(
            tuple(self.index[k] for k in kept), tuple(self.scale[k] for k in kept), tuple(self.offset[k] for k in kept)
        )

    def dense(self, n_source: int) -> Tensor:
        """The slopes as a dense matrix (K, V)."""
        matrix = torch.zeros(len(self), n_source, dtype=torch.float64)
        for k, (row, factors) in enumerate(zip(self.index, self.scale, strict=True)):
            for v, factor in zip(row, factors, strict=True):
                if factor:
                    matrix[k, v] += factor
        return matrix

    def any(self) -> bool:
        """Whether any term or offset is not zero."""
        return any(any(row) for row in self.scale) or any(self.offset)

    def __len__(self) -> int:
        return len(self.offset)


class _Affine:
    """`Terms` as a torch function of the last axis."""

    def __init__(self, terms: Terms, n_source: int):
        width = len(terms.index[0]) if len(terms) else 1
        self.index = torch.tensor(terms.index, dtype=torch.int64).reshape(len(terms), width)
        self.scale = torch.tensor(terms.scale, dtype=torch.float64).reshape(len(terms), width)
        self.offset = torch.tensor(terms.offset, dtype=torch.float64)
        one_term = self.index.shape[1] == 1
        self.picks_all = one_term and self.index.flatten().tolist() == list(range(n_source))
        self.scales = not (one_term and bool((self.scale == 1).all()))
        self.shifts = bool((self.offset != 0).any())
        self.is_identity = self.picks_all and not self.scales and not self.shifts
        self._cast: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(self, source: Tensor) -> Tensor:
        if self.is_identity:
            return source
        key = (source.dtype, source.device)
        if key not in self._cast:
            self._cast[key] = (
                self.index.to(source.device),
                self.scale.to(*key[::-1]),
                self.offset.to(*key[::-1]),
            )
        index, scale, offset = self._cast[key]
        result = source if self.picks_all else source[..., index[:, 0]]
        if self.scales:
            result = result * scale[:, 0]
        for term in range(1, index.shape[1]):
            result = result + source[..., index[:, term]] * scale[:, term]
        return result + offset if self.shifts else result


class AngleMap:
    """``(inputs (B, I), weights (P,)) -> Angles``, and the amplitudes where the circuit starts from some.

    Batched angles are numbered first: the affine ones, then those that need a torch graph; then the shared ones,
        likewise.

    Attributes:
        n_inputs: I.
        n_weights: P, all weights of the circuit, flattened one tensor after the other.
        inputs: the inputs' part of the batched affine angles.
        weights: the weights' part of the same (most often without any term).
        shared: the shared affine angles, functions of the weights.
        batched_graph, shared_graph: functions of one sample ``(inputs (I,), weights (P,)) -> (k,)``, or None.
        amplitudes_graph: a function of one sample ``(inputs (I,), weights (P,)) -> (2^N,)``, or None.
        is_identity: whether the batched angles are the inputs and the shared ones the weights, as they are.
    """

    def __init__(
        self,
        n_inputs: int,
        n_weights: int,
        inputs: Terms,
        weights: Terms,
        shared: Terms,
        batched_graph: GraphModule | None = None,
        shared_graph: GraphModule | None = None,
        amplitudes_graph: GraphModule | None = None,
    ):
        self.n_inputs, self.n_weights = n_inputs, n_weights
        self.inputs, self.weights, self.shared = inputs, weights, shared
        self.batched_graph, self.shared_graph, self.amplitudes_graph = (
            batched_graph,
            shared_graph,
            amplitudes_graph,
        )
        self._graphs: dict[tuple[GraphModule, torch.dtype, torch.device], GraphModule] = {}
        self._needs: dict[tuple[bool, bool], tuple[bool, ...]] = {}
        self._inputs = _Affine(inputs, n_inputs)
        self._weights = _Affine(weights, n_weights) if weights.any() else None
        self._shared = _Affine(shared, n_weights)
        graphs_too = batched_graph or shared_graph or amplitudes_graph
        self.is_identity = (
            not graphs_too and not self._weights and self._inputs.is_identity and self._shared.is_identity
        )

    @property
    def n_batched(self) -> int:
        """Kb."""
        return len(self.inputs) + _width(self.batched_graph)

    @property
    def n_shared(self) -> int:
        """Ks."""
        return len(self.shared) + _width(self.shared_graph)

    def __call__(self, inputs: Tensor, weights: Tensor) -> Angles:
        """The angles of a batch.

        Args:
            inputs: (B, I).
            weights: (P,).
        """
        if weights.dtype is not inputs.dtype:
            weights = weights.to(inputs.dtype)
        batched = self._inputs(inputs)
        if self._weights is not None:
            batched = batched + self._weights(weights)
        if self.batched_graph is not None:
            rest = self._each(self.batched_graph, inputs, weights).to(inputs.dtype)
            batched = torch.cat([batched, rest], dim=1) if len(self.inputs) else rest
        shared = self._shared(weights)
        if self.shared_graph is not None:
            rest = self._cast(self.shared_graph, inputs)(inputs.new_zeros(self.n_inputs), weights).to(inputs.dtype)
            shared = torch.cat([shared, rest]) if len(self.shared) else rest
        return Angles(batched, shared)

    def amplitudes(self, inputs: Tensor, weights: Tensor) -> Tensor | None:
        """The amplitudes that the circuit starts from, (B, 2^N), or None where it starts from |0...0>."""
        return None if self.amplitudes_graph is None else self._each(self.amplitudes_graph, inputs, weights)

    @property
    def amplitudes_read_weights(self) -> bool:
        """Whether the amplitudes that the circuit starts from are a function of the weights, too."""
        return self.amplitudes_graph is not None and graphs.reads(self.amplitudes_graph, 1)

    def _cast(self, graph: GraphModule, like: Tensor) -> GraphModule:
        key = (graph, like.dtype, like.device)
        if key not in self._graphs:
            self._graphs[key] = graphs.cast(*key)
        return self._graphs[key]

    def _each(self, graph: GraphModule, inputs: Tensor, weights: Tensor) -> Tensor:
        """A function of one sample for all samples."""
        run = torch.vmap(self._cast(graph, inputs), in_dims=(0, None))
        # Not every operation can be run on no sample at all.
        return run(inputs, weights) if len(inputs) else run(inputs.new_zeros(1, self.n_inputs), weights)[:0]

    @property
    def graphs(self) -> tuple[GraphModule | None, ...]:
        """Those of batched angles, of shared angles and of amplitudes."""
        return self.batched_graph, self.shared_graph, self.amplitudes_graph

    def describe(self) -> tuple[object, ...]:
        """Everything that the angles are made of, as values with a `repr`."""
        parts = (graphs.describe(graph) if graph else None for graph in self.graphs)
        return (self.inputs, self.weights, self.shared, *parts)

    def needs(self, inputs: bool, weights: bool) -> tuple[bool, ...]:
        """For each angle (K,) whether it is a function of what wants a gradient: of the inputs, of the weights."""
        needs = self._needs.get((inputs, weights))
        if needs is None:
            needs = self._needs[inputs, weights] = self._find_needs(inputs, weights)
        return needs

    def _find_needs(self, inputs: bool, weights: bool) -> tuple[bool, ...]:
        mixed = [bool(any(row)) for row in self.weights.scale]
        reads_weights = self.batched_graph is not None and graphs.reads(self.batched_graph, 1)
        batched = [inputs or (weights and m) for m in mixed]
        batched += [inputs or (weights and reads_weights)] * _width(self.batched_graph)
        return (*batched, *[weights] * self.n_shared)

    def select(self, kept: Sequence[int]) -> AngleMap:
        """The map of the angles `kept` only (ascending indices), as a program that lost some ops needs it."""
        bounds = [
            0,
            len(self.inputs),
            self.n_batched,
            self.n_batched + len(self.shared),
            self.n_batched + self.n_shared,
        ]
        part = [[k - low for k in kept if low <= k < high] for low, high in pairwise(bounds)]
        return AngleMap(
            self.n_inputs,
            self.n_weights,
            self.inputs.select(part[0]),
            self.weights.select(part[0]),
            self.shared.select(part[2]),
            _part(self.batched_graph, part[1]),
            _part(self.shared_graph, part[3]),
            self.amplitudes_graph,
        )


def _width(graph: GraphModule | None) -> int:
    return 0 if graph is None else len(graphs.outputs(graph))


def _part(graph: GraphModule | None, kept: Sequence[int]) -> GraphModule | None:
    return None if graph is None else graphs.extract(graph, [graphs.outputs(graph)[k] for k in kept])


# ---- tracing ---------------------------------------------------------------------------------------------------------

_DEPENDS_ON_DATA = (
    "The structure of the circuit depends on the values of its inputs or weights (an `if`, an index or a `float()` of "
    "them). A quantum layer needs one structure for all data: fix it, or use torch.where"
)


def trace_angles(
    function: Callable[[Tensor, dict[str, Tensor]], tuple[Sequence[Tensor | float], Tensor | None]],
    n_inputs: int,
    weight_shapes: Mapping[str, tuple[int, ...]],
) -> tuple[AngleMap, list[int | float]]:
    """Trace a function of one sample that computes angles, and find out what each angle depends on.

    Args:
        function: ``(inputs (I,), weights by name) -> (values, amplitudes)``: the values of a circuit's parameters in
            order, as scalars, and the (2^N,) amplitudes it starts from or None. Called once, with tensors that have no
            values.
        n_inputs: I.
        weight_shapes: shape of each weight by name.

    Returns:
        The map, and for each value the index of its angle (int), or the value itself where it is constant (float).

    Raises:
        CircuitError: if the structure depends on data, or the function holds a tensor that wants a gradient of its own.
    """
    sizes = [torch.Size(shape).numel() for shape in weight_shapes.values()]
    n_weights = sum(sizes)
    values: list[Tensor | float] = []
    starts_from: list[Tensor] = []

    def flat(inputs: Tensor, weights: Tensor) -> list[Tensor]:
        inputs, weights = inputs.clone(), weights.clone()  # the function may work in place
        parts = torch.split(weights, sizes) if sizes else ()
        named = {name: part.reshape(shape) for (name, shape), part in zip(weight_shapes.items(), parts, strict=True)}
        angles, amplitudes = function(inputs, named)
        for angle in angles:
            if isinstance(angle, torch.SymFloat | torch.SymInt | torch.SymBool):
                raise CircuitError(_DEPENDS_ON_DATA)
            if isinstance(angle, Tensor) and angle.numel() != 1:
                raise CircuitError(f"A gate's parameter must be one number, but has shape {tuple(angle.shape)}")
        values.extend(angles)
        starts_from.extend([] if amplitudes is None else [amplitudes])
        return [v.reshape(()) for v in angles if isinstance(v, Tensor)] + starts_from

    example = torch.zeros(n_inputs, dtype=torch.float64), torch.zeros(n_weights, dtype=torch.float64)
    try:
        traced = graphs.trace(flat, example, graphs.PRODUCTS)
    except RuntimeError as error:
        if (
            type(error).__name__ == "GuardOnDataDependentSymNode"
        ):  # its module is imported by tracing, if that got so far
            raise CircuitError(_DEPENDS_ON_DATA) from error
        if ".numpy()" in str(error):
            raise CircuitError(
                "The circuit's function computes an angle with NumPy, through which no gradient flows: use torch's "
                "functions (torch.sin for np.sin) on inputs and weights"
            ) from error
        raise
    constants = dict(traced.named_buffers()) | dict(traced.named_parameters()) | vars(traced)
    if any(isinstance(t, Tensor) and t.requires_grad for t in constants.values()):
        raise CircuitError(
            "The circuit's function holds a tensor with requires_grad=True that is neither `inputs` nor one of "
            "`weight_shapes`: it would never train. Make it an argument of the function and name it in `weight_shapes`"
        )
    if any(torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) for node in traced.graph.nodes):
        raise UnsteadyError("The circuit's function draws random numbers: a trace would keep those of one call")

    traced = graphs.functional(traced, example)
    depends, affine = graphs.dependencies(traced), graphs.affine_nodes(traced)
    input_name = next(iter(traced.graph.nodes)).name
    nodes = graphs.outputs(traced)
    n_values = len(nodes) - len(starts_from)

    fixed = [k for k in range(n_values) if not depends[nodes[k]]]
    linear = [k for k in range(n_values) if depends[nodes[k]] and nodes[k] in affine]
    others = [k for k in range(n_values) if nodes[k] not in affine]
    jacobian, offset = _jacobian(graphs.extract(traced, [nodes[k] for k in linear]), n_inputs, n_weights)
    of_inputs, of_weights = ((part != 0).any(1).tolist() for part in jacobian.split([n_inputs, n_weights], dim=1))
    batched = [r for r in range(len(linear)) if of_inputs[r]]
    shared = [r for r in range(len(linear)) if of_weights[r] and not of_inputs[r]]
    batched_others = [k for k in others if input_name in depends[nodes[k]]]
    shared_others = [k for k in others if input_name not in depends[nodes[k]]]

    angle_map = AngleMap(
        n_inputs,
        n_weights,
        Terms.of_jacobian(jacobian[batched, :n_inputs], offset[batched]),
        Terms.of_jacobian(jacobian[batched, n_inputs:], torch.zeros(len(batched), dtype=torch.float64)),
        Terms.of_jacobian(jacobian[shared, n_inputs:], offset[shared]),
        graphs.extract(traced, [nodes[k] for k in batched_others]),
        graphs.extract(traced, [nodes[k] for k in shared_others]),
        graphs.extract(traced, nodes[n_values:], stack=False),
    )
    order = [linear[r] for r in batched] + batched_others + [linear[r] for r in shared] + shared_others
    resolved: dict[int, int | float] = dict(zip(linear, offset.tolist(), strict=True))  # as ``0 * x + 1`` is
    resolved |= {k: index for index, k in enumerate(order)}
    constant = graphs.extract(traced, [nodes[k] for k in fixed])
    if constant is not None:
        resolved |= dict(zip(fixed, constant(*example).tolist(), strict=True))
    tensors = iter(range(n_values))
    return angle_map, [resolved[next(tensors)] if isinstance(v, Tensor) else float(v) for v in values]


def _jacobian(graph: GraphModule | None, n_inputs: int, n_weights: int) -> tuple[Tensor, Tensor]:
    """Exact slopes (K, I + P) and offsets (K,) of an affine function."""
    if graph is None:
        return torch.zeros(0, n_inputs + n_weights, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    zeros = torch.zeros(n_inputs, dtype=torch.float64), torch.zeros(n_weights, dtype=torch.float64)
    units = torch.eye(n_inputs + n_weights, dtype=torch.float64)

    def slope(unit: Tensor) -> Tensor:
        return torch.func.jvp(graph, zeros, (unit[:n_inputs], unit[n_inputs:]))[1]

    return torch.vmap(slope)(units).T, graph(*zeros)
