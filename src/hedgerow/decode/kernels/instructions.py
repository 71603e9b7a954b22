"""Machine instructions that Numba does not offer, as LLVM intrinsics."""

# Numba types an intrinsic itself and passes the context, which type checkers cannot follow.
# ruff: noqa: ARG001
# pyright: basic, reportCallIssue=false

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def exp2_of_int(_context, exponent):
    """2**exponent as float32, assembled from its bits in 32-bit integers. Numba's own arithmetic widens to 64 bits."""

    def generate(_context, builder, _signature, arguments):
        biased = builder.add(arguments[0], ir.Constant(ir.IntType(32), 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(ir.IntType(32), 23)), ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def larger(_context, x, y):
    """The larger of two floats that are not NaN, in the form that LLVM turns into a vectorized reduction."""

    def generate(_context, builder, _signature, arguments):
        real = ir.FloatType()
        larger = builder.module.declare_intrinsic("llvm.maxnum", [real], ir.FunctionType(real, [real, real]))
        return builder.call(larger, arguments, fastmath=("nnan", "nsz"))

    return types.float32(types.float32, types.float32), generate


@intrinsic
def count_bits(_context, word):
    """Number of bits set in a uint32."""

    def generate(_context, builder, _signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint32(types.uint32), generate


@intrinsic
def lowest_bit(_context, word):
    """Position of the lowest bit set in a uint32."""

    def generate(_context, builder, _signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint32(types.uint32), generate
