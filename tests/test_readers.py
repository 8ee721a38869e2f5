"""Images as arrays: every format against the pixels it was made from, hostile files."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marigold_c import extras
from marigold_c.extras import MissingExtra
from marigold_c.images import png16, readers
from marigold_c.images.readers import InputError, decode_image
from marigold_c.images.tone_mapping import linear_from_srgb, srgb_from_linear, tone_map

RNG = np.random.default_rng(11)
RGB = RNG.integers(0, 256, (13, 22, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (13, 22, 3), dtype=np.uint16)
RADIANCE = (RNG.random((13, 22, 3)) ** 4 * 50).astype(np.float32)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def png(pixels: Any, *, filter_type: int = 0, interlaced: bool = False) -> bytes:
    """A 16-bit PNG of 1 to 4 channels by the letter of the standard, all rows with one filter."""
    pixels = np.asarray(pixels, ">u2").reshape(*pixels.shape[:2], -1)
    height, width, channels = pixels.shape
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    raw = b""
    for top, left, down, right in passes if interlaced else [(0, 0, 1, 1)]:
        part = pixels[top::down, left::right]
        above = np.zeros(part.shape[1] * channels * 2, int)
        for row in part if part.size else []:
            now = np.frombuffer(row.tobytes(), np.uint8).astype(int)
            before = np.concatenate([np.zeros(channels * 2, int), now[: -channels * 2]])
            corner = np.concatenate([np.zeros(channels * 2, int), above[: -channels * 2]])
            guess = before + above - corner
            away = np.abs(np.stack([guess - before, guess - above, guess - corner]))
            paeth = np.choose(away.argmin(axis=0), [before, above, corner])
            removed = (0 * now, before, above, (before + above) // 2, paeth)[filter_type]
            raw += bytes([filter_type]) + ((now - removed) % 256).astype(np.uint8).tobytes()
            above = now
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, interlaced)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def radiance(pixels: Any) -> bytes:
    """A Radiance picture without run lengths, and what it holds after rounding to shared exponents."""
    brightest = pixels.max(axis=2)
    mantissa, exponent = np.frexp(brightest)
    scale = np.where(brightest > 1e-32, mantissa * 256 / np.maximum(brightest, 1e-32), 0)
    colours = (pixels * scale[:, :, None]).astype(np.uint8)
    shared = np.where(brightest > 1e-32, exponent + 128, 0).astype(np.uint8)
    height, width = brightest.shape
    head = f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {height} +X {width}\n".encode()
    return head + np.concatenate([colours, shared[:, :, None]], axis=2).tobytes()


def exr(channels: dict[str, Any], **header: Any) -> bytes:
    openexr = pytest.importorskip("OpenEXR")
    file = io.BytesIO()
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage} | header
    openexr.File(header, {name: np.ascontiguousarray(plane) for name, plane in channels.items()}).write(file)
    return file.getvalue()


def tiff(pixels: Any, **options: Any) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **({"metadata": None} | options))
    return file.getvalue()


# ---- eight bits ----


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    got = decode_image(saved(Image.fromarray(RGB), kind, **options))
    assert got.dtype == np.uint8
    assert np.array_equal(got, RGB)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK"])
def test_modes_become_rgb(mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(RGB[:, :, 0]))
    got = decode_image(saved(image, kind))
    assert got.shape == (13, 22, 3)
    # Transparency is dropped: the colours below stay, whatever is over them.
    assert np.array_equal(got, np.asarray(image.convert("RGB")))


def test_transparent_palettes() -> None:
    image = Image.fromarray(RGB).convert("P")
    got = decode_image(saved(image, transparency=3))
    assert np.array_equal(got, np.asarray(image.convert("RGB")))


def oriented(pixels: Any, orientation: int) -> Any:
    """What is to be stored so that this orientation shows `pixels`."""
    stored = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }[orientation]
    return np.ascontiguousarray(stored(pixels))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode_image(saved(Image.fromarray(oriented(RGB, orientation)), exif=exif)), RGB)
    data = png(oriented(RGB16, orientation))
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content + struct.pack(">I", zlib.crc32(b"eXIf" + content))
    assert np.array_equal(decode_image(data[:33] + chunk + data[33:]), RGB16)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_tiffs(orientation: int) -> None:
    stored = oriented(RGB16, orientation)
    data = tiff(stored, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    assert np.array_equal(decode_image(data), RGB16)


# ---- sixteen bits ----


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("filter_type", range(5))
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16bit_png(channels: int, filter_type: int, interlaced: bool) -> None:
    pixels = RNG.integers(0, 65536, (13, 22, channels), dtype=np.uint16)
    got = decode_image(png(pixels, filter_type=filter_type, interlaced=interlaced))
    assert got.dtype == np.uint16
    assert np.array_equal(got, pixels[:, :, :3] if channels > 2 else pixels[:, :, :1].repeat(3, axis=2))


def test_a_pillow_that_decodes_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then its own result is taken, with 8 bits."""
    monkeypatch.setattr(png16, "decode_low_bytes", lambda data: None)
    assert np.array_equal(decode_image(png(RGB16)), RGB16 >> 8)


