"""Which part of an image is read, and which part of that is evaluated, by the conventions of the benchmarks.

Called by dataset.py and truths.py. A crop or window is (rows, columns), two slices of an image of the size asked for.
"""

from __future__ import annotations

from collections.abc import Callable

from ..images.readers import InputError

Window = tuple[slice, slice]
_BENCHMARK_HEIGHT, _BENCHMARK_WIDTH = 352, 1216  # of the KITTI depth benchmark
_NYU_SIZE, _NYU_WINDOW = (480, 640), (slice(45, 471), slice(41, 601))
_SINTEL_SIZE, _SINTEL_MARGIN = (436, 1024), 221
# Rows and columns of the evaluated part as fractions of the image: top, bottom, left, right.
_GARG = (0.40810811, 0.99189189, 0.03594771, 0.96405229)
_EIGEN = (0.3324324, 0.91351351, 0.0359477, 0.96405229)


def _expect(height: int, width: int, size: tuple[int, int], what: str) -> None:
    if (height, width) != size:
        raise InputError(f"is {height} x {width}; {what} is defined for {size[0]} x {size[1]}")


def _kitti_benchmark(height: int, width: int) -> Window:
    """352 x 1216: the lowest rows, the middle columns."""
    if height < _BENCHMARK_HEIGHT or width < _BENCHMARK_WIDTH:
        least = f"{_BENCHMARK_HEIGHT} x {_BENCHMARK_WIDTH}"
        raise InputError(f"is {height} x {width}, smaller than the KITTI benchmark crop of {least}")
    left = (width - _BENCHMARK_WIDTH) // 2
    return slice(height - _BENCHMARK_HEIGHT, height), slice(left, left + _BENCHMARK_WIDTH)


def _sintel(height: int, width: int) -> Window:
    """All rows, 582 columns in the middle."""
    _expect(height, width, _SINTEL_SIZE, "Sintel's crop")
    return slice(0, height), slice(_SINTEL_MARGIN, width - _SINTEL_MARGIN)


def _nyu_eigen(height: int, width: int) -> Window:
    _expect(height, width, _NYU_SIZE, "NYUv2's evaluation crop")
    return _NYU_WINDOW


def _fractions(top: float, bottom: float, left: float, right: float) -> Callable[[int, int], Window]:
    def window(height: int, width: int) -> Window:
        return slice(int(top * height), int(bottom * height)), slice(int(left * width), int(right * width))

    return window


CROPS: dict[str, Callable[[int, int], Window]] = {"kitti_benchmark": _kitti_benchmark, "sintel": _sintel}
WINDOWS: dict[str, Callable[[int, int], Window]] = {
    "nyu_eigen": _nyu_eigen,
    "kitti_eigen": _fractions(*_EIGEN),
    "kitti_garg": _fractions(*_GARG),
}
