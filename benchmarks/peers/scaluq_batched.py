"""scaluq: forward by batched states, float32; gradients by its backpropagation, which takes one sample after another.

Below 8 qubits, and for the parameter-shift workload, gradients by shifting each angle of the batched states, since
that is faster there (4 beside 80 ms at 4 qubits). Forward: weights as fixed U3 gates; `Circuit.optimize` makes it
slower. Threads are bound as its own warning advises.
"""

import os

os.environ |= {"OMP_PROC_BIND": "spread", "OMP_PLACES": "threads"}

import numpy as np
import scaluq
from scaluq import gate

F32 = {"precision": "f32"}


def version():
    from importlib.metadata import version as installed

    return f"scaluq {installed('scaluq')}"


def build(workload):
    n, batch, forward = workload.n_qubits, workload.batch, workload.mode == "forward"
    inputs, weights, cotangent = workload.arrays()
    circuit = scaluq.Circuit(**F32)
    values: dict[str, list[float]] = {}  # of every angle, for each sample
    of_input, of_weight = [], []

    def add(make, q, owner, angles):
        owner.append(f"a{len(values)}")
        values[owner[-1]] = angles
        circuit.add_param_gate(make(q, **F32), owner[-1])

    for layer, r in enumerate(workload.ranges()):
        if layer == 0 or workload.blocks:
            for q in range(n):
                add(gate.ParamRX, q, of_input, inputs[:, q].tolist())
        for q in range(n):
            phi, theta, omega = map(float, weights[layer, q])
            if forward:
                circuit.add_gate(gate.U3(q, theta, omega, phi, **F32))
            else:
                add(gate.ParamRZ, q, of_weight, [phi] * batch)
                add(gate.ParamRY, q, of_weight, [theta] * batch)
                add(gate.ParamRZ, q, of_weight, [omega] * batch)
        for q in range(n):
            circuit.add_gate(gate.CX(q, (q + r) % n, **F32))
    states = scaluq.StateVectorBatched(batch, n, **F32)
    words = [scaluq.PauliOperator(f"Z {q}", 1.0, **F32) for q in range(n)]

    def outputs(params):
        states.set_zero_state()
        circuit.update_quantum_state(states, params=params)
        return 2 * np.array([states.get_zero_probability(q) for q in range(n)], np.float32).T - 1

    if forward:
        return lambda: (outputs(values), None, None)

    def shifted(name, by):
        return (cotangent * outputs(values | {name: [angle + by for angle in values[name]]})).sum(1)

    def backpropagated(sample):
        state = states.get_state_vector_at(sample)
        bra = state.copy()
        row = cotangent[sample].tolist()
        scaluq.Operator([word * weight for word, weight in zip(words, row, strict=True)], **F32).apply_to_state(bra)
        params = {name: angles[sample] for name, angles in values.items()}
        return circuit.compute_expectation_gradient_backprop(state, bra, params)

    def step():
        out = outputs(values)
        if workload.mode == "shift" or n < 8:
            slopes = {name: (shifted(name, np.pi / 2) - shifted(name, -np.pi / 2)) / 2 for name in values}
        else:
            samples = [backpropagated(sample) for sample in range(batch)]
            slopes = {name: [gradients[name] for gradients in samples] for name in values}
        of_inputs = np.array([slopes[name] for name in of_input]).reshape(-1, n, batch).sum(0).T
        of_weights = np.array([slopes[name] for name in of_weight]).sum(1).reshape(weights.shape)
        return out, of_inputs, of_weights

    return step
