"""`marigold app`: the page in the browser. Listed in cli.py."""

from __future__ import annotations

import argparse
import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from ..app.command import Command, Pixels, VideoCommand
from ..app.limits import Limits
from ..extras import optional_module
from ..images.files import Input
from ..images.geometry_files import GEOMETRY_FORMATS
from ..images.videos import VideoReader
from ..images.writers import Map
from ..pipelines.outputs import MarigoldOutput
from ..pipelines.pipeline import MarigoldPipeline
from . import depth, iid, normals, predict, video
from .flag_types import THREADS, integer
from .tasks import CommandTask, Result

_SUBCOMMANDS = {"depth": depth, "normals": normals, "iid": iid}
_PASSWORD = "MARIGOLD_APP_PASSWORD"
_LIMITS = Limits()
_SENT = Input("photograph", "photograph", Path(os.devnull))  # its file is gone when results are written


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _command(subcommand: ModuleType) -> Command:
    task: CommandTask = subcommand.TASK
    parser = _Parser(prog=f"marigold {task.name}", allow_abbrev=False)
    subcommand.add_arguments(parser)

    def parse(words: Sequence[str]) -> Namespace:
        args = parser.parse_args(words)
        if args.output_uncertainty and args.ensemble_size < 2:
            raise ValueError("uncertainty needs an ensemble of 2 or more")
        return args

    def options(args: Namespace) -> dict[str, Any]:
        return {**predict.options(args), **predict.noise(args)}

    def result(out: MarigoldOutput, pixels: Pixels) -> Result:
        return Result(out.prediction, out.uncertainty, pixels, _SENT)

    def maps(out: MarigoldOutput, pixels: Pixels, pipe: MarigoldPipeline[Any], args: Namespace) -> dict[str, Map]:
        shown = {name or task.name: one for name, one in task.maps(result(out, pixels), pipe, args).items()}
        if out.uncertainty is not None:
            uncertain = task.uncertainties(result(out, pixels), pipe)
            shown |= {f"{name or task.name}: uncertainty": one for name, one in uncertain.items()}
        return shown

    def save(
        out: MarigoldOutput, pixels: Pixels, name: str, pipe: MarigoldPipeline[Any], args: Namespace
    ) -> list[Path]:
        for folder in task.folders(pipe, args):
            folder.mkdir(parents=True, exist_ok=True)
        task.save(result(out, pixels), name, pipe, args)
        return task.files(name, pipe, args)

    shapes = tuple(name for name in task.formats if name in GEOMETRY_FORMATS)
    return Command(task.name, task.title, shapes, parse, options, maps, save)


def commands() -> dict[str, Command]:
    """The subcommands of which the page is made, by name."""
    return {name: _command(subcommand) for name, subcommand in _SUBCOMMANDS.items()}


def video_command() -> VideoCommand:
    """The subcommand for videos."""
    parser = _Parser(prog="marigold video", allow_abbrev=False)
    video.add_arguments(parser)

    def convert(args: Namespace, pipe: MarigoldPipeline[Any], done: Callable[[int, int], object]) -> list[Path]:
        with VideoReader(args.clip, args.max_pixels) as reader:
            total = min(-(-reader.facts.count // args.every), args.max_frames or reader.facts.count)
            with video.Output(args, reader.facts.rate / args.every) as output:
                frames = video.chosen(reader, args)
                video.predict(frames, pipe, output, args, lambda _frame, number, _seconds: done(number, total))
        return output.files

    return VideoCommand(parser.parse_args, convert)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "marigold app [options]"
    parser.description = (
        "Opens a page in the browser: photographs in, maps and scenes out. It is served by this machine, for this "
        "machine, and asks nothing of the network."
    )
    group = parser.add_argument_group("the page")
    group.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="where it listens; default: 127.0.0.1, this machine only"
    )
    group.add_argument("--port", type=integer(0, 65535), default=7860, metavar="N", help="0: any; default: 7860")
    group.add_argument("--no-browser", action="store_true", help="do not open the browser")
    group.add_argument(
        "--user",
        metavar="NAME",
        help=f"ask for this name and the password in the environment variable {_PASSWORD}; for --host other than this "
        "machine",
    )
    group = parser.add_argument_group("checkpoints and machine")
    group.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="PATH",
        help="folder, packed file or hub id that the page offers beside the small ones in the package; may be repeated",
    )
    group.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:1; default: cpu")
    group.add_argument("--threads", type=THREADS, metavar="N", help="how many compute; default: all processors")
    group.add_argument(
        "--models",
        type=integer(1, 100),
        default=_LIMITS.models,
        metavar="N",
        help=f"how many stay open; the one used least recently goes; default: {_LIMITS.models}",
    )
    group = parser.add_argument_group("limits")
    for flag, name, what in (
        ("--max-upload-bytes", "bytes", "of a file that is sent"),
        ("--max-pixels", "pixels", "of an image"),
        ("--max-waiting", "waiting", "requests in line; more are turned away"),
    ):
        default = getattr(_LIMITS, name)
        group.add_argument(
            flag, type=integer(1, 2**40), default=default, metavar="N", help=f"{what}; default: {default}"
        )


def run(args: argparse.Namespace) -> bool:
    password = os.environ.get(_PASSWORD, "")
    if args.user and not password:
        args.parser.error(f"--user {args.user} needs a password in the environment variable {_PASSWORD}")
    optional_module("gradio", "marigold app")
    from ..app.server import Settings, serve  # what it imports takes seconds

    limits = Limits(bytes=args.max_upload_bytes, pixels=args.max_pixels, waiting=args.max_waiting, models=args.models)
    serve(
        commands(),
        video_command(),
        Settings(
            host=args.host,
            port=args.port,
            opens_browser=not args.no_browser,
            checkpoints=tuple(args.checkpoint),
            device=args.device,
            threads=args.threads,
            login=(args.user, password) if args.user else None,
            limits=limits,
        ),
    )
    return True
