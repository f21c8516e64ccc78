// title: Tree tensor network
// reference: arXiv 1803.11537
// observables: Z3
// weight_shape: 2, 3, 2
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
input float[64] w_8;
input float[64] w_9;
input float[64] w_10;
input float[64] w_11;
qubit[4] q;

ry(x_0) q[0];
ry(x_1) q[1];
ry(x_2) q[2];
ry(x_3) q[3];
ry(w_0) q[0];
ry(w_1) q[1];
cx q[0], q[1];
ry(w_6) q[0];
ry(w_7) q[1];
cx q[0], q[1];
ry(w_2) q[2];
ry(w_3) q[3];
cx q[2], q[3];
ry(w_8) q[2];
ry(w_9) q[3];
cx q[2], q[3];
ry(w_4) q[1];
ry(w_5) q[3];
cx q[1], q[3];
ry(w_10) q[1];
ry(w_11) q[3];
cx q[1], q[3];
