"""Images of any kind as arrays (N, H, W, C) of uint8, uint16 or float32, which the engine takes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


def is_torch_tensor(value: object) -> bool:
    """Whether `value` is a torch tensor; torch is never imported for the question."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.is_tensor(value))


def as_array(value: Any) -> NDArray[Any]:
    """What NumPy or torch has, as a NumPy array."""
    if is_torch_tensor(value):
        value = value.detach().cpu().float().numpy()
    return np.asarray(value)


def upright(image: Image.Image) -> Image.Image:
    """The picture as its camera held it; an image without an EXIF orientation as it is."""
    return ImageOps.exif_transpose(image)


def array_of_pil(image: Image.Image) -> NDArray[Any]:
    """Pixels of a PIL image of any mode: grey stays grey (16 bits too), all else becomes RGB; no transparency."""
    mode = image.mode
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if mode == "I":
        wide = np.asarray(image)
        if wide.size and (wide.min() < 0 or wide.max() > 65535):
            raise ValueError(f"a PIL image of mode I holds {wide.min()} to {wide.max()}; 16 bits are 0 to 65535")
        return wide.astype(np.uint16)
    if mode == "F":
        return np.asarray(image)
    if mode in ("L", "RGB"):
        return np.asarray(image)
    if mode == "La":  # Pillow converts premultiplied grey to LA only
        image = image.convert("LA")
    return np.asarray(image.convert("L" if mode in ("1", "LA", "La") else "RGB"))


def expand(image: NDArray[Any]) -> NDArray[Any]:
    """(H, W) or (H, W, C) or (N, H, W, C) as (N, H, W, C)."""
    if image.ndim == 2:
        return image[None, :, :, None]
    return image[None] if image.ndim == 3 else image


def _expand_tensor(tensor: Any) -> NDArray[Any]:
    """A tensor (H, W), (C, H, W) or (N, C, H, W), channels first as torch has them."""
    array: NDArray[Any] = tensor.detach().cpu().float().numpy() if tensor.is_floating_point() else tensor.cpu().numpy()
    if array.ndim == 2:
        array = array[None, None]
    elif array.ndim == 3:
        array = array[None]
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def canonical(image: Any, name: str = "image") -> NDArray[Any]:
    """One image, or one array of images, as (N, H, W, C); ValueError names `name`.

    An image of PIL with an EXIF orientation is turned upright, as photographs read from files are.
    """
    if isinstance(image, Image.Image):
        image = array_of_pil(upright(image))
    if is_torch_tensor(image):
        pixels = _expand_tensor(image)
    elif isinstance(image, np.ndarray):
        if image.ndim not in (2, 3, 4):
            raise ValueError(f"`{name}` has unsupported dimensions or shape: {image.shape}.")
        pixels = expand(image)
    else:
        raise ValueError(f"Unsupported `{name}` type: {type(image)}.")
    if pixels.ndim != 4:
        raise ValueError(f"`{name}` has unsupported dimensions or shape: {tuple(image.shape)}.")
    if 0 in pixels.shape:
        raise ValueError(f"`{name}` is empty: shape {pixels.shape}.")
    if pixels.shape[3] not in (1, 3):
        raise ValueError(f"Input `{name}` is not 1- or 3-channel: {image.shape}.")
    return _known_type(pixels, name)


def _known_type(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    kind = pixels.dtype.kind
    if kind == "u":
        if pixels.dtype.itemsize <= 2:
            return pixels
        return (pixels / np.iinfo(pixels.dtype).max).astype(np.float32)
    if kind == "f":
        return pixels.astype(np.float32, copy=False)
    what = {"i": "a signed integer", "c": "complex", "b": "boolean"}.get(kind, f"of kind {kind!r}")
    raise ValueError(f"Input `{name}` dtype={pixels.dtype} cannot be {what}.")


def join(images: list[NDArray[Any]]) -> NDArray[Any]:
    """Arrays (N, H, W, C) of one size as one batch; those of different type or depth as RGB floats."""
    if len(images) == 1:
        return images[0]
    if len({(image.dtype, image.shape[3]) for image in images}) == 1:
        return np.concatenate(images)
    return np.concatenate([_rgb_floats(image) for image in images])


def _rgb_floats(image: NDArray[Any]) -> NDArray[np.float32]:
    values = image.astype(np.float32)
    if image.dtype.kind == "u":
        values /= np.float32(np.iinfo(image.dtype).max)
    return np.repeat(values, 3, axis=3) if values.shape[3] == 1 else values


def preview_stride(height: int, width: int, limit: int) -> int:
    """Of every how many rows and columns one is taken, so that no more than `limit` pixels are left."""
    stride = 1
    while -(-height // stride) * -(-width // stride) > limit:
        stride += 1
    return stride
