"""What `marigold eval` and `marigold infer --eval` share: settings out of flags, progress, the files of results. Called
by commands/infer.py and commands/eval.py."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..datasets import Dataset, open_dataset
from ..evaluation.inference import Outcome
from ..evaluation.pictures import View
from ..evaluation.report import report_html
from ..evaluation.results import Results
from ..evaluation.settings import EvaluationSettings
from ..evaluation.summary import chosen_means, report_file, two_rows, write_summary, write_text
from ..progress import CommandProgress

_NAMED = 5  # samples of one fault of the summary's numbers that are named


def opened_dataset(args: argparse.Namespace) -> tuple[Dataset, list[str]]:
    """The data set, and what is to be warned of once there is a place to say it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = open_dataset(args.dataset_config, args.base_data_dir, task=args.task)
    return dataset, [str(one.message) for one in caught]


def evaluation_settings(args: argparse.Namespace) -> EvaluationSettings:
    return EvaluationSettings(
        alignment=args.alignment,
        alignment_max_res=args.alignment_max_res,
        target_names=None if args.target_names is None else tuple(args.target_names),
        linear_targets=tuple(args.targets_to_eval_in_linear_space or ()),
        use_mask=bool(args.use_mask),
        pooling=args.pooling,
    )


def follow(
    results: Iterator[tuple[int, Outcome]], dataset: Dataset, progress: CommandProgress, before: int = 0
) -> Iterator[Outcome]:
    """Passes outcomes on, showing how far the run is and naming the samples that failed. before: how many are done."""
    progress.skip(before)
    for number, (index, outcome) in enumerate(results, before + 1):
        name = dataset.samples[index].name
        if outcome.fault is None:
            progress.done(name, number, outcome.seconds)
        else:
            progress.skip(1)
            progress.complain(f"marigold: error: {_with_name(name, outcome.fault)}")
        yield outcome


def _with_name(name: str, fault: str) -> str:
    return fault if name in fault else f"{name}: {fault}"


def finish_evaluation(
    args: argparse.Namespace,
    results: Results,
    predictions: str,
    about: Mapping[str, Any],
    draw: Callable[[int], View] | None,
    progress: CommandProgress,
) -> bool:
    """Writes all files; whether every sample has a score."""
    write_summary(args.output_dir, results, predictions, about)
    if not args.no_report:
        page = report_html(results, predictions, about, draw)
        write_text(args.output_dir / report_file(results.settings.alignment), page)
    left_out = len(results.left_out())
    total = len(results) + left_out
    if len(results):
        means = chosen_means(results)
        progress.say(two_rows(list(means), [f"{value:.6g}" for value in means.values()]))
    for name, metric in results.not_finite()[:_NAMED]:
        progress.complain(f"marigold: warning: {metric} of {name} is no finite number, so its mean is none")
    progress.say(f"marigold: results in {args.output_dir}")
    if left_out:
        progress.complain(f"marigold: {left_out} of {total} samples were left out")
    return not left_out
