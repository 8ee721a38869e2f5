"""What several files of tests/cuda share: a picture, pipelines, and NCCL or what stands in for it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np

import marigold_c as mc
from marigold_c import _cuda as cuda


def picture(height: int = 48, width: int = 72) -> Any:
    """A few smooth hills in colour."""
    y, x = np.mgrid[:height, :width] / 17.0
    return np.stack([np.sin(x + k) * np.cos(y * (k + 1)) for k in range(3)], axis=-1) * 0.5 + 0.5


def load(task: str, **options: Any) -> Any:
    pipe = mc.load(mc.default_checkpoint(task), num_threads=1, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load_nccl() -> None:
    library = os.environ.get("MARIGOLD_CUDA_LIBRARY", "")
    if "emu" in library:
        ctypes.CDLL(str(Path(library).with_name("libnccl.so.2")))
    else:
        cuda.load_libraries()
        cuda.load_nccl()
