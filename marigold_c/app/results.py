"""From a photograph and a wish to files, maps and the lines that repeat them. Called by the page and the interface."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..images.writers import Map
from ..pipelines.outputs import MarigoldOutput
from .engine import Engine, Job, Watch
from .limits import Limits, Photograph
from .wishes import Wish, check_wish


@dataclass(frozen=True)
class Answer:
    """files: as the command writes and names them, below the folder that was asked for."""

    output: MarigoldOutput
    is_disparity: bool
    maps: dict[str, Map]
    files: list[Path]
    command_line: str
    python_lines: str


def answer(
    engine: Engine,
    job: Job,
    wish: Wish,
    photograph: Photograph,
    folder: Path,
    limits: Limits,
    watch: Watch,
    kept: dict[str, Any],
) -> Answer:
    """Computes, writes the files into `folder`, which exists. kept: the last prediction, which is taken again where
    only files and pictures differ. Refused, ValueError: what was asked for is not possible; Cancelled. Other errors as
    of the pipeline."""
    check_wish(wish, limits)
    args = wish.parsed(folder)
    asked = (wish.command.name, wish.checkpoint, args.dtype, repr(wish.command.options(args)))
    last = kept.get("last")
    if last is not None and last[:2] == (photograph, asked):
        pipe, output = engine.open(job, wish.command, args), last[2]
    else:
        pipe, output = engine.predict(job, wish.command, args, photograph.pixels, watch)
        kept["last"] = (photograph, asked, output)
    files = wish.command.save(output, photograph.pixels, photograph.name, pipe, args)
    return Answer(
        output,
        pipe.prediction_type == "disparity",
        wish.command.maps(output, photograph.pixels, pipe, args),
        files,
        wish.command_line(photograph.file),
        wish.python_lines(photograph.file, args),
    )
