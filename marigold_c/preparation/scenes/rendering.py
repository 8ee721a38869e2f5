"""A synthetic scene rendered by Mitsuba 3 (extra `scenes`): a path-traced picture and its exact labels.

Called by generator.py. The variant scalar_rgb is used: it runs everywhere.

How labels come about. Depth, normals, roughness and metallicity are those of the surface behind the pixel's centre.
The intrinsic images are means over the pixel's area, over the same camera rays as the picture's: every sample of the
picture is rendered by itself, and, from the same random numbers, what its camera ray hits. With A_k the diffuse albedo
of sample k's surface (0 for metal) and D_k the light that it reflects diffusely, albedo is the mean of A_k, shading is
sum D_k / sum A_k, and residual is what remains of the picture: highlights, reflections, metal, lamps, sky. So picture =
albedo * shading + residual, and nothing leaks across edges. D_k is the sample itself on Lambertian surfaces. On coated
ones it is a sample of the same scene with Lambertian materials of the same colours, in which light that reached the
surface by way of a reflection arrives as diffuse light instead; on metal, shading is that scene's alone.

Shading and residual are then freed of noise (denoising.py), and the picture is put together from them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...extras import optional_module
from .decomposition import darkness, decomposed
from .denoising import Guides
from .description import Camera, Scene
from .materials import Material
from .meshes import Mesh, merged
from .surfaces import Surfaces, numbered, texture_coordinates

VARIANT = "scalar_rgb"
_LONGEST_PATH = 6
_BLOCK = 16  # pixels' random numbers follow from their place in blocks of this size; left open, from the threads

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Labels:
    """What is known of a scene of (H, W) pixels. 0 where there is no surface: the sky, the outside of a window.

    depth: along the optical axis, distance: along the ray, in metres. normals: unit vectors in camera coordinates, x to
    the right, y up, z towards the viewer. roughness (1 on Lambertian surfaces), metallicity: in [0, 1].
    base_color: linear, that of a metal is its reflectance. albedo: the diffuse part of it. rgb = albedo * shading +
    residual, linear, exposed so that rgb ** (1 / 2.2) is the picture.
    """

    rgb: Floats
    depth: Floats
    distance: Floats
    normals: Floats
    albedo: Floats
    base_color: Floats
    shading: Floats
    residual: Floats
    roughness: Floats
    metallicity: Floats


class UselessScene(Exception):
    """The camera sees too little: the reason."""


def renderer() -> Any:
    """Mitsuba, set up. MissingExtra if it is not installed."""
    mitsuba = optional_module("mitsuba", "rendering scenes")
    mitsuba.set_variant(VARIANT)
    mitsuba.set_log_level(mitsuba.LogLevel.Error)
    return mitsuba


def use_one_thread() -> None:
    """For processes that share the processors with others of their kind."""
    renderer()
    optional_module("drjit", "rendering scenes").set_thread_count(1)


# ---- into the renderer's terms ----


def _grouped(scene: Scene) -> tuple[list[Material], list[Mesh]]:
    """One mesh for each material."""
    groups: dict[int, tuple[Material, list[Mesh]]] = {}
    for mesh, material in scene.parts:
        groups.setdefault(id(material), (material, []))[1].append(mesh)
    return [material for material, _ in groups.values()], [merged(meshes) for _, meshes in groups.values()]


def _texture(mitsuba: Any, values: NDArray[np.float32]) -> dict[str, Any]:
    if values.ndim == 1:
        return {"type": "rgb", "value": [float(one) for one in values]}
    bitmap = mitsuba.Bitmap(np.ascontiguousarray(values, np.float32))
    return {"type": "bitmap", "bitmap": bitmap, "raw": True, "wrap_mode": "repeat"}


def _reflection(mitsuba: Any, material: Material, lambertian: bool) -> Any:
    color = _texture(mitsuba, material.color)
    if lambertian or material.kind not in ("coated", "metal"):
        inner: dict[str, Any] = {"type": "diffuse", "reflectance": color}
    else:
        inner = {"type": "principled", "base_color": color, "roughness": max(material.roughness, 0.03)}
        inner["metallic"] = material.metallicity
    return mitsuba.load_dict({"type": "twosided", "material": inner}, parallel=False)


def _surface(mitsuba: Any, name: str, mesh: Mesh, uv: NDArray[np.float64], properties: Any) -> Any:
    shape = mitsuba.Mesh(
        name,
        vertex_count=len(mesh.vertices),
        face_count=len(mesh.triangles),
        has_vertex_normals=True,
        has_vertex_texcoords=True,
        props=properties,
    )
    arrays = mitsuba.traverse(shape)
    arrays["vertex_positions"] = np.ravel(mesh.vertices).astype(np.float32)
    arrays["vertex_normals"] = np.ravel(mesh.normals).astype(np.float32)
    arrays["vertex_texcoords"] = np.ravel(uv).astype(np.float32)
    arrays["faces"] = np.ravel(mesh.triangles).astype(np.uint32)
    arrays.update()
    return shape


def _covered(mitsuba: Any, name: str, mesh: Mesh, uv: NDArray[np.float64], material: Material, lambertian: bool) -> Any:
    properties = mitsuba.Properties()
    properties["mesh_bsdf"] = _reflection(mitsuba, material, lambertian)
    if material.kind in ("light", "opening"):
        emitter = {"type": "area", "radiance": _texture(mitsuba, material.radiance)}
        properties["mesh_emitter"] = mitsuba.load_dict(emitter, parallel=False)
    return _surface(mitsuba, name, mesh, uv, properties)


def _lights(mitsuba: Any, scene: Scene) -> dict[str, Any]:
    if scene.sky is None:
        return {}
    found: dict[str, Any] = {}
    if scene.sky.radiance.any():
        turned = mitsuba.ScalarTransform4f().rotate([1, 0, 0], 90)
        found["sky"] = {"type": "envmap", "bitmap": mitsuba.Bitmap(scene.sky.radiance), "to_world": turned}
    if scene.sky.sun is not None:
        sun = scene.sky.sun
        irradiance = {"type": "rgb", "value": [float(one) for one in sun.irradiance]}
        found["sun"] = {
            "type": "directional",
            "direction": [float(-one) for one in sun.towards],
            "irradiance": irradiance,
        }
    return found


def _sensor(mitsuba: Any, camera: Camera, size: tuple[int, int], jitter: bool) -> Any:
    """One sample a pixel: anywhere in it, or at its centre."""
    height, width = size
    up = [float(one) for one in camera.axes()[1]]
    look = mitsuba.ScalarTransform4f().look_at(
        [float(one) for one in camera.origin], [float(one) for one in camera.target], up
    )
    sampler = {"type": "independent"} if jitter else {"type": "stratified", "jitter": False}
    return mitsuba.load_dict(
        {
            "type": "perspective",
            "to_world": look,
            "fov": camera.field_of_view,
            "fov_axis": "x",
            "near_clip": 0.01,
            "far_clip": 5000.0,
            "film": {
                "type": "hdrfilm",
                "width": width,
                "height": height,
                "pixel_format": "rgb",
                "component_format": "float32",
                "rfilter": {"type": "box"},
            },
            "sampler": {**sampler, "sample_count": 1},
        }
    )


class _Renderer:
    """A scene loaded into Mitsuba: as it is, with Lambertian materials, and as one mesh that tells what rays hit."""

    def __init__(self, scene: Scene, size: tuple[int, int]) -> None:
        self._mitsuba = mitsuba = renderer()
        self.camera, self.size = scene.camera, size
        materials, meshes = _grouped(scene)
        self.surfaces = Surfaces(materials)
        uvs = [texture_coordinates(mesh, material) for mesh, material in zip(meshes, materials, strict=True)]
        lights = _lights(mitsuba, scene)
        true, plain = {}, {}
        for i, (mesh, uv, material) in enumerate(zip(meshes, uvs, materials, strict=True), 1):
            name = f"surface{i:04d}"
            true[name] = plain[name] = _covered(mitsuba, name, mesh, uv, material, False)
            if material.kind in ("coated", "metal"):
                plain[name] = _covered(mitsuba, name, mesh, uv, material, True)
        self._true = self._load({**lights, **true})
        self._plain = self._load({**lights, **plain}) if true != plain else None
        told = np.concatenate([numbered(uv, i) for i, uv in enumerate(uvs, 1)])
        self._guide = self._load({"all": _surface(mitsuba, "all", merged(meshes), told, mitsuba.Properties())})
        self._anywhere, self._centre = (_sensor(mitsuba, scene.camera, size, jitter) for jitter in (True, False))
        self._path = self._integrator({"type": "path", "max_depth": _LONGEST_PATH, "rr_depth": 3})
        self._hit = self._integrator({"type": "aov", "aovs": "uv:uv,t:depth"})
        exact = "position:position,smooth:sh_normal,flat:geo_normal,uv:uv,t:depth"
        self._exact = self._integrator({"type": "aov", "aovs": exact})

    @property
    def has_coats(self) -> bool:
        """Whether the Lambertian scene is another one than the scene itself."""
        return self._plain is not None

    def _load(self, parts: dict[str, Any]) -> Any:
        return self._mitsuba.load_dict({"type": "scene", **parts}, parallel=False)

    def _integrator(self, properties: dict[str, Any]) -> Any:
        return self._mitsuba.load_dict({**properties, "block_size": _BLOCK})

    def centres(self) -> tuple[Numbers, NDArray[np.float64], NDArray[np.float64]]:
        """At pixels' centres: material, point relative to the camera, normal towards it; in camera coordinates."""
        image = np.array(self._exact.render(self._guide, self._centre, seed=0, spp=1), np.float64)
        number = self.surfaces.numbers(image[:, :, 9].astype(np.float32), image[:, :, 11] > 0)
        ray = image[:, :, 0:3] - self.camera.origin
        smooth, flat = image[:, :, 3:6], image[:, :, 6:9]
        away = np.sign((flat * ray).sum(-1, keepdims=True))
        smooth, flat = -away * smooth, -away * flat
        smooth = np.where((smooth * ray).sum(-1, keepdims=True) < 0, smooth, flat)
        axes = self.camera.axes().T
        return number, ray @ axes, smooth @ axes

    def hits(self, seed: int) -> tuple[Numbers, Floats]:
        """Material and colour of the surface behind one sample of every pixel."""
        u, v, t = np.moveaxis(np.array(self._hit.render(self._guide, self._anywhere, seed=seed, spp=1)), 2, 0)
        number = self.surfaces.numbers(u, t > 0)
        return number, self.surfaces.colors(number, u, v)

    def radiance(self, seed: int, lambertian: bool) -> NDArray[np.float64]:
        """That of the same samples, of the scene or of the Lambertian one."""
        scene = self._plain if lambertian and self._plain is not None else self._true
        return np.array(self._path.render(scene, self._anywhere, seed=seed, spp=1), np.float64)[:, :, :3]


