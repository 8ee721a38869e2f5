"""Draws a World by OpenGL through EGL, without a display: depth, normals, albedo and shading. Calls world.py.

On a machine without a GPU Mesa's llvmpipe draws. No anisotropic filter: llvmpipe can spend a minute on one near,
grazing polygon with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...extras import optional_module
from .world import Array, World

NEAR, FAR = 0.05, 2000.0
SRGB8_ALPHA8 = 0x8C43
LIGHTMAP, VERTEX_LIGHT, UNLIT = 0, 1, 2
VERTEX = """#version 330
in vec3 p; in vec2 uv; in vec2 lm; in vec3 n; in vec3 c; in vec3 tint;
uniform mat4 view, proj;
out vec3 v_p, v_n, v_c, v_t; out vec2 v_uv, v_lm;
void main() {
  vec4 q = view * vec4(p, 1.0);
  v_p = q.xyz; v_n = mat3(view) * n; v_c = c; v_t = tint; v_uv = uv; v_lm = lm;
  gl_Position = proj * q;
}"""
# The normal is the interpolated one where it agrees with the triangle's own, and looks to the camera.
FRAGMENT = """#version 330
in vec3 v_p, v_n, v_c, v_t; in vec2 v_uv, v_lm;
uniform sampler2D tex, light; uniform int mode; uniform float alpha, scale, solid;
layout(location=0) out vec4 albedo; layout(location=1) out vec4 shading; layout(location=2) out vec4 geometry;
void main() {
  vec4 t = texture(tex, v_uv);
  if (t.a < alpha) discard;
  vec3 l = mode == 0 ? texture(light, v_lm).rgb * scale : (mode == 1 ? v_c * scale : vec3(1.0));
  vec3 f = normalize(cross(dFdx(v_p), dFdy(v_p)));
  if (dot(f, v_p) > 0.0) f = -f;
  vec3 n = normalize(v_n);
  if (dot(n, v_p) > 0.0) n = -n;
  if (!(dot(n, f) > 0.5)) n = f;
  albedo = vec4(t.rgb * v_t, 1.0); shading = vec4(l, 1.0); geometry = vec4(n, -v_p.z * solid);
}"""
SKY = """#version 330
in vec3 v_p, v_n, v_c, v_t; in vec2 v_uv, v_lm;
layout(location=0) out vec4 albedo; layout(location=1) out vec4 shading; layout(location=2) out vec4 geometry;
void main() { albedo = vec4(0.0); shading = vec4(0.0); geometry = vec4(0.0); }"""


@dataclass(frozen=True)
class View:
    """A pinhole camera. origin (3,); rotation (3, 3): axes right, up, back as columns; fov: horizontal, radians."""

    origin: NDArray[np.float64]
    rotation: NDArray[np.float64]
    fov: float

    def rays(self, height: int, width: int) -> NDArray[np.float64]:
        """(H, W, 3) in the camera's axes through the pixels' middles, z = -1."""
        reach = np.tan(self.fov / 2)
        x = ((np.arange(width) + 0.5) / width * 2 - 1) * reach
        y = (1 - (np.arange(height) + 0.5) / height * 2) * reach * height / width
        rays: NDArray[np.float64] = np.stack(np.broadcast_arrays(x[None], y[:, None], -1.0), axis=-1)
        return rays


@dataclass(frozen=True)
class Drawing:
    """depth (H, W): metres along the optical axis; 0: nothing, or the sky; negative: a liquid's surface.
    normal (H, W, 3): x right, y up, z to the camera. albedo, shading (H, W, 3): linear. cover (H, W): not sky."""

    depth: Array
    normal: Array
    albedo: Array
    shading: Array
    cover: Array


class Rasteriser:
    """Two passes: depth and normals at the pixels' middles, colour from over x over samples of each."""

    def __init__(self, width: int = 256, height: int = 192, over: int = 2) -> None:
        """MissingExtra: moderngl is not installed. RuntimeError: there is no OpenGL 3.3 through EGL."""
        self._gl = optional_module("moderngl", "drawing levels")
        try:
            self._context = self._gl.create_context(standalone=True, backend="egl")
        except Exception as error:  # moderngl raises what its backend raises
            raise RuntimeError(f"no OpenGL through EGL (Debian: libegl1, libgl1-mesa-dri): {error}") from error
        self.size, self._over = (width, height), over
        self._program = self._context.program(VERTEX, FRAGMENT)
        self._sky = self._context.program(VERTEX, SKY)
        self._plain, self._fine = self._target(self.size), self._target((width * over, height * over))
        self._held: list[Any] = []
        self._draws: list[tuple[Any, ...]] = []

    def _target(self, size: tuple[int, int]) -> Any:
        buffers = [self._context.renderbuffer(size, 4, dtype=kind) for kind in ("f2", "f2", "f4")]
        return self._context.framebuffer(buffers, self._context.depth_renderbuffer(size))

    def load(self, world: World) -> None:
        """Takes a world instead of the last one."""
        for item in self._held:
            item.release()
        context, textures = self._context, {}
        for key in {batch.texture for batch in world.batches}:
            pixels = world.textures[key]
            texture = context.texture(
                pixels.shape[1::-1], 4, np.ascontiguousarray(pixels).tobytes(), internal_format=SRGB8_ALPHA8
            )
            texture.build_mipmaps()
            texture.filter = (self._gl.LINEAR_MIPMAP_LINEAR, self._gl.LINEAR)
            textures[key] = texture
        pages = []
        for page in world.lightmaps:
            texture = context.texture(page.shape[1::-1], 3, np.ascontiguousarray(page).tobytes(), alignment=1)
            texture.repeat_x = texture.repeat_y = False
            pages.append(texture)
        tint = np.ones_like(world.position) if world.tint is None else world.tint
        columns = (world.position, world.uv, world.lightmap_uv, world.normal, world.light, tint)
        buffer = context.buffer(np.concatenate(columns, axis=1).astype("f4").tobytes())
        index = context.buffer(
            np.concatenate([batch.triangles.ravel() for batch in world.batches]).astype("i4").tobytes()
        )
        layout = [(buffer, "3f 2f 2f 3f 3f 3f", "p", "uv", "lm", "n", "c", "tint")]
        solid = context.vertex_array(self._program, layout, index)
        sky = context.vertex_array(self._sky, [(buffer, "3f 52x", "p")], index)
        self._held = [*textures.values(), *pages, buffer, index, solid, sky]
        self._draws, first = [], 0
        for batch in world.batches:
            lightmap = pages[batch.lightmap] if batch.lightmap >= 0 else None
            mode = UNLIT if not batch.lit else LIGHTMAP if lightmap is not None else VERTEX_LIGHT
            alpha, array = (0.5 if batch.alpha_test else -1.0), (sky if batch.sky else solid)
            values = {
                "mode": mode,
                "alpha": alpha,
                "scale": world.lightmap_scale,
                "solid": -1.0 if batch.liquid else 1.0,
            }
            self._draws.append(
                (array, batch.sky, textures[batch.texture], lightmap, values, first, batch.triangles.size)
            )
            first += batch.triangles.size

    def _pass(self, target: Any) -> None:
        target.use()
        self._context.enable_only(self._gl.DEPTH_TEST)
        target.clear(0, 0, 0, 0, depth=1.0)
        self._program["tex"], self._program["light"] = 0, 1
        for array, sky, texture, page, values, first, count in self._draws:
            if not sky:
                texture.use(0)
                if page is not None:
                    page.use(1)
                for name, value in values.items():
                    self._program[name] = value
            array.render(self._gl.TRIANGLES, count, first=first)

    def draw(self, view: View) -> Drawing:
        width, height = self.size
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = view.rotation.T, -view.rotation.T @ view.origin
        focal = 1 / np.tan(view.fov / 2)
        near, far = (FAR + NEAR) / (NEAR - FAR), 2 * FAR * NEAR / (NEAR - FAR)
        project = np.array([[focal, 0, 0, 0], [0, focal * width / height, 0, 0], [0, 0, near, far], [0, 0, -1, 0]])
        for program in (self._program, self._sky):
            program["view"].write(np.ascontiguousarray(matrix.T, "f4").tobytes())
            program["proj"].write(np.ascontiguousarray(project.T, "f4").tobytes())
        self._pass(self._plain)
        self._pass(self._fine)
        albedo, shading = (_box(_read(self._fine, place, "f2"), self._over) for place in (0, 1))
        geometry = _read(self._plain, 2, "f4")
        cover = albedo[..., 3:]
        some = np.maximum(cover, np.float32(1e-3))
        colours = [(values[..., :3] / some).astype(np.float32) for values in (albedo, shading)]
        return Drawing(geometry[..., 3], geometry[..., :3], colours[0], colours[1], cover[..., 0])

    def close(self) -> None:
        for item in self._held:
            item.release()
        self._context.release()


def _read(target: Any, place: int, kind: str) -> Array:
    width, height = target.size
    raw = target.read(components=4, attachment=place, dtype=kind)
    return np.frombuffer(raw, "<" + kind).reshape(height, width, 4)[::-1].astype(np.float32)


def _box(image: Array, sides: int) -> Array:
    total: Array = sum(image[i::sides, j::sides] for i in range(sides) for j in range(sides)) / np.float32(sides**2)  # type: ignore[assignment]
    return total
