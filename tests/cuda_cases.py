"""What several files of tests/cuda share: a picture and pipelines."""

from __future__ import annotations

from typing import Any

import numpy as np

import marigold_c as mc


def picture(height: int = 48, width: int = 72) -> Any:
    """A few smooth hills in colour."""
    y, x = np.mgrid[:height, :width] / 17.0
    return np.stack([np.sin(x + k) * np.cos(y * (k + 1)) for k in range(3)], axis=-1) * 0.5 + 0.5


def load(task: str, **options: Any) -> Any:
    pipe = mc.load(mc.default_checkpoint(task), num_threads=1, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe
