"""What a ray hits, looked up in numpy: the colour, roughness and kind of the material at a texture coordinate.

Called by rendering.py. The materials of a scene are numbered from 1; 0 stands for no surface. The number travels with
the texture coordinates: it is added to u, times a stride that no coordinate reaches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .materials import Material
from .meshes import Mesh

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]
_STRIDE, _LARGEST_U = 64.0, 31.0


def texture_coordinates(mesh: Mesh, material: Material) -> NDArray[np.float64]:
    """Those of a mesh in repetitions of the material's texture."""
    if material.color.ndim == 1 and material.radiance.ndim == 1:
        return np.zeros_like(mesh.uv)
    uv: NDArray[np.float64] = mesh.uv / material.tile
    uv = uv - np.array([np.floor((uv[:, 0].min() + uv[:, 0].max()) / 2), 0])
    if np.abs(uv[:, 0]).max() > _LARGEST_U:
        raise ValueError(f"a texture repeats {np.ptp(uv[:, 0]):.0f} times along u, the most is {2 * _LARGEST_U:.0f}")
    return uv


def numbered(uv: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    """Texture coordinates with a material's number in u."""
    return np.asarray(uv + np.array([number * _STRIDE, 0]), np.float64)


class Surfaces:
    """The materials of a scene as arrays that are indexed by a material's number."""

    def __init__(self, materials: Sequence[Material]) -> None:
        kinds = np.array(["none", *(material.kind for material in materials)])
        self.is_surface = ~np.isin(kinds, ["none", "opening"])
        self.reflects = ~np.isin(kinds, ["none", "light", "opening"])
        self.is_metal, self.is_diffuse = kinds == "metal", kinds == "diffuse"
        self.roughness = np.array([0.0, *(material.roughness for material in materials)], np.float32)
        self.metallicity = np.array([0.0, *(material.metallicity for material in materials)], np.float32)
        textures = [np.zeros((1, 1, 3), np.float32)]
        textures += [np.atleast_3d(material.color).reshape(*_shape(material.color), 3) for material in materials]
        self._rows = np.array([len(texture) for texture in textures])
        self._columns = np.array([texture.shape[1] for texture in textures])
        self._start = np.cumsum([0, *(texture.shape[0] * texture.shape[1] for texture in textures[:-1])])
        self._texels = np.concatenate([texture.reshape(-1, 3) for texture in textures]).astype(np.float32)

    def numbers(self, u: Floats, hit: NDArray[np.bool_]) -> Numbers:
        return np.where(hit, np.rint(u / _STRIDE), 0).astype(np.int64)

    def colors(self, number: Numbers, u: Floats, v: Floats) -> Floats:
        """Linear colours, bilinear between the centres of texels, as the renderer's textures are."""
        rows, columns, start = self._rows[number], self._columns[number], self._start[number]
        x = (u.astype(np.float64) - number * _STRIDE) * columns - 0.5
        y = v.astype(np.float64) * rows - 0.5
        left, low = np.floor(x), np.floor(y)
        along, up = (x - left)[..., None], (y - low)[..., None]
        x0, y0 = left.astype(np.int64) % columns, low.astype(np.int64) % rows
        x1, y1 = (x0 + 1) % columns, (y0 + 1) % rows

        def texel(row: Numbers, column: Numbers) -> NDArray[np.float64]:
            values: NDArray[np.float64] = self._texels[start + row * columns + column].astype(np.float64)
            return values

        lower = texel(y0, x0) * (1 - along) + texel(y0, x1) * along
        upper = texel(y1, x0) * (1 - along) + texel(y1, x1) * along
        colors: Floats = (lower * (1 - up) + upper * up).astype(np.float32)
        return colors


def _shape(color: NDArray[np.float32]) -> tuple[int, int]:
    return (1, 1) if color.ndim == 1 else (color.shape[0], color.shape[1])
