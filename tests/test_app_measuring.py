"""Metres from a few known distances, against scenes whose metres are known."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_c.app.limits import Refused
from marigold_c.app.measuring import Point, fit_metres, parse_points, positions

RANDOM = np.random.default_rng(0)
METRES = RANDOM.uniform(2, 12, (40, 60))


def points(*places: tuple[int, int], known: bool = True) -> list[Point]:
    return [Point(column, row, float(METRES[row, column]) if known else None) for column, row in places]


@pytest.mark.parametrize("is_disparity", [False, True])
@pytest.mark.parametrize("places", [((3, 4), (50, 30)), ((3, 4), (50, 30), (7, 8), (20, 39))])
def test_scale_and_shift_are_found(places: tuple[tuple[int, int], ...], is_disparity: bool) -> None:
    shown = 1 / METRES if is_disparity else METRES
    depth = ((shown - shown.min()) / (shown.max() - shown.min())).astype(np.float32)
    metres = fit_metres(depth, points(*places), is_disparity)
    assert metres.dtype == np.float32 and np.abs(metres / METRES - 1).max() < 1e-3


def test_one_point_gives_the_scale_alone() -> None:
    depth = (METRES / 20).astype(np.float32)
    assert np.abs(fit_metres(depth, points((9, 9)), False) / METRES - 1).max() < 1e-5


def test_points_that_disagree_are_fitted_by_least_squares() -> None:
    depth = RANDOM.random((5, 5)).astype(np.float32)
    wrong = [
        Point(column, row, 3 + 4 * float(depth[row, column]) + RANDOM.normal(0, 0.1))
        for column in range(5)
        for row in range(5)
    ]
    seen = np.array([depth[one.row, one.column] for one in wrong], float)
    slope, shift = np.polyfit(seen, [one.metres or 0 for one in wrong], 1)
    assert np.allclose(fit_metres(depth, wrong, False), slope * depth + shift, rtol=1e-5)


def test_what_cannot_be_is_refused() -> None:
    depth = np.array([[0.1, 0.2, 0.9, 0.1]], np.float32)
    for known, message in (
        ([], "at least one"),
        ([Point(0, 0, None)], "at least one"),
        ([Point(0, 0, 5.0), Point(2, 0, 1.0)], "do not fit"),
        ([Point(0, 0, 5.0), Point(3, 0, 1.0)], "do not fit"),
        ([Point(1, 0, 0.01), Point(2, 0, 9.0)], "behind the camera"),
    ):
        with pytest.raises(Refused, match=message):
            fit_metres(depth, known, False)


def test_places_are_those_of_a_pinhole_camera() -> None:
    """A wall of 2 m at 5 m: by the angle of view that it fills, its corners are 2 m apart."""
    width, height = 200, 100
    metres = np.full((height, width), 5, np.float32)
    angle = np.degrees(2 * np.arctan(1 / 5)) * width / width
    left, right = positions(metres, [Point(0, 50, None), Point(199, 50, None)], angle)
    assert np.linalg.norm(right - left) == pytest.approx(2 * 199 / 200)
    assert left[2] == -5 and left[0] < 0 < right[0] and positions(metres, [Point(0, 0, None)], angle)[0, 1] > 0


def test_lines_of_points() -> None:
    assert parse_points("3, 4\n\n 5 6 2.5\n7,8,", 10, 10) == [Point(3, 4, None), Point(5, 6, 2.5), Point(7, 8, None)]
    for text, message in (
        ("a, b", "line 1: 'a, b' is not"),
        ("1", "line 1"),
        ("1, 2\n10, 2", "line 2: column 10, row 2 is outside of 10 x 10"),
        ("1, 2, -3", "-3 metres is not a positive distance"),
        ("1, 2, inf", "inf metres"),
        ("inf, 2", "line 1"),
        ("1, 1\n" * 101, "101 points; at most 100"),
    ):
        with pytest.raises(Refused, match=message):
            parse_points(text, 10, 10)
