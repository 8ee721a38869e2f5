"""What the page needs of a subcommand (depth, normals, iid). Made by commands/app.py of the commands' own parts.

The page says what it wants in the words of the command line (wishes.py). They are read by the command's own parser, and
the files are written by the command's own writer: what the page shows as "the same on the command line" is what it did.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images.writers import Map
from ..pipelines.outputs import MarigoldOutput
from ..pipelines.pipeline import MarigoldPipeline

Pixels = NDArray[np.generic]


@dataclass(frozen=True)
class Command:
    """parse: words without the image as the command's flags; ValueError says what is wrong. options: flags as options
    of the pipeline's call. maps: a result's maps by name. save: writes all files of a result and returns them."""

    name: str
    title: str
    shape_formats: tuple[str, ...]  # ("glb", ...) where it writes shapes
    parse: Callable[[Sequence[str]], Namespace]
    options: Callable[[Namespace], dict[str, Any]]
    maps: Callable[[MarigoldOutput, Pixels, MarigoldPipeline[Any], Namespace], dict[str, Map]]
    save: Callable[[MarigoldOutput, Pixels, str, MarigoldPipeline[Any], Namespace], list[Path]]


@dataclass(frozen=True)
class VideoCommand:
    """The same of `marigold video`. parse: words with the clip. convert: writes the videos of a clip and returns them;
    `done` is told of frames done and of frames in all, 0 where the clip does not say."""

    parse: Callable[[Sequence[str]], Namespace]
    convert: Callable[[Namespace, MarigoldPipeline[Any], Callable[[int, int], object]], list[Path]]
