"""A pipeline for a task as commands and data sets call it. Called by commands and evaluation."""

from __future__ import annotations

from os import PathLike
from typing import Any

from .pipeline import MarigoldPipeline
from .tasks import open_as


def open_pipeline(task: str, checkpoint: str | PathLike[str], **options: Any) -> MarigoldPipeline[Any]:
    """load() with its options; ValueError if the checkpoint is for another task: depth, normals or iid."""
    pipe = open_as(checkpoint, None, "intrinsics" if task == "iid" else task, options)
    name = "iid" if pipe.task == "intrinsics" else pipe.task
    if name != task:
        raise ValueError(f"{checkpoint} is a checkpoint for {pipe.task}: use marigold {name}")
    return pipe
