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


@intrinsic
def splat_like(typing_context, array, number):  # type: ignore[no-untyped-def]
    """Vector of the array's dtype with `number` (float64) in every lane."""
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        scalar = context.cast(builder, arguments[1], types.float64, vector.dtype)
        return _splat(builder, scalar, vector.lanes)

    return vector(array, types.float64), generate


@intrinsic
def lane_numbers(typing_context, array):  # type: ignore[no-untyped-def]
    """Vector 0, 1, 2, ... of the array's dtype."""
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return ir.Constant(_llvm(vector), [float(lane) for lane in range(vector.lanes)])

    return vector(array), generate


@intrinsic
def add(typing_context, a, b):  # type: ignore[no-untyped-def]
    """a + b."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.fadd(*arguments)

    return a(a, b), generate


@intrinsic
def subtract_product(typing_context, a, b, c):  # type: ignore[no-untyped-def]
    """c - a b with one rounding."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        negative = builder.fneg(arguments[0])
        name = f"llvm.fma.{_suffix(signature.return_type)}"
        return _call(builder, name, negative.type, [negative, *arguments[1:]])

    return c(a, b, c), generate


@intrinsic
def total(typing_context, a):  # type: ignore[no-untyped-def]
    """Sum of the lanes, halves upon halves: always in the same order."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        value, lanes = arguments[0], signature.args[0].lanes
        while lanes > 1:
            lanes //= 2
            parts = []
            for first in (0, lanes):
                indices = ir.Constant(ir.VectorType(_INT32, lanes), list(range(first, first + lanes)))
                parts.append(builder.shuffle_vector(value, value, indices))
            value = builder.fadd(*parts)
        return builder.extract_element(value, ir.Constant(_INT32, 0))

    return a.dtype(a), generate


@intrinsic
def zero_from(typing_context, a, end, value):  # type: ignore[no-untyped-def]
    """0 in the lanes where a >= end, else those of `value`."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        beyond = builder.fcmp_ordered(">=", arguments[0], arguments[1])
        return builder.select(beyond, ir.Constant(arguments[2].type, None), arguments[2])

    return value(a, end, value), generate


# minimax polynomials of 2^f on [-1/2, 1/2], in the relative error (Remez): 7.5e-8 and 3.1e-18 before rounding
_EXP2 = {
    32: (1.0000000716495645, 0.6931469670484279, 0.24022119729050578, 0.055507132773533266, 0.009675541293247585,
         0.00132764736322181),
    64: (1.0, 0.6931471805599453, 0.24022650695910155, 0.055504108664819925, 0.009618129107588335,
         0.0013333558146789994, 0.0001540353046251426, 1.525273348992543e-05, 1.321543308959782e-06,
         1.0178198045153187e-07, 7.0741056456513295e-09, 4.4352795678376004e-10),
}  # fmt: skip


@intrinsic
def exp2(typing_context, a):  # type: ignore[no-untyped-def]
    """2^a for a between -126 and 127, no test of the range; 2e-7 relative in float32, 3e-16 in float64."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = signature.return_type
        bits = vector.dtype.bitwidth
        integers = ir.VectorType(ir.IntType(bits), vector.lanes)
        nearest = _call(builder, f"llvm.rint.{_suffix(vector)}", arguments[0].type, [arguments[0]])
        fraction = builder.fsub(arguments[0], nearest)
        coefficients = [ir.Constant(_llvm(vector), [c] * vector.lanes) for c in reversed(_EXP2[bits])]
        value = coefficients[0]
        for coefficient in coefficients[1:]:
            value = _call(builder, f"llvm.fma.{_suffix(vector)}", value.type, [value, fraction, coefficient])
        shift = ir.Constant(integers, [23 if bits == 32 else 52] * vector.lanes)
        exponent = builder.shl(builder.fptosi(nearest, integers), shift)
        return builder.bitcast(builder.add(builder.bitcast(value, integers), exponent), _llvm(vector))

    return a(a), generate


@intrinsic
def take_number(typing_context, counter):  # type: ignore[no-untyped-def]
    """Next number of the first element of an int64 array that several threads share: each is given out once."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), generate


def _unary(name: str, doc: str) -> Any:
    """Lane by lane through an intrinsic function of LLVM."""

    def typed(typing_context, a):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return _call(builder, f"llvm.{name}.{_suffix(signature.return_type)}", arguments[0].type, [arguments[0]])

        return a(a), generate

    typed.__doc__ = doc
    return intrinsic(typed)


down = _unary("floor", "Largest whole number not above a.")
up = _unary("ceil", "Smallest whole number not below a.")


@intrinsic
def smaller(typing_context, a, b):  # type: ignore[no-untyped-def]
    """Smaller of the two; b where a is not a number."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.select(builder.fcmp_ordered("<", *arguments), *arguments)

    return a(a, b), generate