# ---- labels ----


def _check_view(number: Numbers, depth: NDArray[np.float64], kind: str) -> None:
    seen = number > 0
    least = 0.5 if kind == "room" else 0.3
    if seen.mean() < least:
        raise UselessScene(f"surfaces fill {seen.mean():.0%} of the picture")
    near, middle, far = np.quantile(depth[seen], [0.05, 0.5, 0.95])
    if near < 0.25 or middle < 0.6:
        raise UselessScene(f"something stands before the camera, {near:.2f} m away")
    if far / near < 1.35:
        raise UselessScene(f"all depths are between {near:.2f} and {far:.2f} m")
    if kind != "landscape" and np.bincount(number[seen]).max() > 0.75 * number.size:
        raise UselessScene("one surface fills the picture")


def render(scene: Scene, size: tuple[int, int], samples: int, seed: int) -> Labels:
    """The picture of (height, width) pixels with `samples` camera rays each, and its labels.

    UselessScene: the camera looks at a wall, say. MissingExtra: Mitsuba is not installed.
    """
    source = _Renderer(scene, size)
    number, point, normals = source.centres()
    surfaces = source.surfaces
    seen = surfaces.is_surface[number]
    number = np.where(seen, number, 0)
    depth = np.where(seen, -point[:, :, 2], 0)
    _check_view(number, depth, scene.kind)
    intrinsics = decomposed(source, Guides(point, normals, number), seed, samples)
    fault = darkness(intrinsics["rgb"])
    if fault is not None:
        raise UselessScene(fault)
    return Labels(
        depth=depth.astype(np.float32),
        distance=np.where(seen, np.linalg.norm(point, axis=2), 0).astype(np.float32),
        normals=np.where(seen[..., None], normals, 0).astype(np.float32),
        roughness=surfaces.roughness[number],
        metallicity=surfaces.metallicity[number],
        **intrinsics,
    )
