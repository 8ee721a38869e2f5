"""Images before and predictions after the network: diffusers' MarigoldImageProcessor on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import _C, colormaps
from .images import canonical, expand, is_torch_tensor, join


def _maps(value: Any, what: str, channels: tuple[int, ...]) -> list[Any]:
    """The single maps of an array (H, W), (H, W, C) or (N, H, W, C), or of a list of maps (H, W)."""
    if value is None or (isinstance(value, list) and any(item is None for item in value)):
        raise ValueError(f"Input {what} is `None`")
    if is_torch_tensor(value):
        value = value.detach().cpu().float().numpy()
        value = value.reshape((1,) * (4 - value.ndim) + value.shape).transpose(0, 2, 3, 1)
    if isinstance(value, np.ndarray):
        maps = expand(value)
        if maps.ndim != 4 or maps.shape[3] not in channels:
            raise ValueError(f"Unexpected input shape={value.shape}, expecting [N,H,W,C] with C in {channels}.")
        return [one[:, :, 0] if maps.shape[3] == 1 else one for one in maps]
    if isinstance(value, list):
        return [_single(item) for item in value]
    raise ValueError(f"Unexpected input type: {type(value)}")


def _single(item: Any) -> Any:
    """A prediction (1, H, W, 1) of a list of images of different sizes as (H, W)."""
    if is_torch_tensor(item):
        item = item.detach().cpu().numpy()
    if isinstance(item, np.ndarray) and item.ndim == 4 and item.shape[0] == 1 and item.shape[3] == 1:
        return item[0, :, :, 0]
    return item


def _depth_of(item: Any, prefix: str) -> NDArray[Any]:
    if not isinstance(item, np.ndarray):
        raise ValueError(f"{prefix}: unexpected type={type(item)}.")
    if item.ndim != 2:
        raise ValueError(f"{prefix}: unexpected shape={item.shape}.")
    if not np.issubdtype(item.dtype, np.floating):
        raise ValueError(f"{prefix}: unexpected dtype={item.dtype}.")
    return item


def _scaled(depth: NDArray[Any], val_min: float, val_max: float) -> NDArray[Any]:
    return depth if (val_min, val_max) == (0.0, 1.0) else (depth - val_min) / (val_max - val_min)


def _each(maps: list[Any], name: str, one: Callable[[Any, str], Image.Image]) -> list[Image.Image]:
    return [one(item, f"{name}[{index}]" if index else name) for index, item in enumerate(maps)]


class MarigoldImageProcessor:
    """Prepares images for the network and shows its predictions."""

    def __init__(self, vae_scale_factor: int = 8) -> None:
        self.vae_scale_factor = vae_scale_factor

    def preprocess(
        self,
        image: Any,
        processing_resolution: int | None = None,
        resample_method_input: str = "bilinear",
    ) -> tuple[NDArray[np.float32], tuple[int, int], tuple[int, int]]:
        """(N, 3, H, W) in [-1, 1], the padding (bottom, right), and the original (height, width)."""
        images = [canonical(one, f"image[{i}]") for i, one in enumerate(image if isinstance(image, list) else [image])]
        if not images:
            raise ValueError("`image` is an empty list.")
        for index, one in enumerate(images):
            if one.shape[1:3] != images[0].shape[1:3]:
                raise ValueError(
                    f"Input image[{index}] has incompatible dimensions {one.shape[1:3]} with the previous images "
                    f"{images[0].shape[1:3]}"
                )
        pixels, (h, w, resized_h, resized_w, padded_h, padded_w) = _C.preprocess(
            join(images), processing_resolution or 0, resample_method_input, self.vae_scale_factor
        )
        return pixels, (padded_h - resized_h, padded_w - resized_w), (h, w)

    @staticmethod
    def resize_antialias(
        image: NDArray[Any], size: tuple[int, int], mode: str, is_aa: bool | None = None
    ) -> NDArray[np.float32]:
        """(N, C, H, W) floats resized to (height, width); antialiased if asked and the mode is bilinear or bicubic."""
        if not isinstance(image, np.ndarray):
            raise ValueError(f"Invalid input type={type(image)}.")
        if not np.issubdtype(image.dtype, np.floating):
            raise ValueError(f"Invalid input dtype={image.dtype}.")
        if image.ndim != 4:
            raise ValueError(f"Invalid input dimensions; shape={image.shape}.")
        return _C.resize(image, size, mode=mode, antialias=bool(is_aa) and mode in ("bilinear", "bicubic"))

    @staticmethod
    def visualize_depth(
        depth: Any, val_min: float = 0.0, val_max: float = 1.0, color_map: str = "Spectral"
    ) -> list[Image.Image]:
        """Depth maps in colour; also 16-bit PIL images, as export_depth_to_16bit_png gives them."""
        if val_max <= val_min:
            raise ValueError(f"Invalid values range: [{val_min}, {val_max}].")

        def one(item: Any, prefix: str) -> Image.Image:
            if isinstance(item, Image.Image):
                if item.mode != "I;16":
                    raise ValueError(f"{prefix}: invalid PIL mode={item.mode}.")
                item = np.asarray(item).astype(np.float32) / np.float32(65535)
            values = _scaled(_depth_of(item, prefix), val_min, val_max)
            return Image.fromarray(colormaps.apply(values, color_map))

        return _each(_maps(depth, "depth", (1,)), "Depth", one)

    @staticmethod
    def export_depth_to_16bit_png(depth: Any, val_min: float = 0.0, val_max: float = 1.0) -> list[Image.Image]:
        """Depth maps as 16-bit grey images, 65535 at `val_max`."""

        def one(item: Any, prefix: str) -> Image.Image:
            values = _scaled(_depth_of(item, prefix), val_min, val_max)
            return Image.fromarray((values * 65535).astype(np.uint16))

        return _each(_maps(depth, "depth", (1,)), "Depth", one)

    @staticmethod
    def visualize_uncertainty(uncertainty: Any, saturation_percentile: float = 95) -> list[Image.Image]:
        """Uncertainty maps as grey or RGB images, white at this percentile of the values and above."""

        def one(item: Any, prefix: str) -> Image.Image:
            if item.min() < 0:
                raise ValueError(f"{prefix}: unexpected data range, min={item.min()}.")
            saturation = np.percentile(item, saturation_percentile)
            scaled = item * 255 / saturation if saturation > 0 else np.zeros_like(item)
            return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))

        return _each(_maps(uncertainty, "uncertainty", (1, 3)), "Uncertainty", one)
