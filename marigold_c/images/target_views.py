"""Pictures of intrinsic images: each target in the colour space that the checkpoint says, made strip by strip.

Called by image_processor.py (pictures) and writers.py (the values of single targets).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .pictures import Picture, as_it_is, coloured

_GAMMA = 2.2


def target_names(properties: Mapping[str, Any]) -> list[str]:
    """The names of a checkpoint's targets, in the order of the prediction. ValueError if they are missing."""
    if "target_names" not in properties:
        raise ValueError("Missing `target_names` in target_properties")
    return list(properties["target_names"])


def _of_target(properties: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    one = properties.get(name)
    if not isinstance(one, Mapping):
        raise ValueError(f"Missing `{name}` in target_properties")
    return one


def target_values(images: NDArray[Any], properties: Mapping[str, Any]) -> Iterator[tuple[str, bool, NDArray[Any]]]:
    """(name, whether it is a channel of a stack, values) of the targets (T, H, W, 3) of one image.

    A stack gives its named channels (H, W) and then itself. ValueError: sub-target names that are not three.
    """
    for name, image in zip(target_names(properties), images, strict=False):
        one = _of_target(properties, name)
        if one.get("prediction_space", "srgb") == "stack":
            channels = one.get("sub_target_names", ())
            if len(channels) != 3 or any(not (isinstance(channel, str) or channel is None) for channel in channels):
                raise ValueError(f"Unexpected target sub-names {channels} in {name}")
            for index, channel in enumerate(channels):
                if channel is not None:
                    yield channel, True, image[:, :, index]
        yield name, False, image


def _display(values: NDArray[Any], one: Mapping[str, Any]) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
    """What gives linear values a display's gamma, scaled so that the brightest is 1 if they are known up to scale only;
    None for values that are as a display shows them."""
    if one.get("prediction_space", "srgb") != "linear":
        return None
    brightest = max(float(values.max()), 1e-6) if one.get("up_to_scale", False) else None

    def show(part: NDArray[Any]) -> NDArray[Any]:
        scaled = part if brightest is None else part / brightest
        displayed: NDArray[Any] = np.power(np.maximum(scaled, 0), 1 / _GAMMA)
        return displayed

    return show


def target_pictures(
    images: NDArray[Any], properties: Mapping[str, Any], color_map: str | Mapping[str, str]
) -> dict[str, Picture]:
    """The targets (T, H, W, 3) of one image and the channels of its stacks as pictures by name."""
    pictures = {}
    for name, is_channel, values in target_values(images, properties):
        display = _display(values, _of_target(properties, name))
        if is_channel:
            chosen = color_map if isinstance(color_map, str) else color_map.get(name, "binary")
            pictures[name] = coloured(values, chosen, display)
        else:
            pictures[name] = as_it_is(values, display)
    return pictures
