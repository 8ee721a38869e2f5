"""A synthetic scene before it is rendered: meshes with materials, a camera, a sky.

Made by rooms.py and landscapes.py, rendered by rendering.py. World coordinates: metres, z up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .materials import Material
from .meshes import Mesh
from .sky import Sky

Part = tuple[Mesh, Material]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. field_of_view: in degrees across the width. roll: in degrees, clockwise turns of the camera."""

    origin: Floats
    target: Floats
    field_of_view: float
    roll: float = 0.0

    def axes(self) -> Floats:
        """Rows: to the right, up, and towards the viewer (against the line of sight), in world coordinates."""
        forward = self.target - self.origin
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right = right / np.linalg.norm(right)
        above = np.cross(right, forward)
        angle = np.deg2rad(self.roll)
        return np.stack(
            [np.cos(angle) * right - np.sin(angle) * above, np.sin(angle) * right + np.cos(angle) * above, -forward]
        )


@dataclass
class Scene:
    """kind: "room", "street" or "landscape". parts: what is rendered; one material object is one surface."""

    kind: str
    camera: Camera
    parts: list[Part] = field(default_factory=list)
    sky: Sky | None = None


def moved_parts(parts: Sequence[Part], at: Sequence[float], degrees: float = 0.0) -> list[Part]:
    """Turned about z, then moved."""
    return [(mesh.turned(degrees).moved(at), material) for mesh, material in parts]
