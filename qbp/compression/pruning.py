"""Pruning: neurons and gates that matter least leave a model, which really gets smaller."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from qbp.circuit.edit import used
from qbp.compression.checking import check_copies, check_same
from qbp.compression.groups import KINDS, Chain, Group, groups_of, kinds_of, neuron_chains, prunable
from qbp.compression.scores import SCORES, Gated, score
from qbp.data import Dataset
from qbp.errors import ArgumentError, check_choice, check_count, check_seed, check_share, suggests_names
from qbp.executors import Executor
from qbp.nn.copying import copied
from qbp.nn.layer import QuantumLayer
from qbp.nn.shrink import shrink
from qbp.training.fitting import fit
from qbp.training.options import Training

__all__ = ["SCHEDULES", "masked", "prune", "remove"]

SCHEDULES: dict[str, Callable[[float, int, int], float]] = {
    "one-shot": lambda amount, step, steps: amount,
    "iterative": lambda amount, step, steps: 1 - (1 - amount) ** (step / steps),
    "cubic": lambda amount, step, steps: amount * (1 - (1 - step / steps) ** 3),
}
"""The share that is gone after round `step` of `steps`: all at once; an equal share of what is left in every round
(arXiv 1803.03635); fast at first and ever slower (arXiv 1710.01878, equation 1)."""


@suggests_names
def prune(
    model: nn.Module,
    data: Dataset | None = None,
    *,
    amount: float | Mapping[str, float] = 0.5,
    by: str = "taylor",
    what: str | Sequence[str] = "both",
    schedule: str = "one-shot",
    steps: int | None = None,
    finetune: Training | Mapping[str, Any] | Callable[[nn.Module], object] | None = None,
    rewind: nn.Module | None = None,
    backend: str | Executor | None = None,
    seed: int = 0,
) -> nn.Module:
    """Remove the groups that matter least, and return the smaller model; `model` stays as it is.

    A removed neuron takes its row, bias and column with it, or the encoding angles that it fed; a removed gate its ops,
    and its weights where nothing else uses them. What no measurement can see any more goes too. How modules read each
    other is seen by running the model: a layer that stands in several places is pruned in all of them, one whose
    weights are tied to those of another, or whose neurons something else reads too, is left alone, and so is a quantum
    layer whose outputs are made of what its circuit measures. After each round the smaller model is run beside one in
    which the same groups do nothing, and must give the same.

    Args:
        model: any module whose `forward` takes one tensor.
        data: what scores look at, what `finetune` trains on, and what the model is run on; without it on random rows of
            a shape that its modules tell. Where they do not, neurons are left alone.
        amount: the share of the groups to remove, of each kind; or a share for each kind, as in ``{"entangler": 0.5}``.
        by: a key of `SCORES`; or "exact" for what goes without any change of the outputs (`qbp.compression.simplify`),
            to which only `seed` applies.
        what: "neurons", "gates", "both", or keys of `qbp.compression.groups.KINDS`; not looked at where `amount` names
            kinds.
        schedule: a key of `SCHEDULES`.
        steps: rounds of scoring, removing and fine-tuning; 1 for "one-shot", else 5 by default.
        finetune: a `qbp.Training`, or arguments of `qbp.fit`, as in ``{"epochs": 5, "lr": 0.01}``; or a function that
            trains in place.
        rewind: the model as it was before training: after every round the weights that are left start again from there
            (lottery ticket, arXiv 1803.03635).
        backend: a device, as in "fake:quito": groups then go by their score for each two-qubit gate that the device is
            spared (`qbp.compression.device_cost.saved_gates`), and those that spare none go last.
        seed: of "random", and of the fine-tuning.

    Returns:
        The smaller model, of ordinary modules.

    Raises:
        ArgumentError: an argument is unknown or does not fit, there is nothing that can be pruned, or a copy of the
            model would compute with parts of the model itself.
        CircuitError: a quantum layer is a QNode that runs itself.

    Example:
        >>> import qbp
        >>> train, _ = qbp.data.load("iris", seed=0)
        >>> model = qbp.hybrid(4, 3, n_qubits=3, n_layers=2, seed=0)
        >>> small = prune(model, train, amount={"entangler": 0.5})
        >>> model[2].circuit.program.counts()["CNOT"], small[2].circuit.program.counts()["CNOT"]
        (6, 3)
    """
    check_choice("by", by, [*SCORES, "exact"])
    check_seed("seed", seed)
    x = None if data is None else data.x
    check_copies(model, x)
    if by == "exact":
        return _exact(model, x, seed)
    check_choice("schedule", schedule, SCHEDULES)
    shares = _shares(amount, what)
    if steps is not None:
        check_count("steps", steps)
    if schedule == "one-shot" and steps not in (None, 1):
        raise ArgumentError(f"Argument `steps` must be 1 for 'one-shot', but is {steps!r}")
    rounds = 1 if schedule == "one-shot" else steps or 5
    if isinstance(finetune, Training):
        finetune = {"training": finetune}
    unknown = set(finetune) - set(signature(fit).parameters) if isinstance(finetune, Mapping) else set()
    if unknown:
        raise ArgumentError(f"Argument `finetune` must hold arguments of qbp.fit, but has {', '.join(sorted(unknown))}")
    if isinstance(finetune, Mapping) and data is None:
        raise ArgumentError("Argument `data` must be a qbp.data.Dataset to fine-tune on, but is None")
    small = copied(model)
    start = None if rewind is None else copied(rewind)
    if start is not None and groups_of(start, tuple(shares), x) != groups_of(small, tuple(shares), x):
        raise ArgumentError("Argument `rewind` must be the same model before training, but its groups differ")
    before = _by_kind(groups_of(small, tuple(shares), x))
    if not before:
        layers = [repr(name) for name, module in model.named_modules() if isinstance(module, nn.Linear | QuantumLayer)]
        raise ArgumentError(
            f"Argument `model` must have groups of kind {', '.join(shares)} that can go, but has none in its layers "
            f"({', '.join(layers)}): they have no such groups, or weights that are tied, parametrized, hooked or read "
            "elsewhere, or neurons that more than one other layer reads"
        )
    for step in range(1, rounds + 1):
        going: list[Group] = []
        for kind, groups in _by_kind(groups_of(small, tuple(shares), x)).items():
            target = len(before[kind]) - round(SCHEDULES[schedule](shares[kind], step, rounds) * len(before[kind]))
            scores = score(small, groups, data, by=by, seed=seed + step)
            if backend is not None:
                from qbp.compression.device_cost import saved_gates

                scores = scores / saved_gates(small, groups, backend).clamp(min=1e-9)
            order = torch.argsort(scores, stable=True).tolist()
            going += _spare([groups[g] for g in order], len(groups) - target, groups)
        expected = masked(small, going)
        remove(small, going, x)
        check_same(expected, small, x, sorted({group.owner for group in going}))
        if start is not None:
            remove(start, going, x)
            small = copied(start)
        if isinstance(finetune, Mapping):
            assert data is not None
            fit(small, data, **{"seed": seed, **finetune})
        elif finetune is not None:
            finetune(small)
    return small


def _exact(model: nn.Module, x: Tensor | None, seed: int) -> nn.Module:
    """A copy without gates, weights and neurons that its outputs do not need."""
    from qbp.compression.simplify import (
        simplify_layer,  # it needs the native engine, which `import qbp` does not wait for
    )

    small = copied(model)
    changed: list[str] = []
    for name, module in small.named_modules():
        if isinstance(module, QuantumLayer) and (module.executor is None or name in prunable(model, x)[1]):
            before = copied(module)
            simplify_layer(module, seed=seed)
            check_same(before, module, None, [name])
            changed.append(name)
    for _ in range(1 + sum(isinstance(module, nn.Linear) for module in small.modules())):  # one may kill another
        chains = neuron_chains(small, x)
        neurons = groups_of(small, "neuron", x)
        dead = [g for g in neurons if _is_dead(small.get_submodule(g.owner), chains[g.owner], g)]
        going = _spare(dead, len(dead), neurons)
        if not going:
            break
        remove(small, going, x)
        changed += [group.owner for group in going]
    check_same(model, small, x, sorted(set(changed)))
    return small


def _is_dead(linear: nn.Module, chain: Chain, group: Group) -> bool:
    """Whether nothing depends on a neuron: it is read by nothing, or its sum is always 0."""
    (row,) = group.index
    assert isinstance(linear, nn.Linear)
    if not linear.weight[row].any() and (linear.bias is None or not linear.bias[row]):
        return True
    if isinstance(chain.reader, QuantumLayer):
        return row not in used(chain.reader.circuit)[0]
    return not chain.reader.weight[:, row].any()


def _shares(amount: float | Mapping[str, float], what: str | Sequence[str]) -> dict[str, float]:
    shares = dict(amount) if isinstance(amount, Mapping) else dict.fromkeys(kinds_of(what), amount)
    kinds_of(tuple(shares))
    for kind, share in shares.items():
        check_share(f"amount` for `{kind}", share, zero=True, one=True)
    return shares


def _by_kind(groups: Sequence[Group]) -> dict[str, list[Group]]:
    by_kind: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        by_kind[group.kind].append(group)
    return by_kind


def _spare(ranked: Sequence[Group], count: int, groups: Sequence[Group]) -> list[Group]:
    """The first `count` of the ranked groups, but never the last neuron of a layer."""
    left: dict[str, int] = defaultdict(int)
    for group in groups:
        left[group.owner] += 1
    going: list[Group] = []
    for group in ranked:
        if len(going) >= count:
            break
        if group.kind == "neuron" and left[group.owner] == 1:
            continue
        left[group.owner] -= 1
        going.append(group)
    return going


def remove(model: nn.Module, groups: Sequence[Group], x: Tensor | None = None) -> None:
    """Remove groups from a model, in place; its outputs are then those of `masked`.

    Args:
        model: the model.
        groups: of `groups_of` of the same model, as it is now.
        x: rows to run it on, as of `groups_of`.

    Raises:
        ArgumentError: a group is not one of this model.
    """
    gates: dict[str, set[int]] = defaultdict(set)
    neurons: dict[str, set[int]] = defaultdict(set)
    for group in groups:
        check_choice("groups", group.kind, KINDS)
        (neurons if group.kind == "neuron" else gates)[group.owner].update(group.index)
    chains = neuron_chains(model, x) if neurons else {}
    for owner, positions in gates.items():
        layer = model.get_submodule(owner)
        if not isinstance(layer, QuantumLayer):
            raise ArgumentError(f"Argument `groups` must hold gates of quantum layers, but {owner!r} is none")
        ops = layer.circuit.program.ops
        shrink(layer, [op for p, op in enumerate(ops) if p not in positions])
    for owner, rows in neurons.items():
        linear = model.get_submodule(owner)
        if owner not in chains or not isinstance(linear, nn.Linear) or len(rows) >= linear.out_features:
            raise ArgumentError(f"Argument `groups` must leave {owner!r} a neuron and know where it leads")
        _remove_neurons(linear, chains[owner], rows)


def _remove_neurons(linear: nn.Linear, chain: Chain, rows: set[int]) -> None:
    kept = [row for row in range(linear.out_features) if row not in rows]
    constant, reader = chain.constant(), chain.reader
    with torch.no_grad():
        if isinstance(reader, QuantumLayer):
            shrink(reader, inputs=dict.fromkeys(rows, constant))
        else:
            if constant:
                moved = reader.weight[:, sorted(rows)].sum(1) * constant
                bias = moved if reader.bias is None else reader.bias + moved
                reader.bias = nn.Parameter(bias, requires_grad=reader.weight.requires_grad)
            reader.weight = _part(reader.weight[:, kept], reader.weight)
            reader.in_features = len(kept)
        linear.weight = _part(linear.weight[kept], linear.weight)
        if linear.bias is not None:
            linear.bias = _part(linear.bias[kept], linear.bias)
        linear.out_features = len(kept)


def _part(new: torch.Tensor, old: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(new.clone(), requires_grad=old.requires_grad)


def masked(model: nn.Module, groups: Sequence[Group]) -> nn.Module:
    """A copy of the model in which groups do nothing though they are still there.

    Neurons are masked by `torch.nn.utils.prune`, so that their sum is 0; gates turn by 0.

    Args:
        model: the model.
        groups: of `groups_of` of the same model.

    Returns:
        The copy, in which a quantum layer with masked gates runs exactly, on the native engine.
    """
    masking = copied(model)
    rows: dict[str, list[int]] = defaultdict(list)
    gates: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        if group.kind == "neuron":
            rows[group.owner] += group.index
        else:
            gates[group.owner].append(group)
    for owner, own in rows.items():
        linear = masking.get_submodule(owner)
        for name in ("weight", "bias"):
            parameter = getattr(linear, name)
            if parameter is not None:
                mask = torch.ones_like(parameter)
                mask[own] = 0
                torch_prune.custom_from_mask(linear, name, mask)
    layers: dict[int, Any] = {}
    for owner, off in gates.items():
        layer = masking.get_submodule(owner)
        assert isinstance(layer, QuantumLayer)
        layers[id(layer)] = gated = Gated(layer, [group.index for group in off])
        gated.gates = torch.zeros_like(gated.gates)
    return copied(masking, layers) if layers else masking  # wherever the layers are used
