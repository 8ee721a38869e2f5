"""The depth of one sample of a data set completed from its measured points: the job of `marigold infer completion`.
Called by commands/infer.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..pipelines.completion import MarigoldDepthCompletionPipeline
from .engines import Share
from .inference import InferenceJob
from .prediction_files import WHOLE, Maps


@dataclass(frozen=True)
class CompletionJob(InferenceJob):
    """As InferenceJob; call and noise are of MarigoldDepthCompletionPipeline, and maps are metres."""

    def predictor(self, share: Share) -> Callable[[int, NDArray[Any]], Maps]:
        pipe = MarigoldDepthCompletionPipeline.from_pretrained(self.checkpoint, **self.model, num_threads=share.threads)
        pipe.set_progress_bar_config(disable=True)

        def complete(index: int, pixels: NDArray[Any]) -> Maps:
            points = self.dataset.read_points(index)
            return {WHOLE: pipe(pixels, points, **self.call, **self.noise).prediction[0, :, :, 0]}

        return complete
