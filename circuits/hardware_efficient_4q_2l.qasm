// title: Hardware-efficient circuit
// reference: arXiv 1704.05018
// observables: Z0, Z1, Z2, Z3
// weight_shape: 2, 4, 2
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
input float[64] w_12;
input float[64] w_13;
input float[64] w_14;
input float[64] w_15;
qubit[4] q;

ry(x_0) q[0];
ry(x_1) q[1];
ry(x_2) q[2];
ry(x_3) q[3];
cz q[0], q[1];
cz q[1], q[2];
cz q[2], q[3];
rz(w_0) q[0];
ry(w_1) q[0];
rz(w_2) q[1];
ry(w_3) q[1];
rz(w_4) q[2];
ry(w_5) q[2];
rz(w_6) q[3];
ry(w_7) q[3];
cz q[0], q[1];
cz q[1], q[2];
cz q[2], q[3];
rz(w_8) q[0];
ry(w_9) q[0];
rz(w_10) q[1];
ry(w_11) q[1];
rz(w_12) q[2];
ry(w_13) q[2];
rz(w_14) q[3];
ry(w_15) q[3];
