"""The evaluation of one sample: predictions beside their truth, as prs-eth's eval scripts compare them. Called by
inference.py (infer --eval) and commands/eval.py; what single numbers mean is documented in metrics.py.

Depth is aligned, clipped to the range of the data set and then to at least 1e-6. Completed depth has a unit, and is
compared as it is, as Marigold-DC's script/eval.py does. Intrinsic images are brought to the
space that they are compared in; shading and residual, which are known up to a factor, are scaled to the truth first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import Dataset, Truth
from ..errors import SampleError
from . import metrics
from .alignment import align_least_squares, align_median, align_ransac
from .intrinsics import compared_targets, scored_targets
from .prediction_files import WHOLE, Maps, prediction_file
from .settings import EvaluationSettings

Array = NDArray[np.float32]
_SMALLEST_DEPTH = 1e-6  # metres; logarithms and inverses are taken

# By the name of --alignment: (prediction, target, mask, largest side or None) -> (aligned, scale, shift).
_ALIGN: dict[str, Callable[..., tuple[Array, float, float]]] = {
    "least_square": partial(align_least_squares, space="depth"),
    "least_square_disparity": partial(align_least_squares, space="disparity"),
    "least_square_log": partial(align_least_squares, space="log"),
    "ransac_log": align_ransac,
    "median": align_median,
}

# Of tasks with one map; intrinsic images have columns for each target.
_METRICS: dict[str, tuple[str, ...]] = {
    "depth": metrics.DEPTH_METRICS,
    "normals": metrics.NORMALS_METRICS,
    "completion": metrics.COMPLETION_METRICS,
}


@dataclass(frozen=True)
class Score:
    """Of one sample. row: its name in the CSV. values: by metric. pool: its pixels' angular errors, of normals."""

    row: str
    values: dict[str, float]
    pool: Any = None


@dataclass(frozen=True)
class Comparison:
    """What is shown of a sample, by target: prediction as it is compared, truth, error (H, W), valid pixels (H, W)."""

    prediction: Mapping[str, Array]
    truth: Mapping[str, Array]
    error: Mapping[str, Array]
    valid: Mapping[str, NDArray[np.bool_]]


def targets_of(dataset: Dataset, settings: EvaluationSettings) -> tuple[str, ...]:
    """Of intrinsic images the targets that are evaluated; else the only map."""
    if dataset.task != "iid":
        return (WHOLE,)
    names = settings.target_names or dataset.targets
    unknown = ", ".join(name for name in (*names, *settings.linear_targets) if name not in dataset.targets)
    if unknown:
        raise ValueError(f"{dataset.display_name} has no {unknown}; its targets: {', '.join(dataset.targets)}")
    return tuple(names)


def metric_names(dataset: Dataset, settings: EvaluationSettings) -> tuple[str, ...]:
    """The columns of the CSV. Without LPIPS where it is not installed, which is warned of."""
    if dataset.task in _METRICS:
        return _METRICS[dataset.task]
    names = [one for one in metrics.INTRINSICS_METRICS if one != "lpips" or metrics.has_lpips()]
    return tuple(f"{one}_{target}" for target in targets_of(dataset, settings) for one in names)


