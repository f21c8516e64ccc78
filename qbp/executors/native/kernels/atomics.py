# mypy: disable-error-code="no-untyped-def"
"""What kernels ask of the processor beside arithmetic: counters that threads share, and tiny numbers as zeros."""

from __future__ import annotations

import os
import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["count", "count_up", "fetch_add", "flush_denormals", "restore_denormals", "wait_a_little"]

_INT = ir.IntType(32)


@intrinsic
def fetch_add(typing, counter):
    """Add 1 to the first number of an array of integers and return what it was, in one step for all threads."""

    def generate(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, ir.Constant(ir.IntType(64), 1), "acq_rel")

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
