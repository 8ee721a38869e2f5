"""`marigold depth`: images in, files out. Called by cli.py with parsed arguments."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from .files import Input, find_inputs, read_image, write_atomically
from .image_processor import MarigoldImageProcessor
from .loading import default_checkpoint
from .messages import explain
from .pipelines import MarigoldDepthPipeline, load

# Folder, ending of the file's name.
_OUTPUTS = {
    "npy": ("depth_npy", "_pred.npy"),
    "png16": ("depth_bw", "_pred.png"),
    "png": ("depth_colored", "_pred_colored.png"),
}
FORMATS = tuple(_OUTPUTS)


class _Progress:
    """A bar on a terminal, plain lines elsewhere, nothing with --quiet. Errors always show."""

    def __init__(self, images: int, quiet: bool) -> None:
        self.images = images
        self.on_terminal = sys.stderr.isatty() and not quiet
        self.plain = not quiet and not self.on_terminal
        self._bar = tqdm(total=images, desc="Depth", unit="image", disable=not self.on_terminal)

    def say(self, text: str) -> None:
        if self.on_terminal:
            tqdm.write(text, file=sys.stderr)
        elif self.plain:
            print(text, file=sys.stderr, flush=True)

    def complain(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)

    def start(self, source: Input) -> None:
        self._bar.set_postfix_str(source.name)

    def done(self, source: Input, number: int, seconds: float) -> None:
        self._bar.update(1)
        if self.plain:
            self.say(f"[{number}/{self.images}] {source.label} ({seconds:.1f} s)")

    def close(self) -> None:
        self._bar.close()


def _open(args: argparse.Namespace, say: Callable[[str], None]) -> MarigoldDepthPipeline:
    checkpoint = args.checkpoint
    if checkpoint is None:
        checkpoint = default_checkpoint("depth")
        say(
            "marigold: using the small checkpoint in the package, a demonstration; "
            "for real results: --checkpoint prs-eth/marigold-depth-v1-1"
        )
    pipe = load(checkpoint, variant=args.variant, dtype=args.dtype, device=args.device, num_threads=args.threads)
    return pipe


def _save_array(depth: NDArray[np.float32], file: BinaryIO) -> None:
    np.save(file, depth)


def _save(depth: NDArray[np.float32], name: str, args: argparse.Namespace) -> None:
    """Writes a map (H, W) in the formats asked for."""
    writers: dict[str, Callable[[BinaryIO], Any]] = {
        "npy": partial(_save_array, depth),
        "png16": lambda file: MarigoldImageProcessor.export_depth_to_16bit_png(depth)[0].save(file, format="PNG"),
        "png": lambda file: MarigoldImageProcessor.visualize_depth(depth, color_map=args.color_map)[0].save(
            file, format="PNG"
        ),
    }
    for kind in args.format:
        folder, ending = _OUTPUTS[kind]
        write_atomically(args.output_dir / folder / f"{name}{ending}", writers[kind])


def _predict(pipe: MarigoldDepthPipeline, source: Input, args: argparse.Namespace) -> NDArray[np.float32]:
    out = pipe(
        read_image(source),
        num_inference_steps=args.denoise_steps,
        ensemble_size=args.ensemble_size,
        processing_resolution=args.processing_res,
        match_input_resolution=not args.output_processing_res,
        resample_method_input=args.resample_method,
        resample_method_output=args.resample_method,
        batch_size=args.batch_size or 1,
        generator=args.seed,
    )
    depth: NDArray[np.float32] = out.prediction[0, :, :, 0]
    return depth


def _name_collisions(inputs: Sequence[Input], progress: _Progress) -> None:
    for source in inputs:
        if source.path is not None and source.name != source.path.stem:
            progress.say(f"marigold: {source.label}: another input has this name; results are named {source.name}")


def run_depth(args: argparse.Namespace, sources: Sequence[str]) -> bool:
    """Whether every image was done; those that were not are named on stderr."""
    inputs = find_inputs(sources)
    if not inputs:
        raise ValueError(f"no images in {', '.join(sources)}")
    for kind in args.format:
        (Path(args.output_dir) / _OUTPUTS[kind][0]).mkdir(parents=True, exist_ok=True)
    progress = _Progress(len(inputs), args.quiet)
    failed = 0
    try:
        pipe = _open(args, progress.say)
        pipe.set_progress_bar_config(disable=not progress.on_terminal, leave=False, position=1, desc="steps")
        _name_collisions(inputs, progress)
        for number, source in enumerate(inputs, 1):
            progress.start(source)
            started = time.perf_counter()
            try:
                _save(_predict(pipe, source, args), source.name, args)
            except Exception as error:
                failed += 1
                progress.complain(f"marigold: error: {source.label}: {explain(error)}")
                continue
            progress.done(source, number, time.perf_counter() - started)
    finally:
        progress.close()
    if failed:
        progress.complain(f"marigold: {failed} of {len(inputs)} inputs failed")
    else:
        progress.say(f"marigold: {len(inputs)} done, results in {args.output_dir}")
    return not failed
