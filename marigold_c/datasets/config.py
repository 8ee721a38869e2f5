"""Configurations of data sets: prs-eth/Marigold's YAML files as they are, or the same keys in a mapping.

Called by dataset.py. Every key is checked: a missing or misspelt one would evaluate something else than is meant.
"""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DatasetError, DatasetWarning
from ..extras import optional_module
from .settings import Description, Settings
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
_FOLDER_KEYS = ("images", "truth", "mask", "min_depth", "max_depth", "units_per_metre")


def read_config(path: Path) -> dict[str, Any]:
    """A YAML file's keys. MissingExtra without PyYAML; DatasetError names the file."""
    yaml = optional_module("yaml", "reading a data set's configuration")
    try:
        text = path.read_text(encoding="utf-8")
        config = yaml.safe_load(text)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise DatasetError(f"{path}: the configuration of a data set has keys and values, not {type(config).__name__}")
    return {str(key): value for key, value in config.items()}


def _description(config: Mapping[str, Any], origin: str, task: str) -> Description:
    if task not in TASKS:
        raise ValueError(f"task={task!r}: choose from {', '.join(TASKS)}")
    if "dataset" in config and "name" not in config:
        raise DatasetError(f"{origin}: a configuration of training; evaluation takes one data set with its keys on top")
    missing = [key for key in _REQUIRED if not isinstance(config.get(key), str) or not config[key]]
    if missing:
        raise DatasetError(f"{origin}: {', '.join(missing)} must be given as text")
    name = config["name"]
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, 1)
        raise DatasetError(
            f"{origin}: unknown data set {name!r}{f' (meant: {close[0]}?)' if close else ''}; "
            f"known: {', '.join(sorted(DATASETS))}"
        )
    if DATASETS[name].task != task:
        raise DatasetError(f"{origin}: {name} is a data set for {DATASETS[name].task}, not for {task}")
    return DATASETS[name]


def _switches(config: Mapping[str, Any], origin: str, description: Description) -> dict[str, str | None]:
    chosen: dict[str, str | None] = {"crop": description.crop, "window": None}
    for key in description.switches:
        setting, meanings = _SWITCHES[key]
        value = config.get(key, "missing")
        # 1 would be found as True.
        if isinstance(value, bool | str | None) and value in meanings:
            chosen[setting] = meanings[value]
        else:
            given = "is missing" if key not in config else f"is {value!r}"
            words = ", ".join("null" if one is None else str(one).lower() for one in meanings)
            raise DatasetError(f"{origin}: {key} {given}; choose from {words}")
    return chosen


def _number(config: Mapping[str, Any], origin: str, key: str, default: float | None) -> float | None:
    value = config.get(key, default)
    if value is None:
        return None
    # YAML takes 1e-3 without a point for text.
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number) or number < 0:
        raise DatasetError(f"{origin}: {key} is {value!r}, not a number of at least 0")
    return number


def _folders(config: Mapping[str, Any], origin: str, description: Description) -> dict[str, str]:
    """The folder of each kind of file of a data set by folders; "truth" of intrinsics is a mapping of targets."""
    if config.get("filenames") is not None:
        if description.task == "iid":
            raise DatasetError(f"{origin}: own intrinsic images are found by their folders, not by a list (filenames)")
        return {}
    truth = config.get("truth")
    if description.task == "iid":
        truths = truth if isinstance(truth, Mapping) else {}
    else:
        truths = {} if truth is None else {"truth": truth}
    given = {"image": config.get("images"), **truths, **({"mask": config["mask"]} if config.get("mask") else {})}
    if not truths or not all(isinstance(one, str) for one in (*given, *given.values())):
        what = "truth (a folder for each target)" if description.task == "iid" else "truth"
        raise DatasetError(f"{origin}: images and {what} must be given as folders below dir")
    return given


def _check_unknown(config: Mapping[str, Any], origin: str, description: Description) -> None:
    known = {*_REQUIRED, "filenames", *description.switches, *_TRAINING}
    known |= {*_FOLDER_KEYS} if description.by_folders else set()
    unknown = sorted(set(config) - known)
    if unknown:
        message = f"{origin}: keys without a meaning for {config['name']} are passed over: {', '.join(unknown)}"
        warnings.warn(message, DatasetWarning, stacklevel=4)


def settings_from(config: Mapping[str, Any], origin: str, task: str) -> Settings:
    """The settings that a configuration means. DatasetError names the key; DatasetWarning: a key without a meaning."""
    description = _description(config, origin, task)
    filenames = config.get("filenames")
    if filenames is not None and not isinstance(filenames, str):
        raise DatasetError(f"{origin}: filenames is {filenames!r}, not the path of a list")
    if filenames is None and not description.by_folders:
        raise DatasetError(f"{origin}: filenames, the path of the list of samples, is missing")
    _check_unknown(config, origin, description)
    folders = _folders(config, origin, description) if description.by_folders else {}
    min_depth = _number(config, origin, "min_depth", description.min_depth)
    max_depth = _number(config, origin, "max_depth", description.max_depth)
    units = _number(config, origin, "units_per_metre", description.units_per_metre)
    if not units:
        raise DatasetError(f"{origin}: units_per_metre must be above 0")
    own_targets = tuple(role for role in folders if role not in ("image", "mask"))
    return Settings(
        description=description,
        name=config["name"],
        display_name=config["disp_name"],
        directory=config["dir"],
        list_name=filenames,
        columns=tuple(folders) or description.columns,
        targets=description.targets or (own_targets if task == "iid" else ()),
        min_depth=min_depth if description.by_folders else description.min_depth,
        max_depth=max_depth if description.by_folders else description.max_depth,
        units_per_metre=units if description.by_folders else description.units_per_metre,
        folders=folders,
        **_switches(config, origin, description),
    )
