"""`marigold eval`: metrics of the predictions in a folder. Listed in cli.py."""

from __future__ import annotations

import argparse
import errno
import os
from contextlib import closing
from pathlib import Path

from ..evaluation.engine_choice import run_engine
from ..evaluation.inference import EvaluationJob
from ..evaluation.record import recorded_settings
from ..evaluation.results import Results
from ..progress import CommandProgress
from .evaluation_flags import (
    add_data,
    add_engine,
    add_evaluation,
    apply_preset,
    check_engine,
    check_evaluation,
    check_preset,
)
from .evaluation_results import evaluation_settings, finish_evaluation, follow, opened_dataset
from .flag_types import THREADS, check_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "marigold eval TASK --dataset-config YAML --base-data-dir DIR --predictions DIR [options]"
    parser.description = (
        "Compares .npy files of `marigold infer` or of prs-eth's infer scripts with the truth: scores of "
        "each sample, means, a report. Flags may also be written with underscores."
    )
    add_data(parser)
    parser.add_argument(
        "--predictions",
        "--prediction-dir",
        required=True,
        type=Path,
        metavar="DIR",
        help="the output of `marigold infer`",
    )
    parser.add_argument(
        "-o", "--output-dir", type=Path, metavar="DIR", help="where the results go; default: PREDICTIONS/evaluation"
    )
    add_evaluation(parser)
    add_engine(parser)
    parser.add_argument(
        "--threads",
        type=THREADS,
        metavar="N",
        help="processors of --engine processes together, or of each of Ray's; default: all of this process",
    )
    parser.set_defaults(device="cpu")


def run(args: argparse.Namespace) -> bool:
    """Whether every sample could be evaluated; those that could not are named on stderr and in the summary."""
    check_engine(args)
    check_preset(args)
    check_evaluation(args)
    if not args.predictions.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(args.predictions))
    if args.output_dir is None:
        args.output_dir = args.predictions / "evaluation"
    check_output(args.output_dir)
    dataset, notes = opened_dataset(args)
    apply_preset(args, dataset)
    progress = CommandProgress(f"Evaluating {dataset.display_name}", len(dataset), args.quiet, "sample")
    with closing(progress), progress.warnings_as_lines():
        for note in notes:
            progress.say(f"marigold: warning: {note}")
        if args.task == "depth" and args.alignment == "none":
            progress.say(
                "marigold: warning: predictions are compared as they are; affine-invariant ones need --alignment, "
                "published numbers have least_square"
            )
        job = EvaluationJob(dataset, args.predictions.absolute(), evaluation_settings(args))
        results = Results(dataset, job.evaluation)
        outcomes = run_engine(args, job, range(len(dataset)), progress.say)
        args.output_dir.mkdir(parents=True, exist_ok=True)
        for outcome in follow(outcomes, dataset, progress):
            results.add(outcome)
        about = {"inference": recorded_settings(args.predictions)}
        return finish_evaluation(args, results, str(args.predictions), about, job.view, progress)
