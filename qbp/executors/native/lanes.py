# mypy: disable-error-code="no-untyped-def"
"""A SIMD vector type for Numba: one full register of samples, so that kernels read like their formulas.

`load`, `store`, `splat` and ``+ - *`` compile to one instruction each. Plain Numba loops over an axis of lanes reach a
third of the speed: there the compiler checks at every loop whether the rows overlap.
"""

from __future__ import annotations

import operator
import platform

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, overload, register_model

__all__ = [
    "fetch_add",
    "flush_denormals",
    "hsum",
    "lanes_of",
    "load",
    "n_lanes",
    "parity",
    "restore_denormals",
    "splat",
    "store",
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
    """The Numba type of one register."""

    def __init__(self, dtype: types.Float):
        self.dtype = dtype
        self.width = _BYTES * 8 // dtype.bitwidth
        super().__init__(f"vec[{dtype},{self.width}]")


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, manager, vec):
        element = ir.FloatType() if vec.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, vec, ir.VectorType(element, vec.width))


def _binary(op, instruction: str) -> None:
    """Let two vectors be combined by a Python operator."""

    @infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vec) and args[0] == args[1]:
                return signature(args[0], *args)

    @lower_builtin(op, Vec, Vec)
    def _lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args, flags=_FUSE)


for _op, _instruction in (
    *((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")),
    *((operator.iadd, "fadd"), (operator.isub, "fsub")),
):
    _binary(_op, _instruction)


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


@intrinsic
def splat(typing, number):
    """The same number in every lane."""
    vec = Vec(number)

    def generate(context, builder, sig, args):
        empty = ir.Constant(context.get_value_type(vec), ir.Undefined)
        first = builder.insert_element(empty, args[0], ir.Constant(_INT, 0))
        return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(_INT, vec.width), [0] * vec.width))

    return vec(number), generate


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
