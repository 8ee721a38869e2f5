"""`marigold prepare scenes`: labels agree with each other and with scenes whose answer is known; folders of scenes are
whole, repeatable and can be gone on with."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marigold_c import extras
from marigold_c.commands import cli
from marigold_c.datasets import open_dataset
from marigold_c.preparation.scenes import generator, layout, rendering
from marigold_c.preparation.scenes.description import Camera, Scene
from marigold_c.preparation.scenes.generator import Settings
from marigold_c.preparation.scenes.materials import METALS, Material, light, matte
from marigold_c.preparation.scenes.meshes import box, quad, superellipsoid
from marigold_c.preparation.scenes.rendering import Labels
from marigold_c.preparation.scenes.sky import Sky, Sun

pytest.importorskip("mitsuba")

SETTINGS = Settings(seed=1, size=(48, 64), samples_per_pixel=6)
INDICES = range(5)


@cache
def rendered(index: int) -> tuple[Labels, dict[str, Any]]:
    return generator.render_scene(SETTINGS, index)


@pytest.fixture(params=INDICES)
def scene(request: pytest.FixtureRequest) -> tuple[Labels, dict[str, Any]]:
    return rendered(request.param)


def rays(shape: tuple[int, ...], field_of_view: float) -> np.ndarray:
    """Through pixels' centres: x to the right, y up, z = -1."""
    height, width = shape
    step = 2 * np.tan(np.deg2rad(field_of_view) / 2) / width
    x = (np.arange(width) - (width - 1) / 2) * step
    y = -(np.arange(height) - (height - 1) / 2) * step
    return np.stack(np.broadcast_arrays(x[None], y[:, None], -1.0), axis=-1)


# ---- labels of scenes agree with each other ----


def test_there_are_rooms_and_landscapes() -> None:
    kinds = [generator.describe_scene(3, index)[0].kind for index in range(12)]
    assert set(kinds) == {"room", "street", "landscape"}


def test_the_picture_is_albedo_times_shading_plus_residual(scene: tuple[Labels, dict[str, Any]]) -> None:
    labels, _ = scene
    assert np.allclose(labels.albedo * labels.shading + labels.residual, labels.rgb, rtol=1e-5, atol=1e-6)
    for name in ("albedo", "base_color", "shading", "residual", "rgb", "roughness", "metallicity", "depth"):
        values = getattr(labels, name)
        assert values.dtype == np.float32 and np.isfinite(values).all() and values.min() >= 0, name
    for name in ("albedo", "base_color", "roughness", "metallicity"):
        assert getattr(labels, name).max() <= 1, name
    assert (labels.albedo <= labels.base_color + 1e-6).all()
    lambertian = (labels.roughness == 1) & (labels.metallicity == 0)
    assert lambertian.any() and (labels.residual[lambertian] == 0).mean() > 0.75
    brightness = labels.rgb.astype(np.float64) @ [0.3, 0.59, 0.11]
    assert np.percentile(brightness, 90) == pytest.approx(0.8**2.2, rel=1e-4)


def test_depth_distance_and_field_of_view_agree(scene: tuple[Labels, dict[str, Any]]) -> None:
    labels, metadata = scene
    seen = labels.depth > 0
    lengths = np.linalg.norm(rays(labels.depth.shape, metadata["field_of_view"]), axis=2)
    assert seen.mean() > 0.3
    assert np.allclose(labels.distance[seen], (labels.depth * lengths)[seen], rtol=1e-4)
    assert (labels.distance[~seen] == 0).all()


def test_normals_are_units_that_face_the_viewer(scene: tuple[Labels, dict[str, Any]]) -> None:
    labels, metadata = scene
    seen = labels.depth > 0
    lengths = np.linalg.norm(labels.normals, axis=2)
    assert np.allclose(lengths[seen], 1, atol=1e-4) and (lengths[~seen] == 0).all()
    towards = (labels.normals * rays(labels.depth.shape, metadata["field_of_view"])).sum(axis=2)
    assert (towards[seen] < 1e-3).all()


