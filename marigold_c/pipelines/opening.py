"""A pipeline for a task that is known before its checkpoint is. Called by commands and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .pipeline import MarigoldPipeline, load


def open_pipeline(task: str, checkpoint: str | Path, **options: Any) -> MarigoldPipeline:
    """load() with its options; ValueError if the checkpoint is for another task.

    task: depth, normals or iid, as commands and data sets call them.
    """
    pipe: MarigoldPipeline = load(checkpoint, **options)
    name = "iid" if pipe.task == "intrinsics" else pipe.task
    if name != task:
        raise ValueError(f"{checkpoint} is a checkpoint for {pipe.task}: use marigold {name}")
    return pipe
