"""The scores of a whole data set: rows in the order of its list, means, pooled statistics, the best and the worst.
Called by commands/infer.py and commands/eval.py; written by summary.py and report.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..datasets import Dataset
from . import metrics
from .inference import Outcome
from .pictures import View
from .scoring import Score, metric_names
from .settings import EvaluationSettings

_SHOWN = 4  # best and worst samples in the report
# What orders samples from best to worst, and whether more is better.
_RANKED_BY = {
    "depth": ("abs_relative_difference", False),
    "normals": ("mean_angular_error", False),
    "completion": ("mae", False),
    "iid": ("psnr", True),
}


@dataclass(frozen=True)
class Shown:
    """A sample with its pictures."""

    row: str
    rank: float
    view: View


class Results:
    """Takes outcomes in any order; what it tells does not depend on it."""

    def __init__(self, dataset: Dataset, settings: EvaluationSettings) -> None:
        self.dataset, self.settings = dataset, settings
        self.names = metric_names(dataset, settings)
        self.ranked_by = _RANKED_BY[dataset.task][0]
        self._scores: dict[int, Score] = {}
        self._faults: dict[int, str] = {}
        self._views: dict[int, View] = {}
        self._pool: Any = metrics.NormalsPool() if dataset.task == "normals" else None
        self._waiting: dict[int, Any] = {}  # pools of samples whose predecessors are not there yet
        self._pooled = 0

    def add(self, outcome: Outcome) -> None:
        index = outcome.index
        pool = None
        if outcome.score is None:
            self._faults[index] = outcome.fault or "there is no score"
        else:
            pool = outcome.score.pool
            self._scores[index] = Score(outcome.score.row, outcome.score.values)
            if outcome.view is not None:
                self._views[index] = outcome.view
                self._forget_views()
        if self._pool is not None:
            self._waiting[index] = pool
            self._merge()

    def _merge(self) -> None:
        """Pools in the order of the list, so that sums are rounded alike whoever worked on what."""
        while self._pooled in self._waiting:
            pool = self._waiting.pop(self._pooled)
            if pool is not None:
                self._pool.merge(pool)
            self._pooled += 1

    def _forget_views(self) -> None:
        keep = {*self.best(), *self.worst()}
        self._views = {index: view for index, view in self._views.items() if index in keep}

    # ---- what came out ----

    def __len__(self) -> int:
        """Samples that have a score."""
        return len(self._scores)

    def scores(self) -> list[Score]:
        return [self._scores[index] for index in sorted(self._scores)]

    def left_out(self) -> list[tuple[str, str]]:
        """(sample, reason)."""
        return [(self.dataset.samples[index].name, self._faults[index]) for index in sorted(self._faults)]

    def means(self) -> dict[str, float]:
        """Of each metric over the samples; no number where one of them is none, or where there are no samples."""
        rows = self.scores()
        return {name: _mean([row.values[name] for row in rows]) for name in self.names}

    def pooled(self) -> dict[str, float] | None:
        """Statistics of the pixels of all samples together; only for normals."""
        if self._pool is None:
            return None
        if not self._pool.pixels:
            return dict.fromkeys(self.names, math.nan)
        statistics: dict[str, float] = self._pool.result()
        return statistics

    def not_finite(self) -> list[tuple[str, str]]:
        """(sample, metric) whose value is no finite number, so that the mean is none either."""
        return [(row.row, name) for row in self.scores() for name in self.names if not math.isfinite(row.values[name])]

    def rank(self, index: int) -> float:
        """Less is better; the mean over targets for intrinsic images."""
        values = self._scores[index].values
        _, more_is_better = _RANKED_BY[self.dataset.task]
        mean = _mean([values[name] for name in self.names if name.startswith(self.ranked_by)])
        rank = -mean if more_is_better else mean
        return math.inf if math.isnan(rank) else rank

    def _order(self) -> list[int]:
        return sorted(self._scores, key=lambda index: (self.rank(index), index))

    def best(self) -> list[int]:
        return self._order()[:_SHOWN]

    def worst(self) -> list[int]:
        """The worst first; none of the best."""
        return self._order()[_SHOWN:][::-1][:_SHOWN]

    def shown(self, indices: list[int], draw: Callable[[int], View] | None) -> list[Shown]:
        """draw: makes the pictures of a sample that did not bring them."""
        found = []
        for index in indices:
            view = self._views.get(index) or (None if draw is None else draw(index))
            if view is not None:
                found.append(Shown(self._scores[index].row, abs(self.rank(index)), view))
        return found


def _mean(values: list[float]) -> float:
    """Exactly rounded, so that the order of the sum does not matter."""
    if not values or not all(math.isfinite(value) for value in values):
        return sum(values) / len(values) if values else math.nan
    return math.fsum(values) / len(values)
