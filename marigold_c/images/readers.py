"""Files of images as arrays (H, W, 3). Files are untrusted: sizes are checked before anything is decoded.

Called by files.py and datasets/decoding.py. Pillow reads the ordinary formats and 16-bit PNG; tifffile (extra `tiff`)
the TIFFs that Pillow would refuse or cut to 8 bits; OpenEXR (extra `exr`) and imagecodecs (extra `hdr`) linear values;
pi_heif (extra `heic`) HEIC.
"""

from __future__ import annotations

import io
import math
import re
import threading
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from ..extras import MissingExtra, optional_module
from . import png16
from .arrays import array_of_pil, upright
from .tone_mapping import TONE_MAPS, tone_map

# What Pillow may decode, where it was built with it; other formats run programs (EPS) or are no photographs.
_PHOTOGRAPHS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "AVIF", "JPEG2000", "TGA")
_EXR_MAGIC = b"\x76\x2f\x31\x01"
_HDR_MAGICS = (b"#?RADIANCE", b"#?RGBE")
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLES = 258, 262, 277
_WHITE_IS_ZERO, _GREY_OR_RGB = 0, (0, 1, 2)
_ORIENTATION = 0x0112
_EXIF, _FOCAL_LENGTH_IN_35MM_FILM = 0x8769, 0xA405
_FILM_WIDTH = 36.0  # millimetres


# Every photograph of today's phones (200 megapixels) and no bomb: as much memory as 1 GiB of pixels of 8 bits takes.
LARGEST_PIXELS = 2**28
_ANIMATIONS = ("GIF", "WEBP", "PNG", "AVIF")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis")  # ISO/IEC 23008-12
# Endings of files that are read, for folders, patterns and archives.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".exr", ".hdr", ".avif", ".heic", ".heif"),
    *(".jp2", ".j2k", ".jpx", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
)


@dataclass(frozen=True)
class _Call:
    """What one call of decode_image asks for. say: takes a line about what is left out of the file."""

    max_pixels: int = LARGEST_PIXELS
    say: Callable[[str], None] | None = None


_DEFAULT = _Call()
_CALL: ContextVar[_Call] = ContextVar("_CALL", default=_DEFAULT)
_PILLOWS_LIMIT = threading.Lock()


class InputError(ValueError):
    """An input cannot be read; the message does not name it."""


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise InputError(f"cannot be read as an image: its size is {width} x {height}")
    if width * height > _CALL.get().max_pixels:
        raise InputError(
            f"the image is too large: {width} x {height} are {width * height} pixels, the limit is "
            f"{_CALL.get().max_pixels}; --max-pixels (in Python max_pixels) raises it"
        )


def _colours(pixels: NDArray[Any]) -> NDArray[Any]:
    """(H, W) or (H, W, C) as (H, W, 3) of uint8, uint16 or float32; transparency is dropped."""
    if pixels.dtype.kind not in "uf":
        raise InputError(f"values of type {pixels.dtype} are not supported")
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize > 2:
        pixels = (pixels / np.iinfo(pixels.dtype).max).astype(np.float32)
    elif pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] < 3:
        pixels = np.repeat(pixels[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3])


def _turned(pixels: NDArray[Any], orientation: Any) -> NDArray[Any]:
    """The picture upright; `orientation` is the value of the tag in EXIF and TIFF."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


@cache
def _pillow_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _PHOTOGRAPHS if name in Image.OPEN)


def _open(data: bytes, formats: tuple[str, ...]) -> ImageFile.ImageFile:
    """Image.open with the limit of this call in the place of Pillow's, which photographs of phones exceed."""
    with _PILLOWS_LIMIT:
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = theirs
    _check_size(*image.size)
    return image


def _say_first_frame(image: Image.Image) -> None:
    say = _CALL.get().say
    if say is not None and image.format in _ANIMATIONS and getattr(image, "is_animated", False):
        say(f"an animation of {getattr(image, 'n_frames', 0)} frames: its first is taken")


def _is_heic(data: bytes) -> bool:
    """By the major and the compatible brands of an ISO base media file; AVIF, which has others, is Pillow's."""
    length = int.from_bytes(data[:4], "big")
    brands = data[8 : min(length, 256)]
    named = [brands[at : at + 4] for at in range(0, len(brands), 4) if at != 4]  # 4: the minor version
    return data[4:8] == b"ftyp" and any(brand in _HEIC_BRANDS for brand in named)


def _read_heic(data: bytes) -> NDArray[Any]:
    optional_module("pi_heif", "reading HEIC").register_heif_opener()
    return _read_with_pillow(data, ("HEIF",))


