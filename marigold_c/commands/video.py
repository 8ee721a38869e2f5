"""`marigold video`: the depth or the normals of a video, as videos and as files of each frame. Listed in cli.py.

Frame by frame, each from one noise and the result of the frame before (predict_sequence); or all together, by
RollingDepth (predict_video), for which the clip is read twice: its frames need not be in memory at once.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images.readers import LARGEST_PIXELS, InputError
from ..images.videos import Frame, VideoReader, VideoWriter, beside
from ..images.writers import FORMATS, Map, depth_map, normals_map, write_map
from ..messages import explain
from ..pipelines.opening import open_pipeline
from ..pipelines.pipeline import MarigoldPipeline
from ..pipelines.sequences import predict_sequence
from ..pipelines.videos import DILATIONS, ROLLING_FAMILY, SNIPPET_LENGTH, predict_video
from ..progress import CommandProgress
from .flag_types import (
    SEED,
    add_blend,
    add_model,
    add_steps_and_resolution,
    check_output,
    check_variant,
    choose_checkpoint,
    color_map,
    formats,
    integer,
    opening_options,
)

METHOD_NAMES = ("blend", "rolling")
UNEVEN = Fraction(3, 2)  # of the shortest and the longest time between frames; less is rounding of time stamps
MAPS: dict[str, Callable[[NDArray[np.float32], argparse.Namespace], Map]] = {
    "depth": lambda prediction, args: depth_map(prediction, args.color_map),
    "normals": lambda prediction, _args: normals_map(prediction),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "marigold video CLIP -o DIR [options]"
    parser.description = "Writes DIR/CLIP_depth.mp4 with the times of the clip's frames (or CLIP_normals.mp4)."
    group = parser.add_argument_group("a video in, results out")
    group.add_argument("clip", type=Path, metavar="CLIP", help="a video that FFmpeg reads")
    group.add_argument("-o", "--output-dir", required=True, type=Path, metavar="DIR", help="where the results go")
    group.add_argument("--task", choices=tuple(MAPS), default="depth", help="default: depth")
    group.add_argument("--side-by-side", action="store_true", help="also CLIP_side_by_side.mp4, the clip on the left")
    group.add_argument(
        "--frames",
        type=formats(tuple(FORMATS)),
        default=(),
        metavar="LIST",
        help=f"also files of each frame, in DIR/CLIP_frames: {', '.join(FORMATS)}",
    )
    group.add_argument("--every", type=integer(1), default=1, metavar="N", help="take each Nth frame; default: 1")
    group.add_argument("--max-frames", type=integer(1), metavar="N", help="stop after N frames; default: never")
    group.add_argument(
        "--color-map", type=color_map, default="Spectral", metavar="NAME", help="of depth; default: Spectral"
    )
    group.add_argument(
        "--max-pixels",
        type=integer(1, 2**40),
        default=LARGEST_PIXELS,
        metavar="N",
        help=f"refuse frames of more pixels; default: {LARGEST_PIXELS}",
    )
    group.add_argument("--quiet", action="store_true", help="print errors only")
    add_model(parser, "prs-eth/marigold-depth-v1-1")
    group = parser.add_argument_group("prediction")
    add_steps_and_resolution(group, "the clip's own")
    group.add_argument(
        "--seed", type=SEED, metavar="N", help="of the noise, one for all frames; default: another each time"
    )
    group.add_argument(
        "--method",
        choices=METHOD_NAMES,
        help="blend: frame by frame; rolling: all together, with a checkpoint of family rollingdepth; default: as the "
        "checkpoint is made for",
    )
    add_blend(group, "--method blend")
    group.add_argument(
        "--dilations",
        type=dilations,
        metavar="LIST",
        help="with --method rolling: frames between those that are predicted together, 1 among them; default: "
        f"{','.join(map(str, DILATIONS))}",
    )
    group.add_argument(
        "--snippet-length",
        type=integer(2, 4),
        metavar="N",
        help=f"with --method rolling: how many are predicted together, 2 to 4; default: {SNIPPET_LENGTH}",
    )
    group.add_argument(
        "--refine-steps",
        type=integer(0, 500),
        metavar="N",
        help="with --method rolling: steps of denoising that add details afterwards; default: 0",
    )


def dilations(text: str) -> tuple[int, ...]:
    """Positive numbers, separated by commas, 1 among them."""
    found = tuple(integer(1)(part) for part in text.split(","))
    if 1 not in found:
        raise argparse.ArgumentTypeError(f"{text}: 1 must be one of them, or frames would be left out")
    return found


def _open(args: argparse.Namespace, progress: CommandProgress) -> MarigoldPipeline[Any]:
    example = f"prs-eth/marigold-{args.task}-v1-1"
    checkpoint, variant = choose_checkpoint(args.task, example, args, progress.say)
    pipe = open_pipeline(
        args.task,
        checkpoint,
        variant=variant,
        **opening_options(args),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def chosen(reader: VideoReader, args: argparse.Namespace) -> Iterator[Frame]:
    """The frames that the flags take."""
    end = None if args.max_frames is None else args.every * args.max_frames
    yield from islice(reader.frames(), 0, end, args.every)


class Output:
    """What becomes of the frames' predictions. They appear where nothing is raised."""

    def __init__(self, args: argparse.Namespace, rate: Fraction) -> None:
        self._args, self._rate, self._stack = args, rate, ExitStack()
        self.files: list[Path] = []  # the videos
        self._frames: Path = args.output_dir / f"{args.clip.stem}_frames"

    def __enter__(self) -> Output:
        folder, stem = self._args.output_dir, self._args.clip.stem
        (self._frames if self._args.frames else folder).mkdir(parents=True, exist_ok=True)
        names = [self._args.task, *(["side_by_side"] if self._args.side_by_side else [])]
        with ExitStack() as stack:
            self.files = [folder / f"{stem}_{name}.mp4" for name in names]
            self._videos = [stack.enter_context(VideoWriter(path, self._rate)) for path in self.files]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.__exit__(*raised)

    def add(self, index: int, frame: Frame, prediction: NDArray[np.float32]) -> None:
        one = MAPS[self._args.task](prediction, self._args)
        picture = one.picture().whole()
        shown = [picture, beside(frame.pixels, picture)]
        for video, pixels in zip(self._videos, shown, strict=False):
            video.write(pixels, frame.seconds)
        for kind in self._args.frames:
            ending = "_colored" if kind == "png" else ""
            path = self._frames / f"{index:06d}_{self._args.task}{ending}{FORMATS[kind].suffix}"
            write_map(path, one, kind, self._args.threads)


