"""The residual layer: what a mixture leaves of a volume, quantised so that a bound holds or a PSNR is met.

With the prediction p of :mod:`.integer_decoder` and r = V - p, a brick stores ``q = round(r / (2 e + 1))`` and decodes
``p + q (2 e + 1)``, which is within e of V for integers; e = 0 is lossless. Without a bound a step with a dead zone
takes its place, and levels that cost more bits than they are worth are left out. Bricks are coded one by one.

A brick is a byte of format and flags, a checksum of its code and of the voxels it decodes to (a decoder that predicts
something else is caught by it), 13 weights if :mod:`.residual_mean` found any, and the range coder's bytes.
"""

from __future__ import annotations

import dataclasses
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.compression.correction import residual_mean, residual_tables
from gigascope.compression.correction.residual_coder import (
    BLOCK,
    NEIGHBOURS,
    VOXEL_BYTES,
    WRITER,
    Brick,
    Quantiser,
    code,
    finish,
    reader,
)
from gigascope.compression.noise import NoiseModel
from gigascope.errors import ShapeError, UserError

I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]

FORMAT = 1
DTYPES = ("uint8", "int8", "uint16", "int16")
DEAD_ZONE = 0.6
# At high rate a bit buys 6 dB: dD = -2 ln 2 D dR with D = step^2 / 12.
WEIGHT_PER_STEP_SQUARED = math.log(2) / 6

_ZERO, _FLAGS, _MEAN = 1, 2, 4
_HEAD = struct.Struct("<BI")
_N_WEIGHTS = len(NEIGHBOURS)
# The share of empty blocks below which flags do not pay and the mean of the neighbours may.
_FEW_EMPTY = 0.01


@dataclass(frozen=True)
class ResidualSettings:
    """How residuals are quantised, and what noise is expected; the decoder needs all but `dead_zone` and `weight`.

    Attributes
    ----------
    dtype : uint8, int8, uint16 or int16
    noise : of the frame, grey values
    bound : largest error of any voxel, grey values; 0: lossless
    step : of the quantiser instead of a bound, grey values
    dead_zone : residuals below this many steps become 0
    weight : squared grey values that one bit is worth; none: what fits the step
    """

    dtype: str
    noise: NoiseModel
    bound: int | None = None
    step: int | None = None
    dead_zone: float = DEAD_ZONE
    weight: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", np.dtype(self.dtype).name)
        if self.dtype not in DTYPES:
            raise UserError(
                f"a residual layer holds integers of 8 or 16 bits, not {self.dtype}",
                do="Leave max_error out for this volume, or convert it to one of " + ", ".join(DTYPES) + ".",
            )
        if (self.bound is None) == (self.step is None):
            raise UserError("a residual layer has either a bound or a step", do="Give one of the two.")
        span = int(np.iinfo(self.dtype).max) - int(np.iinfo(self.dtype).min)
        if self.bound is not None and not 0 <= self.bound <= span:
            raise UserError(f"a bound of {self.bound} grey values is not within 0 to {span}, the range of {self.dtype}")
        if self.step is not None and not 1 <= self.step <= 2 * span + 1:
            raise UserError(f"a step of {self.step} grey values is not within 1 to {2 * span + 1}")
        if not 0.5 <= self.dead_zone <= 1:
            raise UserError(f"a dead zone of {self.dead_zone} steps is not within 0.5 to 1")

    @property
    def spacing(self) -> int:
        """Grey values between two levels."""
        return 2 * self.bound + 1 if self.bound is not None else int(self.step or 1)

    @property
    def rounding(self) -> int:
        """What is added to a residual's magnitude before the division by the spacing."""
        if self.bound is not None:
            return self.bound
        return self.spacing - max(1, math.ceil(self.dead_zone * self.spacing))

    @property
    def bit_weight(self) -> float:
        """Squared grey values that one bit is worth; 0 with a bound."""
        if self.bound is not None:
            return 0.0
        return WEIGHT_PER_STEP_SQUARED * self.spacing**2 if self.weight is None else self.weight

    def to_attributes(self) -> dict[str, Any]:
        """As JSON holds it, without type and noise of the frame: they have places of their own in a file."""
        fields = dataclasses.asdict(self)
        del fields["dtype"], fields["noise"]
        return {"format": FORMAT} | {name: value for name, value in fields.items() if value is not None}

    @staticmethod
    def from_attributes(attributes: Mapping[str, Any], dtype: str, noise: NoiseModel) -> ResidualSettings:
        """Inverse of :meth:`to_attributes`.

        Raises
        ------
        UserError : attributes of another format, or not of a residual layer
        """
        fields = dict(attributes)
        if fields.pop("format", None) != FORMAT:
            raise UserError(
                f"the residual layer has format {attributes.get('format')}, this gigascope reads {FORMAT}",
                do="Decode the file with the version that wrote it.",
            )
        try:
            return ResidualSettings(dtype, noise, **fields)
        except TypeError as error:
            raise UserError(f"the residual layer's attributes are incomplete or altered: {error}") from None