def test_normals_are_those_of_the_depth_where_it_is_smooth(scene: tuple[Labels, dict[str, Any]]) -> None:
    labels, metadata = scene
    points = rays(labels.depth.shape, metadata["field_of_view"]) * labels.depth[..., None]
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    computed = np.cross(across, -down)
    computed /= np.maximum(np.linalg.norm(computed, axis=2, keepdims=True), 1e-12)
    window = np.lib.stride_tricks.sliding_window_view(labels.depth, (3, 3))
    curved = np.abs(window[..., 1, 0] + window[..., 1, 2] - 2 * window[..., 1, 1])
    curved += np.abs(window[..., 0, 1] + window[..., 2, 1] - 2 * window[..., 1, 1])
    around = np.lib.stride_tricks.sliding_window_view(labels.normals, (3, 3), axis=(0, 1))
    alike = (around * around[..., 1:2, 1:2]).sum(axis=2).min(axis=(2, 3)) > 0.995
    smooth = (window.min(axis=(2, 3)) > 0) & (curved < 0.01 * window[..., 1, 1]) & alike
    assert smooth.mean() > 0.1
    cosine = (computed * labels.normals[1:-1, 1:-1]).sum(axis=2)[smooth].clip(-1, 1)
    angles = np.rad2deg(np.arccos(cosine))
    assert np.median(angles) < 1.5 and np.quantile(angles, 0.9) < 8


# ---- scenes whose answer is known ----


def plate_scene(material: Material, elevation: float = 90.0, extra: tuple[Any, ...] = ()) -> Scene:
    """A large plate seen from 2 m above it, at a slant, under a sun and no sky; and a column, for depth's sake."""
    up = np.deg2rad(elevation)
    sun = Sun(np.array([np.cos(up), 0, np.sin(up)]), np.array([3.0, 3.0, 3.0], np.float32))
    camera = Camera(np.array([0.0, 0.0, 2.0]), np.array([0.0, 3.0, 0.0]), 50.0)
    column = (box((0.6, 0.6, 6.0), (0.0, 5.5, 1.0)), matte(np.array([0.2, 0.5, 0.3], np.float32)))
    plate = (quad((-20, -5, 0), (40, 0, 0), (0, 45, 0)), material)
    return Scene("landscape", camera, [plate, column, *extra], Sky(np.zeros((2, 4, 3), np.float32), sun))


def on_plate(labels: Labels) -> np.ndarray:
    """Pixels of the plate, away from the column."""
    mask = labels.depth > 0
    mask[:, 20:44] = False
    return mask


def test_a_plate_in_the_sun() -> None:
    labels = rendering.render(plate_scene(matte(np.array([0.5, 0.25, 0.1], np.float32)), 30.0), (48, 64), 4, 0)
    plate = on_plate(labels)
    # In camera coordinates the plate's normal, and the distance of the plane from the camera: 2 m.
    forward = np.array([0, 3, -2]) / 13**0.5
    normal = np.array([0, 3 / 13**0.5, 2 / 13**0.5])
    assert forward @ [0, 0, -1] == pytest.approx(normal[2])
    assert np.allclose(labels.normals[plate], normal, atol=1e-5)
    depth = -2 / (rays((48, 64), 50.0) @ normal)
    assert np.allclose(labels.depth[plate], depth[plate], rtol=1e-4)
    assert np.allclose(labels.albedo[plate], [0.5, 0.25, 0.1], atol=1e-6)
    assert (labels.residual[plate] == 0).all()
    assert (labels.roughness[plate] == 1).all() and (labels.metallicity[plate] == 0).all()
    # One sun: shading is the same everywhere, and grey, but for light that the column throws on the plate.
    shading = labels.shading[plate]
    assert np.quantile(np.abs(shading / np.median(shading) - 1), 0.9) < 0.05


