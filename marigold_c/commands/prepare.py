"""The command `marigold prepare`: training data, rendered (scenes) or out of published data sets.

Listed in cli.py. Each run prints a summary; what fails is named on standard error, the rest is done all the same, and
the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..loading.folders import default_checkpoint, resolve_folder
from ..preparation import hypersim, interiorverse, model, sintel, vkitti
from ..preparation.frames import Outcome
from ..preparation.levels import generator as levels
from ..preparation.scenes import generator, layout
from ..progress import tqdm_class
from .flag_types import PART, POSITIVE, integer

_EXAMPLES = 10  # how many skipped frames are named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Makes training data."
    kinds = parser.add_subparsers(required=True, metavar="DATA")
    _add_scenes(kinds)
    _add_levels(kinds)
    _add_meshes(kinds)
    _add_model(kinds)
    _add_hypersim(kinds)
    _add_interiorverse(kinds)
    _add_sintel(kinds)
    _add_vkitti(kinds)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None or 0 in (int(match[1]), int(match[2])):
        raise argparse.ArgumentTypeError(f"{text!r}: must be HEIGHTxWIDTH, for example 480x640")
    return int(match[1]), int(match[2])


def _names(allowed: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    known = tuple(allowed)

    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if not chosen or any(name not in known for name in chosen):
            raise argparse.ArgumentTypeError(f"{text!r}: choose from {','.join(known)}")
        return chosen

    return parse


def _parser(kinds: Any, name: str, make: Callable[[argparse.Namespace], bool], about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser(
        name, allow_abbrev=False, help=about, description=about[0].upper() + about[1:] + "."
    )
    parser.add_argument("-o", "--output-dir", required=True, type=Path, metavar="DIR", help="where the data go")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.set_defaults(make=make, parser=parser)
    return parser


def _add_scenes(kinds: Any) -> None:
    parser = _parser(
        kinds, "scenes", _scenes, "render labelled rooms, streets and landscapes (needs the extra 'scenes')"
    )
    parser.add_argument("--count", required=True, type=integer(1), metavar="N", help="how many")
    parser.add_argument("--seed", type=integer(0), default=0, metavar="S", help="other seeds: other scenes; default: 0")
    parser.add_argument("--start", type=integer(0), default=0, metavar="I", help="number of the first; default: 0")
    parser.add_argument("--size", type=_size, default=(96, 128), metavar="HxW", help="in pixels; default: 96x128")
    parser.add_argument(
        "--samples-per-pixel", type=integer(1), default=16, metavar="N", help="more: less noise; default: 16"
    )
    parser.add_argument(
        "--labels",
        type=_names(layout.LABELS),
        default=layout.DEFAULT_LABELS,
        metavar="LIST",
        help=f"what is written beside the picture: {','.join(layout.LABELS)}; default: all but distance and linear",
    )
    parser.add_argument(
        "--workers", type=integer(1), metavar="N", help="processes; default: as many as there are processors"
    )


def _add_views(parser: argparse.ArgumentParser, views: int) -> None:
    parser.add_argument("--views", type=integer(1), default=views, metavar="N", help=f"of each; default: {views}")
    parser.add_argument("--seed", type=integer(0), default=0, metavar="S", help="other seeds: other views; default: 0")
    parser.add_argument(
        "--recolour",
        type=PART,
        default=0.0,
        metavar="P",
        help="part of the views to train on whose surfaces get other colours; default: 0",
    )
    parser.add_argument("--size", type=_size, default=(192, 256), metavar="HxW", help="in pixels; default: 192x256")
    parser.add_argument(
        "--models",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="put furniture (.sh3f), people, cars and things of this folder into them; may be repeated",
    )
    parser.add_argument("--workers", type=integer(1), default=1, metavar="N", help="processes; default: 1")


def _add_levels(kinds: Any) -> None:
    parser = _parser(kinds, "levels", _levels, "draw views of game levels with their truth (needs the extra 'levels')")
    parser.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="a game's data: Quake-3 levels and .pk3 archives, tiles of UFO: Alien Invasion, tracks of TORCS",
    )
    _add_views(parser, 24)


def _add_meshes(kinds: Any) -> None:
    parser = _parser(kinds, "meshes", _meshes, "draw views of 3-D scenes with their truth (needs the extra 'levels')")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with glTF, GLB, OBJ, PLY, STL or OFF files in it")
    parser.add_argument(
        "--metres", type=POSITIVE, default=1.0, metavar="M", help="length of the files' unit; default: 1"
    )
    parser.add_argument("--up", choices=("x", "y", "z"), help="default: y for glTF and OBJ, z for the others")
    _add_views(parser, 100)


def _add_model(kinds: Any) -> None:
    parser = _parser(kinds, "model", _model, "make a checkpoint with random weights, to train from nothing")
    parser.add_argument(
        "--like",
        required=True,
        metavar="CHECKPOINT",
        help="whose networks are built alike: a folder, a hub id, or the name of one in the package",
    )
    parser.add_argument(
        "--weights-from",
        type=Path,
        metavar="DIR",
        help="a folder whose weights are taken where they have the same name and shape",
    )
    parser.add_argument(
        "--boosting",
        action="store_true",
        help="with a second UNet for high resolution (Marigold-HR), to be trained by objective refine",
    )
    parser.add_argument(
        "--seed", type=integer(0), default=0, metavar="S", help="other seeds: other weights; default: 0"
    )


def _add_raw(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("raw", type=Path, metavar="RAW", help=what)


def _add_hypersim(kinds: Any) -> None:
    parser = _parser(kinds, "hypersim", _hypersim, "convert Hypersim's raw frames (needs the extra 'prepare')")
    _add_raw(parser, "the folder of the scenes, ai_001_001 and so on")
    parser.add_argument(
        "--split-csv", required=True, type=Path, metavar="CSV", help="metadata_images_split_scene_v1.csv"
    )
    parser.add_argument("--task", required=True, choices=("depth", "normals", "iid"))
    parser.add_argument("--splits", type=_names(hypersim.SPLITS), default=hypersim.SPLITS, metavar="LIST")
    parser.add_argument(
        "--size",
        type=_size,
        metavar="HxW",
        help="depth alone: store pictures and depth at this size, training takes 480x640; default: 768x1024",
    )


def _add_interiorverse(kinds: Any) -> None:
    parser = _parser(kinds, "interiorverse", _interiorverse, "convert InteriorVerse (needs the extra 'prepare')")
    _add_raw(parser, "the folder that holds scenes_85")
    parser.add_argument("--task", required=True, choices=("normals", "appearance"))


def _add_sintel(kinds: Any) -> None:
    parser = _parser(kinds, "sintel", _sintel, "compute the normals of MPI Sintel")
    _add_raw(parser, "the folder training, with depth, camdata_left and pictures in it")
    parser.add_argument("--pass", dest="rendering", choices=sintel.PASSES, default="final", help="default: final")


def _add_vkitti(kinds: Any) -> None:
    parser = _parser(kinds, "vkitti", _vkitti, "gather Virtual KITTI 2 in one archive")
    _add_raw(
        parser, "the folder of the archives vkitti_2.0.3_rgb.tar and vkitti_2.0.3_depth.tar, or of what is in them"
    )


# ---- running ----


def run(args: argparse.Namespace) -> bool:
    """Whether everything was made."""
    return bool(args.make(args))


def _scenes(args: argparse.Namespace) -> bool:
    settings = generator.Settings(args.seed, args.size, args.samples_per_pixel)
    workers = min(args.workers or len(os.sched_getaffinity(0)), args.count)
    results = generator.make_scenes(args.output_dir, args.count, settings, args.labels, workers, args.start)
    done, failed = 0, 0
    tqdm = tqdm_class()
    with tqdm(total=args.count, unit="scene", disable=args.quiet) as bar:
        for _, fault in results:
            bar.update()
            done += 1
            if fault is not None:
                failed += 1
                tqdm.write(f"marigold: error: {fault}", file=sys.stderr)
    if not args.quiet:
        print(f"{args.output_dir}: {done - failed} scenes made, {args.count - done} were there, {failed} failed")
    return not failed


def _views(args: argparse.Namespace, jobs: Sequence[levels.Job], settings: levels.Settings) -> bool:
    views, failed, there = 0, 0, 0
    results = levels.make_views(jobs, args.output_dir, settings, args.models, min(args.workers, len(jobs)))
    tqdm = tqdm_class()
    for made in tqdm(results, total=len(jobs), unit="world", disable=args.quiet):
        views += max(made.views, 0)
        there += made.views < 0
        if made.error is not None:
            failed += 1
            tqdm.write(f"marigold: error: {made.error}", file=sys.stderr)
        elif made.notes:
            names = ", ".join(made.notes[:_EXAMPLES])
            tqdm.write(f"marigold: warning: {made.label}: {len(made.notes)} not found: {names}", file=sys.stderr)
    if not args.quiet:
        worlds = len(jobs) - there - failed
        print(f"{args.output_dir}: {views} views of {worlds} worlds, {there} were there, {failed} failed")
    return not failed


def _levels(args: argparse.Namespace) -> bool:
    jobs = [job for folder in args.folders for job in levels.level_jobs(folder)]
    return _views(args, jobs, levels.Settings(args.seed, args.size, args.views, recolour=args.recolour))


def _meshes(args: argparse.Namespace) -> bool:
    settings = levels.Settings(args.seed, args.size, args.views, recolour=args.recolour, metres=args.metres, up=args.up)
    return _views(args, levels.mesh_jobs(args.folder), settings)


def _model(args: argparse.Namespace) -> bool:
    shipped = default_checkpoint().parent / args.like
    like = shipped if (shipped / "unet").is_dir() else resolve_folder(args.like)
    counts = model.make_model(args.output_dir, like, args.weights_from, args.seed, args.boosting)
    if not args.quiet:
        for component, (made, taken) in counts.items():
            print(f"{args.output_dir}/{component}: {made} new weights, {taken} taken")
    return True


def _progress(args: argparse.Namespace) -> Callable[[Iterable[Any]], Iterator[Any]]:
    return lambda items: iter(tqdm_class()(items, unit="frame", disable=args.quiet))


def _report(args: argparse.Namespace, outcomes: Sequence[Outcome]) -> bool:
    skipped = [outcome for outcome in outcomes if outcome.skipped is not None]
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        print(f"marigold: error: {outcome.frame}: {outcome.error}", file=sys.stderr)
    if not args.quiet:
        for outcome in skipped[:_EXAMPLES]:
            print(f"left out: {outcome.frame}: {outcome.skipped}")
        if len(skipped) > _EXAMPLES:
            print(f"left out: {len(skipped) - _EXAMPLES} more")
        listed = len(outcomes) - len(skipped) - len(failed)
        print(f"{args.output_dir}: {listed} frames listed, {len(skipped)} left out, {len(failed)} failed")
    return not failed


def _hypersim(args: argparse.Namespace) -> bool:
    if args.size is not None and args.task != "depth":
        args.parser.error("--size is for --task depth: the others are resized when they are read")
    outcomes = hypersim.prepare(
        args.split_csv, args.raw, args.output_dir, args.task, args.splits, args.size, _progress(args)
    )
    return _report(args, outcomes)


def _interiorverse(args: argparse.Namespace) -> bool:
    return _report(args, interiorverse.prepare(args.raw, args.output_dir, args.task, _progress(args)))


def _sintel(args: argparse.Namespace) -> bool:
    return _report(args, sintel.prepare(args.raw, args.output_dir, args.rendering, _progress(args)))


def _vkitti(args: argparse.Namespace) -> bool:
    return _report(args, vkitti.prepare(args.raw, args.output_dir, _progress(args)))
