"""What flags of several commands share: types of values, which checkpoint on which machine, the folder of results."""

from __future__ import annotations

import argparse
import errno
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..images import colormaps
from ..images.writers import FORMATS, check_formats
from ..loading.families import FAMILIES, PREDICTION_TYPES
from ..loading.folders import default_checkpoint
from ..loading.hub import quiet_downloads
from ..messages import suggestion


def integer(minimum: int, maximum: int = 2**31 - 1) -> Any:
    def parse(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is less than {minimum}")
        if value > maximum:
            raise argparse.ArgumentTypeError(f"{value} is more than {maximum}")
        return value

    parse.__name__ = "integer"  # argparse names it in "invalid integer value"
    return parse


THREADS = integer(1, 4096)  # as the engine


def number(allowed: Callable[[float], bool], what: str) -> Any:
    def parse(text: str) -> float:
        value = float(text)
        if not allowed(value):
            raise argparse.ArgumentTypeError(f"{text} is not {what}")
        return value

    parse.__name__ = "number"
    return parse


POSITIVE = number(lambda value: 0 < value < math.inf, "a positive number")
PART = number(lambda value: 0 <= value <= 1, "between 0 and 1")


def optional(kind: Callable[[str], Any]) -> Any:
    """The word None, as prs-eth's README has it, as what is not given."""

    def parse(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    parse.__name__ = getattr(kind, "__name__", "value")
    return parse


SEED = optional(integer(-(2**63), 2**64 - 1))


def formats(allowed: Sequence[str]) -> Any:
    """Some of these, separated by commas; those that take a library that is missing are refused."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if not names or any(name not in allowed for name in names):
            meant = next((near for name in names if (near := suggestion(name, allowed)) and name not in allowed), "")
            raise argparse.ArgumentTypeError(f"{text!r}: choose from {','.join(allowed)}{meant}")
        try:
            check_formats([name for name in names if name in FORMATS])
        except ImportError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return names

    return parse


def color_map(text: str) -> str:
    try:
        colormaps.check_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


# Of --vae-tiling, as options of load().
VAE_TILINGS: dict[str, bool | str] = {"auto": "auto", "on": True, "off": False}


def add_kind(group: Any) -> None:
    """What of a checkpoint's kind its files may not tell."""
    group.add_argument(
        "--family",
        choices=FAMILIES,
        metavar="NAME",
        help=f"whose way of using the networks: {', '.join(FAMILIES)}; default: as the checkpoint says",
    )
    group.add_argument(
        "--unet", metavar="PATH", help="folder of another UNet, as GenPercept's, instead of the checkpoint's"
    )
    group.add_argument(
        "--prediction-type",
        choices=PREDICTION_TYPES,
        metavar="NAME",
        help="depth (far is 1) or disparity (near is 1), where the checkpoint does not say it",
    )
    group.add_argument(
        "--text-tokens", type=integer(2), metavar="N", help="of the empty prompt; 77: padded; default: 2"
    )


def kind_options(args: argparse.Namespace) -> dict[str, Any]:
    """What those flags say, as options of load()."""
    names = ("family", "unet", "prediction_type", "text_tokens")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    tiling = VAE_TILINGS[getattr(args, "vae_tiling", "auto")]
    return given if tiling == "auto" else {**given, "vae_tiling": tiling}


def opening_options(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags of add_model say besides which checkpoint it is, as options of load()."""
    return {
        "dtype": args.dtype,
        "device": args.device,
        "num_threads": args.threads,
        "vae": args.vae,
        **kind_options(args),
    }


def add_model(parser: argparse.ArgumentParser, example: str) -> None:
    """Which checkpoint is opened and how. example: a hub id that the help shows."""
    group = parser.add_argument_group("checkpoint and machine")
    group.add_argument(
        "--checkpoint",
        metavar="PATH",
        help=f"folder, packed file or hub id, for example {example}; default: the small one in the package, a "
        "demonstration",
    )
    group.add_argument("--variant", metavar="NAME", help="which weight files, for example fp16")
    group.add_argument(
        "--vae", metavar="PATH", help="folder or hub id of an AutoencoderTiny, instead of the checkpoint's VAE"
    )
    group.add_argument(
        "--vae-tiling",
        choices=tuple(VAE_TILINGS),
        default="auto",
        help="whether the VAE takes images larger than 768 pixels in tiles, which needs less memory; auto: those that "
        "the free memory does not hold; default: auto",
    )
    add_kind(group)
    group.add_argument(
        "--dtype",
        metavar="TYPE",
        help="precision: float32, bfloat16, float16 (on a CPU computed as bfloat16), int8 or auto; default: that of a "
        "packed file, else float32",
    )
    group.add_argument(
        "--device",
        default="cpu",
        metavar="NAME",
        help="what computes: cpu, cuda or, of several GPUs, cuda:1; default: cpu",
    )
    group.add_argument(
        "--threads", type=THREADS, metavar="N", help="how many compute; default: all processors of this process"
    )
    group.add_argument(
        "--half-precision", "--fp16", dest="fp16", action="store_true", help="the same as --variant fp16"
    )


def add_steps_and_resolution(group: Any, whose: str) -> None:
    """whose: size it is that 0 keeps: "the image's own"."""
    group.add_argument(
        "--denoise-steps", type=integer(1), metavar="N", help="steps of denoising; default: the checkpoint's"
    )
    group.add_argument(
        "--processing-res",
        type=integer(0),
        metavar="N",
        help=f"the longer side in pixels while it is computed; 0: {whose}; default: the checkpoint's",
    )


def add_blend(group: Any, when: str) -> None:
    """when: the flag that it goes with."""
    group.add_argument(
        "--blend",
        type=PART,
        default=0.1,
        metavar="X",
        help=f"with {when}: how much of the last frame each starts from, from 0 (the noise alone) to 1; default: 0.1",
    )


def check_variant(args: argparse.Namespace) -> None:
    """--fp16 as the variant that it means."""
    if args.fp16 and args.variant not in (None, "fp16"):
        args.parser.error(f"--fp16 and --variant {args.variant} exclude each other")
    if args.fp16:
        args.variant = "fp16"


def choose_checkpoint(
    task: str, example: str, args: argparse.Namespace, say: Callable[[str], None]
) -> tuple[str | Path, str | None]:
    """The checkpoint and the variant that the flags mean; the shipped one is said in a line."""
    if args.quiet:
        quiet_downloads()
    if args.checkpoint is not None:
        return args.checkpoint, args.variant
    say(
        "marigold: using the small checkpoint in the package, a demonstration; "
        f"for real results: --checkpoint {example}"
    )
    # fp16 are the only weights that it has, whatever their files are called.
    return default_checkpoint(task), None if args.variant == "fp16" else args.variant


def check_output(folder: Path) -> None:
    """Before a checkpoint is downloaded; what else may stand in the way shows when the folders are made."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file; results go into a folder", str(folder))
