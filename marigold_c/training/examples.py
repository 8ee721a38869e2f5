"""A sample of a data set as the network is trained on it: read, changed at random, normalised, resized.

Called by the loader's threads. Sizes and interpolation are those of prs-eth/Marigold: depth and its image are resized
with the nearest pixel after normalisation, normals and intrinsic images bilinearly.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .._C import resize
from ..datasets import Dataset, Truth, open_dataset
from ..errors import SampleError
from .augmentations import change_image, crop_window
from .settings import DataSetConfig, TrainingConfig
from .targets import (
    LATENT_BLOCK,
    EmptyTarget,
    depth_image,
    intrinsic_image,
    latent_mask,
    lighting_targets,
    normals_image,
)

Array = NDArray[np.float32]

# What is known up to a scale where no configuration says so.
_LIGHTING = ("shading", "residual")
# Levels of an 8-bit image in [-1, 1].
_LEVELS = (np.arange(256) / 255 * 2 - 1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Example:
    """image: (3, H, W) in [-1, 1]. target: (3 T, H, W) in [-1, 1], the T maps of the task after each other. mask: bool
    (1, H, W), where they are valid. name and files: for messages."""

    name: str
    files: tuple[str, ...]
    image: Array
    target: Array
    mask: NDArray[np.bool_]


def _chw(values: NDArray[np.generic]) -> Array:
    """(H, W) or (H, W, C) as (C, H, W)."""
    planes = values[:, :, None] if values.ndim == 2 else values
    return np.ascontiguousarray(planes.transpose(2, 0, 1), dtype=np.float32)


def _resized(planes: Array, size: tuple[int, int], mode: str) -> Array:
    resized: Array = resize(planes[None], size, mode, antialias=mode == "bilinear")[0]
    return resized


def _window_of(values: NDArray[Any], window: tuple[slice, slice], mode: str) -> NDArray[Any]:
    """A window of (H, W) or (H, W, C), as large as the whole again."""
    resized = _resized(_chw(values[window]), values.shape[:2], mode).transpose(1, 2, 0)
    if values.dtype != np.float32:
        resized = np.rint(resized).astype(values.dtype)
    return resized.reshape(values.shape)


def _cropped(image: NDArray[np.uint8], truth: Truth, window: tuple[slice, slice]) -> tuple[NDArray[np.uint8], Truth]:
    """The same window of an image and its truth. Depth is not interpolated: between two objects there is nothing."""
    if isinstance(truth.target, dict):
        target: Any = {name: _window_of(values, window, "bilinear") for name, values in truth.target.items()}
    else:
        target = _window_of(truth.target, window, "nearest-exact" if truth.target.ndim == 2 else "bilinear")
    mask = _window_of(truth.mask, window, "nearest-exact")
    return _window_of(image, window, "bilinear"), replace(truth, target=target, mask=mask)


class TrainingSet:
    """A data set for training: its samples as Examples."""

    def __init__(self, entry: DataSetConfig, config: TrainingConfig, base_data_dir: str | Path) -> None:
        """ConfigError or DatasetError if it cannot be opened."""
        self.entry, self.config = entry, config
        self.name = entry.display_name
        self._data: Dataset = open_dataset(entry.options, base_data_dir, task=entry.task)
        # A user's own lighting is stored as it was rendered, up to a scale; the others' readers bring it to [0, 1].
        properties = config.pipeline_options.get(
            "target_properties", {name: {"up_to_scale": True} for name in _LIGHTING}
        )
        self.target_names = config.target_names if entry.task == config.task else (entry.task,)
        if entry.task == "iid" != config.task:
            self.target_names = tuple(self._data.targets)
        self._scaled = tuple(
            name
            for name in self.target_names
            if entry.name == "folder_iid" and properties.get(name, {}).get("up_to_scale")
        )
        missing = [name for name in self.target_names if entry.task == "iid" and name not in self._data.targets]
        if missing:
            raise SampleError(self.name, "all", entry.folder, f"the data set has no {', '.join(missing)}")

    def __len__(self) -> int:
        return len(self._data)

    def sample_name(self, index: int) -> str:
        return f"{self.name}: {self._data.samples[index].name}"

    def files(self, index: int) -> tuple[str, ...]:
        return tuple(str(self._data.source.path / member) for member in self._data.samples[index].members)

    def flips(self, generator: random.Random) -> bool:
        """Whether this use of a sample is mirrored: the first number that is drawn for it."""
        return generator.random() < self.config.augmentation.flip

    def example(self, index: int, flip: bool, generator: random.Random | None) -> Example:
        """Reads a sample. generator None: nothing but the flip is changed. SampleError names what cannot be used."""
        image, truth = self._data.read_image(index), self._data.read_truth(index)
        if image.shape[:2] != truth.mask.shape:
            raise self.refuse(index, f"the image is {image.shape[:2]}, its truth {truth.mask.shape}")
        changes = self.config.augmentation
        if generator is not None and changes.crop and generator.random() < changes.crop:
            window = crop_window(truth.mask.shape, changes.crop_smallest, generator)
            image, truth = _cropped(image, truth, window)
        if flip:
            image = np.ascontiguousarray(image[:, ::-1])
        if generator is not None:
            image = change_image(image, changes, self.entry.blur, generator)
        planes, mask = _LEVELS[image].transpose(2, 0, 1), truth.mask[None]
        try:
            target = self._target(truth, flip)
        except EmptyTarget as error:
            raise self.refuse(index, str(error)) from error
        mask = mask[:, :, ::-1] if flip else mask
        size = self.entry.resize
        if size is not None:
            mode = "nearest-exact" if self.entry.task == "depth" else "bilinear"
            planes, target = _resized(planes, size, mode), _resized(target, size, mode)
            mask = _resized(mask.astype(np.float32), size, "nearest-exact") > 0
        height, width = planes.shape[1:]
        if height % LATENT_BLOCK or width % LATENT_BLOCK:
            raise self.refuse(
                index,
                f"is {height} x {width}, but the VAE takes multiples of {LATENT_BLOCK}; give resize_to_hw",
                self._data.samples[index].name,
            )
        if self.config.objective == "e2e":
            if not mask.any():
                raise self.refuse(index, "no pixel is valid")
        elif self.config.needs_valid_cells and not latent_mask(mask).any():
            raise self.refuse(index, "no latent cell has valid pixels only")
        return Example(
            self.sample_name(index),
            self.files(index),
            np.ascontiguousarray(planes, np.float32),
            np.ascontiguousarray(target, np.float32),
            np.ascontiguousarray(mask),
        )

    def refuse(self, index: int, reason: str, file: str | None = None) -> SampleError:
        """The error of a sample; file None: its truth."""
        sample = self._data.samples[index]
        return SampleError(self.name, sample.name, file or ", ".join(sample.members[1:]) or sample.name, reason)

    def _target(self, truth: Truth, flip: bool) -> Array:
        """(3 T, H, W) in [-1, 1]; mirrored, with normals whose x points the other way then."""
        config = self.config
        if self.entry.task == "iid":
            maps = {name: _chw(cast("dict[str, Array]", truth.target)[name]) for name in self.target_names}
            maps.update(self._to_common_scale(maps))
            target = np.concatenate([intrinsic_image(maps[name], name) for name in self.target_names])
            return target[:, :, ::-1] if flip else target
        values = _chw(cast(Array, truth.target))
        if self.entry.task == "depth":
            depth = config.depth_range
            target = depth_image(
                values, truth.mask[None], depth.quantile, depth.low, depth.high, depth.clip, config.far_invalid
            )
        else:
            target = normals_image(values)
            if flip:
                target[0] = -target[0]
        return target[:, :, ::-1] if flip else target

    def _to_common_scale(self, maps: dict[str, Array]) -> dict[str, Array]:
        if not self._scaled:
            return {}
        return dict(zip(self._scaled, lighting_targets(*(maps[name] for name in self._scaled)), strict=True))

    def close(self) -> None:
        self._data.close()