def method_of(pipe: MarigoldPipeline[Any], args: argparse.Namespace) -> str:
    """That asked for, or the one that the checkpoint is made for; ValueError: options of the other one."""
    method = args.method or ("rolling" if pipe.family == ROLLING_FAMILY else "blend")
    for name in ("dilations", "snippet_length", "refine_steps"):
        if method == "blend" and getattr(args, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is of --method rolling; the method is blend")
    return method


def _blended(
    frames: Iterator[Frame], pipe: MarigoldPipeline[Any], args: argparse.Namespace
) -> Iterator[tuple[Frame, Any]]:
    taken: list[Frame] = []

    def pixels() -> Iterator[NDArray[np.uint8]]:
        for frame in frames:
            taken[:] = [frame]
            yield frame.pixels

    options = {"num_inference_steps": args.denoise_steps, "processing_resolution": args.processing_res}
    for out in predict_sequence(pipe, pixels(), args.blend, args.seed, **options):
        yield taken[0], out


def check_times(clip: Path, times: list[Fraction], length: int) -> None:
    """InputError: too few frames for a snippet. A warning: they do not follow one another evenly."""
    if len(times) < length:
        frames = "1 frame" if len(times) == 1 else f"{len(times)} frames"
        raise InputError(f"{clip}: {frames}; --method rolling takes {length} or more, --method blend any number")
    gaps = [later - earlier for earlier, later in pairwise(times)]
    if max(gaps) > UNEVEN * min(gaps):
        warnings.warn(
            f"{clip}: variable frame rate, {float(min(gaps)):.3g} to {float(max(gaps)):.3g} s from frame to frame; "
            "dilations count frames, not seconds",
            stacklevel=2,
        )


def _rolling(
    frames: Iterator[Frame], pipe: MarigoldPipeline[Any], args: argparse.Namespace
) -> Iterator[tuple[Frame, Any]]:
    length = args.snippet_length or SNIPPET_LENGTH

    def pixels() -> Iterator[NDArray[np.uint8]]:
        times = []
        for frame in frames:
            times.append(frame.seconds)
            yield frame.pixels
        check_times(args.clip, times, length)

    outputs = predict_video(
        pipe,
        pixels(),
        args.dilations or DILATIONS,
        args.denoise_steps,
        args.refine_steps or 0,
        args.processing_res,
        generator=args.seed,
        snippet_length=length,
    )
    first = next(outputs)
    with VideoReader(args.clip, args.max_pixels) as again:
        yield from zip(chosen(again, args), chain([first], outputs), strict=False)


METHODS = {"blend": _blended, "rolling": _rolling}


def predict(
    frames: Iterator[Frame],
    pipe: MarigoldPipeline[Any],
    output: Output,
    args: argparse.Namespace,
    done: Callable[[Frame, int, float], object],
) -> int:
    """The number of frames. `done` is told of each, of its number from 1, and of the seconds that it took."""
    index, started = 0, time.perf_counter()
    for index, (frame, out) in enumerate(METHODS[method_of(pipe, args)](frames, pipe, args), 1):
        output.add(index - 1, frame, out.prediction[0])
        now = time.perf_counter()
        done(frame, index, now - started)
        started = now
    return index


def run(args: argparse.Namespace) -> bool:
    """Whether the whole clip was done. One that breaks off leaves no half video; its files of frames stay."""
    check_variant(args)
    check_output(args.output_dir)
    with VideoReader(args.clip, args.max_pixels) as reader:
        total = min(-(-reader.facts.count // args.every), args.max_frames or reader.facts.count)
        progress = CommandProgress(f"{args.task} of {args.clip.name}", total, args.quiet, "frame")

        def done(frame: Frame, number: int, seconds: float) -> None:
            progress.done(f"{float(frame.seconds):.2f} s of {args.clip.name}", number, seconds)

        with closing(progress), progress.warnings_as_lines():
            pipe = _open(args, progress)
            try:
                with Output(args, reader.facts.rate / args.every) as output:
                    count = predict(chosen(reader, args), pipe, output, args, done)
            except (InputError, NotImplementedError, OSError, MemoryError) as error:
                progress.complain(f"marigold: error: {explain(error)}")
                return False
            progress.say(f"marigold: {count} frame{'' if count == 1 else 's'} done, results in {args.output_dir}")
    return True
