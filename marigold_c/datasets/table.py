"""The data sets, one row each: what a line of the list names, how the truth is decoded, what is valid, what is written.

Read by config.py, lists.py and dataset.py. The numbers are those of the evaluation protocol published with Marigold
(prs-eth/Marigold, src/dataset and script). A new data set is a new row; a new encoding is a new function in truths.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import truths

TASKS = ("depth", "normals", "iid")


@dataclass(frozen=True)
class Protocol:
    """How predictions for a data set were made for the published numbers; 0 is the size of the image itself."""

    processing_resolution: int
    seed: int
    alignment_max_resolution: int | None = None


@dataclass(frozen=True)
class Description:
    """One data set.

    columns: what the names in a line of the list are, in order. The first is the image.
    Further names in a line are passed over.
    read_truth: decodes a sample's truth. min_depth, max_depth: the range of valid depth in metres. units_per_metre: of
    integers. naming: the rule of prediction_names.py. switches: keys of the configuration that must be there.
    crop: the part of image and truth that is read, in crops.CROPS. drops_none: samples whose truth is "None" are left
    out. by_folders: own data, whose files are found by the image's name. targets: the maps of intrinsics.
    """

    task: str
    columns: tuple[str, ...]
    read_truth: Callable[..., truths.Truth]
    protocol: Protocol
    naming: str = "stem"
    min_depth: float | None = None
    max_depth: float | None = None
    units_per_metre: float = 1000.0
    switches: tuple[str, ...] = ()
    crop: str | None = None
    drops_none: bool = False
    by_folders: bool = False
    targets: tuple[str, ...] = ()


_DEPTH = ("image", "truth")
_NORMALS = ("image", "truth")
_KITTI: dict[str, Any] = {
    "min_depth": 1e-5,
    "max_depth": 80.0,
    "switches": ("kitti_bm_crop", "valid_mask_crop"),
    "drops_none": True,
    "naming": "id",
}

DATASETS: dict[str, Description] = {
    "nyu_depth": Description(
        "depth",
        _DEPTH,
        truths.read_depth_units,
        Protocol(0, 1234),
        naming="rgb_id",
        min_depth=1e-3,
        max_depth=10.0,
        switches=("eigen_valid_mask",),
    ),
    "kitti_depth": Description(
        "depth", _DEPTH, truths.read_depth_units, Protocol(0, 1234), units_per_metre=256.0, **_KITTI
    ),
    "eth3d_depth": Description(
        "depth",
        _DEPTH,
        truths.read_depth_raw,
        Protocol(756, 1234, alignment_max_resolution=1024),
        naming="id",
        min_depth=1e-5,
        max_depth=math.inf,
    ),
    "scannet_depth": Description(
        "depth", _DEPTH, truths.read_depth_units, Protocol(0, 1234), naming="id", min_depth=1e-3, max_depth=10.0
    ),
    "diode_depth": Description(
        "depth",
        (*_DEPTH, "mask"),
        truths.read_depth_with_mask,
        Protocol(640, 1234),
        naming="id",
        min_depth=0.6,
        max_depth=350.0,
    ),
    "hypersim_depth": Description(
        "depth", _DEPTH, truths.read_depth_units, Protocol(0, 1234), naming="rgb_i_d", min_depth=1e-5, max_depth=65.0
    ),
    "vkitti_depth": Description(
        "depth", _DEPTH, truths.read_depth_units, Protocol(0, 1234), units_per_metre=100.0, **_KITTI
    ),
    "nyu_normals": Description("normals", _NORMALS, truths.read_normals, Protocol(640, 4321)),
    "scannet_normals": Description("normals", _NORMALS, truths.read_normals, Protocol(640, 1234)),
    "ibims_normals": Description("normals", _NORMALS, truths.read_normals, Protocol(640, 4321)),
    "diode_normals": Description("normals", _NORMALS, truths.read_normals, Protocol(768, 1234)),
    "oasis_normals": Description("normals", _NORMALS, truths.read_normals, Protocol(768, 1234)),
    "hypersim_normals": Description("normals", _NORMALS, truths.read_normals, Protocol(768, 1234)),
    "interiorverse_normals": Description("normals", _NORMALS, truths.read_normals, Protocol(768, 1234)),
    "sintel_normals": Description(
        "normals", _NORMALS, truths.read_normals_with_sky, Protocol(768, 1234), crop="sintel"
    ),
    "interiorverse_iid": Description(
        "iid",
        ("image", "albedo", "material", "mask"),
        truths.read_appearance,
        Protocol(640, 1234),
        targets=("albedo", "material"),
    ),
    "hypersim_iid": Description(
        "iid",
        ("image", "albedo", "shading", "residual"),
        truths.read_lighting,
        Protocol(0, 1234),
        targets=("albedo", "shading", "residual"),
    ),
    "folder_depth": Description(
        "depth",
        ("image", "truth", "mask"),
        truths.read_own_depth,
        Protocol(0, 1234),
        naming="id",
        min_depth=1e-5,
        max_depth=math.inf,
        by_folders=True,
    ),
    "folder_normals": Description(
        "normals", ("image", "truth", "mask"), truths.read_own_normals, Protocol(0, 1234), by_folders=True
    ),
    "folder_iid": Description("iid", ("image",), truths.read_own_intrinsics, Protocol(0, 1234), by_folders=True),
}
