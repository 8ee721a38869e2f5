"""A photograph and its map in one piece of HTML: a slider between both, and the map's value under the pointer.

Called by pipelines/outputs.py (notebooks) and app (the page). The piece needs nothing but itself: pictures are data
URIs, and its few lines of script stand in attributes, as notebooks and pages drop script elements.
"""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .arrays import preview_stride
from .pictures import picture_of
from .png_writer import write_png
from .point_clouds import bytes_of_image
from .writers import Map

LARGEST_PREVIEW = 2**20  # pixels
_LEVELS = 65535
# What the values of a map are called, and the lowest they may be; the highest is 1, of uncertainty what there is.
_CHANNELS = {"depth": ("depth",), "normals": ("x", "y", "z"), "uncertainty": ("uncertainty",), "intrinsics": ("value",)}
_LOWEST = {"normals": -1.0}

# The hidden picture holds the values: two bytes of a pixel are one value, channels lie one below the other.
_READ = """
const f = this.closest('figure'), i = f.querySelector('[data-names]'), o = f.querySelector('output');
if (!f.values && i.naturalWidth) {
  const c = document.createElement('canvas'); c.width = i.naturalWidth; c.height = i.naturalHeight;
  const g = c.getContext('2d', {willReadFrequently: true}); g.drawImage(i, 0, 0);
  f.values = g.getImageData(0, 0, c.width, c.height);
}
if (f.values) {
  const r = this.getBoundingClientRect(), d = i.dataset, names = d.names.split(','), w = f.values.width;
  const h = f.values.height / names.length;
  const u = Math.min(Math.max((event.clientX - r.left) / r.width, 0), 0.999999);
  const v = Math.min(Math.max((event.clientY - r.top) / r.height, 0), 0.999999);
  const at = k => 4 * ((Math.floor(v * h) + k * h) * w + Math.floor(u * w));
  const value = k => +d.low + (f.values.data[at(k)] * 256 + f.values.data[at(k) + 1]) / 65535 * (d.high - d.low);
  o.textContent = names.map((n, k) => n + ' ' + value(k).toFixed(4)).join(', ') +
    ' at column ' + Math.floor(u * d.width) + ', row ' + Math.floor(v * d.height);
}
if (event.buttons & 1) {
  const s = f.querySelector('input'), b = this.getBoundingClientRect();
  s.value = 100 * (event.clientX - b.left) / b.width; s.oninput();
}
"""
_MOVE = "this.closest('figure').style.setProperty('--at', this.value + '%')"
_LAYER = "position:absolute;inset:0;width:100%;height:100%;margin:0;border-radius:0;max-width:none"


def thumbnail(pixels: Any, limit: int) -> NDArray[np.uint8]:
    """A photograph (H, W) or (H, W, 3) as uint8 (h, w, 3) of at most `limit` pixels: the mean of each block of them."""
    shown = bytes_of_image(pixels)
    stride = preview_stride(shown.shape[0], shown.shape[1], limit)
    if stride == 1:
        return np.ascontiguousarray(shown)
    return np.asarray(Image.fromarray(np.ascontiguousarray(shown)).reduce(stride))


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _png(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    write_png(file, picture_of(np.ascontiguousarray(pixels)))
    return _uri("png", file.getvalue())


def jpeg_uri(pixels: NDArray[np.uint8]) -> str:
    """A picture (h, w, 3) as the address of an img element."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return _uri("jpeg", file.getvalue())


def _packed(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Values (h, w, C) as bytes (C * h, w, 3): high and low byte of 65536 steps, and nothing."""
    steps = np.rint(np.clip((values - low) / (high - low), 0, 1) * _LEVELS).astype(np.uint16)
    planes = np.moveaxis(steps, 2, 0).reshape(-1, steps.shape[1])
    return np.stack([planes >> 8, planes & 255, np.zeros_like(planes)], axis=2).astype(np.uint8)


def _values(one: Map, stride: int) -> str:
    """The hidden picture of the values, and what is needed to read it."""
    values = one.values if one.values.ndim == 3 else one.values[:, :, None]
    names = _CHANNELS[one.kind] if values.shape[2] == len(_CHANNELS[one.kind]) else ("red", "green", "blue")
    low = _LOWEST.get(one.kind, 0.0)
    high = max(float(values.max()), 1e-6) if one.kind == "uncertainty" else 1.0
    data = _png(_packed(values[::stride, ::stride], low, high))
    return (
        f'<img hidden alt="" src="{data}" data-names="{",".join(names)}" data-low="{low!r}" data-high="{high!r}" '
        f'data-width="{values.shape[1]}" data-height="{values.shape[0]}">'
    )


def slider_html(photograph: Any, one: Map, name: str, limit: int = LARGEST_PREVIEW, before: str = "photograph") -> str:
    """A slider between a photograph and a map of it.

    Args:
        photograph: (h, w) or (h, w, 3), of any resolution and the map's proportions.
        one: The map.
        name: Of the map, as people read it: "depth".
        before: What is left of the boundary, as people call it.
        limit: At most so many of its pixels are shown; values are those of the pixels that are left.

    Returns:
        A figure element: two pictures, a range input, and the value under the pointer, exact to 1/65535 of its range.
    """
    height, width = one.values.shape[:2]
    stride = preview_stride(height, width, limit)
    picture = one.picture().whole()[::stride, ::stride]
    picture = picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
    name, before = html.escape(name, quote=True), html.escape(before, quote=True)
    read = html.escape(" ".join(_READ.split()), quote=True)
    move = html.escape(_MOVE, quote=True)
    return (
        f'<figure class="marigold-slider" style="--at:50%;margin:0;max-width:{max(width, 480)}px">'
        f'<div style="position:relative;line-height:0;touch-action:pan-y;aspect-ratio:{width}/{height}" '
        f'onpointermove="{read}" onpointerdown="{read}">'
        f'<img alt="{name}" src="{_png(picture)}" draggable="false" style="{_LAYER}">'
        f'<img alt="{before}" src="{jpeg_uri(thumbnail(photograph, limit))}" draggable="false" '
        f'style="{_LAYER};clip-path:inset(0 calc(100% - var(--at)) 0 0)">'
        '<div style="position:absolute;top:0;bottom:0;left:calc(var(--at) - 1px);width:2px;background:#fff;'
        'box-shadow:0 0 0 1px #000;pointer-events:none"></div></div>'
        f'<input type="range" min="0" max="100" step="0.5" value="50" style="width:100%;margin:4px 0" '
        f'aria-label="Boundary between {before} and {name}" oninput="{move}">'
        f"<figcaption>left of the boundary: {before}, right of it: {name}. "
        f'<output style="font-variant-numeric:tabular-nums">Point at the picture to read values.</output></figcaption>'
        f"{_values(one, stride)}</figure>"
    )
