"""One command on many images: which there are, going on after one that fails, leaving out what is done, the last line.
Called by predict.py and complete.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..images.files import Input, find_inputs
from ..messages import explain_for
from ..progress import CommandProgress


def add_images(group: Any, number: str) -> None:
    """number: "*", or "+" where nothing else names images."""
    group.add_argument(
        "images",
        nargs=number,
        metavar="IMAGE",
        help='files, folders (their images in order of names), patterns, archives (.tar), or "-" for standard input',
    )


def found_images(sources: Sequence[str]) -> tuple[list[Input], list[str]]:
    """The images, and a line for each file that was left out. ValueError: there are none."""
    left_out: list[str] = []
    inputs = find_inputs(sources, left_out.append)
    if not inputs:
        raise ValueError("; ".join([f"no images in {', '.join(sources)}", *left_out]))
    return inputs, left_out


class ImageRun:
    """Counts the images that failed, which are named on stderr, and those whose results were there."""

    def __init__(self, inputs: Sequence[Input], progress: CommandProgress, skip_existing: bool) -> None:
        self.inputs, self.progress, self._skip_existing = inputs, progress, skip_existing
        self.failed, self.skipped = 0, 0

    def note(self, line: str) -> None:
        self.progress.say(f"marigold: {line}")

    def begin(self, left_out: Sequence[str]) -> None:
        """Names what was left out, and which results have another name than their image."""
        for line in left_out:
            self.note(line)
        for source in self.inputs:
            if source.renamed:
                self.note(f"{source.label}: another input has this name; results are named {source.name}")

    def is_done(self, source: Input, files: Sequence[Path]) -> bool:
        """Whether all its results are there and may stay; results that will be replaced are named."""
        there = [str(path) for path in files if path.exists()]
        if self._skip_existing and len(there) == len(files):
            self.skipped += 1
            self.progress.skip(1)
            return True
        if there:
            self.note(f"{source.label}: replaces {', '.join(there)}")
        return False

    def fail(self, source: Input, error: Exception) -> None:
        self.failed += 1
        self.progress.complain(f"marigold: error: {explain_for(source.label, error)}")

    def finish(self, source: Input, number: int, started: float) -> None:
        self.progress.done(source.label, number, time.perf_counter() - started)

    def each(self, files: Callable[[Input], Sequence[Path]], make: Callable[[Input], None]) -> None:
        """Makes the results of every image by itself. files: of an image, to be made."""
        for number, source in enumerate(self.inputs, 1):
            self.progress.start(source.name)
            started = time.perf_counter()
            if self.is_done(source, files(source)):
                continue
            try:
                make(source)
            except Exception as error:
                self.fail(source, error)
                continue
            self.finish(source, number, started)

    def end(self, folder: Path) -> bool:
        """Says what became of all; whether none failed."""
        if self.failed:
            self.progress.complain(f"marigold: {self.failed} of {len(self.inputs)} inputs failed")
        else:
            there = f", {self.skipped} were there" if self.skipped else ""
            self.note(f"{len(self.inputs) - self.skipped} done{there}, results in {folder}")
        return not self.failed
