// title: ZZ feature map and real amplitudes
// reference: arXiv 1804.11326
// observables: Z0, Z1, Z2
// weight_shape: 3, 3
OPENQASM 3.0;
include "stdgates.inc";

input float[64] x_0;
input float[64] x_1;
input float[64] x_2;
input float[64] w_0;
input float[64] w_1;
input float[64] w_2;
input float[64] w_3;
input float[64] w_4;
input float[64] w_5;
input float[64] w_6;
input float[64] w_7;
input float[64] w_8;
qubit[3] q;

h q[0];
h q[1];
h q[2];
p(2 * x_0) q[0];
p(2 * x_1) q[1];
p(2 * x_2) q[2];
cx q[0], q[1];
p(2 * (pi - x_0) * (pi - x_1)) q[1];
cx q[0], q[1];
cx q[0], q[2];
p(2 * (pi - x_0) * (pi - x_2)) q[2];
cx q[0], q[2];
cx q[1], q[2];
p(2 * (pi - x_1) * (pi - x_2)) q[2];
cx q[1], q[2];
h q[0];
h q[1];
h q[2];
p(2 * x_0) q[0];
p(2 * x_1) q[1];
p(2 * x_2) q[2];
cx q[0], q[1];
p(2 * (pi - x_0) * (pi - x_1)) q[1];
cx q[0], q[1];
cx q[0], q[2];
p(2 * (pi - x_0) * (pi - x_2)) q[2];
cx q[0], q[2];
cx q[1], q[2];
p(2 * (pi - x_1) * (pi - x_2)) q[2];
cx q[1], q[2];
ry(w_0) q[0];
ry(w_1) q[1];
ry(w_2) q[2];
cx q[1], q[2];
cx q[0], q[1];
ry(w_3) q[0];
ry(w_4) q[1];
ry(w_5) q[2];
cx q[1], q[2];
cx q[0], q[1];
ry(w_6) q[0];
ry(w_7) q[1];
ry(w_8) q[2];
