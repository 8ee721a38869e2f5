"""Images before and predictions after the network: diffusers' MarigoldImageProcessor on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import _C
from . import pictures
from .arrays import canonical, expand, is_torch_tensor, join
from .target_views import target_names, target_pictures


def _channels_last(tensor: Any) -> NDArray[Any]:
    """A tensor (..., C, H, W) or (H, W) as an array (..., H, W, C) or (H, W)."""
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16.
    array: NDArray[Any] = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return np.moveaxis(array, -3, -1) if array.ndim > 2 else array


def _expanded(value: Any) -> NDArray[Any]:
    """An array (H, W), (H, W, C) or (N, H, W, C), or a tensor (H, W), (C, H, W) or (N, C, H, W), as (N, H, W, C)."""
    return expand(_channels_last(value) if is_torch_tensor(value) else value)


def _refuse_none(value: Any, what: str) -> None:
    if value is None or (isinstance(value, list) and any(item is None for item in value)):
        raise ValueError(f"Input {what} is `None`")


def _maps(value: Any, what: str, channels: tuple[int, ...]) -> list[Any]:
    """The single maps (H, W) or (H, W, C) of an array, a tensor, or a list of maps."""
    _refuse_none(value, what)
    if is_torch_tensor(value) or isinstance(value, np.ndarray):
        maps = _expanded(value)
        if maps.ndim != 4 or maps.shape[3] not in channels:
            expected = "1" if channels == (1,) else f"C in {channels}" if len(channels) > 1 else str(channels[0])
            raise ValueError(f"Unexpected input shape={tuple(value.shape)}, expecting [N,H,W,{expected}].")
        return [one[:, :, 0] if maps.shape[3] == 1 else one for one in maps]
    if isinstance(value, list):
        return [_single(item) for item in value]
    raise ValueError(f"Unexpected input type: {type(value)}")


def _single(item: Any) -> Any:
    """An item of a list as (H, W) or (H, W, C): also a prediction (1, H, W, C) of a list of images of many sizes."""
    if is_torch_tensor(item):
        item = _channels_last(item)
        if item.ndim == 3 and item.shape[2] == 1:
            return item[:, :, 0]
    if isinstance(item, np.ndarray) and item.ndim == 4 and item.shape[0] == 1:
        item = item[0]
        return item[:, :, 0] if item.shape[2] == 1 else item
    return item


def _floats(item: Any, prefix: str, dimensions: tuple[int, ...]) -> NDArray[Any]:
    """`item`, an array of floating-point numbers with one of these numbers of dimensions; 3 of them end in RGB."""
    if not isinstance(item, np.ndarray):
        raise ValueError(f"{prefix}: unexpected type={type(item)}.")
    if item.ndim not in dimensions or (item.ndim > 2 and item.shape[-1] != 3) or 0 in item.shape:
        raise ValueError(f"{prefix}: unexpected shape={item.shape}.")
    if not np.issubdtype(item.dtype, np.floating):
        raise ValueError(f"{prefix}: unexpected dtype={item.dtype}.")
    return item


def _target_groups(prediction: Any, count: int) -> list[NDArray[Any]]:
    """The targets (T, H, W, 3) of each image of a prediction (N*T, H, W, 3) or of a list with one for each image."""
    _refuse_none(prediction, "prediction")
    if is_torch_tensor(prediction) or isinstance(prediction, np.ndarray):
        maps = _floats(_expanded(prediction), "Prediction", (4,))
        if len(maps) % count:
            raise ValueError(f"Unexpected input shape={tuple(prediction.shape)}, expecting [N*{count},H,W,3].")
        return list(maps.reshape(-1, count, *maps.shape[1:]))
    if not isinstance(prediction, list):
        raise ValueError(f"Unexpected input type: {type(prediction)}")
    items = [_channels_last(item) if is_torch_tensor(item) else item for item in prediction]
    return [_floats(item, f"Prediction[{index}]", (4,)) for index, item in enumerate(items)]


def _scaled(depth: NDArray[Any], val_min: float, val_max: float) -> NDArray[Any]:
    return depth if (val_min, val_max) == (0.0, 1.0) else (depth - val_min) / (val_max - val_min)


def _each(maps: list[Any], name: str, one: Callable[[Any, str], Image.Image]) -> list[Image.Image]:
    return [one(item, f"{name}[{index}]" if index else name) for index, item in enumerate(maps)]


class MarigoldImageProcessor:
    """Prepares images for the network and shows its predictions."""

    def __init__(self, vae_scale_factor: int = 8) -> None:
        self.vae_scale_factor = vae_scale_factor

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vae_scale_factor={self.vae_scale_factor})"

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
            values = _scaled(_floats(item, prefix, (2,)), val_min, val_max)
            return Image.fromarray(pictures.coloured(values, color_map).whole())

        return _each(_maps(depth, "depth", (1,)), "Depth", one)

    @staticmethod
    def export_depth_to_16bit_png(depth: Any, val_min: float = 0.0, val_max: float = 1.0) -> list[Image.Image]:
        """Depth maps as 16-bit grey images: 65535 at `val_max` and beyond, rounded down; 0 where there is no number."""

        def one(item: Any, prefix: str) -> Image.Image:
            values = _scaled(_floats(item, prefix, (2,)), val_min, val_max)
            return Image.fromarray(pictures.cut_to_16_bits(values))

        return _each(_maps(depth, "depth", (1,)), "Depth", one)

    @staticmethod
    def visualize_uncertainty(uncertainty: Any, saturation_percentile: float = 95) -> list[Image.Image]:
        """Uncertainty maps as grey or RGB images, white at this percentile of the values and above."""

        def one(item: Any, prefix: str) -> Image.Image:
            item = _floats(item, prefix, (2, 3))
            return Image.fromarray(pictures.uncertainty(item, saturation_percentile, prefix).whole())

        return _each(_maps(uncertainty, "uncertainty", (1, 3)), "Uncertainty", one)

    @staticmethod
    def visualize_normals(
        normals: Any, flip_x: bool = False, flip_y: bool = False, flip_z: bool = False
    ) -> list[Image.Image]:
        """Normals in [-1, 1] as colours: red to the right, green up, blue towards the viewer, each axis flipped if
        asked for."""
        flips = (-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0, -1.0 if flip_z else 1.0)

        def one(item: Any, prefix: str) -> Image.Image:
            return Image.fromarray(pictures.normals(_floats(item, prefix, (3,)), flips).whole())

        return _each(_maps(normals, "normals", (3,)), "Normals", one)

    @staticmethod
    def visualize_intrinsics(
        prediction: Any, target_properties: Mapping[str, Any], color_map: str | dict[str, str] = "binary"
    ) -> list[dict[str, Image.Image]]:
        """The targets of intrinsic images (N*T, H, W, 3), or of a list of (T, H, W, 3), by name.

        `target_properties` is the entry of model_index.json: `target_names`, and for each name `prediction_space`
        ("srgb", "linear" or "stack"), `up_to_scale`, and for a stack three `sub_target_names`, each None or a name
        with properties of its own. The channels of a stack are shown with `color_map`, one for all or by name.
        """
        names = target_names(target_properties)
        if not isinstance(color_map, str) and not (
            isinstance(color_map, dict) and all(isinstance(one, str) for pair in color_map.items() for one in pair)
        ):
            raise ValueError("`color_map` must be a string or a dictionary of strings")
        groups = _target_groups(prediction, len(names))
        made = [target_pictures(images, target_properties, color_map) for images in groups]
        return [{name: Image.fromarray(picture.whole()) for name, picture in one.items()} for one in made]
