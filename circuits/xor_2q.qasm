// title: XOR
// reference: Minsky and Papert, Perceptrons (1969)
// observables: Z1
// weight_shape: 2, 2
OPENQASM 3.0;
include "stdgates.inc";

input float[64] x_0;
input float[64] x_1;
input float[64] w_0;
input float[64] w_1;
input float[64] w_2;
input float[64] w_3;
qubit[2] q;

rx(w_0 * x_0 + w_1) q[0];
rx(w_2 * x_1 + w_3) q[1];
cx q[0], q[1];
