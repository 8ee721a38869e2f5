"""The networks of a packed file as files in diffusers' layout. Called by pipelines/saving.py.

The engine brings each weight back into the order of the layout (csrc/pipeline/read_weights.c). They are the file's own:
those of the checkpoint where it was packed in float32, and rounded where it was packed in bfloat16 or int8.
"""

from __future__ import annotations

import os
from pathlib import Path

from .. import _C
from .config import Config
from .families import kind_of, refines
from .packed import Configurations
from .parameter_files import write_arrays


class PackedNetworks:
    """A packed file that is opened for its weights."""

    def __init__(self, path: Path) -> None:
        """CheckpointError: it is damaged."""
        kind = kind_of(path)
        isa = os.environ.get("MARIGOLD_ISA") or None
        self.configurations = Configurations(path)
        self._engine = _C.Pipeline(path, isa=isa, task=kind.task, boosting=refines(path), **kind.options())

    def config(self, component: str) -> Config:
        return self.configurations[f"{component}/config.json"]

    def write_weights(self, component: str, path: Path) -> None:
        """In float32, one weight in memory at a time; the file appears whole or not at all."""
        engine = self._engine
        shapes = engine.weights(component)
        write_arrays(path, shapes, lambda name: engine.read_weight(component, name), {"format": "pt"})
