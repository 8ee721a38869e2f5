"""What synthetic scenes are made of, without the renderer: meshes, noise, textures looked up, light taken apart and
freed of noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from marigold_c.preparation.scenes import (
    decomposition,
    furniture,
    houses,
    landscapes,
    meshes,
    plants,
    rooms,
    textures,
    walls,
)
from marigold_c.preparation.scenes.denoising import Guides, despeckled, filtered
from marigold_c.preparation.scenes.description import Camera, Scene
from marigold_c.preparation.scenes.materials import Material, light, matte, opening
from marigold_c.preparation.scenes.meshes import Mesh
from marigold_c.preparation.scenes.noise import Noise3, tiled
from marigold_c.preparation.scenes.surfaces import Surfaces, numbered, texture_coordinates

# ---- meshes ----


def volume(mesh: Mesh) -> float:
    """Of a closed mesh whose triangles face outwards."""
    a, b, c = np.moveaxis(mesh.vertices[mesh.triangles], 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


def faces(mesh: Mesh) -> np.ndarray:
    a, b, c = np.moveaxis(mesh.vertices[mesh.triangles], 1, 0)
    return np.cross(b - a, c - a)


SOLIDS: dict[str, tuple[Callable[[], Mesh], float]] = {
    "box": (lambda: meshes.box((2, 3, 4), (1, 1, 1)), 24),
    "standing box": (lambda: meshes.standing_box((2, 3, 4), (5, 5, 5)), 24),
    "cylinder": (lambda: meshes.cylinder(1.0, 2.0, 200), 2 * np.pi),
    "cone": (lambda: meshes.cylinder(1.0, 3.0, 200, top_radius=0.0), np.pi),
    "ball": (lambda: meshes.superellipsoid((2, 2, 2), segments=120), 4 / 3 * np.pi),
    "soft box": (lambda: meshes.superellipsoid((2, 4, 6), (0.05, 0.05), segments=120), 46.4),
    "ring": (lambda: meshes.torus(2.0, 0.5, 200), 2 * np.pi**2 * 2 * 0.25),
    "roof": (lambda: meshes.prism([(0, 0), (2, 0), (1, 1)], 5), 5),
}


@pytest.mark.parametrize("name", SOLIDS)
def test_solids_are_closed_and_face_outwards(name: str) -> None:
    make, expected = SOLIDS[name]
    mesh = make()
    assert volume(mesh) == pytest.approx(expected, rel=0.04)
    moved = mesh.moved((1, 2, 3)).turned(33, 0).turned(-50, 1).turned(20).scaled((2, 1, 0.5))
    assert volume(moved) == pytest.approx(expected, rel=0.04)
    for one in (mesh, moved):
        normals = one.normals[one.triangles].mean(axis=1)
        outside = (normals * faces(one)).sum(axis=1) >= -1e-9
        assert outside.all()
        assert np.allclose(np.linalg.norm(one.normals, axis=1), 1)


def test_normals_of_a_ball_point_away_from_its_centre() -> None:
    ball = meshes.superellipsoid((2, 2, 2), segments=40)
    assert (ball.normals * ball.vertices).sum(axis=1).min() > 0.99
    turned = ball.turned(90, 2)
    assert np.allclose(turned.vertices, np.stack([-ball.vertices[:, 1], ball.vertices[:, 0], ball.vertices[:, 2]], -1))


def scene_of(kind: str, seed: int) -> Scene:
    makers = {"room": rooms.make_room, "street": houses.make_street, "landscape": landscapes.make_landscape}
    return makers[kind](np.random.default_rng(seed))


@pytest.mark.parametrize("kind", ["room", "street", "landscape"])
def test_scenes_are_numbers_all_over(kind: str) -> None:
    for seed in range(3):
        scene = scene_of(kind, seed)
        for mesh, material in scene.parts:
            assert np.isfinite(mesh.vertices).all() and np.isfinite(mesh.uv).all()
            lengths = np.linalg.norm(mesh.normals, axis=1)
            assert (np.abs(lengths - 1) < 1e-6).mean() > 0.99
            assert mesh.triangles.min() >= 0 and mesh.triangles.max() < len(mesh.vertices)
            assert material.color.dtype == np.float32 and material.color.min() >= 0 and material.color.max() <= 1
            assert 0 < material.roughness <= 1
        assert sum(len(mesh.triangles) for mesh, _ in scene.parts) < 600_000


def test_everything_in_the_catalogue_stands_on_the_floor() -> None:
    for maker, _, _ in furniture.CATALOGUE:
        for seed in range(6):
            item = maker(np.random.default_rng(seed))
            low = min(mesh.vertices[:, 2].min() for mesh, _ in item.parts)
            assert -0.02 < low < 0.05, maker.__name__
            for x, y, z, _, _ in item.tops:
                assert 0.3 < z < 2 and abs(x) < item.footprint[0] and abs(y) < item.footprint[1]


def test_walls_have_holes_where_windows_are() -> None:
    window = walls.Opening(1.0, 0.5, 2.0, 1.0)
    wall = walls.Wall((0.0, 4.0), 0.0, 5.0, 3.0)
    mesh = walls.panel(wall, [window])
    inner = faces(mesh)[np.abs(mesh.normals[mesh.triangles[:, 0], 1] + 1) < 1e-9]
    assert np.linalg.norm(inner, axis=1).sum() / 2 == pytest.approx(5 * 3 - 2 * 1)
    sides = walls.room_walls(5.0, 4.0, 3.0)
    for name, towards in {"back": (0, -1), "left": (1, 0), "right": (-1, 0), "front": (0, 1)}.items():
        ((placed, _),) = sides[name].into_room([(walls.panel(sides[name], []), matte(np.ones(3, np.float32)))])
        assert np.allclose(placed.normals[0, :2], towards, atol=1e-9), name
        assert placed.vertices[:, :2].min() > -1e-9 and (placed.vertices[:, :2].max(axis=0) < [5.001, 4.001]).all()


def test_plants_grow_upwards() -> None:
    for maker in (plants.conifer, plants.broadleaf):
        trunk, crown = maker(np.random.default_rng(1))
        assert trunk.vertices[:, 2].min() == 0 and crown.vertices[:, 2].max() > trunk.vertices[:, 2].max()


def test_a_cameras_axes() -> None:
    axes = Camera(np.zeros(3), np.array([0.0, 5.0, 0.0]), 60).axes()
    assert np.allclose(axes, [[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    rolled = Camera(np.zeros(3), np.array([0.0, 5.0, 0.0]), 60, roll=90).axes()
    assert np.allclose(rolled, [[0, 0, -1], [1, 0, 0], [0, -1, 0]])


# ---- noise and textures ----


def test_tiled_noise_has_no_seam() -> None:
    noise = tiled(np.random.default_rng(0), (64, 96), (4, 3))
    assert noise.min() == 0 and noise.max() == 1
    steps = np.abs(np.diff(noise, axis=0)).max(), np.abs(np.diff(noise, axis=1)).max()
    assert np.abs(noise[-1] - noise[0]).max() <= 1.2 * steps[0]
    assert np.abs(noise[:, -1] - noise[:, 0]).max() <= 1.2 * steps[1]


def test_noise_in_space_is_smooth_and_has_independent_layers() -> None:
    noise = Noise3(np.random.default_rng(0))
    line = np.stack([np.linspace(-3, 3, 601), np.zeros(601), np.zeros(601)], -1)
    values = noise.fractal(line, octaves=1)
    assert 0 <= values.min() < 0.4 and 0.6 < values.max() <= 1 and np.abs(np.diff(values)).max() < 0.03
    x, y = np.random.default_rng(1).uniform(0, 30, (2, 4000))
    assert abs(np.corrcoef(noise.flat(x, y, 0, 1), noise.flat(x, y, 1, 1))[0, 1]) < 0.1


@pytest.mark.parametrize(
    "maker", [*textures.FABRICS, *textures.FLOORS, textures.bricks, textures.rug, textures.painting]
)
def test_textures_are_reflectances(maker: Callable[[np.random.Generator], np.ndarray]) -> None:
    for seed in range(3):
        texture = maker(np.random.default_rng(seed))
        assert texture.dtype == np.float32 and texture.ndim == 3 and texture.shape[2] == 3
        assert texture.min() > 0 and texture.max() < 1 and texture.std() > 0.003


def test_texels_are_looked_up_bilinearly_and_repeat() -> None:
    picture = np.random.default_rng(0).uniform(0.1, 0.9, (4, 8, 3)).astype(np.float32)
    plain = matte(np.array([0.1, 0.2, 0.3], np.float32))
    surfaces = Surfaces([plain, matte(picture)])
    at = lambda u, v: surfaces.colors(np.array([2]), np.array([128 + u]), np.array([v]))[0]  # noqa: E731
    assert np.allclose(at(2.5 / 8, 1.5 / 4), picture[1, 2], atol=1e-6)
    assert np.allclose(at(3 / 8, 1.5 / 4), (picture[1, 2] + picture[1, 3]) / 2, atol=1e-6)
    assert np.allclose(at(2.5 / 8 - 5, 1.5 / 4 + 3), picture[1, 2], atol=1e-6)
    assert np.allclose(at(0, 0.5 / 4), (picture[0, 0] + picture[0, 7]) / 2, atol=1e-6)
    assert np.allclose(surfaces.colors(np.array([1]), np.array([64.3]), np.array([9.0])), [0.1, 0.2, 0.3])


def test_materials_are_told_by_texture_coordinates() -> None:
    picture = matte(np.full((2, 2, 3), 0.5, np.float32), (0.5, 2.0))
    floor = meshes.quad((0, 0, 0), (10, 0, 0), (0, 8, 0))
    uv = numbered(texture_coordinates(floor, picture), 3)
    assert np.ptp(uv[:, 0]) == 20 and np.ptp(uv[:, 1]) == 4
    surfaces = Surfaces([picture, light(np.ones(3, np.float32), 1.0), opening(np.ones((2, 2, 3), np.float32))])
    assert (surfaces.numbers(uv[:, 0].astype(np.float32), np.array([True, True, False, True])) == [3, 3, 0, 3]).all()
    assert surfaces.reflects.tolist() == [False, True, False, False]
    assert surfaces.is_surface.tolist() == [False, True, True, False]
    with pytest.raises(ValueError, match="repeats 100 times along u"):
        texture_coordinates(meshes.quad((0, 0, 0), (50, 0, 0), (0, 1, 0)), picture)


# ---- light ----


class Samples:
    """A tracer whose answers are known: four columns of materials, matte, coated, metal, lamp, and a fifth of sky."""

    has_coats = True
    size = (2, 5)

    def __init__(self) -> None:
        color = np.array([0.5, 0.25, 0.1], np.float32)
        lamp = light(np.ones(3, np.float32), 1.0)
        self.surfaces = Surfaces([matte(color), *(Material(color, kind, 0.2) for kind in ("coated", "metal")), lamp])
        self.number = np.broadcast_to([1, 2, 3, 4, 0], self.size)
        self.plain: list[int] = []

    def hits(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return self.number, self.surfaces.colors(self.number, self.number * 64.0, np.zeros(self.size))

    def radiance(self, seed: int, lambertian: bool) -> np.ndarray:
        """Diffuse light of 2 on everything, a gloss of 0.3; metal mirrors 1; the lamp shines with 5, the sky with 3."""
        base = 2.0 * np.array([0.5, 0.25, 0.1])
        columns = [base, base + (0 if lambertian else 0.3), base if lambertian else np.full(3, 1.0)]
        if lambertian:
            self.plain.append(seed)
        return np.broadcast_to([*columns, np.full(3, 5.0), np.full(3, 3.0)], (*self.size, 3)).astype(np.float64)


def test_a_picture_is_taken_apart() -> None:
    source = Samples()
    point, normal = np.broadcast_to([0.0, 0, -2], (2, 5, 3)), np.broadcast_to([0.0, 0, 1], (2, 5, 3))
    parts = decomposition.decomposed(source, Guides(point, normal, source.number), seed=7, samples=6)
    assert source.plain == [7, 9, 11]  # every other one
    scale = 0.8**2.2 / np.percentile(parts["rgb"] @ [0.3, 0.59, 0.11], 90) * parts["rgb"][0, 4, 0] / 3
    color = np.array([0.5, 0.25, 0.1])
    assert np.allclose(parts["albedo"][0], [color, color, 0 * color, 0 * color, 0 * color], atol=1e-6)
    assert np.allclose(parts["base_color"][0], [color, color, color, 0 * color, 0 * color], atol=1e-6)
    one = parts["rgb"][0, 4, 0] / 3
    assert np.allclose(parts["shading"][0] / one, [[2] * 3, [2] * 3, [2] * 3, [0] * 3, [0] * 3], atol=1e-5)
    assert np.allclose(parts["residual"][0] / one, [[0] * 3, [0.3] * 3, [1] * 3, [5] * 3, [3] * 3], atol=1e-5)
    assert scale == pytest.approx(one, rel=1e-5)
    assert decomposition.darkness(parts["rgb"]) is None
    assert "it is dark" in (decomposition.darkness(parts["rgb"] * 1e-3) or "")


def corner() -> Guides:
    """Two walls that meet in the middle, 3 m away."""
    point, normal = np.zeros((40, 40, 3)), np.zeros((40, 40, 3))
    across, up = np.meshgrid(np.linspace(-1, 1, 40), np.linspace(1, -1, 40))
    point[..., 0], point[..., 1], point[..., 2] = across, up, -3 + np.abs(across)
    normal[:, :20], normal[:, 20:] = np.array([1, 0, 1]) / 2**0.5, np.array([-1, 0, 1]) / 2**0.5
    return Guides(point, normal, np.ones((40, 40), np.int64))


def test_noise_goes_and_edges_stay() -> None:
    rng, guides = np.random.default_rng(0), corner()
    true = np.where(np.arange(40) < 20, 1.0, 3.0)[None, :, None] * np.ones((40, 1, 3))
    noisy = true + rng.normal(0, 0.4, (40, 40, 1))
    clean = filtered(noisy, np.full((40, 40), 0.16), guides, 4)
    assert np.abs(clean - true).std() < 0.1 * np.abs(noisy - true).std() + 0.03
    assert np.abs(clean[:, :20].mean(axis=(0, 2)) - 1).max() < 0.1  # up to the edge
    # Without noise nothing changes, even where there is no edge in the geometry.
    flat = Guides(guides.point, guides.normal[:, :1].repeat(40, axis=1), guides.group)
    assert np.allclose(filtered(true, np.zeros((40, 40)), flat, 4), true, atol=1e-3)


def test_light_is_not_mixed_between_groups() -> None:
    guides = corner()
    group = np.where(np.arange(40)[:, None] < 10, -1, np.where(np.arange(40)[:, None] < 25, 1, 2)) * np.ones(
        (1, 40), int
    )
    light_ = np.where(group == 2, 5.0, np.where(group == 1, 1.0, 7.0))[..., None] * np.ones(3)
    clean = filtered(light_, np.full((40, 40), 100.0), Guides(guides.point, guides.normal, group), 3)
    assert np.allclose(clean, light_)
    noisy = light_ + np.random.default_rng(0).normal(0, 1, light_.shape)
    kept = filtered(noisy, np.full((40, 40), 1.0), Guides(guides.point, guides.normal, group), 3)
    assert np.allclose(kept[:10], noisy[:10], rtol=1e-12) and kept[10:].std() < 0.95 * noisy[10:].std()


def test_single_bright_pixels_are_brought_to_their_neighbours() -> None:
    image = np.ones((9, 9, 3))
    image[4, 4] = 50
    image[6, 2] = 0.01
    image[1, 5:8] = 9  # a line of light stays
    group = np.ones((9, 9), np.int64)
    clean = despeckled(image, group)
    assert np.allclose(clean[4, 4], 1.3) and np.allclose(clean[6, 2], 1 / 1.3)
    assert np.allclose(clean[1, 6], 9)
    group[4, 4] = 2
    assert np.allclose(despeckled(image, group)[4, 4], 50)
    group[4, 4] = -1
    assert np.allclose(despeckled(image, group)[4, 4], 50)
