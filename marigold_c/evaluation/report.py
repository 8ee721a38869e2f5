"""The report of an evaluation: one HTML file without anything outside of it. Called by commands/eval.py.

Names of samples and data sets come out of files and are escaped; pictures are JPEGs in the page, histograms are SVG.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from .pictures import View
from .published import PUBLISHED
from .results import Results, Shown
from .summary import chosen_means, samples_in

_BINS = 40
_WIDTH, _HEIGHT = 360, 110  # of a histogram
_LISTED = 200  # samples that were left out and are named in the page; the text file names all
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1c1e; background: #fff; max-width: 1240px; margin: 2em auto;
  padding: 0 1.2em; }
h1 { font-size: 1.5em; margin-bottom: .2em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25em .9em .25em 0; border-bottom: 1px solid #e3e3e6; vertical-align: top; }
td.number, th.number { text-align: right; }
.quiet { color: #6a6a70; } .wrong { color: #a3260f; }
.grid { display: flex; flex-wrap: wrap; gap: 1em 1.6em; }
figure { margin: 0; } figcaption { font-size: .82em; color: #6a6a70; }
.sample { margin: 1em 0 1.4em; } .sample img { display: block; max-width: 288px; }
.name { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
"""


def _number(value: float) -> str:
    return f"{value:.5g}" if math.isfinite(value) else "no number"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int = 1) -> str:
    """Cells are texts; columns from `numbers_from` on are numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        parts = []
        for at, cell in enumerate(cells):
            kind = ' class="number"' if at >= numbers_from else ""
            parts.append(f"<{tag}{kind}>{escape(cell)}</{tag}>")
        return f"<tr>{''.join(parts)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table>{line(head, "th")}{body}</table></div>'


def _histogram(name: str, values: list[float]) -> str:
    """Bars over the range of the values, with the mean as a line."""
    finite = np.array([value for value in values if math.isfinite(value)])
    if not finite.size:
        return ""
    low, high = float(finite.min()), float(finite.max())
    spread = (high - low) or max(abs(low), 1.0) * 1e-3
    counts, _ = np.histogram(finite, bins=_BINS, range=(low, low + spread))
    step = _WIDTH / _BINS
    bars = "".join(
        f'<rect x="{at * step:.1f}" y="{_HEIGHT - height:.1f}" width="{step - 1:.1f}" height="{height:.1f}"/>'
        for at, height in enumerate(counts / counts.max() * (_HEIGHT - 8))
        if height > 0
    )
    mean = float(finite.mean())
    at = (mean - low) / spread * _WIDTH
    return (
        f"<figure><figcaption>{escape(name)}: mean {_number(mean)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 18}" width="{_WIDTH}" height="{_HEIGHT + 18}" role="img" '
        f'aria-label="histogram of {escape(name, quote=True)}"><g fill="#5b7fb5">{bars}</g>'
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{_HEIGHT}" stroke="#a3260f" stroke-width="1.5"/>'
        f'<line x1="0" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}" stroke="#888"/>'
        f'<g font-size="11" fill="#6a6a70"><text x="0" y="{_HEIGHT + 14}">{_number(low)}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 14}" text-anchor="end">{_number(high)}</text></g></svg></figure>'
    )


def _sample(shown: Shown, metric: str) -> str:
    figures = "".join(
        f'<figure><img alt="{escape(label, quote=True)}" src="data:image/jpeg;base64,'
        f'{base64.b64encode(data).decode()}"><figcaption>{escape(label)}</figcaption></figure>'
        for label, data in shown.view.pictures
    )
    return (
        f'<div class="sample"><p><span class="name">{escape(shown.row)}</span> '
        f'<span class="quiet">{escape(metric)} {_number(shown.rank)}</span></p><div class="grid">{figures}</div></div>'
    )


def _beside_published(results: Results) -> str:
    rows = PUBLISHED.get(results.dataset.name, ())
    if not rows:
        return '<p class="quiet">No published numbers for this data set are known to this program.</p>'
    means = chosen_means(results)
    names = list(rows[0].values)
    mine = ["this evaluation", "", "", *(_number(means.get(name, math.nan)) for name in names)]
    theirs = [[row.method, row.settings, row.source, *(_number(row.values[name]) for name in names)] for row in rows]
    return _table(["", "predictions", "source", *names], [mine, *theirs], numbers_from=3)


def _left_out(results: Results) -> str:
    left_out = results.left_out()
    if not left_out:
        return ""
    rest = f"<p>… and {len(left_out) - _LISTED} more</p>" if len(left_out) > _LISTED else ""
    rows = _table(["sample", "reason"], left_out[:_LISTED], numbers_from=2)
    return f'<h2 class="wrong">{len(left_out)} samples were left out</h2>{rows}{rest}'


def _settings(results: Results, predictions: str, about: Mapping[str, Any]) -> str:
    settings = results.settings
    facts: dict[str, Any] = {"predictions": predictions, "samples in": samples_in(results)}
    if results.dataset.task == "depth":
        facts["range in metres"] = f"{results.dataset.min_depth} to {results.dataset.max_depth}"
        facts["alignment"] = settings.alignment
        facts["alignment_max_res"] = settings.alignment_max_res
    elif results.dataset.task == "iid":
        facts["compared linearly"] = ", ".join(settings.linear_targets)
        facts["masked"] = settings.use_mask
    for group in about.values():
        facts.update(group if isinstance(group, Mapping) else {})
    rows = [[str(name), str(value)] for name, value in facts.items() if value not in (None, "")]
    return _table(["", ""], rows, numbers_from=2)


def _metrics(results: Results) -> str:
    means, pooled = results.means(), results.pooled()
    if pooled is None:
        return _table(["metric", "mean over images"], [[name, _number(value)] for name, value in means.items()])
    rows = [[name, _number(means[name]), _number(pooled[name]) if name in pooled else ""] for name in means]
    rows += [[name, "", _number(value)] for name, value in pooled.items() if name not in means]
    note = "<p class='quiet'>Both are in use and give other numbers: compare like with like.</p>"
    return _table(["metric", "mean over images", "all pixels pooled"], rows) + note


def report_html(
    results: Results, predictions: str, about: Mapping[str, Any], draw: Callable[[int], View] | None = None
) -> str:
    """The page. draw: makes the pictures of a sample where the outcomes did not bring them."""
    scores = results.scores()
    title = f"{results.dataset.display_name}: {results.dataset.task}"
    total = len(scores) + len(results.left_out())
    notes = "".join(f'<p class="wrong">{escape(note)}</p>' for note in results.dataset.warnings)
    histograms = "".join(_histogram(name, [score.values[name] for score in scores]) for name in results.names)
    best = "".join(_sample(one, results.ranked_by) for one in results.shown(results.best(), draw))
    worst = "".join(_sample(one, results.ranked_by) for one in results.shown(results.worst(), draw))
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f'<p class="quiet">{len(scores)} of {total} samples evaluated</p>{notes}'
        f"<h2>Metrics</h2>{_metrics(results)}"
        f"<h2>Beside published numbers</h2>{_beside_published(results)}"
        f"{_left_out(results)}"
        f'<h2>All samples</h2><div class="grid">{histograms}</div>'
        f"<h2>Best samples</h2>{best}<h2>Worst samples</h2>{worst}"
        f"<h2>Settings</h2>{_settings(results, predictions, about)}</body></html>\n"
    )
