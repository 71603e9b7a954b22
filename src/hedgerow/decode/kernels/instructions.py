"""Machine instructions that Numba has no name for, as LLVM's own."""

# An intrinsic is typed by its arguments' Numba types and called without the context, which no checker can follow.
# ruff: noqa: ARG001
# pyright: basic, reportCallIssue=false

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def power_of_two(_context, exponent):
    """2**exponent, put together from its bits in 32-bit integers: Numba's own arithmetic widens to 64."""

    def generate(_context, builder, _signature, arguments):
        biased = builder.add(arguments[0], ir.Constant(ir.IntType(32), 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(ir.IntType(32), 23)), ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def larger(_context, x, y):
    """The larger of two floats, neither NaN, in the one form that LLVM makes a vectorised reduction of."""

    def generate(_context, builder, _signature, arguments):
        real = ir.FloatType()
        larger = builder.module.declare_intrinsic("llvm.maxnum", [real], ir.FunctionType(real, [real, real]))
        return builder.call(larger, arguments, fastmath=("nnan", "nsz"))

    return types.float32(types.float32, types.float32), generate


@intrinsic
def count_bits(_context, word):
    """The number of bits set in a uint32."""

    def generate(_context, builder, _signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint32(types.uint32), generate


@intrinsic
def lowest_bit(_context, word):
    """The place of the lowest bit set in a uint32."""

    def generate(_context, builder, _signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint32(types.uint32), generate
