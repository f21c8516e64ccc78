// title: Basic entangler layers
// reference: PennyLane: BasicEntanglerLayers
// observables: Z0, Z1, Z2, Z3
// weight_shape: 2, 4
OPENQASM 3.0;
include "stdgates.inc";

input float[64] x_0;
input float[64] x_1;
input float[64] x_2;
input float[64] x_3;
input float[64] w_0;
input float[64] w_1;
input float[64] w_2;
input float[64] w_3;
input float[64] w_4;
input float[64] w_5;
input float[64] w_6;
input float[64] w_7;
qubit[4] q;

rx(x_0) q[0];
rx(x_1) q[1];
rx(x_2) q[2];
rx(x_3) q[3];
rx(w_0) q[0];
rx(w_1) q[1];
rx(w_2) q[2];
rx(w_3) q[3];
cx q[0], q[1];
cx q[1], q[2];
cx q[2], q[3];
cx q[3], q[0];
rx(w_4) q[0];
rx(w_5) q[1];
rx(w_6) q[2];
rx(w_7) q[3];
cx q[0], q[1];
cx q[1], q[2];
cx q[2], q[3];
cx q[3], q[0];
