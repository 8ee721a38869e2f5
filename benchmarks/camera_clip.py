"""A clip of known depth under known camera motion: a room with boxes and a ball, cast ray by ray with NumPy. Called by
video_consistency.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ROOM = (np.array([-3.0, -1.5, -1.0]), np.array([3.0, 1.5, 7.0]))  # x right, y down, z ahead; the camera is inside
BOXES = [
    (np.array([-1.6, 0.3, 3.2]), np.array([-0.4, 1.5, 4.2])),
    (np.array([0.5, -0.1, 4.4]), np.array([1.6, 1.5, 5.6])),
    (np.array([-2.9, -0.9, 5.2]), np.array([-2.0, 1.5, 6.4])),
]
BALL = (np.array([0.55, 0.95, 2.9]), 0.55)
LIGHT = np.array([0.4, -0.8, -0.45])


@dataclass(frozen=True)
class Camera:
    """position: of the centre; yaw: radians to the right; focal: in pixels."""

    position: Array
    yaw: float
    focal: float

    def rotation(self) -> Array:
        """From the camera's directions to the room's."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])

    def rays(self, height: int, width: int) -> Array:
        """(H, W, 3) of which z ahead is 1, in the room's directions."""
        y, x = np.mgrid[0:height, 0:width].astype(np.float64)
        local = np.stack([x + 0.5 - width / 2, y + 0.5 - height / 2, np.full_like(x, self.focal)], axis=2) / self.focal
        return local @ self.rotation().T

    def project(self, points: Array, height: int, width: int) -> tuple[Array, Array]:
        """Points (..., 3) of the room to columns and rows (..., 2), and their depth ahead."""
        local = (points - self.position) @ self.rotation()
        depth = local[..., 2]
        ahead = np.where(depth > 1e-6, depth, np.inf)
        pixel = local[..., :2] / ahead[..., None] * self.focal + np.array([width / 2, height / 2]) - 0.5
        return pixel, depth


def _slabs(origin: Array, rays: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Distances along the rays at which they enter and leave a box."""
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (low - origin) / rays, (high - origin) / rays
    return np.nanmax(np.minimum(one, other), axis=2), np.nanmin(np.maximum(one, other), axis=2)


def _ball(origin: Array, rays: Array) -> Array:
    centre, radius = BALL
    a, b = (rays * rays).sum(axis=2), (rays * (origin - centre)).sum(axis=2)
    root = b * b - a * (((origin - centre) ** 2).sum() - radius**2)
    return np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)


def _texture(points: Array, surface: NDArray[np.int64]) -> Array:
    """(H, W, 3) in [0, 1]: another colour for each surface, and a checkerboard that follows it."""
    colours = np.array([[0.75, 0.7, 0.6], [0.8, 0.35, 0.25], [0.3, 0.5, 0.75], [0.4, 0.65, 0.35], [0.9, 0.8, 0.3]])
    squares = np.floor(points / 0.4 + 1e-4).astype(np.int64).sum(axis=2) % 2
    return colours[surface] * (0.75 + 0.25 * squares)[:, :, None]


def cast(camera: Camera, height: int, width: int) -> tuple[NDArray[np.uint8], Array]:
    """A picture (H, W, 3) and its depth (H, W), ahead of the camera, exact."""
    rays = camera.rays(height, width)
    depth = _slabs(camera.position, rays, *ROOM)[1]
    surface = np.zeros(depth.shape, np.int64)
    for number, box in enumerate(BOXES, 1):
        enters, leaves = _slabs(camera.position, rays, *box)
        hit = (enters > 0) & (enters < leaves) & (enters < depth)
        depth, surface = np.where(hit, enters, depth), np.where(hit, number, surface)
    ball = _ball(camera.position, rays)
    hit = (ball > 0) & (ball < depth)
    depth, surface = np.where(hit, ball, depth), np.where(hit, len(BOXES) + 1, surface)
    points = camera.position + rays * depth[:, :, None]
    across, down = np.diff(points, axis=1, append=points[:, -2:-1]), np.diff(points, axis=0, append=points[-2:-1])
    normal = np.cross(across, down)
    normal /= np.maximum(np.linalg.norm(normal, axis=2, keepdims=True), 1e-12)
    shade = 0.55 + 0.45 * np.abs(normal @ (LIGHT / np.linalg.norm(LIGHT)))
    picture = np.clip(_texture(points, surface) * shade[:, :, None], 0, 1) ** (1 / 2.2)
    return np.rint(255 * picture).astype(np.uint8), depth


def path(frames: int, width: int) -> list[Camera]:
    """Sideways, ahead and turning, a third of a metre and five degrees in all, whatever the number of frames."""
    return [
        Camera(np.array([0.35 * t - 0.2, -0.05 * t, 0.3 * t]), np.deg2rad(5 * t - 2.5), 0.8 * width)
        for t in np.linspace(0, 1, frames)
    ]


@dataclass(frozen=True)
class Warp:
    """What the camera saw before, brought to where it is now."""

    before: Camera
    now: Camera
    depth_before: Array
    depth_now: Array

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """For each pixel of now: its nearest row and column before, and whether it was seen there."""
        height, width = self.depth_now.shape
        points = self.now.position + self.now.rays(height, width) * self.depth_now[:, :, None]
        pixel, depth = self.before.project(points, height, width)
        columns, rows = np.rint(pixel[..., 0]).astype(np.int64), np.rint(pixel[..., 1]).astype(np.int64)
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        columns, rows = np.clip(columns, 0, width - 1), np.clip(rows, 0, height - 1)
        seen = inside & (np.abs(self.depth_before[rows, columns] - depth) < 0.02 * depth)
        return rows, columns, seen


def clip(frames: int, size: int) -> tuple[NDArray[np.uint8], Array, list[Camera]]:
    """Pictures (N, H, W, 3), depths (N, H, W) and cameras; size: the longer side, the other is three quarters."""
    height, width = size * 3 // 4, size
    cameras = path(frames, width)
    parts: list[Any] = [cast(camera, height, width) for camera in cameras]
    return np.stack([part[0] for part in parts]), np.stack([part[1] for part in parts]), cameras


def inconsistency(maps: Array, depths: Array, cameras: list[Camera], disparity: bool) -> float:
    """Mean change, in per cent of the range of all maps, of what both of two successive frames see. The true motion
    towards the camera is taken out: a map is fitted to the truth by one scale and one shift for the whole clip, its
    values are moved by the known difference of depths, and brought to the place where the point is now."""
    truth = 1 / depths if disparity else depths
    centred, known = maps - maps.mean(), truth - truth.mean()
    scale = float((centred * known).sum() / (known * known).sum())  # of the truth, in the unit of the maps
    changes = []
    for i in range(1, len(maps)):
        rows, columns, seen = Warp(cameras[i - 1], cameras[i], depths[i - 1], depths[i]).places()
        moved = maps[i - 1][rows, columns] + scale * (truth[i] - truth[i - 1][rows, columns])
        changes.append(np.abs(maps[i] - moved)[seen])
    return 100 * float(np.concatenate(changes).mean() / np.ptp(maps))