def test_shading_falls_with_the_cosine() -> None:
    """Two faces of a cube, one turned by 60 degrees from the sun."""
    material = matte(np.array([0.4, 0.4, 0.4], np.float32))
    cube = (box(1.2, (1.6, 3.4, 0.6)).turned(0.0), material)
    labels = rendering.render(plate_scene(material, 30.0, (cube,)), (48, 64), 16, 0)
    # The sun stands 30 degrees above +x: the plate and the cube's top receive sin 30, its unseen side cos 30.
    axes = np.array([0, 3 / 13**0.5, 2 / 13**0.5])
    top = (labels.normals @ axes > 0.999) & (labels.depth > 0)
    side = (np.abs(labels.normals[..., 0]) > 0.999) & (labels.depth > 0)
    front = (labels.depth > 0) & ~top & ~side
    bright = np.median(labels.shading[top])
    assert front.any() and np.median(labels.shading[front]) < 0.3 * bright  # only light from the plate


def test_textures_are_where_they_should_be() -> None:
    picture = np.zeros((8, 8, 3), np.float32) + 0.1
    picture[:, 4:] = [0.8, 0.1, 0.1]  # the right half, along u
    picture[4:, :] += [0.0, 0.0, 0.6]  # the far half, along v
    poster = quad((-1, 2.0, 0.02), (2, 0, 0), (0, 2, 0), picture=True)
    scene = plate_scene(matte(np.full(3, 0.3, np.float32)), 80.0, ((poster, matte(picture)),))
    labels = rendering.render(scene, (48, 64), 4, 0)
    points = rays((48, 64), 50.0) * labels.depth[..., None]
    inside = (np.abs(points[..., 0]) < 0.9) & (labels.normals[..., 1] > 0.8)
    far = labels.depth > np.median(labels.depth[inside & (labels.albedo[..., 2] > 0.05)])
    red, blue = labels.albedo[..., 0] > 0.5, labels.albedo[..., 2] > 0.5
    assert red.sum() > 30 and blue.sum() > 30
    assert (points[..., 0][red] > -0.05).all() and (labels.depth[blue].min() > labels.depth[red & ~blue].min())
    assert far.any()


def test_metal_has_no_albedo_and_lamps_are_residual() -> None:
    gold = Material(np.array(METALS["gold"], np.float32), "metal", 0.2)
    ball = (superellipsoid((1, 1, 1)).moved((1.2, 3.5, 0.5)), gold)
    lamp = (box((0.4, 0.4, 0.4), (-1.2, 3.5, 0.4)), light(np.ones(3, np.float32), 4.0))
    scene = plate_scene(matte(np.full(3, 0.5, np.float32)), 60.0, (ball, lamp))
    labels = rendering.render(scene, (48, 64), 8, 0)
    metal = labels.metallicity == 1
    inner = metal & np.roll(metal, 1, 0) & np.roll(metal, -1, 0) & np.roll(metal, 1, 1) & np.roll(metal, -1, 1)
    assert inner.sum() > 20
    assert (labels.albedo[inner] == 0).all() and np.array_equal(labels.residual[inner], labels.rgb[inner])
    assert np.allclose(labels.base_color[inner], METALS["gold"], atol=1e-6)
    assert np.allclose(labels.roughness[inner], 0.2) and (labels.shading[inner] > 0).any()
    glowing = (labels.residual.min(axis=2) > 0) & ~metal & (labels.albedo.max(axis=2) == 0)
    assert glowing.sum() > 20 and labels.rgb[glowing].min() > 2 * np.median(labels.rgb[on_plate(labels)])


def test_a_coat_adds_residual_and_keeps_albedo() -> None:
    colour = np.array([0.6, 0.1, 0.1], np.float32)
    labels = rendering.render(plate_scene(Material(colour, "coated", 0.3), 50.0), (48, 64), 16, 0)
    plate = on_plate(labels)
    assert np.allclose(labels.albedo[plate], colour, atol=1e-6)
    assert np.allclose(labels.roughness[plate], 0.3) and (labels.metallicity[plate] == 0).all()
    assert labels.residual[plate].mean() > 0


