"""Choices between the lanes of vectors (see :mod:`gigascope.kernels.simd`), and logarithms."""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gigascope.kernels.simd import Vector, _call, _lanes_below, _llvm, _splat, _suffix

_INT32 = ir.IntType(32)


@intrinsic
def where_smaller(typing_context, a, b, chosen, other):  # type: ignore[no-untyped-def]
    """Lanes of `chosen` where a < b, else those of `other`."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.select(builder.fcmp_ordered("<", arguments[0], arguments[1]), arguments[2], arguments[3])

    return chosen(a, b, chosen, other), generate


@intrinsic
def where_equal(typing_context, a, b, chosen, other):  # type: ignore[no-untyped-def]
    """Lanes of `chosen` where a == b, else those of `other`."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.select(builder.fcmp_ordered("==", arguments[0], arguments[1]), arguments[2], arguments[3])

    return chosen(a, b, chosen, other), generate


@intrinsic
def first_lanes_or(typing_context, a, count, other):  # type: ignore[no-untyped-def]
    """The first `count` lanes of `a`, then those of `other`."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        mask = _lanes_below(builder, signature.return_type, arguments[1])
        return builder.select(mask, arguments[0], arguments[2])

    return a(a, types.intp, other), generate


def _any(comparison: str, doc: str) -> Any:
    """Whether a comparison holds in any lane."""

    def typed(typing_context, a, b):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            mask = builder.fcmp_ordered(comparison, *arguments)
            bits = builder.bitcast(mask, ir.IntType(signature.args[0].lanes))
            return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

        return types.boolean(a, b), generate

    typed.__doc__ = doc
    return intrinsic(typed)


any_smaller = _any("<", "Whether a < b in any lane.")
any_equal = _any("==", "Whether a == b in any lane.")

# log2(m) = 2 / ln 2 (s + s^3 / 3 + ...), s = (m - 1) / (m + 1), below 4e-10 for m between √½ and √2
_LOG2 = [2 / math.log(2) / n for n in (9, 7, 5, 3, 1)]


@intrinsic
def log2(typing_context, a):  # type: ignore[no-untyped-def]
    """log2 of normal float32 above 0; 2e-7 absolute near 1, relative elsewhere."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector: Vector = signature.return_type
        if vector.dtype.bitwidth != 32:
            raise NotImplementedError("log2 of float32 only")
        lanes, real = vector.lanes, _llvm(vector)
        integers = ir.VectorType(_INT32, lanes)

        def constant(number: float) -> Any:
            return ir.Constant(real, [number] * lanes)

        bits = builder.bitcast(arguments[0], integers)
        # exponent of the power of two next to it, so that the rest is between √½ and √2
        shifted = builder.sub(bits, _splat(builder, ir.Constant(_INT32, 0x3F3504F3), lanes))
        exponent = builder.ashr(shifted, _splat(builder, ir.Constant(_INT32, 23), lanes))
        rest = builder.sub(bits, builder.shl(exponent, _splat(builder, ir.Constant(_INT32, 23), lanes)))
        m = builder.bitcast(rest, real)
        s = builder.fdiv(builder.fsub(m, constant(1.0)), builder.fadd(m, constant(1.0)))
        square = builder.fmul(s, s)
        value = constant(_LOG2[0])
        for coefficient in _LOG2[1:]:
            value = _call(builder, f"llvm.fma.{_suffix(vector)}", real, [value, square, constant(coefficient)])
        whole = builder.sitofp(exponent, real)
        return _call(builder, f"llvm.fma.{_suffix(vector)}", real, [value, s, whole])

    return a(a), generate
