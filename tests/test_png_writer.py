"""PNG written in strips by several threads: every pixel back by other readers, one file for any number of threads, a
size near Pillow's; and the colours of maps, to the byte."""

from __future__ import annotations

import io
import threading
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from marigold_c import _C
from marigold_c.images import colormaps, pictures, png_writer
from marigold_c.images.pictures import Picture, picture_of
from marigold_c.images.readers import decode_image

RNG = np.random.default_rng(5)


def written(pixels: NDArray[Any], threads: int | None = 2) -> bytes:
    file = io.BytesIO()
    png_writer.write_png(file, picture_of(pixels), threads)
    return file.getvalue()


def smooth(height: int, width: int) -> NDArray[np.float32]:
    """A map as networks give it: small noise made larger."""
    small = RNG.random((1, 1, height // 8 + 1, width // 8 + 1), dtype=np.float32)
    return _C.resize(small, (height, width))[0, 0]


def noise(*shape: int, dtype: Any) -> NDArray[Any]:
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


@pytest.mark.parametrize("strip", [1, 200, 2**20])  # one row each, several, all
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_every_pixel_comes_back(
    channels: tuple[int, ...], dtype: Any, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(png_writer, "_STRIP_BYTES", strip)
    for height, width in ((1, 1), (1, 50), (23, 1), (37, 19)):
        pixels = noise(height, width, *channels, dtype=dtype)
        data = written(pixels)
        got = decode_image(data)
        assert got.dtype == dtype
        assert np.array_equal(got, pixels if channels else pixels[:, :, None].repeat(3, axis=2))
        with Image.open(io.BytesIO(data)) as image:
            image.verify()  # the checksums of the chunks
        assert np.array_equal(pytest.importorskip("imagecodecs").png_decode(data), pixels)


def test_the_checksum_is_zlibs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow does not look at it; zlib does."""
    monkeypatch.setattr(png_writer, "_STRIP_BYTES", 100)
    pixels = noise(31, 17, 3, dtype=np.uint8)
    data, at, content = written(pixels), 8, b""
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            content += data[at + 8 : at + 8 + length]
        at += length + 12
    assert len(zlib.decompress(content)) == 31 * (17 * 3 + 1)
    with pytest.raises(zlib.error):
        zlib.decompress(content[:-1] + bytes([content[-1] ^ 1]))


def test_views_and_byte_orders() -> None:
    pixels = noise(9, 14, 3, dtype=np.uint16)
    for view in (pixels[::-1, ::2], pixels.transpose(1, 0, 2), pixels.astype(">u2"), pixels[:, :, 1]):
        expected = view if view.ndim == 3 else view[:, :, None].repeat(3, axis=2)
        assert np.array_equal(decode_image(written(view)), expected)


def test_one_file_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_writer, "_STRIP_BYTES", 500)
    pixels = noise(64, 40, 3, dtype=np.uint8)
    files = {written(pixels, threads) for threads in (1, 2, 7, None)}
    assert len(files) == 1


def test_strips_in_memory_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow file keeps the workers waiting: no more than two strips each are made before it takes the first."""
    monkeypatch.setattr(png_writer, "_STRIP_BYTES", 1)
    asked: list[int] = []
    counts: list[int] = []
    lock = threading.Lock()

    def rows(top: int, bottom: int) -> NDArray[np.uint8]:
        with lock:
            asked.append(top)
        return np.zeros((bottom - top, 4), np.uint8)

    class Slow(io.BytesIO):
        def write(self, data: Any) -> int:
            counts.append(len(asked))
            return super().write(data)

    png_writer.write_png(Slow(), Picture(100, rows), 3)
    assert len(asked) == 101  # the first row is asked for once more
    assert all(made <= 1 + number + 2 * 3 for number, made in enumerate(counts))


def test_a_strip_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_writer, "_STRIP_BYTES", 1)

    def rows(top: int, bottom: int) -> NDArray[np.uint8]:
        if bottom > 50:
            raise MemoryError("no more")
        return np.zeros((bottom - top, 4), np.uint8)

    before = threading.active_count()
    with pytest.raises(MemoryError, match="no more"):
        png_writer.write_png(io.BytesIO(), Picture(100, rows), 3)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((3, 3), np.float32),
        np.zeros((3, 3, 4), np.uint8),
        np.zeros((3, 0), np.uint8),
        np.zeros((0, 3), np.uint8),
        np.zeros((3, 3, 3), np.int16),
        np.zeros(3, np.uint8),
    ],
)
def test_refused_pictures(bad: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"a PNG takes uint8 or uint16 \(H, W\) or \(H, W, 3\), not"):
        written(bad)


