"""What notebooks show of an output: sliders between images and their maps. Called by outputs.py when it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images.sliders import slider_html
from ..images.writers import Map, depth_map, intrinsic_maps, normals_map

_SHOWN_IMAGES = 8


def _by_image(prediction: Any, count: int) -> list[NDArray[np.float32]]:
    """The prediction of each of `count` images, (T, H, W, C): of a tensor and of a list as of an array."""
    parts = prediction if isinstance(prediction, list) else [prediction]
    arrays = [part if isinstance(part, np.ndarray) else part.permute(0, 2, 3, 1).numpy() for part in parts]
    targets = sum(map(len, arrays)) // count
    return [one for array in arrays for one in array.reshape(-1, targets, *array.shape[1:])]


def _maps(kind: str, values: NDArray[np.float32], properties: Mapping[str, Any] | None) -> dict[str, Map]:
    if kind == "depth":
        return {"depth": depth_map(values[0])}
    if kind == "normals":
        return {"normals": normals_map(values[0])}
    names = [f"target{index}" for index in range(len(values))]
    return intrinsic_maps(values, properties or {"target_names": names, **{name: {} for name in names}})


def output_html(
    kind: str,
    prediction: Any,
    photographs: Sequence[NDArray[Any]],
    properties: Mapping[str, Any] | None,
    limit: int,
) -> str:
    """A slider for each map of the first images. kind: the engine's name of the task. photographs: small ones.
    properties: of intrinsic targets. limit: pixels of a picture."""
    values = _by_image(prediction, len(photographs))
    figures = [
        slider_html(photograph, one, name, limit)
        for photograph, maps in list(zip(photographs, values, strict=True))[:_SHOWN_IMAGES]
        for name, one in _maps(kind, maps, properties).items()
    ]
    more = len(photographs) - _SHOWN_IMAGES
    return "".join([*figures, f"<p>and {more} images more</p>" if more > 0 else ""])
