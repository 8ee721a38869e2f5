"""What is known of a data set: its row of the table (Description), its configuration (Settings), and a sample's Truth.

Filled in by table.py, config.py and truths.py, none of which knows the others' work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Truth:
    """What a prediction is compared with.

    target: float32; depth (H, W) in metres; normals (H, W, 3) in camera coordinates, x right, y up, z to the viewer;
        intrinsics {name of the target: (H, W, 3)} in [0, 1], in the space that the data set's reader documents.
    mask: bool (H, W): valid, and inside of the part that is evaluated; of intrinsics, in all targets and channels.
    target_masks: of intrinsics, {name of the target: bool (H, W, 3)}, which is what the published metrics are masked
        with, or None where all is valid; None for depth and normals.
    """

    target: NDArray[np.float32] | dict[str, NDArray[np.float32]]
    mask: NDArray[np.bool_]
    target_masks: dict[str, NDArray[np.bool_]] | None = None


@dataclass(frozen=True)
class Protocol:
    """How predictions for a data set were made for the published numbers; 0 is the size of the image itself."""

    processing_resolution: int
    seed: int
    alignment_max_resolution: int | None = None


@dataclass(frozen=True)
class Layout:
    """Where the files of a data set lie that has no list of them.

    folders: of each kind of file; files of a sample have one name in all of them, but for the suffix. words: or else
    what in a name tells the kinds apart. drops_hidden: measured points are a lidar's, as it gave them.
    """

    folders: Mapping[str, str]
    words: Mapping[str, str] = field(default_factory=dict)
    drops_hidden: bool = False


@dataclass(frozen=True)
class Description:
    """One data set.

    columns: what the names in a line of the list are, in order. The first is the image.
    Further names in a line are passed over.
    read_truth: decodes a sample's truth. min_depth, max_depth: the range of valid depth in metres. units_per_metre: of
    integers. naming: the rule of prediction_names.py. switches: keys of the configuration that must be there.
    crop: the part of image and truth that is read, in crops.CROPS. drops_none: samples whose truth is "None" are left
    out. by_folders: own data, whose files are found by the image's name. targets: the maps of intrinsics.
    layouts: of depth completion, by name, the first by default. points: how many are drawn from the truth where there
    is no folder of measured ones; None: then it cannot be read.
    """

    task: str
    columns: tuple[str, ...]
    read_truth: Callable[..., Truth]
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
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    points: int | None = None


@dataclass(frozen=True)
class Settings:
    """A data set's row of the table together with its configuration.

    columns: what the files of a sample are. crop, window: names in crops.py. folders: of a data set by folders, the
    folder of each kind of file; words: see Layout. targets: of intrinsics. points: of depth completion, how many are
    drawn from the truth, from points_seed; None: they are in files, and with drops_hidden a lidar's.
    """

    description: Description
    name: str
    display_name: str
    directory: str
    list_name: str | None
    columns: tuple[str, ...]
    targets: tuple[str, ...]
    min_depth: float | None
    max_depth: float | None
    units_per_metre: float
    crop: str | None
    window: str | None
    folders: Mapping[str, str]
    words: Mapping[str, str] = field(default_factory=dict)
    points: int | None = None
    points_seed: int = 2024
    drops_hidden: bool = False


def drawing(settings: Settings, points: int) -> Settings:
    """The settings with so many points drawn from the truth instead of files of them."""
    columns = tuple(role for role in settings.columns if role != "sparse")
    folders = {role: folder for role, folder in settings.folders.items() if role != "sparse"}
    return replace(settings, columns=columns, folders=folders, points=points)
