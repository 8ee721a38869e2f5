"""What peers.py measured as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peer_libraries import OURS, STAGES

Report = dict[str, Any]


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header)]
    lines += [["---"] * len(lines[0]), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def stage_sum(measurements: list[Report], size: Any, name: str) -> dict[str, float]:
    """Seconds of the three stages together, of the sides that have them all; `name`: "median" or "first"."""
    stages = [entry[name] for entry in measurements if entry["row"] in STAGES and list(entry["size"]) == list(size)]
    if len(stages) < len(STAGES):
        return {}
    return {side: sum(one[side] for one in stages) for side in stages[0] if all(side in one for one in stages)}


def _seconds(figures: dict[str, float], side: str, peer: str | None) -> str:
    """Seconds, and for ours in brackets their ratio to the peer's."""
    if side not in figures:
        return "no result"
    ratio = f" ({figures[side] / figures[peer]:.2f})" if peer in figures and side != peer else ""
    return f"{figures[side]:.3f} s{ratio}"


def comparison_table(comparison: Report) -> str:
    """Medians of later calls, first calls, disagreement: a column for each side, ratios to the peer in brackets."""
    sides, peer, measurements = comparison["sides"], comparison["peer"], comparison["measurements"]
    rows: list[list[str]] = []
    for name, suffix in (("median", ""), ("first", ", first call")):
        for size in comparison["sizes"]:
            label = f"{size[0]}x{size[1]}"
            named = [(e["row"], e[name]) for e in measurements if list(e["size"]) == list(size)]
            total = stage_sum(measurements, size, name)
            named.insert(len(STAGES), ("sum of stages", total)) if total else None
            rows += [
                [f"{label} {row}{suffix}", *(_seconds(figures, side, peer) for side in sides)] for row, figures in named
            ]
    for entry in measurements if len(sides) > 1 else []:
        found = entry["disagreement"]
        cells = (
            f"{found[side]['largest']:.1e}, {found[side]['typical']:.1e}" if side in found else "" for side in sides
        )
        rows.append([f"{entry['size'][0]}x{entry['size'][1]} {entry['row']}, difference (largest, RMS)", *cells])
    rows.append(["opening", *(f"{comparison['load_seconds'][side]:.3f} s" for side in sides)])
    return markdown(["", *sides], rows)


def alone_table(alone: Report) -> str:
    """Memory and start of each side in a process that does nothing else."""
    rows = []
    for side, found in alone.items():
        start = found.get("start")
        rows.append(
            [
                side,
                f"{found['peak_bytes'] / 1e9:.3f} GB" if "peak_bytes" in found else "",
                *([f"{start['before']:.3f} s", f"{start['after']:.3f} s"] if start else ["", ""]),
            ]
        )
    return markdown(["", "peak memory, 1 step", "cold start to the first UNet step", "to its end"], rows)


def scaling_table(scaling: list[Report], threads: int) -> str:
    header = ["", "1 thread", f"{threads} threads", "times as fast"]
    return markdown(
        header,
        (
            [
                f"{one['side']}, {one['row']}",
                f"{one['one']:.3f} s",
                f"{one['all']:.3f} s",
                f"{one['one'] / one['all']:.2f}",
            ]
            for one in scaling
        ),
    )


def growth_table(growth: list[Report]) -> str:
    header = ["", "first call", "later", "later, per megapixel", "peak memory"]
    rows = []
    for one in growth:
        h, w = one["size"]
        rows.append(
            [
                f"{one['side']}, {h}x{w}",
                f"{one['first']:.2f} s",
                f"{one['later']:.2f} s",
                f"{one['later'] / (h * w / 1e6):.2f} s",
                f"{one['peak_bytes'] / 1e9:.3f} GB",
            ]
        )
    return markdown(header, rows)


def worst_ratios(comparisons: list[Report]) -> str:
    """Sum of the stages: ours over the fastest of the peers, which is the largest of the ratios of each turn-taking."""
    groups = {"float32 peers": "float32", "bfloat16 peers": "bfloat16", **{name: name for name in OURS}}
    lines = []
    for ours in OURS:
        for group, ending in groups.items():
            ratios: dict[str, float] = {}
            for comparison in comparisons:
                total = stage_sum(comparison["measurements"], comparison["sizes"][0], "median")
                for other in total if ours in total else ():
                    if other != ours and other.endswith(ending) and (other in OURS) == (group in OURS):
                        ratios[other] = max(ratios.get(other, 0.0), total[ours] / total[other])
            if ratios:
                worst = max(ratios, key=lambda name: ratios[name])
                lines.append([ours, group, worst, f"{ratios[worst]:.2f}"])
    return markdown(["sum of stages", "beside", "the fastest is", "ratio"], lines) if lines else ""
