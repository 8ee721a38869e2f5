"""The names and colour spaces of a checkpoint's intrinsic images, checked so that files can be named after them. Called
by commands and evaluation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..images.target_views import target_names, target_pictures, target_values
from .pipeline import MarigoldPipeline
from .tasks import MarigoldIntrinsicsPipeline

_TARGET_NAME = re.compile(r"[\w.+ -]{1,100}")  # by itself no path, and nothing that steers a terminal


def map_names(properties: Mapping[str, Any], targets: int | None = None) -> list[str]:
    """The names of targets, and of the channels of those that are stacks, as files are named after them."""
    count = len(target_names(properties)) if targets is None else targets
    return [name for name, _, _ in target_values(np.zeros((count, 1, 1, 3), np.float32), properties)]


def _check_names(pipe: MarigoldPipeline[Any], properties: Mapping[str, Any], targets: int) -> None:
    """CheckpointError unless every target, and channel of one, has a name of its own that a file's name can hold."""
    where = pipe.folder / "model_index.json"
    dot = np.zeros((targets, 1, 1, 3), np.float32)
    try:
        count = len(target_names(properties))
        names = map_names(properties, targets)
        target_pictures(dot, properties, "binary")  # refuses what lacks an entry of its own
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: target_properties: {error}") from error
    if count != targets:
        raise CheckpointError(f"{where}: {count} target_names for the {targets} targets of the network")
    for name in names:
        if not isinstance(name, str) or not _TARGET_NAME.fullmatch(name) or names.count(name) > 1:
            raise CheckpointError(f"{where}: files cannot be named after the target {str(name)[:100]!r}")


def intrinsic_properties(pipe: MarigoldPipeline[Any]) -> Mapping[str, Any]:
    """The checkpoint's target_properties; targets without a name are numbered."""
    assert isinstance(pipe, MarigoldIntrinsicsPipeline)
    properties = pipe.target_properties
    if properties is None:
        names = [f"target{index}" for index in range(pipe.n_targets)]
        return {"target_names": names, **{name: {"prediction_space": "srgb"} for name in names}}
    _check_names(pipe, properties, pipe.n_targets)
    return properties
