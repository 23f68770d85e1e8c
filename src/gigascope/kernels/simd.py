"""Vectors of 64 bytes as values inside numba functions: loads, stores and arithmetic that are SIMD by construction.

The loop vectoriser of LLVM gives up on loops that write arrays it cannot prove distinct from those they read, which is
every in-place step; here the vector is a type, so nothing has to be proved. LLVM splits the vectors where those of the
processor are shorter. A partial vector reads and writes its first lanes only.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

VECTOR_BYTES = 64

_INT32 = ir.IntType(32)


class Vector(types.Type):
    """Numba type of a vector of float32 or float64."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, _llvm(fe_type))


def _llvm(vector: Vector) -> ir.VectorType:
    scalar = ir.FloatType() if vector.dtype == types.float32 else ir.DoubleType()
    return ir.VectorType(scalar, vector.lanes)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: Vector) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _llvm(vector).as_pointer())


def _lanes_below(builder: Any, vector: Vector, count: Any) -> Any:
    """Mask of the lanes with an index below `count`."""
    indices = ir.Constant(ir.VectorType(_INT32, vector.lanes), list(range(vector.lanes)))
    return builder.icmp_signed("<", indices, _splat(builder, builder.trunc(count, _INT32), vector.lanes))


def _splat(builder: Any, scalar: Any, lanes: int) -> Any:
    vector_type = ir.VectorType(scalar.type, lanes)
    undefined = ir.Constant(vector_type, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes))


def _suffix(vector: Vector) -> str:
    return f"v{vector.lanes}f{vector.dtype.bitwidth}"


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)


@intrinsic
def lanes_of(typing_context, array):  # type: ignore[no-untyped-def]
    """Lanes of the vectors of an array's dtype, a constant."""
    lanes = Vector(array.dtype).lanes

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return context.get_constant(types.intp, lanes)

    return types.intp(array), generate


@intrinsic
def load(typing_context, array, index):  # type: ignore[no-untyped-def]
    """Vector that starts at a flat index of a contiguous array."""
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1], vector)
        return builder.load(pointer, align=vector.dtype.bitwidth // 8)

    return vector(array, types.intp), generate


@intrinsic
def load_part(typing_context, array, index, count):  # type: ignore[no-untyped-def]
    """The first `count` lanes from a flat index of a contiguous array, the others 0."""
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1], vector)
        mask = _lanes_below(builder, vector, arguments[2])
        zero = ir.Constant(_llvm(vector), None)
        align = ir.Constant(_INT32, vector.dtype.bitwidth // 8)
        name = f"llvm.masked.load.{_suffix(vector)}.p0"
        return _call(builder, name, _llvm(vector), [pointer, align, mask, zero])

    return vector(array, types.intp, types.intp), generate


@intrinsic
def store(typing_context, array, index, value):  # type: ignore[no-untyped-def]
    """Write a vector at a flat index of a contiguous array."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = signature.args[2]
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1], vector)
        builder.store(arguments[2], pointer, align=vector.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def store_part(typing_context, array, index, value, count):  # type: ignore[no-untyped-def]
    """Write the first `count` lanes of a vector at a flat index of a contiguous array."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = signature.args[2]
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1], vector)
        mask = _lanes_below(builder, vector, arguments[3])
        align = ir.Constant(_INT32, vector.dtype.bitwidth // 8)
        name = f"llvm.masked.store.{_suffix(vector)}.p0"
        _call(builder, name, ir.VoidType(), [arguments[2], pointer, align, mask])
        return context.get_dummy_value()

    return types.void(array, types.intp, value, types.intp), generate


@intrinsic
def splat(typing_context, scalar):  # type: ignore[no-untyped-def]
    """Vector with the same number in every lane."""
    vector = Vector(scalar)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _splat(builder, arguments[0], vector.lanes)

    return vector(scalar), generate


@intrinsic
def fma(typing_context, a, b, c):  # type: ignore[no-untyped-def]
    """a b + c with one rounding, the same in full and partial vectors."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _call(builder, f"llvm.fma.{_suffix(signature.return_type)}", arguments[0].type, list(arguments))

    return c(a, b, c), generate


@intrinsic
def subtract(typing_context, a, b):  # type: ignore[no-untyped-def]
    """a - b."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.fsub(*arguments)

    return a(a, b), generate


@intrinsic
def multiply(typing_context, a, b):  # type: ignore[no-untyped-def]
    """a b."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.fmul(*arguments)

    return a(a, b), generate


@intrinsic
def divide(typing_context, a, b):  # type: ignore[no-untyped-def]
    """a / b."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.fdiv(*arguments)

    return a(a, b), generate


@intrinsic
def root(typing_context, a):  # type: ignore[no-untyped-def]
    """Square root."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _call(builder, f"llvm.sqrt.{_suffix(signature.return_type)}", arguments[0].type, list(arguments))

    return a(a), generate


@intrinsic
def larger(typing_context, a, b):  # type: ignore[no-untyped-def]
    """Larger of the two; b where a is not a number."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return a(a, b), generate


@intrinsic
def first_lanes(typing_context, a, count):  # type: ignore[no-untyped-def]
    """The first `count` lanes of a vector, the others 0."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        mask = _lanes_below(builder, signature.return_type, arguments[1])
        return builder.select(mask, arguments[0], ir.Constant(arguments[0].type, None))

    return a(a, types.intp), generate
