# mypy: disable-error-code="no-untyped-def"
"""A SIMD vector type for Numba: one full register of samples, so that kernels read like their formulas.

`load`, `store`, `splat` and ``+ - *`` compile to one instruction each. Plain Numba loops over an axis of lanes reach a
third of the speed: there the compiler checks at every loop whether the rows overlap.
"""

from __future__ import annotations

import math
import operator
import os
import platform

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, overload, register_model

__all__ = [
    "as_turns",
    "cos_sin_of_turns",
    "count",
    "count_up",
    "fetch_add",
    "flush_denormals",
    "hsum",
    "lanes_of",
    "load",
    "load_both",
    "load_complex",
    "n_lanes",
    "parity",
    "restore_denormals",
    "splat",
    "store",
    "store_both",
    "store_complex",
    "swapped",
    "turns_in",
    "wait_a_little",
]


def _register_bytes() -> int:
    """Width of this processor's vector registers."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx2") else 16


_BYTES = _register_bytes()
_FUSE = ("contract",)  # lets LLVM fuse multiply and add, but not reorder sums
_INT = ir.IntType(32)


def lanes_of(dtype: np.dtype) -> int:
    """W: how many numbers of `dtype` one register holds."""
    return _BYTES // np.dtype(dtype).itemsize


def n_lanes(array):
    """W for the dtype of an array; a constant inside kernels."""
    return lanes_of(array.dtype)


@overload(n_lanes)
def _n_lanes(array):
    width = _BYTES * 8 // array.dtype.bitwidth
    return lambda array: width


class Vec(types.Type):
    """The Numba type of one register, of floating point numbers or of integers."""

    def __init__(self, dtype: types.Number):
        self.dtype = dtype
        self.width = _BYTES * 8 // dtype.bitwidth
        super().__init__(f"vec[{dtype},{self.width}]")


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, manager, vec):
        element = manager.lookup(vec.dtype).get_value_type()
        super().__init__(manager, vec, ir.VectorType(element, vec.width))


def _binary(op, instruction: str, of_integers: str | None = None) -> None:
    """Let two vectors be combined by a Python operator."""

    @infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vec) and args[0] == args[1]:
                return signature(args[0], *args)

    @lower_builtin(op, Vec, Vec)
    def _lower(context, builder, sig, args):
        if isinstance(sig.return_type.dtype, types.Integer):
            return getattr(builder, of_integers)(*args)
        return getattr(builder, instruction)(*args, flags=_FUSE)


for _op, *_instructions in (
    *((operator.add, "fadd", "add"), (operator.sub, "fsub", "sub"), (operator.mul, "fmul")),
    *((operator.iadd, "fadd", "add"), (operator.isub, "fsub", "sub")),
):
    _binary(_op, *_instructions)


def _pointer(context, builder, array_type, array, index, vec_type):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vec_type.as_pointer())


@intrinsic
def load(typing, array, index):
    """The W numbers of a flat array from `index` on."""
    vec = Vec(array.dtype)

    def generate(context, builder, sig, args):
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], context.get_value_type(vec))
        instruction = builder.load(pointer)
        instruction.align = array.dtype.bitwidth // 8
        return instruction

    return vec(array, types.int64), generate


@intrinsic
def store(typing, array, index, vec):
    """Write W numbers into a flat array from `index` on."""

    def generate(context, builder, sig, args):
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], context.get_value_type(sig.args[2]))
        builder.store(args[2], pointer).align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.int64, vec), generate


def _load_parts(n_parts: int):
    """A function that loads consecutive registers."""

    def typed(typing, array, index, by):
        vec = Vec(array.dtype)

        def generate(context, builder, sig, args):
            at = _pointer(context, builder, sig.args[0], args[0], args[1], context.get_value_type(vec))
            parts = []
            for part in range(n_parts):
                instruction = builder.load(builder.gep(at, [ir.Constant(_INT, part)]))
                instruction.align = array.dtype.bitwidth // 8
                parts.append(_swap(builder, vec, instruction, args[2]))
            return context.make_tuple(builder, sig.return_type, parts)

        return types.UniTuple(vec, n_parts)(array, types.int64, types.int64), generate

    return typed


def _store_parts(n_parts: int):
    """A function that stores consecutive registers."""

    def generate(context, builder, sig, args):
        vec = sig.args[3]
        at = _pointer(context, builder, sig.args[0], args[0], args[1], context.get_value_type(vec))
        for part in range(n_parts):
            swapped = _swap(builder, vec, args[3 + part], args[2])
            builder.store(swapped, builder.gep(at, [ir.Constant(_INT, part)])).align = vec.dtype.bitwidth // 8
        return context.get_dummy_value()

    return generate


@intrinsic
def load_complex(typing, S, at, by):
    """Two registers, a real and an imaginary part, of which lane l gets what lane ``l ^ by`` of the array holds."""
    return _load_parts(2)(typing, S, at, by)


@intrinsic
def load_both(typing, S, at, by):
    """Re psi, Im psi, Re lambda and Im lambda of a place, likewise."""
    return _load_parts(4)(typing, S, at, by)


@intrinsic
def store_complex(typing, S, at, by, x, y):
    """Write two registers, a real and an imaginary part, lane l into lane ``l ^ by``."""
    return types.void(S, types.int64, types.int64, x, y), _store_parts(2)


@intrinsic
def store_both(typing, S, at, by, x, y, u, v):
    """Write Re psi, Im psi, Re lambda and Im lambda of a place, likewise."""
    return types.void(S, types.int64, types.int64, x, y, u, v), _store_parts(4)


@intrinsic
def splat(typing, number):
    """The same number in every lane."""
    vec = Vec(number)

    def generate(context, builder, sig, args):
        return _splat(context, builder, vec, args[0])

    return vec(number), generate


def _splat(context, builder, vec, number):
    empty = ir.Constant(context.get_value_type(vec), ir.Undefined)
    first = builder.insert_element(empty, number, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(_INT, vec.width), [0] * vec.width))


@intrinsic
def hsum(typing, vec):
    """The sum of all lanes, halves folded onto each other: always in the same order."""

    def generate(context, builder, sig, args):
        vector, width = args[0], vec.width
        while width > 1:
            width //= 2
            low = ir.Constant(ir.VectorType(_INT, width), list(range(width)))
            high = ir.Constant(ir.VectorType(_INT, width), list(range(width, 2 * width)))
            low, high = (builder.shuffle_vector(vector, vector, half) for half in (low, high))
            vector = builder.fadd(low, high)
        return builder.extract_element(vector, ir.Constant(_INT, 0))

    return vec.dtype(vec), generate


@intrinsic
def swapped(typing, vec, by):
    """The lanes in another order: lane l of the result is lane ``l ^ by``."""

    def generate(context, builder, sig, args):
        return _swap(builder, vec, *args)

    return vec(vec, types.int64), generate


def _swap(builder, vec, vector, by):
    width, bits = vec.width, vec.dtype.bitwidth
    name, index = _PERMUTATIONS.get((_BYTES, bits), (None, 32))
    if name is not None:
        lanes = ir.VectorType(ir.IntType(index), width)
        number = builder.trunc(by, lanes.element) if index < 64 else by
        first = builder.insert_element(ir.Constant(lanes, ir.Undefined), number, ir.Constant(_INT, 0))
        zeros = ir.Constant(ir.VectorType(_INT, width), [0] * width)
        order = builder.xor(builder.shuffle_vector(first, first, zeros), ir.Constant(lanes, list(range(width))))
        function = ir.FunctionType(vector.type, [vector.type, lanes])
        return builder.call(cgutils.get_or_insert_function(builder.module, function, name), [vector, order])
    step = 1
    while step < width:  # one bit of `by` after the other
        order = ir.Constant(ir.VectorType(_INT, width), [lane ^ step for lane in range(width)])
        bit = builder.icmp_unsigned("!=", builder.and_(by, ir.Constant(by.type, step)), ir.Constant(by.type, 0))
        vector = builder.select(bit, builder.shuffle_vector(vector, vector, order), vector)
        step *= 2
    return vector


# Registers' bytes, a number's bits: the instruction for any order of lanes, and the bits of its indices.
_PERMUTATIONS = {
    (64, 32): ("llvm.x86.avx512.permvar.sf.512", 32),
    (64, 64): ("llvm.x86.avx512.permvar.df.512", 64),
    (32, 32): ("llvm.x86.avx2.permps", 32),
}


# Angles as integers: a whole turn is 2^32 in float32, 2^64 in float64, so that sums wrap around as angles do, exactly.


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
                total = builder.fadd(builder.fmul(total, square, flags=_FUSE), constant(coefficient), flags=_FUSE)
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


@intrinsic
def parity(typing, mask):
    """The parity of the bits of an integer: 0 or 1."""

    def generate(context, builder, sig, args):
        return builder.and_(builder.ctpop(args[0]), ir.Constant(args[0].type, 1))

    return mask(mask), generate


@intrinsic
def fetch_add(typing, counter):
    """Add 1 to the first number of an array of integers and return what it was, in one step for all threads."""

    def generate(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), generate


@intrinsic
def count_up(typing, counter):
    """Add 1 to the first number of an array of integers, after all that this thread has written before."""

    def generate(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        builder.atomic_rmw("add", data, ir.Constant(ir.IntType(64), 1), "release")
        return context.get_dummy_value()

    return types.void(counter), generate


@intrinsic
def count(typing, counter):
    """The first number of an array of integers; what others wrote before they counted up to it can then be read."""

    def generate(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.load_atomic(data, "acquire", 8)

    return types.int64(counter), generate


@intrinsic
def wait_a_little(typing):
    """Let other threads of this machine run, while this one waits for one of them."""

    def generate(context, builder, sig, args):
        if os.name == "posix":
            function = ir.FunctionType(_INT, [])
            builder.call(cgutils.get_or_insert_function(builder.module, function, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def flush_denormals(typing):
    """Let this thread treat the tiniest numbers (below 1e-38 in float32), which cost a hundred times as much as others,
    as zeros; returns what `restore_denormals` wants."""

    def generate(context, builder, sig, args):
        before = _float_control(builder)
        _set_float_control(builder, builder.or_(before, ir.Constant(before.type, _FLUSH)))
        return builder.zext(before, ir.IntType(64))

    return types.int64(), generate


@intrinsic
def restore_denormals(typing, before):
    """Undo `flush_denormals`."""

    def generate(context, builder, sig, args):
        width = _float_control(builder).type
        _set_float_control(builder, builder.trunc(args[0], width) if width.width < 64 else args[0])
        return context.get_dummy_value()

    return types.void(types.int64), generate


# The floating point control register: flush-to-zero and denormals-are-zero.
_X86 = platform.machine().lower() in ("x86_64", "amd64")
_ARM = platform.machine().lower() in ("aarch64", "arm64")
_FLUSH = 0x8040 if _X86 else 1 << 24


def _float_control(builder):
    if _X86:
        slot = cgutils.alloca_once(builder, _INT)
        _call_x86(builder, "llvm.x86.sse.stmxcsr", slot)
        return builder.load(slot)
    if _ARM:
        return builder.asm(ir.FunctionType(ir.IntType(64), []), "mrs $0, fpcr", "=r", [], True)
    return ir.Constant(_INT, 0)


def _set_float_control(builder, value) -> None:
    if _X86:
        slot = cgutils.alloca_once(builder, _INT)
        builder.store(value, slot)
        _call_x86(builder, "llvm.x86.sse.ldmxcsr", slot)
    elif _ARM:
        builder.asm(ir.FunctionType(ir.VoidType(), [ir.IntType(64)]), "msr fpcr, $0", "r", [value], True)


def _call_x86(builder, name: str, slot) -> None:
    pointer = ir.IntType(8).as_pointer()
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [pointer]), name)
    builder.call(function, [builder.bitcast(slot, pointer)])
