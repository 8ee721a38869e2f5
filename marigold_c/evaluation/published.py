"""Published numbers of data sets, to stand beside a user's own in the report. Called by report.py.

AbsRel and delta1 are fractions here as in prs-eth's summary, not per cent. Numbers are as printed in the papers, so
they have two or three digits.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One row: who, with which settings, and the values by prs-eth's metric names."""

    method: str
    settings: str
    source: str
    values: dict[str, float]


_DEPTH_SETS = ("nyu_depth", "kitti_depth", "eth3d_depth", "scannet_depth", "diode_depth")
# Method, settings, source, and (AbsRel, delta1) in per cent for the sets above.
_DEPTH_ROWS = (
    (
        *("Marigold v1-0", "50 steps x 10", "arXiv 2312.02145"),
        ((5.5, 96.4), (9.9, 91.6), (6.5, 96.0), (6.4, 95.1), (30.8, 77.3)),
    ),
    (
        *("Marigold v1-0, trailing", "1 step x 1", "arXiv 2409.11355"),
        ((5.7, 96.2), (10.8, 89.6), (6.9, 95.5), (6.6, 95.2), (31.1, 76.8)),
    ),
    (
        *("Marigold E2E-FT", "1 step x 1, zeros", "arXiv 2409.11355"),
        ((5.2, 96.6), (9.6, 91.9), (6.2, 95.9), (5.8, 96.2), (30.2, 77.9)),
    ),
)


def _depth_rows(position: int) -> tuple[Published, ...]:
    rows = []
    for method, settings, source, pairs in _DEPTH_ROWS:
        relative, delta = pairs[position]
        values = {"abs_relative_difference": round(relative / 100, 4), "delta1_acc": round(delta / 100, 4)}
        rows.append(Published(method, settings, source, values))
    return tuple(rows)


PUBLISHED: dict[str, tuple[Published, ...]] = {name: _depth_rows(at) for at, name in enumerate(_DEPTH_SETS)}
