"""The slider of a notebook and of the page: what its HTML holds, read by Pillow. A browser drives it in tests/app."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import marigold_c as mc
from marigold_c.images.arrays import preview_stride
from marigold_c.images.sliders import slider_html, thumbnail
from marigold_c.images.writers import Map, depth_map, normals_map, uncertainty_map

RANDOM = np.random.default_rng(0)


class Elements(HTMLParser):
    """The start tags of a piece of HTML in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


def picture(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def values_of(element: dict[str, str]) -> np.ndarray:
    """What the script in the page computes from the hidden picture, (h, w, C)."""
    low, high = float(element["data-low"]), float(element["data-high"])
    pixels = picture(element["src"]).astype(np.float64)
    steps = pixels[:, :, 0] * 256 + pixels[:, :, 1]
    channels = len(element["data-names"].split(","))
    return np.moveaxis((low + steps / 65535 * (high - low)).reshape(channels, -1, pixels.shape[1]), 0, 2)


@pytest.mark.parametrize(
    ("one", "names", "width_of_range"),
    [
        (depth_map(RANDOM.random((20, 30), np.float32)), "depth", 1.0),
        (normals_map(RANDOM.random((20, 30, 3), np.float32) * 2 - 1), "x,y,z", 2.0),
        (uncertainty_map(RANDOM.random((20, 30), np.float32) * 0.3), "uncertainty", 0.3),
    ],
)
def test_values_pictures_and_labels(one: Map, names: str, width_of_range: float) -> None:
    photograph = np.broadcast_to(np.arange(0, 240, 8, dtype=np.uint8)[None, :, None], (20, 30, 3))
    elements = Elements(slider_html(photograph, one, 'a "map" <b>'))
    shown, before, hidden = elements.of("img")
    assert hidden["data-names"] == names and (hidden["data-width"], hidden["data-height"]) == ("30", "20")
    expected = one.values if one.values.ndim == 3 else one.values[:, :, None]
    assert np.abs(values_of(hidden) - expected).max() <= 0.51 / 65535 * width_of_range
    drawn = picture(shown["src"])
    whole = one.picture().whole()
    assert np.array_equal(drawn, whole if whole.ndim == 3 else np.repeat(whole[:, :, None], 3, axis=2))
    assert np.abs(picture(before["src"]).astype(int) - photograph).max() < 8  # a JPEG
    (slider,) = elements.of("input")
    assert slider["type"] == "range" and 'a "map" <b>' in slider["aria-label"]
    assert not elements.of("b") and not elements.of("script")
    assert not re.search(r"https?:", slider_html(photograph, one, "map"))


def test_large_maps_are_thinned_and_small_ones_are_not() -> None:
    assert preview_stride(100, 100, 10_000) == 1 and preview_stride(100, 101, 10_000) == 2
    values = np.linspace(0, 1, 101 * 50, dtype=np.float32).reshape(50, 101)
    photograph = np.full((50, 101, 3), 7, np.uint16)
    *_, hidden = Elements(slider_html(photograph, depth_map(values), "depth", limit=1300)).of("img")
    assert np.abs(values_of(hidden)[:, :, 0] - values[::2, ::2]).max() < 1e-5
    assert hidden["data-width"] == "101"
    blocks = np.zeros((4, 4, 3), np.uint8)
    blocks[:2, :2] = [[[0] * 3, [100] * 3], [[100] * 3, [200] * 3]]
    assert thumbnail(blocks, 4)[0, 0].tolist() == [100, 100, 100]


@pytest.mark.parametrize(("task", "maps"), [("depth", 1), ("normals", 1), ("iid", 3)])
def test_outputs_show_themselves(task: str, maps: int) -> None:
    images = RANDOM.integers(0, 256, (2, 40, 56, 3), dtype=np.uint8)
    pipe = mc.load(mc.default_checkpoint(task))
    pipe.set_progress_bar_config(disable=True)
    out = pipe(images, num_inference_steps=1, generator=0)
    sliders = Elements(out._repr_html_())
    hidden = [one for one in sliders.of("img") if "data-names" in one]
    assert len(hidden) == 2 * maps
    for index, one in enumerate(hidden[:: len(hidden) // len(out.prediction)] if maps == 1 else hidden):
        assert np.abs(values_of(one) - out.prediction[index]).max() < 2e-5
    assert [type(out)(out.prediction)._repr_html_(), len(out.to_tuple())] == [None, 1]
    with pytest.raises(ValueError, match="not made by a pipeline"):
        type(out)(out.prediction).show()


def test_show_displays_html(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    pipe = mc.load(mc.default_checkpoint(), "depth")
    pipe.set_progress_bar_config(disable=True)
    images = [RANDOM.integers(0, 256, (32, 40 + 8 * one, 3), dtype=np.uint8) for one in range(10)]
    pipe(images, num_inference_steps=1, generator=0).show()
    (html,) = shown
    assert html.data.count("<figure") == 8 and "and 2 images more" in html.data  # type: ignore[attr-defined]
