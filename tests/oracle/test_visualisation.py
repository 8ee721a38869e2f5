"""The pictures of predictions, compared with diffusers' MarigoldImageProcessor to the byte."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.marigold import MarigoldImageProcessor as Theirs
from PIL import Image

from marigold_c import MarigoldImageProcessor as Ours

RNG = np.random.default_rng(7)
DEPTH = RNG.random((3, 31, 42, 1), dtype=np.float32)
DEPTH[0, 0, :3, 0] = 0, 1, 0.5
NORMALS = RNG.standard_normal((2, 31, 42, 3)).astype(np.float32)
NORMALS /= np.linalg.norm(NORMALS, axis=3, keepdims=True)
NORMALS[0, 0, :3] = [[1, 0, 0], [0, -1, 0], [0, 0, 1]]
TARGETS = RNG.random((6, 31, 42, 3), dtype=np.float32)

APPEARANCE = {
    "target_names": ["albedo", "material"],
    "albedo": {"prediction_space": "srgb"},
    "material": {"prediction_space": "stack", "sub_target_names": ["roughness", "metallicity", None]},
    "roughness": {"prediction_space": "linear", "up_to_scale": False},
    "metallicity": {"prediction_space": "linear", "up_to_scale": True},
}
LIGHTING = {
    "target_names": ["albedo", "shading", "residual"],
    "albedo": {"prediction_space": "linear", "up_to_scale": False},
    "shading": {"prediction_space": "linear", "up_to_scale": True},
    "residual": {"prediction_space": "linear", "up_to_scale": True},
}

HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None
COLOR_MAPS = ["Spectral", "binary", "Spectral_r", "binary_r", *(["viridis", "gray"] if HAS_MATPLOTLIB else [])]


@pytest.fixture(autouse=True)
def pillow_with_modes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """diffusers' export names a mode to Image.fromarray, an argument that Pillow 13 no longer has."""
    original = Image.fromarray
    monkeypatch.setattr(Image, "fromarray", lambda pixels, mode=None: original(pixels))
    yield


def tensor(array: Any) -> torch.Tensor:
    """(..., H, W, C) as torch has it."""
    return torch.from_numpy(np.moveaxis(array, -1, -3).copy())


def same(got: list[Any], wanted: list[Any], *, differing: float = 0) -> None:
    """Equal pictures; where a share may differ, by one step of 255."""
    assert len(got) == len(wanted)
    for mine, other in zip(got, wanted, strict=True):
        if isinstance(other, dict):
            assert list(mine) == list(other)
            same(list(mine.values()), list(other.values()), differing=differing)
            continue
        assert (mine.mode, mine.size) == (other.mode, other.size)
        a, b = np.asarray(mine).astype(int), np.asarray(other).astype(int)
        assert np.abs(a - b).max() <= (1 if differing else 0)
        assert np.mean(a != b) <= differing


