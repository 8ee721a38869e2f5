"""--engine, --workers and --threads as a run of a job. Called by commands/infer.py and commands/eval.py."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .engines import Job, in_processes, process_shares, serially
from .ray_engine import on_ray


def run_engine(
    args: argparse.Namespace, job: Job, indices: Sequence[int], say: Callable[[str], None]
) -> Iterator[tuple[int, Any]]:
    """(index, result) of each sample in the order in which they are done."""
    if args.engine == "processes":
        shares = process_shares(args.device, args.threads, args.workers)
        say(f"marigold: {min(len(shares), len(indices))} processes of {shares[0].threads} threads")
        return in_processes(job, indices, shares)
    if args.engine == "ray":
        return on_ray(
            job,
            indices,
            device=args.device,
            threads=args.threads,
            workers=args.workers,
            address=args.ray_address,
            say=say,
        )
    return serially(job, indices, args.threads)
