"""`marigold info`: what a checkpoint holds. Listed in cli.py."""

from __future__ import annotations

import argparse
import json

from ..loading.conversion import verify
from ..loading.inspection import describe, inspect_checkpoint
from ..loading.stored_weights import stored_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="folder, packed file or hub id")
    parser.add_argument(
        "--verify", action="store_true", help="read every weight of a packed file and compare it with its checksum"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> bool:
    checkpoint, stored = stored_of(args.checkpoint)
    facts = inspect_checkpoint(checkpoint, stored)
    if args.verify:
        verify(checkpoint)
        facts["verified"] = True
    print(json.dumps(facts, indent=2) if args.json else describe(facts))
    return True