def _read_with_pillow(data: bytes, formats: tuple[str, ...] | None = None) -> NDArray[Any]:
    with _open(data, formats or _pillow_formats()) as image:
        _say_first_frame(image)
        image.load()
        return _colours(array_of_pil(upright(image)))


def _join_16bit_png(data: bytes) -> tuple[NDArray[Any] | None, Any]:
    """The pixels as they are stored, None where Pillow decodes otherwise than png16.py expects; and the orientation."""
    with _open(data, ("PNG",)) as image:
        high = np.asarray(image)
        orientation = image.getexif().get(_ORIENTATION)
    with _open(data, ("PNG",)) as image:
        low = png16.decode_low_bytes(image)
    if low is None or high.dtype != np.uint8:
        return None, orientation
    return png16.join_bytes(high[:, :, :3], low), orientation


def _read_16bit_png(data: bytes) -> NDArray[Any]:
    pixels, orientation = _join_16bit_png(data)
    return _read_with_pillow(data) if pixels is None else _turned(pixels, orientation)


def _read_stored(data: bytes) -> NDArray[Any]:
    if data.startswith(_EXR_MAGIC):
        return _read_exr(data)
    if png16.is_png(data):
        with _open(data, ("PNG",)) as image:
            image.verify()  # the checksums of all chunks, which decoding does not look at
        if png16.is_16bit_colour(data):
            pixels, _ = _join_16bit_png(data)
            if pixels is not None:
                return pixels
    with _open(data, _pillow_formats()) as image:
        image.load()
        return array_of_pil(image)


def _pillow_keeps_all(data: bytes) -> bool:
    """Whether Pillow reads this TIFF without loss; of other colour spaces than RGB nothing reads more."""
    try:
        with _open(data, ("TIFF",)) as image:
            tags: Any = getattr(image, "tag_v2", {})
            photometric = tags.get(_TIFF_PHOTOMETRIC)
            if max(tags.get(_TIFF_BITS, (1,))) <= 8 or photometric not in _GREY_OR_RGB:
                return True
            # Of more than 8 bits Pillow does not invert white-is-zero.
            return bool(tags.get(_TIFF_SAMPLES, 1) == 1 and photometric != _WHITE_IS_ZERO)
    except (OSError, SyntaxError):
        return False


def _read_tiff(data: bytes, method: str) -> NDArray[Any]:
    """The first page. Floating-point values are taken as display-referred unless a tone map is asked for."""
    pixels = _read_with_pillow(data) if _pillow_keeps_all(data) else _read_with_tifffile(data)
    if pixels.dtype == np.float32 and method != "auto":
        return tone_map(pixels, method)
    return pixels


def _read_with_tifffile(data: bytes) -> NDArray[Any]:
    tifffile = optional_module("tifffile", "reading this TIFF")
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages[0]
        _check_size(page.imagewidth, page.imagelength)
        if page.imagedepth != 1 or not 1 <= page.samplesperpixel <= 8 or page.photometric not in _GREY_OR_RGB:
            raise InputError(
                f"cannot be read as an image: a TIFF of {page.samplesperpixel} samples a pixel, "
                f"photometric interpretation {int(page.photometric)}, {page.imagedepth} layers"
            )
        pixels = page.asarray(maxworkers=1)
        if page.samplesperpixel > 1 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            pixels = np.moveaxis(pixels, 0, -1)
        if page.photometric == _WHITE_IS_ZERO and pixels.dtype.kind == "u":
            pixels = np.iinfo(pixels.dtype).max - pixels
        tag = page.tags.get(_ORIENTATION)
        return _turned(_colours(pixels), None if tag is None else tag.value)


def _exr_channels(names: list[str]) -> list[str]:
    """Which channels are the picture: R, G, B; or Y; or the only one."""
    if {"R", "G", "B"} <= set(names):
        return ["R", "G", "B"]
    if "Y" in names and not {"RY", "BY"} & set(names):
        return ["Y"]
    if len(names) == 1:
        return names
    raise InputError(f"no channels R, G, B or Y in this EXR; it has {', '.join(sorted(names))[:200]}")


def _read_exr(data: bytes) -> NDArray[Any]:
    """The data window of the first part."""
    openexr = optional_module("OpenEXR", "reading EXR")
    low, high = openexr.File(io.BytesIO(data), header_only=True).parts[0].header["dataWindow"]
    _check_size(int(high[0]) - int(low[0]) + 1, int(high[1]) - int(low[1]) + 1)
    channels = openexr.File(io.BytesIO(data), separate_channels=True).parts[0].channels
    planes = [channels[name].pixels for name in _exr_channels(list(channels))]
    if any(plane.shape != planes[0].shape or plane.ndim != 2 for plane in planes):
        raise InputError("the channels of this EXR differ in size")
    return _colours(np.stack([plane.astype(np.float32) for plane in planes], axis=2))


