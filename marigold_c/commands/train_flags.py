"""The flags of `marigold train`. Called by cli.py."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .flag_types import POSITIVE, integer


def add_train_command(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        allow_abbrev=False,
        help="fine-tune a checkpoint",
        description="Fine-tunes a checkpoint as a configuration says (docs/training.md; examples/recipes). The run's "
        "folder gets checkpoints, curves and pictures.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="what is trained and how: a YAML file")
    parser.add_argument(
        "-o",
        "--output-dir",
        type=Path,
        default=Path("output"),
        metavar="DIR",
        help="the run's folder is made in it, named as CONFIG is; default: output",
    )
    parser.add_argument(
        "--base-data-dir",
        type=Path,
        metavar="DIR",
        help="where the data sets are; default: the environment's BASE_DATA_DIR, else where the command runs",
    )
    parser.add_argument(
        "--base-ckpt-dir",
        type=Path,
        metavar="DIR",
        help="where the checkpoint to start from is looked for first; default: the environment's BASE_CKPT_DIR",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the latest checkpoint, if there is one")
    parser.add_argument(
        "--exit-after", type=POSITIVE, metavar="MIN", help="save and leave after so many minutes; --resume goes on"
    )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="what computes; default: cpu")
    parser.add_argument(
        "--threads", type=integer(1), metavar="N", help="how many compute; default: all processors of this process"
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.set_defaults(run=_train, parser=parser)


def _train(args: argparse.Namespace) -> int:
    from .train import run_train  # takes a while to import; other commands do without

    run_train(args)
    return 0
