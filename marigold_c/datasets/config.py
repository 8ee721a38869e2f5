"""Configurations of data sets: prs-eth/Marigold's YAML files as they are, or the same keys in a mapping.

Called by dataset.py. Every key is checked: a missing or misspelt one would evaluate something else than is meant.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..configurations.models import Section, checked, choice, flag, integer, number, text
from ..configurations.yaml_tree import ConfigError, Value, load_tree, tree_of
from ..errors import DatasetError, DatasetWarning
from ..messages import suggestion
from .settings import Description, Layout, Settings, drawing
from .table import DATASETS, TASKS

# A switch of the configuration: which setting it chooses, and what its values mean.
_SWITCHES: dict[str, tuple[str, dict[Any, str | None]]] = {
    "eigen_valid_mask": ("window", {True: "nyu_eigen", False: None}),
    "kitti_bm_crop": ("crop", {True: "kitti_benchmark", False: None}),
    "valid_mask_crop": ("window", {None: None, "eigen": "kitti_eigen", "garg": "kitti_garg"}),
}
_REQUIRED = ("name", "disp_name", "dir")
# Concern training only; evaluation passes them over, as the reference does.
_TRAINING = ("resize_to_hw", "augmentation_args", "depth_transform", "center_crop", "move_invalid_to_far_plane")
_RANGES = {"min_depth", "max_depth", "units_per_metre"}
FOLDER_KEYS = ("images", "truth", "mask", *sorted(_RANGES))
_COMPLETION_KEYS = ("layout", "images", "truth", "sparse", "points", "points_seed", "drops_hidden", "units_per_metre")


class DataSetKeys(Section):
    """The keys of any data set. truth: a folder, or a mapping of targets to folders."""

    name: str = text("name")
    disp_name: str | None = text("disp_name", None)
    dir: str = text("dir")
    filenames: str | None = text("filenames", None)
    eigen_valid_mask: bool | None = flag("eigen_valid_mask", None)
    kitti_bm_crop: bool | None = flag("kitti_bm_crop", None)
    valid_mask_crop: str | None = choice("valid_mask_crop", ("eigen", "garg"), None)
    images: str | None = text("images", None)
    truth: Any = None
    mask: str | None = text("mask", None)
    min_depth: float | None = number("min_depth", None, 0)
    max_depth: float | None = number("max_depth", None, 0)
    units_per_metre: float | None = number("units_per_metre", None, 0, above=True)


class _Keys(DataSetKeys, extra="allow"):
    """Of evaluation, which mentions what it does not know, and needs a name for its results. From `layout` on: of depth
    completion."""

    disp_name: str = text("disp_name")
    layout: str | None = text("layout", None)
    sparse: str | None = text("sparse", None)
    points: int | None = integer("points", None, 1, 2**31)
    points_seed: int = integer("points_seed", 2024, 0, 2**32 - 1)
    drops_hidden: bool | None = flag("drops_hidden", None)


def read_config(config: str | Path | Mapping[str, Any], task: str) -> Settings:
    """The settings that a YAML file or a mapping means. DatasetError names file, line and key; DatasetWarning: a key
    without a meaning. MissingExtra without PyYAML or pydantic."""
    if task not in TASKS:
        raise ValueError(f"task={task!r}: choose from {', '.join(TASKS)}")
    try:
        tree = tree_of(config, Path("the configuration")) if isinstance(config, Mapping) else load_tree(Path(config))
        return _settings_from(tree, task)
    except OSError as error:
        raise DatasetError(f"{config}: {error.strerror or error}") from error
    except ConfigError as error:
        raise DatasetError(str(error)) from error


def _description(tree: Value, name: str, task: str) -> Description:
    if name not in DATASETS:
        known = ", ".join(sorted(DATASETS))
        raise tree.refuse("name", f"unknown data set {name!r}; known: {known}{suggestion(name, DATASETS)}")
    if DATASETS[name].task != task:
        raise tree.refuse("name", f"{name} is a data set for {DATASETS[name].task}, not for {task}")
    return DATASETS[name]


def _switches(tree: Value, keys: DataSetKeys, description: Description) -> dict[str, Any]:
    chosen: dict[str, Any] = {"crop": description.crop, "window": None}
    for key in description.switches:
        setting, meanings = _SWITCHES[key]
        value = getattr(keys, key)
        if key not in tree.content or value not in meanings:
            words = ", ".join("null" if one is None else str(one).lower() for one in meanings)
            raise tree.refuse(key, f"is missing; choose from {words}")
        chosen[setting] = meanings[value]
    return chosen


def _folders(tree: Value, keys: DataSetKeys, description: Description) -> dict[str, str]:
    """The folder of each kind of file of a data set by folders; "truth" of intrinsics is a mapping of targets."""
    if keys.filenames is not None:
        if description.task == "iid":
            raise tree.refuse("filenames", "own intrinsic images are found by their folders, not by a list")
        return {}
    if description.task == "iid":
        truths = keys.truth if isinstance(keys.truth, dict) else {}
    else:
        truths = {} if keys.truth is None else {"truth": keys.truth}
    given = {"image": keys.images, **truths, **({"mask": keys.mask} if keys.mask else {})}
    if not truths or not all(isinstance(one, str) for one in given.values()):
        what = "truth (a folder for each target)" if description.task == "iid" else "truth"
        raise tree.fail("", f"images and {what} must be given as folders below dir")
    return given


def _layout(tree: Value, keys: _Keys, description: Description) -> Layout:
    """Of depth completion: the named one, or the first, with what the configuration puts in its place."""
    name = keys.layout or next(iter(description.layouts))
    if name not in description.layouts:
        raise tree.refuse("layout", f"unknown layout {name!r}; choose from {', '.join(description.layouts)}")
    if not isinstance(keys.truth, str | None):
        raise tree.refuse("truth", "is no folder")
    chosen = description.layouts[name]
    given = {"image": keys.images, "truth": keys.truth, "sparse": keys.sparse}
    folders = {**chosen.folders, **{role: folder for role, folder in given.items() if folder is not None}}
    hidden = chosen.drops_hidden if keys.drops_hidden is None else keys.drops_hidden
    return Layout({} if keys.filenames else folders, {} if keys.filenames else chosen.words, hidden)


def _completion(settings: Settings, tree: Value, keys: _Keys) -> Settings:
    layout = _layout(tree, keys, settings.description)
    settings = replace(
        settings,
        folders=layout.folders,
        words=layout.words,
        columns=settings.description.columns,
        points_seed=keys.points_seed,
        drops_hidden=layout.drops_hidden,
        units_per_metre=keys.units_per_metre or settings.units_per_metre,
    )
    return settings if keys.points is None else drawing(settings, keys.points)


def _check_unknown(tree: Value, keys: DataSetKeys, description: Description) -> None:
    known = {*_REQUIRED, "filenames", *description.switches, *_TRAINING}
    known |= {*FOLDER_KEYS} if description.by_folders and not description.layouts else set()
    known |= {*_COMPLETION_KEYS} if description.layouts else set()
    if unknown := sorted(set(tree.content) - known):
        near = "".join(suggestion(key, known - set(tree.content)) for key in unknown)
        names = ", ".join(unknown)
        warnings.warn(
            f"{tree.file}: keys without a meaning for {keys.name} are passed over: {names}{near}",
            DatasetWarning,
            stacklevel=4,
        )


def _settings_from(tree: Value, task: str) -> Settings:
    if "dataset" in tree.content and "name" not in tree.content:
        raise tree.fail("", "a configuration of training; evaluation takes one data set with its keys on top")
    keys = checked(_Keys, tree)
    description = _description(tree, keys.name, task)
    if keys.filenames is None and not description.by_folders and not description.layouts:
        raise tree.refuse("filenames", "the path of the list of samples is missing")
    _check_unknown(tree, keys, description)
    folders = _folders(tree, keys, description) if description.by_folders and not description.layouts else {}
    own_targets = tuple(role for role in folders if role not in ("image", "mask"))
    ranges: dict[str, Any] = {key: getattr(description, key) for key in _RANGES}
    if description.by_folders:
        ranges |= keys.model_dump(include=_RANGES, exclude_none=True)
    settings = Settings(
        description=description,
        name=keys.name,
        display_name=keys.disp_name,
        directory=keys.dir,
        list_name=keys.filenames,
        columns=tuple(folders) or description.columns,
        targets=description.targets or (own_targets if task == "iid" else ()),
        folders=folders,
        **ranges,
        **_switches(tree, keys, description),
    )
    return _completion(settings, tree, keys) if description.layouts else settings