class Scorer:
    """Scores the samples of one data set."""

    def __init__(self, dataset: Dataset, settings: EvaluationSettings) -> None:
        self.dataset, self.settings = dataset, settings
        self.targets = targets_of(dataset, settings)

    def truth(self, index: int) -> Truth:
        """The truth; SampleError if no pixel of it is valid."""
        truth = self.dataset.read_truth(index)
        if not truth.mask.any() and self.dataset.task != "iid":
            raise self._fault(index, self.dataset.samples[index].name, "no pixel of the truth is valid")
        return truth

    def shapes(self, truth: Truth) -> dict[str, tuple[int, ...]]:
        """What the predictions' shapes must be, by target."""
        if isinstance(truth.target, dict):
            return {name: truth.target[name].shape for name in self.targets}
        return {WHOLE: truth.target.shape}

    def _fault(self, index: int, file: str, reason: str) -> SampleError:
        return SampleError(self.dataset.display_name, self.dataset.samples[index].name, file, reason)

    def _check(self, index: int, truth: Truth, maps: Maps) -> None:
        for target, shape in self.shapes(truth).items():
            file = str(prediction_file(self.dataset, index, target))
            if target not in maps:
                raise self._fault(index, file, f"the predictions are {', '.join(maps)}, not {target}")
            if maps[target].shape != shape:
                raise self._fault(index, file, f"has shape {maps[target].shape}; the truth has {shape}")
            values = maps[target] if self.dataset.task == "iid" else maps[target][truth.mask]
            if not np.isfinite(values).all():
                count = int(values.size - np.isfinite(values).sum())
                raise self._fault(index, file, f"{count} of {values.size} values are not finite")

    def score(self, index: int, truth: Truth, maps: Maps) -> Score:
        """SampleError names the sample if its prediction does not fit."""
        self._check(index, truth, maps)
        row = self.dataset.samples[index].name
        if self.dataset.task == "depth":
            aligned = self._aligned(truth, maps[WHOLE])
            values = metrics.depth(aligned, truth.target, truth.mask)
            return Score(str(prediction_file(self.dataset, index, WHOLE)), values)
        if self.dataset.task == "completion":
            values = metrics.completion(maps[WHOLE], truth.target, truth.mask)
            return Score(str(prediction_file(self.dataset, index, WHOLE)), values)
        if self.dataset.task == "normals":
            pool = metrics.NormalsPool()
            pool.add(maps[WHOLE], truth.target, truth.mask)
            return Score(row, metrics.normals(maps[WHOLE], truth.target, truth.mask), pool)
        return Score(row, scored_targets(self.dataset.name, self.settings, self.targets, truth, maps))

    def _aligned(self, truth: Truth, prediction: Array) -> Array:
        chosen = self.settings.alignment
        if chosen != "none":
            prediction, _, _ = _ALIGN[chosen](
                prediction, truth.target, truth.mask, max_resolution=self.settings.alignment_max_res
            )
        low = np.float32(self.dataset.min_depth or 0)
        high = np.float32(np.inf if self.dataset.max_depth is None else self.dataset.max_depth)
        clipped: Array = np.maximum(np.clip(prediction, low, high), np.float32(_SMALLEST_DEPTH))
        return clipped

    def compare(self, index: int, truth: Truth, maps: Maps) -> Comparison:
        """What the report shows of a sample that has a score."""
        if isinstance(truth.target, dict):
            predicted, wanted, valid = compared_targets(self.dataset.name, self.settings, self.targets, truth, maps)
            errors = {name: np.abs(predicted[name] - wanted[name]).mean(axis=2) for name in self.targets}
            whole = {name: np.asarray(one.all(axis=2)) for name, one in valid.items()}
            return Comparison(predicted, wanted, errors, whole)
        if self.dataset.task == "depth":
            prediction = self._aligned(truth, maps[WHOLE])
            safe = np.where(truth.mask, truth.target, np.float32(1))
            error = np.asarray(np.abs(prediction - safe) / safe, np.float32)
        elif self.dataset.task == "completion":
            prediction = maps[WHOLE]
            error = np.where(truth.mask, np.abs(prediction - truth.target), np.float32(0))
        else:
            prediction = maps[WHOLE]
            lengths = np.linalg.norm(prediction, axis=2) * np.linalg.norm(truth.target, axis=2)
            cosine = (prediction * truth.target).sum(axis=2) / np.maximum(lengths, np.float32(1e-8))
            error = np.degrees(np.arccos(np.clip(cosine, -1, 1))).astype(np.float32)
        return Comparison({WHOLE: prediction}, {WHOLE: truth.target}, {WHOLE: error}, {WHOLE: truth.mask})
