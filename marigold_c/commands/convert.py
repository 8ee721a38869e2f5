"""`marigold convert`: a checkpoint as one file. Listed in cli.py."""

from __future__ import annotations

import argparse

from ..loading.conversion import convert
from ..loading.inspection import inspect_checkpoint
from .flag_types import THREADS, add_kind, kind_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Packs a checkpoint into one file, its weights as this processor reads them: it opens without "
        "re-ordering them. Other processors open it, too, and re-order the weights then."
    )
    parser.add_argument("src", metavar="SRC", help="folder, hub id or packed file")
    parser.add_argument("dst", metavar="DST", help="the file to write, for example depth.safetensors")
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        help="precision: float32, bfloat16 or int8; default: that of a packed file, else float32",
    )
    parser.add_argument("--variant", metavar="NAME", help="which weight files, for example fp16")
    parser.add_argument("--vae", metavar="PATH", help="folder or hub id of an AutoencoderTiny, in the place of the VAE")
    add_kind(parser)
    parser.add_argument(
        "--task", choices=("depth", "normals", "intrinsics"), help="where the checkpoint does not say it"
    )
    parser.add_argument("--force", action="store_true", help="replace DST if it exists")
    parser.add_argument(
        "--threads", type=THREADS, metavar="N", help="how many work; default: all processors of this process"
    )


def run(args: argparse.Namespace) -> bool:
    path = convert(
        args.src,
        args.dst,
        dtype=args.dtype,
        variant=args.variant,
        force=args.force,
        num_threads=args.threads,
        vae=args.vae,
        task=args.task,
        **kind_options(args),
    )
    packed = inspect_checkpoint(path)["packed"]
    print(f"{path}: {packed['bytes'] / 1e6:.1f} MB, {packed['dtype']} for {packed['isa']}")
    return True
