"""The shipped checkpoint opened, and an image, for the tests of the pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np

import marigold_c as mc

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def open_pipeline(**options: Any) -> mc.MarigoldDepthPipeline:
    # One thread: waiting for a second costs more than it gives on images this small when the machine is shared.
    pipe = mc.MarigoldDepthPipeline.from_pretrained(mc.default_checkpoint(), **{"num_threads": 1, **options})
    pipe.set_progress_bar_config(disable=True)
    return pipe
