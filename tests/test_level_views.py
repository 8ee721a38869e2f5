"""Views of worlds: depth and normals against analytic scenes, light, cameras, and the commands that write folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from level_files import box_world, quake3_level, sphere_world, write_room
from PIL import Image

from marigold_c.commands.cli import main
from marigold_c.preparation.levels import generator
from marigold_c.preparation.levels.pictures import from_srgb
from marigold_c.preparation.levels.rasteriser import Rasteriser, View
from marigold_c.preparation.levels.recolouring import BRIGHTEST, DARKEST, recoloured
from marigold_c.preparation.levels.shots import shots
from marigold_c.preparation.levels.sunlight import Sun, light
from marigold_c.preparation.levels.viewpoints import Caster, rotation
from marigold_c.preparation.levels.world import LevelError

pytest.importorskip("moderngl")
pytest.importorskip("embreex")
EXACT = 1e-4


@pytest.fixture(scope="module")
def rasteriser():
    try:
        made = Rasteriser(128, 96)
    except RuntimeError as error:
        pytest.skip(str(error))
    yield made
    made.close()


def axes_of_hits(view, half, shape=(96, 128)):
    """Float64: depth along the optical axis and normals in the camera's axes, from inside a box about the origin."""
    rays = view.rays(*shape) @ view.rotation.T
    with np.errstate(divide="ignore"):
        reach = np.where(rays != 0, (np.sign(rays) * half - view.origin) / rays, np.inf)
    side = reach.argmin(axis=-1)
    normals = np.zeros(rays.shape)
    np.put_along_axis(normals, side[..., None], -np.sign(np.take_along_axis(rays, side[..., None], -1)), -1)
    return reach.min(axis=-1), normals @ view.rotation, side


def away_from_edges(labels):
    """Where a pixel and its neighbours show the same side."""
    same = np.ones(labels.shape, bool)
    for axis in (0, 1):
        for step in (-1, 1):
            same &= np.roll(labels, step, axis) == labels
    same[[0, -1]] = same[:, [0, -1]] = False
    return same


@pytest.mark.parametrize("yaw,pitch,roll,fov", [(0.3, -0.1, 0.05, 1.2), (2.5, 0.4, -0.3, 0.7), (-1.9, -0.6, 0.0, 1.5)])
def test_a_box(rasteriser, yaw, pitch, roll, fov):
    half = np.array([4.0, 3.0, 2.0])
    rasteriser.load(box_world(tuple(half)))
    view = View(np.array([0.5, -0.7, -0.4]), rotation(yaw, pitch, roll), fov)
    drawing = rasteriser.draw(view)
    depth, normals, side = axes_of_hits(view, half)
    np.testing.assert_allclose(drawing.depth, depth, rtol=EXACT)
    inside = away_from_edges(side)
    assert inside.mean() > 0.8
    np.testing.assert_allclose(drawing.normal[inside], normals[inside], atol=EXACT)
    assert drawing.cover.min() == 1


def test_a_sphere(rasteriser):
    radius, distance = 1.0, 3.0
    rasteriser.load(sphere_world(radius))
    view = View(np.array([-distance, 0, 0.0]), rotation(0, 0, 0), 0.9)
    drawing = rasteriser.draw(view)
    rays = view.rays(96, 128)
    square = (rays**2).sum(axis=-1)
    root = distance**2 - square * (distance**2 - radius**2)  # z = -1, so rays . middle = distance
    hit = root > 0.05 * distance**2
    depth = (distance - np.sqrt(np.maximum(root, 0))) / square
    normals = (rays * depth[..., None] + np.array([0, 0, distance])) / radius
    assert hit.sum() > 1000
    np.testing.assert_allclose(drawing.depth[hit], depth[hit], rtol=EXACT)
    np.testing.assert_allclose(drawing.normal[hit], normals[hit], atol=EXACT)
    assert (drawing.depth[root < 0] == 0).all()


