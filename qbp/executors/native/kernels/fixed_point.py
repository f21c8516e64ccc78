# mypy: disable-error-code="no-untyped-def"
"""Angles as integers: a turn is 2^32 in float32, 2^64 in float64, so that sums wrap around as angles do, exactly."""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from qbp.executors.native.kernels.simd import FUSE, Vec

__all__ = ["as_turns", "cos_sin_of_turns", "turns_in"]


def as_turns(array):
    """The same memory as integers."""
    return array.view(_integer(array.dtype))


@overload(as_turns)
def _as_turns(array):
    integer = _integer(array.dtype)
    return lambda array: array.view(integer)


def _integer(dtype):
    return np.int32 if dtype in (types.float32, np.float32) else np.int64


@intrinsic
def turns_in(typing, angle, array):
    """An angle in radians, a double, as an integer as wide as the numbers of an array."""
    bits = array.dtype.bitwidth

    def generate(context, builder, sig, args):
        double = args[0].type
        turns = builder.fmul(args[0], ir.Constant(double, 1 / (2 * math.pi)))
        floor = builder.module.declare_intrinsic("llvm.floor", [double])
        turns = builder.fsub(turns, builder.call(floor, [turns]))  # from 0 to 1
        whole = builder.fptosi(builder.fmul(turns, ir.Constant(double, 2.0**62)), ir.IntType(64))
        whole = builder.shl(whole, ir.Constant(whole.type, 2))  # 2^64, a whole turn, is nothing
        if bits < 64:
            whole = builder.add(whole, ir.Constant(whole.type, 1 << 63 - bits))  # to the nearest
            whole = builder.trunc(builder.lshr(whole, ir.Constant(whole.type, 64 - bits)), ir.IntType(bits))
        return whole

    return types.Integer.from_bitwidth(bits)(types.float64, array), generate


@intrinsic
def cos_sin_of_turns(typing, turns):
    """cos and sin of angles as integers: ``a = k 2^(b-2) + r``, quarter turns and a rest of at most pi/4, which goes
    through Taylor series as long as the dtype sees their terms."""
    bits = turns.dtype.bitwidth
    vec = Vec(types.float32 if bits == 32 else types.float64)
    n_terms = 5 if bits == 32 else 9

    def generate(context, builder, sig, args):
        real, integer = context.get_value_type(vec), args[0].type

        def constant(number):
            kind = integer if isinstance(number, int) else real
            return ir.Constant(kind, [number] * vec.width)

        def series(square, coefficients):
            total = constant(coefficients[-1])
            for coefficient in coefficients[-2::-1]:
                total = builder.fadd(builder.fmul(total, square, flags=FUSE), constant(coefficient), flags=FUSE)
            return total

        def bit_of(number, bit):
            return builder.icmp_signed("!=", builder.and_(number, constant(bit)), constant(0))

        quarter = builder.ashr(builder.add(args[0], constant(1 << bits - 3)), constant(bits - 2))
        rest = builder.sub(args[0], builder.shl(quarter, constant(bits - 2)))
        r = builder.fmul(builder.sitofp(rest, real), constant(2 * math.pi / 2**bits))
        square = builder.fmul(r, r)
        s = builder.fmul(r, series(square, [(-1) ** k / math.factorial(2 * k + 1) for k in range(n_terms)]))
        c = series(square, [(-1) ** k / math.factorial(2 * k) for k in range(n_terms + 1)])
        swap = bit_of(quarter, 1)
        cos, sin = builder.select(swap, s, c), builder.select(swap, c, s)
        zero = constant(0.0)
        cos = builder.select(bit_of(builder.add(quarter, constant(1)), 2), builder.fsub(zero, cos), cos)
        sin = builder.select(bit_of(quarter, 2), builder.fsub(zero, sin), sin)
        return context.make_tuple(builder, sig.return_type, (cos, sin))

    return types.UniTuple(vec, 2)(turns), generate