def test_views_of_nothing_are_refused() -> None:
    scene = plate_scene(matte(np.full(3, 0.5, np.float32)))
    up = Scene("landscape", Camera(np.array([0.0, 0, 2]), np.array([0.0, 1, 9]), 50.0), scene.parts, scene.sky)
    with pytest.raises(rendering.UselessScene, match="surfaces fill 0%"):
        rendering.render(up, (32, 32), 1, 0)
    wall = (quad((-5, 0.2, 0), (10, 0, 0), (0, 0, 5)), matte(np.full(3, 0.5, np.float32)))
    with pytest.raises(rendering.UselessScene, match="stands before the camera"):
        rendering.render(plate_scene(matte(np.full(3, 0.5, np.float32)), extra=(wall,)), (32, 32), 1, 0)


def test_colours_are_looked_up_as_the_renderer_does() -> None:
    """The picture of a coarse texture, in even light, is the albedo times a constant, also between texels."""
    picture = np.random.default_rng(3).uniform(0.1, 0.9, (5, 7, 3)).astype(np.float32)
    poster = quad((-1.5, 1.5, 0.02), (3, 0, 0), (0, 3, 0), picture=True)
    scene = plate_scene(matte(np.full(3, 0.01, np.float32)), 80.0, ((poster, matte(picture)),))
    labels = rendering.render(scene, (48, 64), 4, 0)
    on_poster = labels.albedo.min(axis=2) > 0.05
    on_poster &= (labels.normals[..., 1] > 0.5) & (labels.depth < 3.5)
    assert on_poster.sum() > 200
    shading = labels.rgb[on_poster] / labels.albedo[on_poster]
    assert np.quantile(np.abs(shading / np.median(shading) - 1), 0.95) < 0.03


# ---- repeatable ----


def test_a_scene_follows_from_its_number() -> None:
    first, again = rendered(0)[0], generator.render_scene(SETTINGS, 0)[0]
    other = rendered(1)[0]
    for name in Labels.__dataclass_fields__:
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert not np.array_equal(first.depth, other.depth)


def test_more_samples_change_noise_alone() -> None:
    few, many = rendered(0)[0], generator.render_scene(Settings(1, (48, 64), 24), 0)[0]
    assert np.array_equal(few.depth, many.depth) and np.array_equal(few.normals, many.normals)
    assert not np.array_equal(few.rgb, many.rgb)


# ---- folders ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    results = dict(generator.make_scenes(root, 2, SETTINGS, workers=2))
    assert results == {0: None, 1: None}
    return root


def test_the_files_of_a_scene(folder: Path) -> None:
    labels, metadata = rendered(1)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    every = [f"{kind}/{i:08d}.npy" for kind in layout.DEFAULT_LABELS for i in (0, 1)]
    every += [f"metadata/{i:08d}.json" for i in (0, 1)] + [f"rgb/{i:08d}.png" for i in (0, 1)]
    assert names == sorted([*every, "scenes.json"])
    shown = np.asarray(Image.open(folder / "rgb/00000001.png"))
    assert np.array_equal(shown, (np.clip(labels.rgb.astype(np.float64), 0, 1) ** (1 / 2.2) * 255).astype(np.uint8))
    depth, normals = np.load(folder / "depth/00000001.npy"), np.load(folder / "normals/00000001.npy")
    assert depth.dtype == np.float32 and np.array_equal(depth, labels.depth)  # another process made it
    assert normals.dtype == np.float16 and np.allclose(normals, labels.normals, atol=1e-3)
    material = np.load(folder / "material/00000001.npy")
    assert np.allclose(material[..., 0], labels.roughness, atol=1e-3) and (material[..., 2] == 0).all()
    assert json.loads((folder / "metadata/00000001.json").read_text()) == json.loads(json.dumps(metadata))
    assert metadata["seed"] == 1 and metadata["index"] == 1 and metadata["size"] == [48, 64]