# ---- TIFF ----

TIFFS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "8 bits": (RGB, {"photometric": "rgb"}, RGB),
    "16 bits": (RGB16, {"photometric": "rgb"}, RGB16),
    "16 bits, big-endian": (RGB16, {"photometric": "rgb", "byteorder": ">"}, RGB16),
    "16 bits, deflate": (RGB16, {"photometric": "rgb", "compression": "zlib"}, RGB16),
    "16 bits, tiles": (RGB16, {"photometric": "rgb", "tile": (16, 16)}, RGB16),
    "16 bits, planes": (RGB16.transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate"}, RGB16),
    "16 bits, alpha": (
        np.concatenate([RGB16, RGB16[:, :, :1]], axis=2),
        {"photometric": "rgb", "extrasamples": ["unassalpha"]},
        RGB16,
    ),
    "16 bits, grey": (RGB16[:, :, 0], {"photometric": "minisblack"}, RGB16[:, :, :1].repeat(3, axis=2)),
    "16 bits, grey big-endian": (
        RGB16[:, :, 0],
        {"photometric": "minisblack", "byteorder": ">"},
        RGB16[:, :, :1].repeat(3, axis=2),
    ),
    "8 bits, white is 0": (255 - RGB[:, :, 0], {"photometric": "miniswhite"}, RGB[:, :, :1].repeat(3, axis=2)),
    "16 bits, white is 0": (65535 - RGB16[:, :, 0], {"photometric": "miniswhite"}, RGB16[:, :, :1].repeat(3, axis=2)),
    "16 bits, white is 0, alpha": (
        65535 - RGB16[:, :, :2],
        {"photometric": "miniswhite", "planarconfig": "contig"},
        RGB16[:, :, :1].repeat(3, axis=2),
    ),
    "BigTIFF": (RGB16, {"photometric": "rgb", "bigtiff": True}, RGB16),
    "float32": (RADIANCE / 50, {"photometric": "rgb"}, RADIANCE / 50),
    "float32, grey": (RADIANCE[:, :, 0] / 50, {"photometric": "minisblack"}, RADIANCE[:, :, :1].repeat(3, 2) / 50),
    "float16": ((RADIANCE / 50).astype(np.float16), {"photometric": "rgb"}, (RADIANCE / 50).astype(np.float16)),
    "float64": (RADIANCE / 64.0, {"photometric": "rgb"}, RADIANCE / np.float32(64)),
    "32 bits": (RGB16.astype(np.uint32) * 65537, {"photometric": "rgb"}, RGB16.astype(np.float32) / 65535),
}


@pytest.mark.parametrize("name", TIFFS)
def test_tiff(name: str) -> None:
    pixels, options, wanted = TIFFS[name]
    got = decode_image(tiff(pixels, **options))
    assert got.dtype == (np.float32 if wanted.dtype.kind == "f" else wanted.dtype)
    assert np.allclose(got, wanted, rtol=1e-6, atol=0)
    assert got.flags.c_contiguous
    assert got.dtype.isnative