def outcome(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("color_map", COLOR_MAPS)
@pytest.mark.parametrize("limits", [{}, {"val_min": 0.2, "val_max": 0.7}, {"val_min": -1.5, "val_max": 3}])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_depth(color_map: str, limits: dict[str, float], dtype: Any) -> None:
    depth = DEPTH.astype(dtype)
    maps = [one[:, :, 0] for one in depth]
    for value in (depth, depth[0], maps[0], maps, tensor(depth), [torch.from_numpy(one) for one in maps]):
        same(
            Ours.visualize_depth(value, color_map=color_map, **limits),
            Theirs.visualize_depth(value, color_map=color_map, **limits),
        )
        if not limits and dtype != np.float16:  # diffusers multiplies in half precision, which ends at 65504
            same(Ours.export_depth_to_16bit_png(value), Theirs.export_depth_to_16bit_png(value))
    inner = DEPTH * 0.5 + 0.2
    same(
        Ours.export_depth_to_16bit_png(inner, val_min=0.1, val_max=0.9),
        Theirs.export_depth_to_16bit_png(inner, val_min=0.1, val_max=0.9),
    )


def test_depth_of_pil_images() -> None:
    images = Ours.export_depth_to_16bit_png(DEPTH)
    assert [image.mode for image in images] == ["I;16"] * 3
    same(Ours.visualize_depth(images), Theirs.visualize_depth(images))


def test_values_beyond_the_range_and_missing_ones() -> None:
    depth = DEPTH[0, :, :, 0] * 3 - 1
    same(Ours.visualize_depth(depth), Theirs.visualize_depth(depth))
    depth = np.array([[np.inf, -np.inf], [0.2, 5]], np.float32)
    same(Ours.visualize_depth(depth), Theirs.visualize_depth(depth))


@pytest.mark.parametrize("flips", [(), ("flip_x",), ("flip_y",), ("flip_z",), ("flip_x", "flip_z")])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_normals(flips: tuple[str, ...], dtype: Any) -> None:
    options = dict.fromkeys(flips, True)
    normals = NORMALS.astype(dtype)
    before = normals.copy()
    for value in (normals, normals[1], tensor(normals)):
        # diffusers flips in the caller's own array.
        copied = value.clone() if torch.is_tensor(value) else value.copy()
        same(Ours.visualize_normals(value, **options), Theirs.visualize_normals(copied, **options))
    tensors = [tensor(one) for one in normals]
    same(
        Ours.visualize_normals(tensors, **options),
        Theirs.visualize_normals([one.clone() for one in tensors], **options),
    )
    assert np.array_equal(normals, before)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("percentile", [95, 50, 100, 12.5])
def test_uncertainty(channels: int, percentile: float) -> None:
    values = np.random.default_rng(channels).random((2, 31, 42, channels), dtype=np.float32) ** 3
    mostly_certain = np.where(values > 0.97, values, 0)
    for one in (values, values[0], mostly_certain):
        for value in (one, tensor(one)):
            with np.errstate(all="ignore"):
                wanted = Theirs.visualize_uncertainty(value, percentile)
            if percentile == 95 and one is mostly_certain:
                assert np.asarray(wanted[0]).max() == 255
            same(Ours.visualize_uncertainty(value, percentile), wanted)


@pytest.mark.parametrize("color_map", ["binary", "Spectral", {"roughness": "Spectral_r"}])
@pytest.mark.parametrize("properties", [APPEARANCE, LIGHTING], ids=["appearance", "lighting"])
def test_intrinsics(properties: dict[str, Any], color_map: Any) -> None:
    # A power in float32 may differ in its last bit between the libraries, and then cut off to another byte.
    count = len(properties["target_names"])
    groups = [TARGETS[start : start + count] for start in range(0, 6, count)]
    for value in (TARGETS, TARGETS[:count], tensor(TARGETS), [tensor(one) for one in groups]):
        same(
            Ours.visualize_intrinsics(value, properties, color_map),
            Theirs.visualize_intrinsics(value, properties, color_map),
            differing=1e-3,
        )
    same(
        Ours.visualize_intrinsics(groups, properties, color_map),
        Theirs.visualize_intrinsics(TARGETS, properties, color_map),
        differing=1e-3,
    )


def test_srgb_targets_are_equal_to_the_byte() -> None:
    properties = {"target_names": ["a", "b"], "a": {"prediction_space": "srgb"}, "b": {}}
    same(Ours.visualize_intrinsics(TARGETS, properties), Theirs.visualize_intrinsics(TARGETS, properties))


BAD: dict[str, Callable[[Any], Any]] = {
    "none": lambda p: p.visualize_depth(None),
    "none in a list": lambda p: p.visualize_depth([DEPTH[0, :, :, 0], None]),
    "range": lambda p: p.visualize_depth(DEPTH, val_min=1),
    "map": lambda p: p.visualize_depth(DEPTH, color_map="no such map"),
    "two channels": lambda p: p.visualize_depth(np.zeros((1, 8, 8, 2), np.float32)),
    "integers": lambda p: p.visualize_depth(np.zeros((8, 8), np.int32)),
    "depth of a list": lambda p: p.visualize_depth([np.zeros((8, 8, 1), np.float32)]),
    "text": lambda p: p.visualize_depth("depth"),
    "text in a list": lambda p: p.visualize_depth(["depth"]),
    "rgb": lambda p: p.visualize_depth([Image.new("RGB", (8, 8))]),
    "a picture": lambda p: p.visualize_depth(Image.new("I;16", (8, 8))),
    "export none": lambda p: p.export_depth_to_16bit_png(None),
    "export picture": lambda p: p.export_depth_to_16bit_png([Image.new("I;16", (8, 8))]),
    "export integers": lambda p: p.export_depth_to_16bit_png(np.zeros((8, 8), np.uint16)),
    "normals none": lambda p: p.visualize_normals(None),
    "normals grey": lambda p: p.visualize_normals(np.zeros((1, 8, 8, 1), np.float32)),
    "normals text": lambda p: p.visualize_normals("normals"),
    "uncertainty none": lambda p: p.visualize_uncertainty([None]),
    "uncertainty negative": lambda p: p.visualize_uncertainty(DEPTH - 0.5),
    "uncertainty channels": lambda p: p.visualize_uncertainty(np.zeros((8, 8, 2), np.float32)),
    "uncertainty percentile": lambda p: p.visualize_uncertainty(DEPTH, 101),
    "targets none": lambda p: p.visualize_intrinsics(None, APPEARANCE),
    "no names": lambda p: p.visualize_intrinsics(TARGETS, {}),
    "odd count": lambda p: p.visualize_intrinsics(TARGETS[:5], APPEARANCE),
    "target channels": lambda p: p.visualize_intrinsics(TARGETS[..., :1], APPEARANCE),
    "target maps": lambda p: p.visualize_intrinsics(TARGETS, APPEARANCE, color_map={"albedo": 3}),
    "target map": lambda p: p.visualize_intrinsics(TARGETS, APPEARANCE, color_map="no such map"),
    "sub-targets": lambda p: p.visualize_intrinsics(
        TARGETS, APPEARANCE | {"material": {"prediction_space": "stack", "sub_target_names": ["roughness"]}}
    ),
    "target type": lambda p: p.visualize_intrinsics("targets", APPEARANCE),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_by_both(case: str) -> None:
    assert outcome(lambda: BAD[case](Theirs)) is ValueError
    assert outcome(lambda: BAD[case](Ours)) is ValueError