def test_data_sets_read_the_folder(folder: Path) -> None:
    own = {"name": "folder_depth", "disp_name": "s", "dir": folder.name, "images": "rgb", "truth": "depth"}
    with open_dataset(own, folder.parent, task="depth") as data:
        truth = data.read_truth(1)
        assert len(data) == 2 and np.array_equal(truth.mask, rendered(1)[0].depth > 1e-5)
    own |= {"name": "folder_normals", "truth": "normals"}
    with open_dataset(own, folder.parent, task="normals") as data:
        assert np.allclose(data.read_truth(1).target, rendered(1)[0].normals, atol=1e-3)


def test_going_on_keeps_what_is_there(folder: Path, tmp_path: Path) -> None:
    kept, lost = layout.picture_path(folder, "00000000"), layout.picture_path(folder, "00000001")
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    assert [index for index, _ in generator.make_scenes(folder, 2, SETTINGS)] == [1]
    assert kept.stat().st_mtime_ns == before and lost.read_bytes() == content
    with pytest.raises(ValueError, match=r"made with seed=1; take another folder"):
        next(generator.make_scenes(folder, 2, Settings(2, (48, 64), 6)))


def test_a_scene_that_fails_is_named_and_the_others_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    true_render = rendering.render
    calls: list[int] = []

    def failing(*arguments: Any) -> Labels:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no rays left")
        return true_render(*arguments)

    monkeypatch.setattr(rendering, "render", failing)
    words = ["prepare", "scenes", "-o", str(tmp_path), "--count", "2", "--seed", "1", "--size", "32x40"]
    words += ["--samples-per-pixel", "1", "--workers", "1", "--labels", "depth"]
    assert cli.main(words) == 1
    shown = capsys.readouterr()
    assert "marigold: error: scene 0 of seed 1, attempt 0: no rays left" in shown.err
    assert "1 scenes made, 0 were there, 1 failed" in shown.out
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["00000001.png"]
    assert not (tmp_path / "normals").exists()
    assert cli.main(words) == 0
    assert "1 scenes made, 1 were there, 0 failed" in capsys.readouterr().out


def test_useless_views_are_replaced_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def useless(*_: Any) -> Labels:
        raise rendering.UselessScene("all depths are between 1.00 and 1.01 m")

    monkeypatch.setattr(rendering, "render", useless)
    with pytest.raises(generator.SceneError, match=r"scene 7 of seed 1: 12 attempts gave no useful view; all depths"):
        generator.render_scene(SETTINGS, 7)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "x")

    sample = rendered(0)
    monkeypatch.setattr(layout.np, "save", full)
    monkeypatch.setattr(generator, "render_scene", lambda settings, index: sample)
    ((index, fault),) = generator.make_scenes(tmp_path, 1, SETTINGS)
    assert index == 0 and fault == "scene 0 of seed 1: x: No space left on device"
    assert not layout.is_complete(tmp_path, "00000000") and not list(tmp_path.rglob("*.part"))


# ---- without the extra, wrong usage ----


def test_without_mitsuba(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert cli.main(["prepare", "scenes", "-o", str(tmp_path / "out"), "--count", "1"]) == 1
    assert "rendering scenes needs mitsuba, which is not installed: pip install 'marigold-c[scenes]'" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--count", "0"],
        ["--count", "1", "--size", "96"],
        ["--count", "1", "--size", "0x5"],
        ["--count", "1", "--labels", "depth,colour"],
        ["--count", "1", "--seed", "-1"],
        [],
    ],
)
def test_wrong_usage(tmp_path: Path, words: list[str]) -> None:
    assert cli.main(["prepare", "scenes", "-o", str(tmp_path / "out"), *words]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("seed", "size", "samples"), [(-1, (32, 32), 1), (0, (8, 32), 1), (0, (32, 32), 0)])
def test_settings_are_checked(seed: int, size: tuple[int, int], samples: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        Settings(seed, size, samples)
