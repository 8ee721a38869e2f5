"""Predictions as files: each format read back by another reader, missing libraries, files whole or not at all."""

from __future__ import annotations

import errno
import importlib.util
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marigold_c import MarigoldImageProcessor, extras
from marigold_c.extras import MissingExtra
from marigold_c.images import writers
from marigold_c.images.pictures import Picture, picture_of
from marigold_c.images.readers import decode_image

RNG = np.random.default_rng(3)
DEPTH = RNG.random((21, 34), dtype=np.float32)
DEPTH[0, :2] = 0, 1
NORMALS = RNG.standard_normal((21, 34, 3)).astype(np.float32)
NORMALS /= np.linalg.norm(NORMALS, axis=2, keepdims=True)
TARGETS = RNG.random((2, 21, 34, 3), dtype=np.float32)
PROPERTIES: dict[str, Any] = {
    "target_names": ["albedo", "material"],
    "albedo": {"prediction_space": "srgb"},
    "material": {"prediction_space": "stack", "sub_target_names": ["roughness", "metallicity", None]},
    "roughness": {"prediction_space": "linear"},
    "metallicity": {"prediction_space": "linear"},
}
MAPS = {
    "depth": writers.depth_map(DEPTH),
    "normals": writers.normals_map(NORMALS),
    "uncertainty": writers.uncertainty_map(DEPTH * 0.3),
    "colour uncertainty": writers.uncertainty_map(TARGETS[1]),
    **writers.intrinsic_maps(TARGETS, PROPERTIES),
}


def written(one: writers.Map, name: str) -> bytes:
    file = io.BytesIO()
    writers.FORMATS[name].write(file, one, 2)
    return file.getvalue()