def test_sun_and_its_shadow(rasteriser):
    """Under a sun alone, a floor that sees it has the cosine of the angle, and one in the shadow of a roof nothing."""
    sun = Sun(np.array([0.0, 0.6, 0.8]), np.array([1.0, 0.5, 0.25]), np.zeros(3), np.zeros(3))
    closed = box_world()
    opened = box_world()
    opened.batches[0] = type(opened.batches[0])("t", opened.batches[0].triangles[:10])  # without the ceiling
    view = View(np.array([-3.0, -2.5, 1.0]), rotation(0.6, -0.4, 0), 1.0)
    for world, lit in ((closed, False), (opened, True)):
        rasteriser.load(world)
        drawing = light(rasteriser.draw(view), view, Caster(world), sun, np.random.default_rng(0), 1)
        floor = (drawing.normal @ view.rotation.T)[..., 2] > 0.99
        assert floor.sum() > 500
        if not lit:
            assert drawing.shading[floor].max() == 0
            continue
        points = (view.rays(96, 128) * drawing.depth[..., None]) @ view.rotation.T + view.origin
        # Rays to the sun leave over the wall at y = 3, 2 m above the middle: in the sun where y + 4 * 0.75 < 3.
        sunny, shaded = floor & (points[..., 1] < -0.1), floor & (points[..., 1] > 0.1)
        np.testing.assert_allclose(
            drawing.shading[sunny], np.broadcast_to([0.8, 0.4, 0.2], (sunny.sum(), 3)), atol=1e-3
        )
        assert shaded.sum() > 50 and drawing.shading[shaded].max() == 0


def test_pictures_are_albedo_times_shading(rasteriser):
    rng = np.random.default_rng(3)
    found = list(shots(box_world(), [], 6, rasteriser, rng))
    assert len(found) == 6
    for shot in found:
        picture = shot.picture
        product = picture.albedo.astype(np.float64) * picture.shading
        plain = product.max(axis=-1) < 0.98
        assert np.abs(from_srgb(picture.rgb[plain] / 255.0) - product[plain]).max() < 0.006  # half a level of 8 bits
        depth, _, _ = axes_of_hits(shot.view, np.array([4.0, 3.0, 2.0]))
        np.testing.assert_allclose(picture.depth, depth, rtol=EXACT)
        assert 0.69 < shot.view.origin[2] + 2 < 1.81


def test_recoloured_surfaces_keep_light_and_texture(rasteriser):
    plain, painted = (
        next(iter(shots(box_world(), [], 1, rasteriser, np.random.default_rng(3), recolour=part))).picture
        for part in (0.0, 1.0)
    )
    np.testing.assert_array_equal(plain.depth, painted.depth)
    np.testing.assert_array_equal(plain.normals, painted.normals)
    assert np.abs(plain.albedo - painted.albedo).max() > 0.02
    product = painted.albedo.astype(np.float64) * painted.shading
    whole = product.max(axis=-1) < 0.98
    assert np.abs(from_srgb(painted.rgb[whole] / 255.0) - product[whole]).max() < 0.006


def test_recolouring_changes_like_colours_alike():
    """Two paints, each a texture of two near tones, whose ratio stays; where there is no surface, there is none."""
    rng = np.random.default_rng(1)
    albedo = np.zeros((20, 40, 3), np.float32)
    albedo[:10, :20], albedo[:10, 20:] = (0.6, 0.5, 0.4), (0.06, 0.1, 0.12)
    albedo[:10, ::2] *= np.float32(0.97)
    for _ in range(20):
        other = recoloured(albedo, rng)
        assert other.dtype == np.float32 and not other[10:].any()
        assert other[:10].min() >= np.float32(DARKEST) and other[:10].max() <= np.float32(BRIGHTEST)
        free = (other[:10] > 0.021).all(axis=-1) & (other[:10] < 0.919).all(axis=-1)
        both = free[:, ::2] & free[:, 1::2]
        tones = other[:10, ::2][both] / other[:10, 1::2][both]
        np.testing.assert_allclose(tones, 0.97, atol=0.04)
    assert not recoloured(np.zeros((3, 4, 3), np.float32), rng).any()


def test_nowhere_to_stand(rasteriser):
    with pytest.raises(LevelError, match="sphere: nowhere to stand"):
        list(shots(sphere_world(1, 8), [], 2, rasteriser, np.random.default_rng(0)))


