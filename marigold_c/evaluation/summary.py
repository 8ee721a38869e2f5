"""Results as files: the scores of all samples as CSV, the means as prs-eth's text and as JSON. Called by
commands/eval.py."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic_files import write_atomically
from .results import Results

SCORES_FILE = "per_sample_metrics.csv"
_FORMAT = 1  # of the JSON


def text_file(alignment: str) -> str:
    return "eval_metrics.txt" if alignment == "none" else f"eval_metrics-{alignment}.txt"


def json_file(alignment: str) -> str:
    return text_file(alignment).replace(".txt", ".json")


def report_file(alignment: str) -> str:
    return text_file(alignment).replace(".txt", ".html")


def two_rows(names: Sequence[str], values: Sequence[str]) -> str:
    """Columns of texts, left-aligned between two rules: as the library tabulate writes prs-eth's files."""
    widths = [max(len(name), len(value)) for name, value in zip(names, values, strict=True)]
    rule = "  ".join("-" * width for width in widths)
    rows = (
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (names, values)
    )
    return "\n".join([rule, *rows, rule])


def chosen_means(results: Results) -> dict[str, float]:
    """What stands in the summary: means over images, or the pooled statistics where the settings ask for them."""
    pooled = results.pooled() if results.settings.pooling == "pixels" else None
    return results.means() if pooled is None else pooled


def samples_in(results: Results) -> str:
    """The list as the configuration names it; the folder or archive of a data set without a list."""
    return results.dataset.settings.list_name or str(results.dataset.source.path)


def summary_text(results: Results, predictions: str) -> str:
    """prs-eth's eval_metrics.txt; samples that were left out are said below the table."""
    dataset = results.dataset
    text = (
        f"Evaluation metrics:\n    of predictions: {predictions}\n    on dataset: {dataset.display_name}\n"
        f"    with samples in: {samples_in(results)}\n"
    )
    if dataset.task == "depth":
        text += f"min_depth = {dataset.min_depth}\nmax_depth = {dataset.max_depth}\n"
    means = chosen_means(results)
    text += two_rows(list(means), [str(value) for value in means.values()])
    left_out = results.left_out()
    if left_out:
        text += f"\n{len(left_out)} of {len(results) + len(left_out)} samples were left out:"
        text += "".join(f"\n    {name}: {reason}" for name, reason in left_out)
    return text


def scores_text(results: Results) -> str:
    """prs-eth's per_sample_metrics.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["filename", *results.names])
    writer.writerows([score.row, *(str(score.values[name]) for name in results.names)] for score in results.scores())
    return text.getvalue()


def _numbers(values: Mapping[str, float] | None) -> dict[str, float | None] | None:
    """JSON has no infinity and no NaN."""
    if values is None:
        return None
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def summary_json(results: Results, about: Mapping[str, Any]) -> str:
    dataset, settings = results.dataset, results.settings
    left_out = results.left_out()
    facts = {
        "format": _FORMAT,
        "task": dataset.task,
        "dataset": {"name": dataset.name, "display_name": dataset.display_name, "samples_in": samples_in(results)},
        **about,
        "evaluation": {
            "alignment": settings.alignment,
            "alignment_max_res": settings.alignment_max_res,
            "target_names": settings.target_names,
            "linear_targets": settings.linear_targets,
            "use_mask": settings.use_mask,
            "pooling": settings.pooling,
        },
        "samples": len(results) + len(left_out),
        "evaluated": len(results),
        "left_out": [{"sample": name, "reason": reason} for name, reason in left_out],
        "warnings": list(dataset.warnings),
        "means_over_images": _numbers(results.means()),
        "all_pixels_pooled": _numbers(results.pooled()),
    }
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "surrogateescape")))


def write_summary(folder: Path, results: Results, predictions: str, about: Mapping[str, Any]) -> None:
    """All but the report. `about`: what is known of how the predictions were made."""
    alignment = results.settings.alignment
    write_text(folder / SCORES_FILE, scores_text(results))
    write_text(folder / text_file(alignment), summary_text(results, predictions))
    write_text(folder / json_file(alignment), summary_json(results, about))
