"""Checks of a circuit: gradients, reachable states, angles."""

from __future__ import annotations

import math
from collections.abc import Iterator

from qbp.analysis import expressibility
from qbp.analysis.diagnosis.probe import Finding, Picture, Probe
from qbp.nn.simulability import WIDEST_STATE

__all__ = ["angles", "gradients", "states"]

FLAT = 5e-4  # the variance of a derivative that is estimated with 1000 shots
TURN = 2 * math.pi


def gradients(probe: Probe) -> Iterator[Finding]:
    """Gradient variance against qubits: a barren plateau (arXiv 1803.11173)."""
    for where, layer, x, _ in probe.quantum:
        sizes, variances = expressibility.variance_by_qubits(layer, x, seed=probe.seed)
        if not sizes:
            continue
        value, warns = variances[-1], variances[-1] < FLAT
        said = f"Over random weights the derivatives{where} have a variance of {value:.2g} at {sizes[-1]} qubits"
        if len(sizes) > 2:
            rate = math.exp((math.log(value) - math.log(variances[1])) / (sizes[-1] - sizes[1]))
            said += f", which changes by a factor of {rate:.2g} with each qubit"
        if warns:
            said += (
                ". That is less than what 1,000 shots can tell from zero, a barren plateau: measure few wires instead "
                "of all at once, take fewer layers or qubits, or start from small weights"
            )
        picture = Picture("line", tuple(sizes), tuple(variances), "qubits", "variance of a derivative", True, (FLAT,))
        yield Finding("BARREN_PLATEAU", f"Gradient variance{where}", value, FLAT, warns, said + ".", picture, "below")


def states(probe: Probe) -> Iterator[Finding]:
    """Expressibility and entangling capability (arXiv 1905.10876), of circuits whose states fit and are pure."""
    for where, layer, x, _ in probe.quantum:
        program = layer.circuit_for(x.shape[1]).program
        n = program.n_qubits
        if program.is_noisy or n > WIDEST_STATE:
            continue
        states = expressibility.random_states(layer, x, n_states=100 if n <= 10 else 30, seed=probe.seed)
        pairs = expressibility.fidelities(states)
        value, most = expressibility.expressibility(states), expressibility.max_divergence(n)
        said = f"Random weights and rows give states{where} whose fidelities differ from random states' by {value:.3g}"
        warns = value > most / 2
        if warns:
            said += (
                f" nats, of {most:.3g} for a circuit that does nothing: weights and data hardly change the state; give "
                "it rotations about different axes, and start them before what they shall act on"
            )
        else:
            said += f" nats (0 reaches every state alike, {most:.3g} only one)"
        picture = Picture("histogram", (), tuple(pairs.tolist()), "fidelity of two states", "pairs")
        yield Finding(
            "LOW_EXPRESSIBILITY", f"Expressibility{where}", value, most / 2, warns, said + ".", picture, "above"
        )
        if n < 2:
            continue
        each = [expressibility.entangling_capability(state[None]) for state in states]
        value = sum(each) / len(each)
        warns = value < 0.01
        said = f"The states{where} have a Meyer-Wallach entanglement of {value:.3g} on average"
        if warns:
            said += (
                ": no qubit knows of another, so that the layer is a sum of sines, one for each wire, as a classical "
                "layer is for less; put entangling gates between the rotations"
            )
        picture = Picture("histogram", (), tuple(each), "Meyer-Wallach entanglement", "states", limits=(0.01,))
        yield Finding(
            "NO_ENTANGLEMENT", f"Entangling capability{where}", value, 0.01, warns, said + ".", picture, "below"
        )


def angles(probe: Probe) -> Iterator[Finding]:
    """Angle ranges: whether data reaches the circuit, and comes unwrapped."""
    for where, layer, x, _ in probe.quantum:
        circuit = layer.circuit_for(x.shape[1])
        angle_map = circuit.angle_map
        if not angle_map.n_batched or len(x) < 2:
            continue
        angles = angle_map(x, layer.flat_weights(x)).batched.detach()
        names = tuple(range(angles.shape[1]))
        moves = angles.std(0)
        value = float(moves.max())
        warns = value < 0.01
        said = f"From row to row the angles{where} that encode data move by {value:.2g} rad (the one that moves most)"
        if warns:
            said += (
                ": the circuit gets the same state whatever the data is; look at what comes before it (constant "
                "features, a dead or saturated layer, a scale that is too small)"
            )
        picture = Picture("bars", names, tuple(moves.tolist()), "angle", "standard deviation, rad", limits=(0.01,))
        yield Finding(
            "ANGLES_CONSTANT", f"Angles from row to row{where}", value, 0.01, warns, said + ".", picture, "below"
        )
        if not len(angle_map.inputs):
            continue  # only functions that are not linear, which may span what they like
        linear = angles[:, : len(angle_map.inputs)]
        spans = linear.quantile(0.99, 0) - linear.quantile(0.01, 0)
        value = float(spans.max())
        warns = value > 1.001 * TURN
        said = f"The angles{where} that are linear in the data span up to {value:.3g} rad"
        if warns:
            said += (
                ", more than the whole turn after which rotations repeat: rows that are far apart meet at the same "
                "angle; scale the inputs (qbp.data does), or bound them with qbp.nn.models.BoundedAngle()"
            )
        picture = Picture("bars", names[: len(spans)], tuple(spans.tolist()), "angle", "span, rad", limits=(TURN,))
        yield Finding("ANGLES_WRAP", f"Range of the angles{where}", value, TURN, warns, said + ".", picture, "above")