def test_meshes_command(tmp_path, rasteriser, capsys):
    source, out = tmp_path / "scenes", tmp_path / "out"
    source.mkdir()
    write_room(source / "room.obj")
    (source / "broken.glb").write_bytes(b"glTF\x02\0\0\0no model")
    command = ["prepare", "meshes", str(source), "-o", str(out), "--views", "8", "--size", "96x128", "--quiet"]
    assert main(command) == 1
    shown = capsys.readouterr().err
    assert "broken.glb: cannot be read" in shown
    pictures = sorted(out.glob("*/rgb/*.png"))
    assert 4 <= len(pictures) <= 8
    for path in pictures:
        folder, stem = path.parent.parent, path.stem
        facts = json.loads((folder / "metadata" / f"{stem}.json").read_text())
        view = View(np.array(facts["origin"]), np.array(facts["rotation"]), facts["fov"])
        stored = np.load(folder / "depth" / f"{stem}.npy")
        walls, _, _ = axes_of_hits(View(view.origin - [0, 0, 1.5], view.rotation, view.fov), np.array([4, 3, 1.5]))
        nearer = stored < walls * (1 - EXACT)  # the pillar
        assert nearer.mean() < 0.9
        np.testing.assert_allclose(stored[~nearer], walls[~nearer], rtol=EXACT)
        assert Image.open(path).size == (128, 96)
    before = {path: path.stat().st_mtime_ns for path in pictures}
    assert main(command) == 0  # what is damaged was named once; nothing is made again
    assert {path: path.stat().st_mtime_ns for path in pictures} == before
    assert main([*command[:-5], "--views", "9", "--quiet"]) == 1
    assert "levels.json: the folder was made with" in capsys.readouterr().err


def test_levels_command(tmp_path, rasteriser, capsys):
    maps = tmp_path / "game" / "maps"
    maps.mkdir(parents=True)
    for name in ("one", "two", "three"):
        (maps / f"{name}.bsp").write_bytes(quake3_level())
    (maps / "cut.bsp").write_bytes(quake3_level()[:300])
    command = ["prepare", "levels", str(tmp_path / "game"), "--views", "4", "--size", "48x64"]
    assert main([*command, "-o", str(tmp_path / "a")]) == 1
    shown = capsys.readouterr()
    assert "cut.bsp: lump" in shown.err and "not found: textures/wall" in shown.err
    assert "views of 3 worlds, 0 were there, 1 failed" in shown.out
    assert main([*command, "-o", str(tmp_path / "b"), "--workers", "2"]) == 1
    files = [sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.*")) for name in "ab"]
    assert files[0] == files[1] and len(files[0]) > 20
    for name in files[0]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_another_seed_holds_out_the_same_worlds(tmp_path, rasteriser):
    maps = tmp_path / "game" / "maps"
    maps.mkdir(parents=True)
    for number in range(24):
        (maps / f"{number}.bsp").write_bytes(quake3_level())
    made = []
    for seed in ("0", "1"):
        command = ["prepare", "levels", str(tmp_path / "game"), "--views", "4", "--size", "24x32", "--seed", seed]
        assert main([*command, "-o", str(tmp_path / seed)]) == 0
        views = sorted(path.relative_to(tmp_path / seed) for path in (tmp_path / seed).rglob("rgb/*.*"))
        made.append({path.stem.rsplit("_", 1)[0]: path.parts[0] for path in views})
    both = made[0].keys() & made[1].keys()  # a world may give no view by chance
    assert len(both) > 2 and len({made[0][name] for name in both}) > 1
    assert all(made[0][name] == made[1][name] for name in both)


def test_whole_groups_are_held_out():
    jobs = [generator.Job("level", Path("g"), f"maps/{theme}/{i}.bsp", theme) for theme in range(300) for i in range(2)]
    parts = [generator.part_of(job) for job in jobs]
    assert parts[::2] == parts[1::2]
    assert {part: parts.count(part) > 6 for part in generator.PARTS} == dict.fromkeys(generator.PARTS, True)
    assert parts.count("train") > 0.8 * len(parts)


def test_no_levels(tmp_path, capsys):
    assert main(["prepare", "levels", str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    assert "no levels (maps/*.bsp, .pk3) and no tracks" in capsys.readouterr().err
    assert main(["prepare", "meshes", str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    assert "no .glb, .gltf, .obj" in capsys.readouterr().err