def test_lzw_tiff() -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    assert imagecodecs
    assert np.array_equal(decode_image(tiff(RGB16, photometric="rgb", compression="lzw", predictor=True)), RGB16)


def test_tone_mapped_tiff() -> None:
    data = tiff(RADIANCE, photometric="rgb")
    assert np.array_equal(decode_image(data), RADIANCE)
    assert np.array_equal(decode_image(data, "percentile"), tone_map(RADIANCE, "percentile"))
    with pytest.raises(InputError, match="9 samples"):
        decode_image(tiff(np.zeros((4, 5, 9), np.uint16), photometric="minisblack", planarconfig="contig"))


# ---- radiance ----


def test_exr() -> None:
    plane = {name: RADIANCE[:, :, index] for index, name in enumerate("RGB")}
    assert np.array_equal(decode_image(exr(plane), "none"), RADIANCE)
    assert np.array_equal(decode_image(exr(plane | {"A": RADIANCE[:, :, 0], "Z": RADIANCE[:, :, 0]}), "none"), RADIANCE)
    assert np.array_equal(decode_image(exr(plane)), tone_map(RADIANCE, "percentile"))
    grey = RADIANCE[:, :, :1].repeat(3, axis=2)
    for name in ("Y", "Z", "depth"):
        assert np.array_equal(decode_image(exr({name: RADIANCE[:, :, 0]}), "none"), grey)
    half = {name: values.astype(np.float16) for name, values in plane.items()}
    assert np.array_equal(decode_image(exr(half), "none"), RADIANCE.astype(np.float16).astype(np.float32))
    with pytest.raises(InputError, match=r"left\.R, right\.R"):
        decode_image(exr({"left.R": RADIANCE[:, :, 0], "right.R": RADIANCE[:, :, 0]}))


def test_hdr() -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    data = radiance(RADIANCE)
    got = decode_image(data, "none")
    assert (np.abs(got - RADIANCE) <= RADIANCE.max(axis=2, keepdims=True) / 100).all()
    assert np.array_equal(decode_image(data), tone_map(got, "percentile"))
    packed = bytes(imagecodecs.rgbe_encode(got))
    assert len(packed) != len(data)  # with run lengths
    assert np.array_equal(decode_image(packed, "none"), got)
    for wrong in (data.replace(b"-Y 13 +X", b"+Y 13 +X"), data.replace(b"rgbe", b"xyze"), data[:30]):
        with pytest.raises(InputError, match="Radiance"):
            decode_image(wrong)
    huge = data.replace(b"-Y 13 +X 22", b"-Y 99999 +X 99999")
    with pytest.raises(InputError, match="99999 x 99999"):
        decode_image(huge)


