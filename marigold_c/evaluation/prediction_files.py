"""Predictions of a sample as .npy files, named and laid out as prs-eth's infer scripts write them and its eval scripts
read them: depth (H, W), normals (3, H, W), intrinsic images one file (3, H, W) for each target. Called by inference.py
and scoring.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic_files import write_atomically
from ..errors import SampleError

Maps = Mapping[str, NDArray[np.float32]]
# The only map of a sample of depth or normals; intrinsic images have the names of their targets.
WHOLE = ""


def prediction_file(dataset: Any, index: int, target: str) -> Path:
    """Relative to the folder of predictions."""
    return Path(dataset.prediction_path(index, target or None))


def prediction_files(dataset: Any, index: int, targets: Iterable[str]) -> list[Path]:
    return [prediction_file(dataset, index, target) for target in targets]


def save_predictions(folder: Path, dataset: Any, index: int, maps: Maps) -> None:
    """maps: (H, W) or (H, W, 3) by target. Each file appears whole or not at all."""
    for target, values in maps.items():
        path = folder / prediction_file(dataset, index, target)
        path.parent.mkdir(parents=True, exist_ok=True)
        planes = np.ascontiguousarray(values.transpose(2, 0, 1) if values.ndim == 3 else values)
        write_atomically(path, lambda file, planes=planes: np.save(file, planes))  # type: ignore[misc]


def _checked(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The map as (H, W) or (H, W, 3), which `shape` says; ValueError if it is no such map."""
    if values.dtype.kind not in "fiu":
        raise ValueError(f"an array of numbers is expected, not {values.dtype}")
    planes = values.reshape([size for size in values.shape if size != 1] or [1]) if values.ndim > len(shape) else values
    expected = (shape[2], *shape[:2]) if len(shape) == 3 else shape
    if planes.shape != expected:
        raise ValueError(f"has shape {values.shape}; the truth needs {expected}")
    converted = planes.astype(np.float32)
    return np.ascontiguousarray(converted.transpose(1, 2, 0)) if len(shape) == 3 else converted


def load_predictions(folder: Path, dataset: Any, index: int, shapes: Mapping[str, tuple[int, ...]]) -> Maps:
    """Maps (H, W) or (H, W, 3) by target, as `shapes` says. SampleError names a file that does not fit."""
    maps = {}
    for target, shape in shapes.items():
        path = folder / prediction_file(dataset, index, target)
        try:
            # Mapped, so that a header that promises more than the file has is refused before memory is taken.
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(stored, np.ndarray):
                raise ValueError("is an archive of arrays; one array is expected")
            maps[target] = _checked(stored, shape)
        except FileNotFoundError:
            raise SampleError(
                dataset.display_name, dataset.samples[index].name, str(path), "there is no prediction"
            ) from None
        except (OSError, ValueError, EOFError) as error:
            raise SampleError(dataset.display_name, dataset.samples[index].name, str(path), str(error)) from error
    return maps
