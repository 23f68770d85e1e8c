"""Vectors of int32 beside those of float32 (see :mod:`gigascope.kernels.simd`): what a hash of lattice points needs.

Arithmetic wraps around, as with unsigned numbers of 32 bits.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from gigascope.kernels.simd import Vector, _llvm, _splat

_INT32 = ir.IntType(32)
_LANES = Vector(types.float32).lanes


class IntegerVector(types.Type):
    """Numba type of as many int32 as a vector of float32 has lanes."""

    def __init__(self) -> None:
        super().__init__(name="IntegerVector")


@register_model(IntegerVector)
class _IntegerVectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: IntegerVector) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(_INT32, _LANES))


_INTEGERS = IntegerVector()


@intrinsic
def to_integers(typing_context, a):  # type: ignore[no-untyped-def]
    """Whole numbers in float32 as int32."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.fptosi(arguments[0], ir.VectorType(_INT32, _LANES))

    return _INTEGERS(a), generate


@intrinsic
def to_floats(typing_context, a):  # type: ignore[no-untyped-def]
    """int32 as float32."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.sitofp(arguments[0], _llvm(signature.return_type))

    return Vector(types.float32)(a), generate


@intrinsic
def splat_integer(typing_context, number):  # type: ignore[no-untyped-def]
    """Vector with the low 32 bits of an integer in every lane."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        narrow = context.cast(builder, arguments[0], signature.args[0], types.int32)
        return _splat(builder, narrow, _LANES)

    return _INTEGERS(number), generate


def _binary(name: str, doc: str) -> Any:
    """Lane by lane, through an instruction of LLVM."""

    def typed(typing_context, a, b):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return getattr(builder, name)(*arguments)

        return a(a, b), generate

    typed.__doc__ = doc
    return intrinsic(typed)


add_integers = _binary("add", "a + b.")
multiply_integers = _binary("mul", "a b.")
xor_integers = _binary("xor", "a ^ b.")
and_integers = _binary("and_", "a & b.")
shift_right = _binary("lshr", "a >> b, with zeros from the left.")