def test_tone_maps() -> None:
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    assert np.allclose(linear_from_srgb(srgb_from_linear(values)), values, atol=1e-6)
    assert srgb_from_linear(np.array([0.5], np.float32))[0] == pytest.approx(0.735357, abs=1e-5)
    mapped = tone_map(RADIANCE, "percentile")
    assert mapped.dtype == np.float32
    assert mapped.min() >= 0
    assert mapped.max() <= 1
    grey = np.linspace(0, 7, 10001, dtype=np.float32)[None, :, None].repeat(3, axis=2)
    assert tone_map(grey, "percentile")[0, 9000].tolist() == pytest.approx([0.8] * 3, abs=1e-5)
    # The exposure is part of the method: a picture twice as bright is the same picture.
    for factor in (2, 1e6, 1e-6):
        assert np.allclose(tone_map(RADIANCE * np.float32(factor), "percentile"), mapped, atol=1e-5)
    assert np.allclose(tone_map(RADIANCE, "clip"), srgb_from_linear(np.minimum(RADIANCE, 1)))
    extreme = RADIANCE.copy()
    extreme[0, 0] = np.inf, -1, 0
    assert tone_map(extreme, "percentile")[0, 0].tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    assert not tone_map(np.zeros((4, 4, 3), np.float32), "percentile").any()
    lamp = np.zeros((20, 20, 3), np.float32)
    lamp[3, 3] = 1000
    assert tone_map(lamp, "percentile").max() == pytest.approx(0.8, abs=1e-3)
    extreme[0, 0] = np.nan
    with pytest.raises(ValueError, match="3 of 858"):
        tone_map(extreme, "clip")
    for call in (lambda: tone_map(RADIANCE, "auto"), lambda: decode_image(saved(Image.fromarray(RGB)), "filmic")):
        with pytest.raises(ValueError, match="choose from"):
            call()


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    float_tiff = (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", 9)
        + b"".join(
            struct.pack("<HHII", tag, kind, 1, value)
            for tag, kind, value in [
                (256, 3, 1),
                (257, 3, 1),
                (258, 3, 16),
                (259, 3, 1),
                (262, 3, 2),
                (273, 4, 8),
                (277, 3, 3),
                (279, 4, 6),
                (339, 3, 3),
            ]
        )
        + bytes(4)
    )
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    for data, extra in (
        (readers._EXR_MAGIC + bytes(100), "exr"),
        (radiance(RADIANCE), "hdr"),
        (float_tiff, "tiff"),
    ):
        with pytest.raises(MissingExtra, match=rf"pip install 'marigold-c\[{extra}\]'"):
            decode_image(data)


# ---- hostile files ----


def samples() -> dict[str, Callable[[], bytes]]:
    return {
        "png": lambda: saved(Image.fromarray(RGB)),
        "png16": lambda: png(RGB16, filter_type=4),
        "jpeg": lambda: saved(Image.fromarray(RGB), "JPEG"),
        "webp": lambda: saved(Image.fromarray(RGB), "WEBP"),
        "gif": lambda: saved(Image.fromarray(RGB), "GIF"),
        "tiff": lambda: tiff(RGB16, photometric="rgb", compression="zlib"),
        "float tiff": lambda: tiff(RADIANCE, photometric="rgb"),
        "hdr": lambda: (pytest.importorskip("imagecodecs"), radiance(RADIANCE))[1],
        "exr": lambda: exr({name: RADIANCE[:, :, index] for index, name in enumerate("RGB")}),
    }


@pytest.mark.parametrize("name", samples())
def test_damaged_files(name: str) -> None:
    """An array or one clear error, never another exception."""
    data = samples()[name]()
    assert decode_image(data).shape == (13, 22, 3)
    rng = np.random.default_rng(1)
    failed = 0
    for trial in range(150):
        wrong = bytearray(data)
        if trial % 3 == 0:
            wrong = wrong[: rng.integers(len(wrong))]
        else:
            for at in rng.integers(len(wrong) if trial % 3 == 1 else min(len(wrong), 300), size=3):
                wrong[at] = rng.integers(256)
        try:
            got = decode_image(bytes(wrong))
        except InputError:
            failed += 1
        else:
            assert got.ndim == 3
            assert got.shape[2] == 3
    assert failed > 20


@pytest.mark.parametrize("name", ["png", "png16", "webp", "tiff", "hdr", "exr"])
def test_cut_files_are_refused(name: str) -> None:
    data = samples()[name]()
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(InputError):
            decode_image(data[: int(len(data) * share)])


def test_sizes_are_checked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (saved(Image.fromarray(RGB)), png(RGB16)):
        bomb = bytearray(data)
        bomb[16:24] = struct.pack(">II", 200000, 200000)
        bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
        with pytest.raises(InputError, match="40000000000"):
            decode_image(bytes(bomb))
    for make in samples().values():
        data = make()
        assert decode_image(data, max_pixels=286).shape == (13, 22, 3)
        with pytest.raises(InputError, match=r"22 x 13 are 286 pixels, the limit is 285; --max-pixels.* raises it"):
            decode_image(data, max_pixels=285)