def strict_png(data: bytes) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """A 16-bit PNG by the letter of the standard, all filters, in plain Python."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, []
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + content)
        chunks.append((kind, content))
        at += length + 12
    assert chunks[0][0] == b"IHDR"
    assert chunks[-1] == (b"IEND", b"")
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (depth, rest) == (16, [0, 0, 0])
    step = 2 * {0: 1, 2: 3}[colour]
    raw = zlib.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"))
    assert len(raw) == height * (1 + width * step)
    above = bytes(width * step)
    rows = []
    for y in range(height):
        kind, row = raw[y * (1 + width * step)], bytearray(raw[y * (1 + width * step) + 1 :][: width * step])
        for x in range(len(row)):
            left, up = (row[x - step] if x >= step else 0), above[x]
            corner = above[x - step] if x >= step else 0
            guess = left + up - corner
            paeth = min((left, up, corner), key=lambda value: abs(guess - value))
            row[x] = (row[x] + (0, left, up, (left + up) // 2, paeth)[kind]) % 256
        rows.append(bytes(row))
        above = bytes(row)
    return np.frombuffer(b"".join(rows), ">u2").reshape((height, width, 3) if colour == 2 else (height, width))


@pytest.mark.parametrize("name", MAPS)
def test_arrays(name: str) -> None:
    one = MAPS[name]
    back = np.load(io.BytesIO(written(one, "npy")))
    assert back.dtype == np.float32
    # Normals as the paper's scripts store them, channels first.
    assert np.array_equal(back.transpose(1, 2, 0) if one.kind == "normals" else back, one.values)
    with np.load(io.BytesIO(written(one, "npz"))) as archive:
        assert list(archive) == [one.kind]
        assert np.array_equal(archive[one.kind], one.values)


@pytest.mark.parametrize("name", MAPS)
def test_16bit_png(name: str) -> None:
    one = MAPS[name]
    data = written(one, "png16")
    got = strict_png(data)
    if one.kind == "depth":
        assert np.array_equal(got, np.trunc(one.values * np.float32(65535)))
        assert got[0, :2].tolist() == [0, 65535]
    else:
        values = (one.values.astype(float) + 1) / 2 if one.kind == "normals" else one.values.astype(float)
        assert np.abs(got / 65535 - values).max() <= 0.51 / 65535
    pixels = decode_image(data)
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, got if got.ndim == 3 else np.repeat(got[:, :, None], 3, 2))
    assert Image.open(io.BytesIO(data)).size == (34, 21)


def test_16bit_png_against_libpng() -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    for name, one in MAPS.items():
        data = written(one, "png16")
        assert np.array_equal(imagecodecs.png_decode(data), strict_png(data)), name


def test_values_beyond_the_range_are_clipped() -> None:
    values = np.array([[[-2, 0, 2], [np.nan, np.inf, 0.5]]], np.float32)
    got = strict_png(
        written(writers.Map("intrinsics", values, lambda: picture_of(np.zeros((1, 1), np.uint8))), "png16")
    )
    assert got.tolist() == [[[0, 0, 65535], [0, 65535, 32768]]]
    assert strict_png(written(writers.depth_map(values[:, :, 0]), "png16")).tolist() == [[0, 0]]


def test_pictures() -> None:
    processor = MarigoldImageProcessor
    targets = processor.visualize_intrinsics([TARGETS], PROPERTIES)[0]
    wanted = {
        "depth": processor.visualize_depth(DEPTH)[0],
        "normals": processor.visualize_normals(NORMALS)[0],
        "uncertainty": processor.visualize_uncertainty(DEPTH * np.float32(0.3))[0],
        "colour uncertainty": processor.visualize_uncertainty(TARGETS[1])[0],
        **targets,
    }
    assert set(wanted) == set(MAPS)
    for name, one in MAPS.items():
        got = Image.open(io.BytesIO(written(one, "png")))
        assert got.mode == wanted[name].mode
        assert np.array_equal(np.asarray(got), np.asarray(wanted[name])), name
    assert list(targets) == ["albedo", "roughness", "metallicity", "material"]
    assert np.array_equal(MAPS["metallicity"].values, TARGETS[1, :, :, 1])
    binary = written(writers.depth_map(DEPTH, color_map="binary"), "png")
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(binary))), np.asarray(processor.visualize_depth(DEPTH, color_map="binary")[0])
    )


def test_flipped_normals() -> None:
    flipped = writers.normals_map(NORMALS, flip_y=True, flip_z=True)
    assert np.array_equal(flipped.values, NORMALS * np.array([1, -1, -1], np.float32))
    wanted = MarigoldImageProcessor.visualize_normals(NORMALS, flip_y=True, flip_z=True)[0]
    assert np.array_equal(flipped.picture().whole(), np.asarray(wanted))


@pytest.mark.parametrize("name", MAPS)
def test_exr(name: str) -> None:
    openexr = pytest.importorskip("OpenEXR")
    one = MAPS[name]
    channels = openexr.File(io.BytesIO(written(one, "exr")), separate_channels=True).channels()
    wanted = {"depth": "Z", "normals": "XYZ", "uncertainty": "Y"}.get(name, "RGB" if one.values.ndim == 3 else "Y")
    assert sorted(channels) == sorted(wanted)
    planes = one.values if one.values.ndim == 3 else one.values[:, :, None]
    for index, letter in enumerate(wanted):
        assert channels[letter].pixels.dtype == np.float32
        assert np.array_equal(channels[letter].pixels, planes[:, :, index])


@pytest.mark.parametrize("name", MAPS)
def test_tiff(name: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    one = MAPS[name]
    data = written(one, "tiff")
    assert data == written(one, "tiff")
    assert np.array_equal(tifffile.imread(io.BytesIO(data)), one.values)
    if one.values.ndim == 2:
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), one.values)


def test_missing_libraries_are_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    writers.check_formats(["npy", "npz", "png16", "png"])
    for name, extra in (("exr", "exr"), ("tiff", "tiff")):
        with pytest.raises(MissingExtra, match=rf"pip install 'marigold-c\[{extra}\]'"):
            writers.check_formats(["npy", name])
        with pytest.raises(ImportError):
            writers.write_map(tmp_path / "a", MAPS["depth"], name)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="gif"):
        writers.check_formats(["gif"])


def test_extras_exist() -> None:
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    for module, extra in extras._EXTRAS.items():
        (line,) = [line for line in pyproject.splitlines() if line.startswith(f"{extra} = [")]
        assert extras._PACKAGES.get(module, module).lower() in line.lower()


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    for name, entry in writers.FORMATS.items():
        if entry.module and importlib.util.find_spec(entry.module) is None:
            continue
        path = tmp_path / f"a_{name}{entry.suffix}"
        writers.write_map(path, MAPS["depth"], name)
        assert path.read_bytes()
    before = sorted(tmp_path.iterdir())

    def fail() -> Picture:
        raise OSError("no picture")

    with pytest.raises(OSError, match="no picture"):
        writers.write_map(tmp_path / "b.png", writers.Map("depth", DEPTH, fail), "png")

    def fill() -> Picture:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"No space left on device: '.*b\.png'"):
        writers.write_map(tmp_path / "b.png", writers.Map("depth", DEPTH, fill), "png")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("depth", (4, 4, 3)),
        ("normals", (4, 4)),
        ("depth", (0, 4)),
        ("depth", (4,)),
        ("normals", (4, 4, 2)),
        ("x", (4, 4)),
    ],
)
def test_refused_maps(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"'x'" if kind == "x" else str(shape[0])):
        writers.Map(kind, np.zeros(shape, np.float32), lambda: picture_of(np.zeros((1, 1), np.uint8)))
