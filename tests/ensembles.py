"""Synthetic ensembles with a known truth: members are random scales and shifts of one map, with noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Random = np.random.Generator


def smooth_map(random: Random, h: int, w: int, waves: int = 6) -> NDArray[np.float64]:
    """A sum of a plane and low-frequency waves, in [0, 1]."""
    y, x = np.mgrid[0 : 1 : complex(h), 0 : 1 : complex(w)]
    map_ = random.normal() * x + random.normal() * y
    for _ in range(waves):
        fy, fx = random.uniform(-3, 3, 2)
        map_ += random.normal(0, 0.5) * np.sin(2 * np.pi * (fy * y + fx * x) + random.uniform(0, 2 * np.pi))
    low, high = map_.min(), map_.max()
    result: NDArray[np.float64] = (map_ - low) / (high - low)
    return result


def _spikes(members: NDArray[np.float64], random: Random) -> None:
    """A few pixels of each member far away: they move its minimum and maximum."""
    for member in members:
        at = random.choice(member.size, 5, replace=False)
        member.reshape(-1)[at] += random.uniform(-1, 1, 5) * np.ptp(member)


def _outlier(members: NDArray[np.float64], random: Random) -> None:
    member = members[random.integers(len(members))]
    member[...] = np.ptp(member) * smooth_map(random, *member.shape) + member.min()


def _constant(members: NDArray[np.float64], random: Random) -> None:
    members[random.integers(len(members))] = random.uniform(0.1, 0.9)


SETTINGS: dict[str, Callable[[NDArray[np.float64], Random], None]] = {
    "plain": lambda members, random: None,
    "spikes": _spikes,
    "outlier": _outlier,
    "constant": _constant,
}


def ensemble(setting: str, members: int, seed: int, h: int = 48, w: int = 64) -> tuple[Array, NDArray[np.float64]]:
    """((E, 1, h, w) members in [0, 1], but for spikes, and the (h, w) truth)."""
    random = np.random.default_rng([seed, members, *setting.encode()])
    truth = smooth_map(random, h, w)
    result = np.empty((members, h, w))
    for member in result:
        scale = random.uniform(0.4, 0.9)
        shift = random.uniform(0, 1 - scale)
        waves = 0.05 * (2 * smooth_map(random, h, w) - 1)
        member[...] = scale * (truth + waves + random.normal(0, 0.05, (h, w))) + shift
    SETTINGS[setting](result, random)
    return result.astype(np.float32)[:, None], truth


def aligned_rmse(prediction: NDArray[np.floating], truth: NDArray[np.float64]) -> float:
    """Root mean square error after the best scale and shift."""
    x, y = prediction.astype(np.float64).reshape(-1), truth.reshape(-1)
    design = np.stack([x, np.ones_like(x)], 1)
    return float(np.sqrt(np.mean((design @ np.linalg.lstsq(design, y, rcond=None)[0] - y) ** 2)))