def test_photographs_of_phones_are_read() -> None:
    """200 megapixels, which Pillow by itself refuses; its own limit is as it was afterwards."""
    data = saved(Image.new("1", (16320, 12240)), compress_level=1)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))
    before = Image.MAX_IMAGE_PIXELS
    with readers._open(data, ("PNG",)) as image:
        assert image.size == (16320, 12240)
    assert before == Image.MAX_IMAGE_PIXELS
    with pytest.raises(InputError, match="cannot be read"):
        decode_image(b"text")
    assert before == Image.MAX_IMAGE_PIXELS
    with pytest.raises(InputError, match="200000000; --max-pixels"):
        decode_image(saved(Image.new("1", (16384, 16384))), max_pixels=200_000_000)


def heic() -> bytes:
    """64 x 64 pixels, written by libheif with x265: red above blue."""
    return base64.b85decode(
        "0000SW^{RQXk}?*00000ZE0pPXk}?*ZE0a<00042ZDn*}000000000XXk=`10000000000aA{+700000000000000000000B57=I"
        "V*mgE07O6l0RRC200001dH?|c00000001KZ001LtX>Mi!000000RR916=`l}WdZ;I000310BCk&F#rGn01j|zbZr0t000010002i"
        "X>f9I0002DX>en20001ZXm(>m0RwOV0058x000009`FGC{rLC*01pFT0096PKmiN^|NjGU00093kN^M!000939=ZZRVE_RDD?$MQ"
        "18@KU0|1Z!00RI30{|YNAb|yz>PacCZUPz%2mk;B0LTCU0{{p>VgLaE2SfqEa<C#m0000JV{dG7ZewhC0096E00w{n000zeb8uw<"
        "00000002M$002M$000nhX?SS>000032nYxO000+haBX1#00000000310R({p0|Wp704r@|VRQfh03Rp;uM1%M#=+PB_?r9nph3>d"
        "{h9xKT;D9D{+7Dszy"
    )


def test_heic() -> None:
    pi_heif = pytest.importorskip("pi_heif")
    assert pi_heif
    data = heic()
    got = decode_image(data)
    assert got.shape == (64, 64, 3)
    assert got.dtype == np.uint8
    assert np.abs(got[:24].astype(int) - (200, 40, 30)).mean() < 12
    assert np.abs(got[40:].astype(int) - (20, 60, 220)).mean() < 12
    for length in (20, 200, len(data) // 2):
        with pytest.raises(InputError):
            decode_image(data[:length])


def test_heic_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    for brands in (b"heic\0\0\0\0", b"mif1\0\0\0\0mif1heic"):
        head = struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands
        with pytest.raises(MissingExtra, match=r"reading HEIC needs pi-heif.*pip install 'marigold-c\[heic\]'"):
            decode_image(head + bytes(100))
    with pytest.raises(InputError):  # AVIF's brand: Pillow's
        decode_image(struct.pack(">I", 20) + b"ftypavif\0\0\0\0mif1" + bytes(100))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame(kind: str) -> None:
    colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    frames = [Image.new("RGB", (9, 7), colour) for colour in colours]
    lines: list[str] = []
    got = decode_image(saved(frames[0], kind, save_all=True, append_images=frames[1:]), say=lines.append)
    assert np.abs(got.astype(int) - colours[0]).max() < 5
    assert lines == ["an animation of 3 frames: its first is taken"]
    decode_image(saved(frames[0], kind), say=lines.append)
    assert len(lines) == 1


def test_what_is_no_photograph() -> None:
    for data, text in (
        (b"", "empty"),
        (b"text", "cannot be read"),
        (saved(Image.fromarray(RGB), "PCX"), "cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "cannot be read"),
        (b"\x89PNG\r\n\x1a\n", "cannot be read"),
        (b"II*\0", "cannot be read|tifffile"),
    ):
        with pytest.raises((InputError, MissingExtra), match=text):
            decode_image(data)