@pytest.mark.parametrize(
    "make",
    [
        lambda values: pictures.coloured(values, "Spectral"),
        lambda values: pictures.coloured(values, "binary"),
        pictures.depth_16_bits,
        lambda values: pictures.normals(np.stack([values, 1 - values, values * values], axis=2)),
    ],
)
def test_files_are_not_much_larger_than_pillows(make: Callable[[Any], Picture]) -> None:
    pixels = make(smooth(900, 1200)).whole()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    assert len(written(pixels)) <= 1.25 * len(file.getvalue())


# ---- colours ----

SPECIAL = np.array([0, -0.0, 1, -1e-30, -3, 1 + 1e-6, 7, np.inf, -np.inf, np.nan, 0.1, 0.5], np.float32)
VALUES = np.concatenate([SPECIAL, RNG.random(100_000, dtype=np.float32), np.linspace(0, 1, 2561, dtype=np.float32)])


def diffusers_spectral(values: NDArray[np.float32], stops: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The arithmetic of diffusers, in NumPy's float32."""
    position = np.nan_to_num(np.clip(values, 0, 1)) * np.float32(len(stops) - 1)
    left = position.astype(np.int64)
    weight = (position - left.astype(np.float32))[:, None]
    colours = (1 - weight) * stops[left] + weight * stops[np.minimum(left + 1, len(stops) - 1)]
    scaled: NDArray[np.float32] = np.clip(colours * np.float32(255), 0, 255)
    return scaled.astype(np.uint8)


@pytest.mark.parametrize("count", [1, 2, 11])
def test_linear_colours_are_numpys_to_the_byte(count: int) -> None:
    stops = RNG.random((count, 3), dtype=np.float32)
    assert np.array_equal(_C.colormap_linear(VALUES, stops), diffusers_spectral(VALUES, stops))
    assert np.array_equal(colormaps.apply(VALUES), diffusers_spectral(VALUES, spectral()))


def spectral() -> NDArray[np.float32]:
    return (np.array(colormaps._STOPS["Spectral"]) / 255).astype(np.float32)


@pytest.mark.parametrize("name", ["viridis", "Spectral_r", "binary", "tab10", "twilight", "gist_ncar"])
def test_listed_colours_are_matplotlibs_to_the_byte(name: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    for values in (VALUES, VALUES.reshape(-1, 1)[: 1000 * 2], VALUES.astype(np.float64)):
        assert np.array_equal(colormaps.apply(values, name), matplotlib.colormaps[name](values, bytes=True)[..., :3])


def test_refused_colours() -> None:
    for stops in (np.zeros((2, 4)), np.zeros(3), np.zeros((0, 3))):
        with pytest.raises(ValueError, match="stops"):
            _C.colormap_linear(VALUES, stops)
    for table in (np.zeros((3, 3), np.uint8), np.zeros((5, 4), np.uint8), np.zeros(9, np.uint8)):
        with pytest.raises(ValueError, match="table"):
            _C.colormap_listed(VALUES, table)
    with pytest.raises(ValueError, match="values"):
        _C.colormap_listed(VALUES[:, None], np.zeros((5, 3), np.uint8))


def test_bytes_and_16_bits_are_cut() -> None:
    values = np.concatenate([SPECIAL, RNG.random(1000, dtype=np.float32)])
    for levels, got in ((255, colormaps.as_bytes(values)), (65535, pictures.cut_to_16_bits(values))):
        wanted = np.trunc(np.nan_to_num(np.clip(values * np.float32(levels), 0, levels)))
        assert np.array_equal(got, wanted)
