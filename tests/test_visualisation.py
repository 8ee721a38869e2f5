"""Pictures of predictions, as far as no other library is needed; tests/oracle compares with diffusers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from marigold_c import MarigoldImageProcessor as Processor
from marigold_c.images import colormaps

DEPTH = np.linspace(0, 1, 6 * 8, dtype=np.float32).reshape(6, 8)
PROPERTIES: dict[str, Any] = {
    "target_names": ["albedo", "material", "shading"],
    "albedo": {"prediction_space": "srgb"},
    "material": {"prediction_space": "stack", "sub_target_names": ["roughness", None, "metallicity"]},
    "roughness": {"prediction_space": "linear"},
    "metallicity": {},
    "shading": {"prediction_space": "linear", "up_to_scale": True},
}


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colormaps, "find_spec", lambda name: None)


def pixels(image: Image.Image) -> Any:
    return np.asarray(image).astype(int)


def test_depth(no_matplotlib: None) -> None:
    spectral = pixels(Processor.visualize_depth(DEPTH)[0])
    assert spectral[0, 0].tolist() == [158, 1, 66]
    assert spectral[-1, -1].tolist() == [94, 79, 162]
    binary = pixels(Processor.visualize_depth(DEPTH, color_map="binary")[0])
    assert np.array_equal(binary[:, :, 0], np.trunc((1 - DEPTH) * np.float32(255)))
    backwards = pixels(Processor.visualize_depth(DEPTH, color_map="binary_r")[0])
    assert np.array_equal(backwards[:, :, 0], np.trunc(DEPTH * np.float32(255)))
    assert Processor.visualize_depth(DEPTH, val_min=-1, color_map="binary")[0].getpixel((0, 0)) == (127, 127, 127)
    with pytest.raises(ValueError, match=r"marigold-c\[colormaps\]"):
        Processor.visualize_depth(DEPTH, color_map="viridis")


def test_depth_with_matplotlib() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    got = Processor.visualize_depth(DEPTH, color_map="viridis")[0]
    assert np.array_equal(pixels(got), matplotlib.colormaps["viridis"](DEPTH, bytes=True)[:, :, :3])
    with pytest.raises(ValueError, match="viridis"):
        Processor.visualize_depth(DEPTH, color_map="no such map")


def test_export() -> None:
    (image,) = Processor.export_depth_to_16bit_png(DEPTH)
    assert image.mode == "I;16"
    assert np.array_equal(pixels(image), np.trunc(DEPTH * np.float32(65535)))
    wild = np.array([[-1, 2, np.nan, np.inf]], np.float32)
    assert pixels(Processor.export_depth_to_16bit_png(wild)[0]).tolist() == [[0, 65535, 0, 65535]]
    half = Processor.export_depth_to_16bit_png(np.array([[1, 0.5]], np.float16))[0]
    assert pixels(half).tolist() == [[65535, 32767]]


def test_normals() -> None:
    normals = np.array([[[1, 0, 0], [0, -1, 0], [0, 0, 1]]], np.float32)
    before = normals.copy()
    (image,) = Processor.visualize_normals(normals)
    assert pixels(image).tolist() == [[[255, 127, 127], [127, 0, 127], [127, 127, 255]]]
    for flip, wanted in (("x", [0, 0, 255]), ("y", [255, 255, 255]), ("z", [255, 0, 0])):
        (image,) = Processor.visualize_normals(normals, **{f"flip_{flip}": True})
        assert [pixels(image)[0, axis, axis] for axis in range(3)] == wanted
    assert np.array_equal(normals, before)
    # Slightly longer than 1, as a sum of rounded squares may be, and much.
    assert pixels(Processor.visualize_normals(normals * np.float32(1.01))[0])[0, 0, 0] == 255
    assert pixels(Processor.visualize_normals(normals * 3)[0])[0, 1, 1] == 0
    many = Processor.visualize_normals([normals, normals[None]])
    assert [one.size for one in many] == [(3, 1), (3, 1)]
    for bad in (normals[:, :, :2], normals[:, :, 0], [normals[:, :, 0]], [normals.astype(int)], "normals", [None]):
        with pytest.raises(ValueError, match=r"Unexpected|unexpected|None"):
            Processor.visualize_normals(bad)


def test_intrinsics(no_matplotlib: None) -> None:
    targets = np.random.default_rng(0).random((2, 3, 6, 8, 3), dtype=np.float32) * np.float32(0.5)
    got = Processor.visualize_intrinsics(targets.reshape(6, 6, 8, 3), PROPERTIES)
    assert len(got) == 2
    for one, (albedo, material, shading) in zip(got, targets, strict=True):
        assert list(one) == ["albedo", "roughness", "metallicity", "material", "shading"]
        assert np.array_equal(pixels(one["albedo"]), np.trunc(albedo * 255))
        assert np.array_equal(pixels(one["material"]), np.trunc(material * 255))
        # binary: white where 0. One step for the last bit of a power.
        roughness = np.trunc(255 * (1 - material[:, :, 0].astype(float) ** (1 / 2.2)))
        assert np.abs(pixels(one["roughness"])[:, :, 1] - roughness).max() <= 1
        assert np.array_equal(pixels(one["metallicity"])[:, :, 1], np.trunc((1 - material[:, :, 2]) * 255))
        brightest = np.trunc(255 * (shading.astype(float) / shading.max()) ** (1 / 2.2))
        assert np.abs(pixels(one["shading"]) - brightest).max() <= 1
    apart = Processor.visualize_intrinsics(list(targets), PROPERTIES, {"metallicity": "Spectral"})
    assert apart[1]["albedo"] == got[1]["albedo"]
    assert apart[1]["roughness"] == got[1]["roughness"]
    assert apart[1]["metallicity"] == Processor.visualize_depth(targets[1, 1, :, :, 2])[0]


def test_refused_intrinsics() -> None:
    targets = np.zeros((3, 4, 4, 3), np.float32)
    wrong = PROPERTIES | {"material": {"prediction_space": "stack", "sub_target_names": ["roughness"]}}
    absent = {name: value for name, value in PROPERTIES.items() if name != "roughness"}
    cases: list[tuple[Any, Any, Any, str]] = [
        (None, PROPERTIES, "binary", "None"),
        ([None], PROPERTIES, "binary", "None"),
        (targets, {}, "binary", "target_names"),
        (targets, wrong, "binary", "sub-names"),
        (targets, absent, "binary", "roughness"),
        (targets[:2], PROPERTIES, "binary", r"\(2, 4, 4, 3\)"),
        (targets[..., 0], PROPERTIES, "binary", "shape"),
        ([targets[0]], PROPERTIES, "binary", "shape"),
        (targets.astype(int), PROPERTIES, "binary", "int64"),
        (targets, PROPERTIES, 3, "color_map"),
        (targets, PROPERTIES, {"albedo": 1}, "color_map"),
        ("targets", PROPERTIES, "binary", "type"),
    ]
    for prediction, properties, color_map, message in cases:
        with pytest.raises(ValueError, match=message):
            Processor.visualize_intrinsics(prediction, properties, color_map)


def test_uncertainty() -> None:
    values = np.arange(101, dtype=np.float32).reshape(1, 101)
    got = pixels(Processor.visualize_uncertainty(values, 50)[0])
    assert got[0, 50] == got[0, 100] == 255
    assert got[0, 25] == 127
    certain = np.zeros((10, 10), np.float32)
    assert not pixels(Processor.visualize_uncertainty(certain)[0]).any()
    certain[3, 3] = 1e-3  # the percentile is 0, and this is beyond it
    assert pixels(Processor.visualize_uncertainty(certain)[0]).sum() == 255
    assert [one.mode for one in Processor.visualize_uncertainty(np.ones((2, 4, 4, 3), np.float32))] == ["RGB", "RGB"]
    assert [one.mode for one in Processor.visualize_uncertainty([certain, certain[:4]])] == ["L", "L"]
    for bad in (certain - 1, np.zeros((4, 4, 2), np.float32), None, [certain.astype(int)], ["text"]):
        with pytest.raises(ValueError, match=r"nexpected|None"):
            Processor.visualize_uncertainty(bad)