def encode_residual(
    values: NDArray,
    prediction: NDArray,
    *,
    noise: NoiseModel,
    bound: int | None = None,
    step: int | None = None,
    dead_zone: float = DEAD_ZONE,
    weight: float | None = None,
) -> tuple[bytes, ResidualSettings]:
    """Encode one array as one brick; see :class:`ResidualSettings` and :func:`encode_brick`."""
    settings = ResidualSettings(np.dtype(values.dtype).name, noise, bound, step, dead_zone, weight)
    return encode_brick(values, prediction, settings), settings


def encode_brick(values: NDArray, prediction: NDArray, settings: ResidualSettings) -> bytes:
    """Code what the prediction of a brick leaves.

    Parameters
    ----------
    values : (z, y, x) of the settings' dtype
    prediction : (z, y, x) integers within the range of that dtype
    settings : bound or step, and noise

    Returns
    -------
    bytes : every machine decodes them to the same voxels; equal input gives equal bytes on one machine

    Raises
    ------
    UserError : values of another dtype
    ShapeError : shapes differ, or a prediction out of range
    """
    if values.dtype != settings.dtype:
        raise UserError(f"the residual layer is for {settings.dtype}, the brick holds {values.dtype}")
    prediction = _checked(prediction, settings)
    if values.shape != prediction.shape:
        raise ShapeError(f"values are {values.shape}, their prediction {prediction.shape}")
    residual = values.astype(np.int32) - prediction
    flags = _blocks_in_use(residual, settings)
    if not flags.any():
        return _packed(_ZERO, b"", prediction.astype(settings.dtype))
    classes = _classes(prediction, settings)
    mean = None
    if settings.bit_weight == 0 and flags.mean() > 1 - _FEW_EMPTY:
        mean = residual_mean.weights(residual, classes)
    if settings.bit_weight > 0:
        # how much each block is worth is known only once it has been coded
        flags = (_encoded(residual, classes, flags, None, settings)[1] > 0).astype(np.uint8)
        if not flags.any():
            return _packed(_ZERO, b"", prediction.astype(settings.dtype))
    payload, _, decoded = _encoded(residual, classes, flags if mean is None else np.ones_like(flags), mean, settings)
    if mean is None:
        return _packed(_FLAGS, payload, _clipped(prediction + decoded, settings))
    return _packed(_MEAN, mean.astype("<i2").tobytes() + payload, _clipped(prediction + decoded, settings))