def _read_hdr(data: bytes) -> NDArray[Any]:
    imagecodecs = optional_module("imagecodecs", "reading Radiance HDR")
    head, separator, _ = data[:65536].partition(b"\n\n")
    size = re.match(rb"-Y (\d{1,9}) \+X (\d{1,9})\n", data[len(head) + len(separator) :][:40])
    if size is None or b"xyze" in head:
        raise InputError("cannot be read as an image: only Radiance HDR of RGBE colours, rows from the top, is read")
    _check_size(int(size[2]), int(size[1]))
    return _colours(imagecodecs.rgbe_decode(data))


def _decode(data: bytes, method: str) -> NDArray[Any]:
    if data.startswith(_EXR_MAGIC):
        return tone_map(_read_exr(data), "percentile" if method == "auto" else method)
    if data.startswith(_HDR_MAGICS):
        return tone_map(_read_hdr(data), "percentile" if method == "auto" else method)
    if data.startswith(_TIFF_MAGICS):
        return _read_tiff(data, method)
    if _is_heic(data):
        return _read_heic(data)
    return _read_16bit_png(data) if png16.is_16bit_colour(data) else _read_with_pillow(data)


def _guarded(decode: Callable[[bytes], NDArray[Any]], data: bytes) -> NDArray[Any]:
    """decode(data); whatever a decoder raises on a damaged file becomes an InputError."""
    if not data:
        raise InputError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, which may be meant
            return decode(data)
    except (MemoryError, MissingExtra, InputError):
        raise
    except UnidentifiedImageError as error:
        raise InputError("cannot be read as an image: no format that is known") from error
    except Exception as error:  # decoders raise nearly every class on damaged files
        raise InputError(f"cannot be read as an image: {error}") from error


def decode_image(
    data: bytes,
    tone_map: str = "auto",
    max_pixels: int = LARGEST_PIXELS,
    say: Callable[[str], None] | None = None,
) -> NDArray[Any]:
    """A file's bytes as (H, W, 3): uint8, uint16, or float32 in [0, 1], turned upright as EXIF says.

    Grey has three equal channels; palettes, CMYK and the like become RGB; transparency is dropped, not composited.
    `tone_map`: "auto" or one of tone_mapping.TONE_MAPS; it concerns EXR and HDR, which are linear and "percentile" by
    default, and floating-point TIFF, whose values are taken as they are by default.
    max_pixels: a larger image is refused before it is decoded. Of an animation the first frame is taken; `say` is told.
    InputError: not an image, damaged, too large. MissingExtra: the format needs a library that is not installed.
    """
    if tone_map not in ("auto", *TONE_MAPS):
        raise ValueError(f"tone_map={tone_map!r}: choose from auto, {', '.join(TONE_MAPS)}")
    token = _CALL.set(_Call(max_pixels, say))
    try:
        return _guarded(lambda content: _decode(content, tone_map), data)
    finally:
        _CALL.reset(token)


def decode_stored(data: bytes) -> NDArray[Any]:
    """The pixels as the file stores them, for images whose values or places are data: not turned, not tone mapped.

    Grey is (H, W), all else (H, W, 3) without transparency; uint8, uint16 or, of EXR and floating-point TIFF, float32.
    The checksums in a PNG are verified. Errors as of decode_image.
    """
    return _guarded(_read_stored, data)


def stored_size(head: bytes) -> tuple[int, int]:
    """(height, width) of an image that Pillow reads, from its first bytes; InputError if they do not tell."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _open(head, _pillow_formats()) as image:
                return image.height, image.width
    except Exception as error:  # as above
        raise InputError(f"cannot be read as an image: {error}") from error


def read_field_of_view(data: bytes) -> float | None:
    """Degrees across the longer side by EXIF's FocalLengthIn35mmFilm; None where a file has no such entry."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            length = image.getexif().get_ifd(_EXIF).get(_FOCAL_LENGTH_IN_35MM_FILM)
    except Exception:  # whatever Pillow raises for a file that it does not read, or for a damaged EXIF
        return None
    if not isinstance(length, int) or length < 1:  # 0: unknown
        return None
    return math.degrees(2 * math.atan(_FILM_WIDTH / 2 / length))
