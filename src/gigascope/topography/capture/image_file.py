"""One picture of a focus stack: PNG, JPEG or TIFF, grey or colour, turned upright as its EXIF orientation says."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.readers.tiff_file import SUFFIXES as TIFF_SUFFIXES
from gigascope.store.readers.tiff_file import guarded, open_file

PNG, JPEG = {".png"}, {".jpg", ".jpeg"}
SUFFIXES = PNG | JPEG | TIFF_SUFFIXES
_ORIENTATION = 0x0112
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
_GREY_OR_RGB = "Save it as grey or RGB with 8 or 16 bits."

# EXIF 2.32, tag 274: what has to be done to rows and columns as they are stored so that the picture stands upright.
_UPRIGHT: dict[int, Callable[[NDArray], NDArray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@dataclass(frozen=True)
class ImageHeader:
    """What a picture is, without its pixels.

    Attributes
    ----------
    rows, cols : upright
    colours : 1 or 3; transparency does not count
    dtype : uint8 or uint16
    orientation : EXIF's, 1 where the file does not say
    """

    rows: int
    cols: int
    colours: int
    dtype: np.dtype
    orientation: int = 1

    def __str__(self) -> str:
        kind = "colour" if self.colours == 3 else "grey"
        return f"{self.cols} x {self.rows} {kind}, {8 * self.dtype.itemsize} bits"


def read_header(path: Path, key: str) -> ImageHeader:
    """Header of a picture.

    Parameters
    ----------
    key : of the config that names the file, for messages

    Raises
    ------
    UserError : no such picture, damaged, or not grey or RGB with 8 or 16 bits
    """
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        return _tiff_header(path, key)
    if suffix in PNG:
        width, height, channels, bits, orientation = _png_header(path, key)
    else:
        width, height, channels, bits, orientation = _jpeg_header(path, key)
    orientation = orientation if orientation in _UPRIGHT else 1
    rows, cols = (width, height) if orientation >= 5 else (height, width)
    dtype = np.dtype(np.uint16 if bits == 16 else np.uint8)
    return ImageHeader(rows, cols, 3 if channels >= 3 else 1, dtype, orientation)


def read_image(path: Path, header: ImageHeader, key: str) -> NDArray:
    """Pixels of a picture, upright: (rows, cols), or (rows, cols, 3).

    Raises
    ------
    UserError : truncated or damaged, or not what its header said before
    """
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        with open_file(path, key) as tiff:
            pixels = guarded(lambda _: tiff.series[0].asarray(), None, path)
        pixels = _pixels_last(pixels.squeeze())
    else:
        pixels = _decode(path, suffix)
    if pixels.ndim == 3:
        pixels = pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3]
    pixels = _UPRIGHT[header.orientation](pixels)
    wanted = (header.rows, header.cols, 3) if header.colours == 3 else (header.rows, header.cols)
    if pixels.shape != wanted or pixels.dtype.newbyteorder("=") != header.dtype:
        raise UserError(f"changed while it was used: it is {pixels.shape} {pixels.dtype} now.", where=path)
    return np.ascontiguousarray(pixels, header.dtype)


def _decode(path: Path, suffix: str) -> NDArray:
    import imagecodecs

    try:
        if suffix in PNG:
            return np.asarray(imagecodecs.png_decode(path.read_bytes()))
        from PIL import Image

        # Pillow says so where a JPEG ends too early, libjpeg alone fills up with grey
        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, ValueError, RuntimeError, SyntaxError) as error:
        raise UserError(f"cannot be decoded ({error}).", where=path, do="Copy the file again.") from None


def _jpeg_header(path: Path, key: str) -> tuple[int, int, int, int, int]:
    """Width, height, channels, bits, orientation."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            orientation = int(image.getexif().get(_ORIENTATION, 1))
            width, height, mode = image.width, image.height, image.mode
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise _unreadable(path, key, getattr(error, "strerror", None)) from None
    if mode not in ("L", "RGB"):
        raise UserError(f"holds {mode} pixels.", where=path, do=_GREY_OR_RGB)
    return width, height, 1 if mode == "L" else 3, 8, orientation


def _png_header(path: Path, key: str) -> tuple[int, int, int, int, int]:
    """Width, height, channels, bits, orientation of a PNG (PNG specification, 5.3, 11.2.2, 11.3.3).

    Pillow would decode all of it to look for an orientation, and takes 16-bit colour for 8 bits.
    """
    from PIL import Image

    kind, orientation = None, 1
    try:
        with path.open("rb") as file:
            if file.read(8) != _PNG_SIGNATURE:
                raise _unreadable(path, key, None)
            while True:
                head = file.read(8)
                if len(head) < 8:
                    raise UserError("is cut short.", where=path, do="Copy the file again.")
                length, name = struct.unpack(">I4s", head)
                if name == b"IHDR":
                    kind = struct.unpack(">IIBB", file.read(length)[:10])
                elif name == b"eXIf":
                    exif = Image.Exif()
                    exif.load(b"Exif\0\0" + file.read(length))
                    orientation = int(exif.get(_ORIENTATION, 1))
                else:
                    file.seek(length, 1)
                file.seek(4, 1)
                if name == b"IEND":
                    break
    except (OSError, struct.error, ValueError, SyntaxError) as error:
        raise _unreadable(path, key, getattr(error, "strerror", None)) from None
    if kind is None:
        raise _unreadable(path, key, None)
    width, height, bits, colours = kind
    if colours not in _PNG_CHANNELS or bits not in (8, 16):
        words = "a palette" if colours == 3 else f"{bits} bits"
        raise UserError(f"holds pixels of {words}.", where=path, do=_GREY_OR_RGB)
    return width, height, _PNG_CHANNELS[colours], bits, orientation


def _unreadable(path: Path, key: str, reason: str | None) -> UserError:
    what = f"cannot be read ({reason or 'not a picture, or damaged'})."
    return UserError(what, where=path, do=f"Copy it again, or check {key}.")


def _tiff_header(path: Path, key: str) -> ImageHeader:
    with open_file(path, key) as tiff:
        series = tiff.series[0]
        shape = tuple(int(n) for n in series.get_shape(True))
        tag = series.pages[0].tags.get(_ORIENTATION)
        orientation = int(tag.value) if tag is not None and int(tag.value) in _UPRIGHT else 1
    dtype = np.dtype(series.dtype).newbyteorder("=")
    if dtype not in (np.uint8, np.uint16):
        raise UserError(f"holds {dtype} pixels.", where=path, do=_GREY_OR_RGB)
    if len(shape) == 3 and shape[0] in (3, 4) and shape[2] not in (3, 4):
        shape = (*shape[1:], shape[0])
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (3, 4)):
        words = " x ".join(map(str, shape))
        raise UserError(
            f"is no single picture: it holds {words} values.", where=path, do="Use inputs.stacks for stacks."
        )
    rows, cols = shape[:2] if orientation < 5 else (shape[1], shape[0])
    return ImageHeader(rows, cols, 3 if len(shape) == 3 else 1, dtype, orientation)


def _pixels_last(pixels: NDArray) -> NDArray:
    """Colour as the last axis, where the file keeps its planes apart."""
    if pixels.ndim == 3 and pixels.shape[0] in (3, 4) and pixels.shape[2] not in (3, 4):
        return np.moveaxis(pixels, 0, -1)
    return pixels
