"""The data sets, one row each: what a line of the list names, how the truth is decoded, what is valid, what is written.

Read by config.py, lists.py and dataset.py. The numbers are those of the evaluation protocol published with Marigold
(prs-eth/Marigold, src/dataset and script; of completion prs-eth/Marigold-DC, script). A new data set is a new row; a
new encoding is a new function in truths.py.
"""

from __future__ import annotations

import math
from typing import Any

from . import truths
from .settings import Description, Layout, Protocol

TASKS = ("depth", "normals", "iid", "completion")


_DEPTH = ("image", "truth")
_NORMALS = ("image", "truth")
_KITTI: dict[str, Any] = {
    "min_depth": 1e-5,
    "max_depth": 80.0,
    "switches": ("kitti_bm_crop", "valid_mask_crop"),
    "drops_none": True,
    "naming": "id",
}

# What Marigold-DC's dataset_processing.py writes, whatever the data set; and the archives of some as they come.
_PREPARED = Layout({"image": "rgb", "truth": "gt", "sparse": "sparse"})
_KITTI_SELECTION = Layout(
    {"image": "image", "truth": "groundtruth_depth", "sparse": "velodyne_raw"},
    {"image": "_image_", "truth": "_groundtruth_depth_", "sparse": "_velodyne_raw_"},
    drops_hidden=True,
)
_VOID_RELEASE = Layout(
    {"image": "data", "truth": "data", "sparse": "data"},
    {"image": "/image/", "truth": "/ground_truth/", "sparse": "/sparse_depth/"},
)
_DDAD_PREGENERATED = Layout({"image": "rgb", "truth": "gt", "sparse": "hints"}, drops_hidden=True)


def _completion(resolution: int, points: int | None = None, official: Layout | None = None, **more: Any) -> Description:
    """Every depth above 0 counts. Images have the size of the points, which are never resized."""
    return Description(
        "completion",
        ("image", "truth", "sparse"),
        truths.read_own_depth,
        Protocol(resolution, 2024),
        naming="beside",
        min_depth=0.0,
        max_depth=math.inf,
        units_per_metre=more.pop("units_per_metre", 256.0),
        layouts={"prepared": _PREPARED, **({"official": official} if official else {})},
        points=points,
        **more,
    )


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
    "scannet_completion": _completion(0, 500),
    "ibims_completion": _completion(0, 1000),
    "void_completion": _completion(0, official=_VOID_RELEASE),
    "nyu_completion": _completion(768, 500),
    "kitti_completion": _completion(0, official=_KITTI_SELECTION),
    "ddad_completion": _completion(768, official=_DDAD_PREGENERATED),
    "folder_completion": _completion(768, units_per_metre=1000.0, by_folders=True),
}
