"""qulacs: one sample after another (it has no batch), complex128 (it has no other), its own backpropagation.

The sample's outputs come from one run; applied to that state, the observables weighted with the cotangent give the
bra of `backprop_inner_product`, which runs the circuit again and returns half the gradients. For the
parameter-shift workload its `GradCalculator`. Angles have the other sign there. Forward: weights as fixed U3 gates.
"""

import numpy as np
import qulacs


def version():
    return f"qulacs {qulacs.__version__}"


def build(workload):
    n, forward = workload.n_qubits, workload.mode == "forward"
    inputs, weights, cotangent = workload.arrays()
    circuit = qulacs.ParametricQuantumCircuit(n)
    of_input, of_weight = [], []  # positions among the circuit's parameters
    for layer, r in enumerate(workload.ranges()):
        if layer == 0 or workload.blocks:
            for q in range(n):
                of_input.append(circuit.get_parameter_count())
                circuit.add_parametric_RX_gate(q, 0.0)
        for q in range(n):
            phi, theta, omega = map(float, weights[layer, q])
            if forward:
                circuit.add_U3_gate(q, theta, omega, phi)
                continue
            of_weight += range(circuit.get_parameter_count(), circuit.get_parameter_count() + 3)
            circuit.add_parametric_RZ_gate(q, 0.0)
            circuit.add_parametric_RY_gate(q, 0.0)
            circuit.add_parametric_RZ_gate(q, 0.0)
        for q in range(n):
            circuit.add_CNOT_gate(q, (q + r) % n)
    state, bra = qulacs.QuantumState(n), qulacs.QuantumState(n)
    words = [f"Z {q}" for q in range(n)]

    def outputs(sample):
        for position, angle in zip(of_input, sample.tolist() * (len(of_input) // n), strict=True):
            circuit.set_parameter(position, -angle)
        state.set_zero_state()
        circuit.update_quantum_state(state)
        return [2 * state.get_zero_probability(q) - 1 for q in range(n)]

    if forward:
        return lambda: (np.array([outputs(sample) for sample in inputs], np.float32), None, None)

    def gradients(row):
        observable = qulacs.GeneralQuantumOperator(n) if workload.mode == "step" else qulacs.Observable(n)
        for weight, word in zip(row.tolist(), words, strict=True):
            observable.add_operator(weight, word)
        if workload.mode == "shift":
            return -np.real(qulacs.GradCalculator().calculate_grad(circuit, observable))
        observable.apply_to_state(state, bra)
        return -2 * np.array(circuit.backprop_inner_product(bra))

    def step():
        for position, angle in zip(of_weight, weights.ravel().tolist(), strict=True):
            circuit.set_parameter(position, -angle)
        out, angles = [], []
        for sample, row in zip(inputs, cotangent, strict=True):
            out.append(outputs(sample))
            angles.append(gradients(row))
        angles = np.array(angles, np.float32)
        of_inputs = angles[:, of_input].reshape(len(inputs), -1, n).sum(1)
        return np.array(out, np.float32), of_inputs, angles[:, of_weight].sum(0).reshape(weights.shape)

    return step
