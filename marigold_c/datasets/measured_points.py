"""The measured points of a sample of depth completion: out of a file of their own, or drawn from the truth.

Called by dataset.py. As in the data sets of Marigold-DC (arXiv 2412.13389, section 4.1): points drawn at random belong
to a seed, the same for each image; of a lidar's points those are dropped that lie behind what is seen beside them
(Conti et al., arXiv 2210.03118).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .settings import Settings, Truth
from .truths import SampleReader, check_size, decode_depth

Array = NDArray[np.float32]
_WINDOW, _BEHIND = 7, 1.5  # pixels a side; metres


def draw_points(truth: Truth, count: int, seed: int) -> Array:
    """`count` of the valid pixels of a depth map, or all if there are fewer: the first of their shuffled places, by
    NumPy's old generator, whose numbers Marigold-DC's are."""
    target = truth.target
    assert isinstance(target, np.ndarray)
    places = np.flatnonzero(truth.mask)
    np.random.RandomState(seed).shuffle(places)
    points = np.zeros_like(target)
    points.flat[places[:count]] = target.flat[places[:count]]
    return points


def _least_around(values: Array) -> Array:
    """The least value in the window around each pixel."""
    margin = _WINDOW // 2
    wide = np.pad(values, margin, constant_values=np.inf)
    for axis in (0, 1):
        wide = np.lib.stride_tricks.sliding_window_view(wide, _WINDOW, axis=axis).min(axis=-1)
    return wide


def drop_hidden(points: Array) -> Array:
    """Without those that lie more than 1.5 m behind the nearest point of a window that they share with another point:
    the laser stands elsewhere than the camera, and has seen what a nearer thing hides from it."""
    known = np.where(points > 0, points, np.float32(np.inf))
    nearest = np.where(points > 0, _least_around(known), np.float32(np.inf))  # in the window of each point
    return np.where(known - _BEHIND > _least_around(nearest), np.float32(0), points)


def read_points(sample: SampleReader, settings: Settings, truth: Callable[[], Truth]) -> Array:
    """Metres (H, W), 0 where nothing was measured. SampleError names the file. truth: reads the sample's."""
    if settings.points is not None:
        return draw_points(truth(), settings.points, settings.points_seed)
    points: Array = sample.decode("sparse", decode_depth, sample.member("sparse") or "", settings.units_per_metre)
    check_size(sample, "sparse", points.shape, sample.image_size())
    return drop_hidden(points) if settings.drops_hidden else points
