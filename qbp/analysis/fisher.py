"""What a circuit's outputs and states tell about its weights: Jacobians, Fisher information, variances of gradients.

All of it exactly and without noise, by the native engine in float64, whatever the layer itself runs on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from qbp.circuit.angles import Angles
from qbp.circuit.program import Op, Program, Rotation
from qbp.circuit.tracing import Circuit
from qbp.errors import ArgumentError, CircuitError
from qbp.nn.layer import QuantumLayer

__all__ = [
    "angle_jacobian",
    "effective_dimension",
    "fisher_factor",
    "gradient_variance",
    "jacobian",
    "model_jacobian",
    "quantum_fisher",
    "spectrum",
]

MAX_NUMBERS = 2**25
"""Numbers in the states of one call of the engine (256 MiB); larger batches are run in parts."""


def jacobian(layer: QuantumLayer, x: Tensor, weights: Tensor | None = None) -> Tensor:
    """Jacobian of a layer's outputs with respect to its weights, for each sample.

    One forward and one backward pass, over as many lanes as there are samples and outputs.

    Args:
        layer: the quantum layer.
        x: inputs (B, I).
        weights: (P,), all weights flattened one tensor after the other; by default the layer's own.

    Returns:
        (B, M, P), float64.

    Raises:
        ArgumentError: if `x` is not of shape (B, I) or `weights` not of shape (P,).
        CircuitError: if the amplitudes that the circuit starts from depend on weights, or the layer is a QNode that
            runs itself.

    Example:
        >>> layer = QuantumLayer("strongly_entangling", n_qubits=3, n_layers=2)
        >>> jacobian(layer, torch.zeros(5, 3)).shape
        torch.Size([5, 3, 18])
    """
    circuit, x, weights = _arguments(layer, x, weights)
    return _jacobians(circuit, x, weights[None])[0]


def angle_jacobian(program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Tensor:
    """Jacobian of a program's outputs with respect to its angles, for each sample.

    Args:
        program: the program.
        angles: of B samples.
        amplitudes: (B, 2^N), for a program that starts from some.

    Returns:
        (B, M, K), float64.
    """
    from qbp.executors.native import Native

    full = angles.full().detach().double()
    n_samples, n_outputs, engine = len(full), program.n_outputs, Native()
    result = full.new_empty(n_samples, n_outputs, full.shape[1])
    per_call = max(1, MAX_NUMBERS // (n_outputs << program.n_qubits + 1))
    for start in range(0, n_samples, per_call):
        some = full[start : start + per_call]
        lanes = Angles.of(some.repeat_interleave(n_outputs, 0))  # a lane for every sample and output
        begin = None
        if amplitudes is not None:
            begin = amplitudes[start : start + per_call].detach().repeat_interleave(n_outputs, 0)
        grad = torch.eye(n_outputs, dtype=torch.float64).repeat(len(some), 1)
        _, saved = engine.forward(program, lanes, begin)
        gradients = engine.vjp(program, lanes, begin, saved, grad, (True, False, False)).batched
        assert gradients is not None
        result[start : start + per_call] = gradients.reshape(len(some), n_outputs, -1)
    return result


def quantum_fisher(layer: QuantumLayer, x: Tensor, weights: Tensor | None = None) -> Tensor:
    """Quantum Fisher information of the layer's states with respect to its weights, for each sample.

    ``F_ij = 4 Re[<d_i psi|d_j psi> - <d_i psi|psi><psi|d_j psi>]`` (arXiv 2103.15191, equation 8). The derivative of
    ``exp(-i t P / 2)`` is half the same rotation at ``t + pi``, so that R derivatives are R further lanes.

    Args:
        layer: the quantum layer.
        x: inputs (B, I).
        weights: (P,); by default the layer's own.

    Returns:
        (B, P, P), float64, symmetric and positive semidefinite. One sample takes ``(R + 1) 2^N`` complex numbers, with
        R rotations that depend on weights.

    Raises:
        ArgumentError, CircuitError: as `jacobian`.

    Example:
        >>> layer = QuantumLayer("basic_entangler", n_qubits=2, n_layers=1)
        >>> quantum_fisher(layer, torch.zeros(1, 2)).shape
        torch.Size([1, 2, 2])
    """
    from qbp.executors.native import Native

    circuit, x, weights = _arguments(layer, x, weights)
    needs = circuit.angle_map.needs(False, True)
    program, turned = _each_rotation(circuit.program)
    angles = circuit.angle_map(x, weights).full()
    index = torch.tensor([r.angle for r in turned], dtype=torch.int64)
    scale = angles.new_tensor([r.scale for r in turned])
    turns = angles[:, index] * scale + angles.new_tensor([r.offset for r in turned])  # (B, R'), of all rotations
    moves = torch.tensor([r for r, k in enumerate(index.tolist()) if needs[k]], dtype=torch.int64)
    shifts = torch.zeros(len(moves) + 1, len(turned), dtype=torch.float64)  # the last lane is psi itself
    shifts[torch.arange(len(moves)), moves] = torch.pi
    units = torch.eye(angles.shape[1], dtype=torch.float64)[index[moves]] * scale[moves, None]  # (R, K)
    slopes = _pull(circuit, x, weights[None], units.expand(1, len(x), -1, -1))[0]  # (B, R, P)
    amplitudes = circuit.angle_map.amplitudes(x, weights)
    result = x.new_empty(len(x), len(weights), len(weights))
    per_call = max(1, MAX_NUMBERS // (len(shifts) << program.n_qubits + 1))
    for start in range(0, len(x), per_call):
        some = slice(start, start + per_call)
        lanes = (turns[some, None] + shifts).flatten(0, 1)
        begin = None if amplitudes is None else amplitudes[some].repeat_interleave(len(shifts), 0)
        states = Native().frame_states(program, Angles.of(lanes), begin).unflatten(0, (-1, len(shifts)))
        moved, psi = states[:, :-1] / 2, states[:, -1:]
        overlap = moved.conj() @ psi.mT  # <d_i psi|psi>, (B, R, 1)
        fisher = 4 * (moved.conj() @ moved.mT - overlap @ overlap.mH).real
        result[some] = slopes[some].mT @ fisher @ slopes[some]
    return result


def gradient_variance(
    layer: QuantumLayer, x: Tensor, *, n_samples: int = 100, seed: int | None = None, output: int | None = None
) -> Tensor:
    """Variance of every derivative over random weights, uniform in [0, 2 pi): small ones are a barren plateau
    (arXiv 1803.11173).

    Args:
        layer: the quantum layer; its weights are not touched.
        x: inputs (B, I); the variances of the samples are averaged.
        n_samples: how many sets of weights are drawn.
        seed: of the draws.
        output: which output's derivatives; None for the largest variance over the outputs.

    Returns:
        (P,), float64.

    Raises:
        ArgumentError: as `jacobian`, or `n_samples` is below 2, or there is no such output.
        CircuitError: as `jacobian`.

    Example:
        >>> layer = QuantumLayer("strongly_entangling", n_qubits=3, n_layers=2)
        >>> gradient_variance(layer, torch.zeros(1, 3), n_samples=10, seed=0).shape
        torch.Size([18])
    """
    if not isinstance(n_samples, int) or n_samples < 2:
        raise ArgumentError(f"Argument `n_samples` must be an integer of at least 2, but is {n_samples!r}")
    circuit, x, own = _arguments(layer, x, None)
    n_outputs = circuit.program.n_outputs
    if output is not None and not (isinstance(output, int) and 0 <= output < n_outputs):
        raise ArgumentError(f"Argument `output` must be None or an integer below {n_outputs}, but is {output!r}")
    generator = torch.Generator() if seed is None else torch.Generator().manual_seed(seed)
    if seed is None:
        generator.seed()
    drawn = torch.rand(n_samples, len(own), generator=generator, dtype=torch.float64) * 2 * torch.pi
    variance = _jacobians(circuit, x, drawn).var(0).mean(0)  # (M, P)
    return variance.amax(0) if output is None else variance[output]


def _arguments(layer: QuantumLayer, x: Tensor, weights: Tensor | None) -> tuple[Circuit, Tensor, Tensor]:
    """The circuit, and inputs and weights in float64."""
    if not isinstance(x, Tensor) or x.ndim != 2:
        got = f"of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ArgumentError(f"Argument `x` must be a tensor of shape (B, I), but is {got}")
    if layer.executor is None:
        raise CircuitError("This QNode runs itself: nothing is known about its circuit but its outputs")
    circuit = layer.circuit_for(x.shape[1])
    x = x.detach().cpu().double()
    own = layer.flat_weights(x).detach()
    if weights is not None and weights.shape != own.shape:
        raise ArgumentError(f"Argument `weights` must have shape {tuple(own.shape)}, but has {tuple(weights.shape)}")
    if circuit.angle_map.amplitudes_read_weights:
        raise CircuitError("The amplitudes that this circuit starts from depend on its weights: no Jacobian of that")
    return circuit, x, own if weights is None else weights.detach().cpu().double()


def _jacobians(circuit: Circuit, x: Tensor, weights: Tensor) -> Tensor:
    """Jacobians (S, B, M, P) at every one of some sets of weights (S, P)."""
    angles = torch.vmap(torch.vmap(_angles_of(circuit), (0, None)), (None, 0))(x, weights)
    amplitudes = circuit.angle_map.amplitudes(x, weights[0])
    if amplitudes is not None:
        amplitudes = amplitudes.repeat(len(weights), 1)
    of_angles = angle_jacobian(circuit.program, Angles.of(angles.flatten(0, 1)), amplitudes)
    return _pull(circuit, x, weights, of_angles.unflatten(0, (len(weights), len(x))))


def _pull(circuit: Circuit, x: Tensor, weights: Tensor, grads: Tensor) -> Tensor:
    """From derivatives with respect to angles (S, B, ?, K) to those with respect to weights (S, B, ?, P)."""
    if not grads.numel():
        return grads.new_zeros(*grads.shape[:-1], weights.shape[1])

    def one(sample: Tensor, w: Tensor, g: Tensor) -> Tensor:
        pull = torch.func.vjp(partial(_angles_of(circuit), sample), w)[1]
        return torch.vmap(pull)(g)[0]

    return torch.vmap(torch.vmap(one, (0, None, 0)), (None, 0, 0))(x, weights, grads)


def _angles_of(circuit: Circuit) -> Callable[[Tensor, Tensor], Tensor]:
    """All angles (K,) of one sample (I,) as a function of it and of the weights (P,)."""
    return lambda sample, weights: circuit.angle_map(sample[None], weights).full()[0]


def _each_rotation(program: Program) -> tuple[Program, list[Rotation]]:
    """The program with an angle of its own for every rotation that has one, and those rotations."""
    turned: list[Rotation] = []
    ops: list[Op] = []
    for op in program.ops:
        if isinstance(op, Rotation) and op.angle is not None:
            ops.append(replace(op, angle=len(turned), scale=1.0, offset=0.0))
            turned.append(op)
        else:
            ops.append(op)
    return replace(program, ops=tuple(ops), n_angles=len(turned)), turned


def model_jacobian(model: nn.Module, x: Tensor) -> Tensor:
    """Jacobian of a model's outputs with respect to its trainable parameters, for each row.

    Args:
        model: (B, I) -> (B, M).
        x: (B, I).

    Returns:
        (B, M, P), zero where an output does not depend on a parameter.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for sample in x.split(1):
        m, n_outputs = 0, 1
        while m < n_outputs:
            with torch.enable_grad():  # whatever the caller has switched off
                outputs = model(sample)  # anew for each: what the adjoint rule saves serves once
                output = outputs[0, m]
            n_outputs = outputs.shape[1]
            gradients: Sequence[Tensor | None] = [None] * len(parameters)
            if parameters and outputs.requires_grad:
                gradients = torch.autograd.grad(output, parameters, allow_unused=True)
            pairs = zip(parameters, gradients, strict=True)
            parts = [(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs]
            rows.append(torch.cat(parts) if parts else outputs.new_zeros(0))
            m += 1
    return torch.stack(rows).unflatten(0, (len(x), -1))


def fisher_factor(jacobian: Tensor, outputs: Tensor, *, labels: bool) -> Tensor:
    """A factor of the Fisher information ``F = A^T A`` of a model's predictions, on average over rows.

    ``F = E[grad log p(y|x) grad log p(y|x)^T]`` with y drawn from the model itself (arXiv 2011.00027): the
    classes' probabilities are the softmax of the outputs (of one output: its sigmoid), a target is Gaussian with
    variance 1 around them.

    Args:
        jacobian: (B, M, P), as `model_jacobian` returns it.
        outputs: (B, M).
        labels: whether the outputs are logits of classes.

    Returns:
        A, (B C, P): few rows where there are more parameters than data; the eigenvalues of F are those of ``A A^T``.
    """
    n_rows, n_outputs = outputs.shape
    if not labels:
        return jacobian.flatten(0, 1) / math.sqrt(n_rows)
    if n_outputs == 1:
        p = outputs.sigmoid()[:, :, None]
        return ((p * (1 - p) / n_rows).sqrt() * jacobian).flatten(0, 1)
    p = outputs.softmax(1)
    scores = jacobian - (p[:, None] @ jacobian)  # of log p for each class
    return ((p[:, :, None] / n_rows).sqrt() * scores).flatten(0, 1)


def spectrum(factor: Tensor) -> Tensor:
    """The eigenvalues of ``A^T A`` that can differ from zero, largest first: (min(rows, P),)."""
    return torch.linalg.svdvals(factor).square()


def effective_dimension(spectra: Tensor, n_parameters: int, n_data: int) -> float:
    """Effective dimension of a model from the Fisher spectra at random parameters (arXiv 2011.00027).

    ``2 log(mean_s sqrt(det(1 + k F_s))) / log(k)`` with ``k = n / (2 pi log n)`` (gamma is 1), where F is scaled to the
    mean trace P.

    Args:
        spectra: eigenvalues (S, R) for S sets of parameters; those that are left out are zero.
        n_parameters: P.
        n_data: n, the size of the data; at least 19, so that k is above 1.

    Returns:
        Between 0 and about P.

    Raises:
        ArgumentError: `n_data` is below 19.

    Example:
        >>> k = 1000 / (2 * math.pi * math.log(1000))
        >>> d = effective_dimension(torch.ones(5, 3), 3, 1000)  # every parameter counts alike
        >>> round(d, 6) == round(3 * math.log(1 + k) / math.log(k), 6)
        True
    """
    if n_data < 19:
        raise ArgumentError(f"Argument `n_data` must be at least 19, but is {n_data}")
    spectra = spectra.double().clamp(min=0)
    trace = spectra.sum(1).mean()
    if trace <= 0:
        return 0.0
    k = n_data / (2 * math.pi * math.log(n_data))
    log_det = torch.log1p(k * n_parameters * spectra / trace).sum(1)
    return float(2 * (torch.logsumexp(log_det / 2, 0) - math.log(len(spectra))) / math.log(k))
