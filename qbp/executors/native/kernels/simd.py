# mypy: disable-error-code="no-untyped-def"
"""A SIMD vector type for Numba: one full register of samples, so that kernels read like their formulas.

`load`, `store`, `splat` and ``+ - *`` compile to one instruction each. Plain Numba loops over an axis of lanes reach a
third of the speed: there the compiler checks at every loop whether the rows overlap.
"""

from __future__ import annotations

import operator

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, overload, register_model

__all__ = [
    "FUSE",
    "Vec",
    "hsum",
    "lanes_of",
    "load",
    "load_both",
    "load_complex",
    "n_lanes",
    "parity",
    "splat",
    "store",
    "store_both",
    "store_complex",
    "swapped",
]


def _register_bytes() -> int:
    """Width of this processor's vector registers."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx2") else 16


_BYTES = _register_bytes()
FUSE = ("contract",)  # lets LLVM fuse multiply and add, but not reorder sums
_INT = ir.IntType(32)


LANES = {dtype: _BYTES // dtype.itemsize for dtype in (np.dtype(np.float32), np.dtype(np.float64))}
"""W: how many numbers of a dtype one register holds."""


def lanes_of(dtype: np.dtype) -> int:
    """W of whatever names a dtype."""
    return LANES[np.dtype(dtype)]


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
        return getattr(builder, instruction)(*args, flags=FUSE)


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


@intrinsic
def parity(typing, mask):
    """The parity of the bits of an integer: 0 or 1."""

    def generate(context, builder, sig, args):
        return builder.and_(builder.ctpop(args[0]), ir.Constant(args[0].type, 1))

    return mask(mask), generate