def decode_brick(data: bytes, prediction: NDArray, settings: ResidualSettings) -> NDArray:
    """Values of a brick, from its prediction and its code.

    Parameters
    ----------
    data : of :func:`encode_brick`
    prediction : (z, y, x), the same integers as in the encoder
    settings : the same as in the encoder

    Returns
    -------
    (z, y, x) of the settings' dtype

    Raises
    ------
    UserError : bytes that were cut off or altered, or a prediction that is not the encoder's
    ShapeError : a prediction out of range
    """
    prediction = _checked(prediction, settings)
    if len(data) < _HEAD.size:
        raise _damaged(f"{len(data)} bytes are too few")
    kind, checksum = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    if kind >> 4 != FORMAT or kind & 15 not in (_ZERO, _FLAGS, _MEAN):
        raise _damaged(f"it begins with {kind}")
    mean, payload = None, body
    if kind & _MEAN:
        if len(body) < 2 * _N_WEIGHTS:
            raise _damaged("its weights are cut off")
        mean, payload = np.frombuffer(body, "<i2", _N_WEIGHTS).astype(np.int64), body[2 * _N_WEIGHTS :]
    values = prediction.astype(settings.dtype)
    if not kind & _ZERO:
        values = _clipped(prediction + _decoded(payload, prediction, mean, settings), settings)
    if _checksum(body, values) != checksum:
        raise _damaged("its checksum does not fit")
    return values


def step_for(residual: NDArray, mean_square: float, dead_zone: float = DEAD_ZONE) -> int:
    """Largest step whose mean squared error, before levels are left out, is at most that.

    Parameters
    ----------
    residual : integers, volume minus prediction; a sample will do
    mean_square : squared grey values, the target

    Returns
    -------
    int : 1 where no step meets it
    """
    size, count = np.unique(np.abs(residual.astype(np.int64)), return_counts=True)

    def error(step: int) -> float:
        rounding = step - max(1, math.ceil(dead_zone * step))
        left = size - (size + rounding) // step * step
        return float((count * left**2).sum() / count.sum())

    low, high = 1, 2 * int(size[-1]) + 2
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if error(middle) <= mean_square else (low, middle - 1)
    return low


def settings_for(
    values: NDArray, prediction: NDArray, noise: NoiseModel, mean_square: float, dead_zone: float = DEAD_ZONE
) -> ResidualSettings:
    """Settings whose mean squared error, with levels left out, is at most that; coarsest step but for a few percent.

    Parameters
    ----------
    values, prediction : (z, y, x) of a brick that stands for all, see :func:`encode_brick`
    noise : of the volume
    mean_square : squared grey values, the target, above 0
    """
    step = step_for(values.astype(np.int64) - prediction, mean_square, dead_zone)
    while True:
        data, settings = encode_residual(values, prediction, noise=noise, step=step, dead_zone=dead_zone)
        error = values.astype(np.float64) - decode_brick(data, prediction, settings)
        found = float(np.square(error).mean())
        if found <= mean_square or step == 1:
            return settings
        # error grows a little less than with the square of the step, so this undershoots by little and ends
        step = max(1, min(step - 1, int(step * math.sqrt(mean_square / found))))


def _encoded(
    residual: I32, classes: U8, flags: U8, mean: NDArray[np.int64] | None, settings: ResidualSettings
) -> tuple[bytes, NDArray[np.float64], I32]:
    """Code, what every block was worth, and the residual as it will be decoded."""
    flags, weighted = flags.copy(), settings.bit_weight > 0
    bits = -np.log2((np.arange(4096) + 0.5) / 4096) if weighted else np.zeros(0)
    worth = np.zeros(flags.shape)
    quantiser = Quantiser(settings.spacing, settings.rounding, settings.bit_weight, bits, worth)
    room = 2 * residual.size + 2 * VOXEL_BYTES * residual.shape[2] + 4096
    while True:
        worth[:] = 0
        brick = _brick(residual, classes, flags, mean)
        data = np.zeros(room, np.uint8)
        coder = code(WRITER, data, residual_tables.fresh_model(), brick, quantiser)
        if coder[1]:
            break
        room *= 4
    decoded = brick.levels[1:, 1:-1, 1:-1] * settings.spacing
    if mean is not None:
        decoded = brick.coded[1:, 1:-1, 1:-1]
    return data[: finish(coder, data)].tobytes(), worth, decoded


def _decoded(payload: bytes, prediction: I32, mean: NDArray[np.int64] | None, settings: ResidualSettings) -> I32:
    """Residual from its code."""
    residual = np.zeros(prediction.shape, np.int32)
    z, y, x = prediction.shape
    flags = np.ones((-(-z // BLOCK), -(-y // BLOCK), -(-x // BLOCK)), np.uint8)
    brick = _brick(residual, _classes(prediction, settings), flags, mean)
    data = np.frombuffer(payload + b"\0", np.uint8).copy()
    quantiser = Quantiser(settings.spacing, settings.rounding, 0.0, np.zeros(0), np.zeros((0, 0, 0)))
    _, _, read, _ = code(reader(payload), data, residual_tables.fresh_model(), brick, quantiser)
    if len(payload) > read:
        raise _damaged(f"{len(payload) - read} bytes are left over")
    return residual


def _blocks_in_use(residual: I32, settings: ResidualSettings) -> U8:
    """1 where a block of 8^3 has a level other than zero, (z, y, x) / 8."""
    largest = np.abs(residual)
    for axis in range(3):
        largest = np.maximum.reduceat(largest, range(0, residual.shape[axis], BLOCK), axis=axis)
    return (largest > settings.spacing - settings.rounding - 1).astype(np.uint8)


def _classes(prediction: I32, settings: ResidualSettings) -> U8:
    """Expected spread of each voxel, in quarter octaves of a step."""
    limits = np.iinfo(settings.dtype)
    sd = np.sqrt(settings.noise.variance(np.arange(limits.min, limits.max + 1, dtype=np.float64)))
    return residual_tables.classes_of(sd / settings.spacing)[prediction - int(limits.min)]


def _brick(residual: I32, classes: U8, flags: U8, mean: NDArray[np.int64] | None) -> Brick:
    """Arrays of the coder, nothing coded yet."""
    z, y, x = residual.shape
    levels = np.zeros((z + 1, y + 2, x + 2), np.int32)
    coded = np.zeros_like(levels) if mean is not None else np.zeros((0, 0, 0), np.int32)
    weights = np.zeros(0, np.int64) if mean is None else mean
    tables = residual_tables.contexts(), residual_tables.shifts()
    return Brick(residual, classes, flags, levels, coded, weights, np.zeros((3, x), np.int64), *tables)


def _clipped(values: I32, settings: ResidualSettings) -> NDArray:
    """Within the dtype: a value beyond its end is further from the original than the end is."""
    limits = np.iinfo(settings.dtype)
    return np.clip(values, int(limits.min), int(limits.max)).astype(settings.dtype)


def _checked(prediction: NDArray, settings: ResidualSettings) -> I32:
    limits = np.iinfo(settings.dtype)
    if prediction.ndim != 3 or prediction.dtype.kind not in "iu" or not prediction.size:
        raise ShapeError(f"a prediction is (z, y, x) integers, not {prediction.shape} {prediction.dtype}")
    low, high = int(prediction.min()), int(prediction.max())
    if low < limits.min or high > limits.max:
        raise ShapeError(f"a prediction of {low} to {high} is not within {settings.dtype}")
    return np.ascontiguousarray(prediction, np.int32)


def _packed(kind: int, body: bytes, values: NDArray) -> bytes:
    return _HEAD.pack(FORMAT << 4 | kind, _checksum(body, values)) + body


def _checksum(body: bytes, values: NDArray) -> int:
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return zlib.crc32(little.data, zlib.crc32(body))


def _damaged(what: str) -> UserError:
    return UserError(
        f"a brick of the residual layer cannot be decoded: {what}",
        do="The file was altered, or its Gaussians are not those it was written with: use an intact copy.",
    )
