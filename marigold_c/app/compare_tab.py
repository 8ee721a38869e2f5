"""The tab "Compare": two checkpoints or settings on one photograph, with a slider between their maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
import numpy as np

from ..images.sliders import slider_html
from ..images.writers import Map
from .settings_panel import SettingsPanel
from .visit import ENGINE_EVENT, PROGRESS, House, cancel_button


def _pairs(left: dict[str, Map], right: dict[str, Map]) -> list[tuple[str, Map, Map]]:
    """Maps of one name beside each other; where no name is on both sides, the first of each."""
    common = [(name, left[name], right[name]) for name in left if name in right]
    (first, one), (second, other) = next(iter(left.items())), next(iter(right.items()))
    return common or [(f"{first} and {second}", one, other)]


def _compared(name: str, left: Map, right: Map) -> str:
    said = ""
    if left.kind == right.kind and left.values.shape == right.values.shape:
        difference = np.abs(left.values - right.values)
        said = f": they differ by {difference.mean():.4f} on average, {difference.max():.4f} at most"
    slider = slider_html(left.picture().whole(), right, f"B: {name}", before=f"A: {name}")
    return f"<details open><summary>{name}{said}</summary>{slider}</details>"


def compare_tab(house: House, panel: SettingsPanel, make_panel: Callable[[], SettingsPanel]) -> None:
    """Adds the tab's elements. panel: the settings of A; make_panel: adds those of B."""
    gr.Markdown("A: the settings above. B:")
    with gr.Group():
        other = make_panel()
    with gr.Row():
        start = gr.Button("Compare", variant="primary", elem_id="compare")
        stop = cancel_button("cancel-compare")
    shown = gr.HTML(elem_id="compared", min_height=120)

    def compare(request: gr.Request, progress: Any = PROGRESS, *values: Any) -> str:
        count = len(panel.elements)
        with house.job(request) as job:
            wishes = [panel.wish(values[:count], ["npy"]), other.wish(values[count:], ["npy"])]
            left, right = (
                house.answer(job, wish, request, "compare", progress, f"{side}: ").maps
                for side, wish in zip("AB", wishes, strict=True)
            )
            return "".join(_compared(*pair) for pair in _pairs(left, right))

    inputs = [*panel.elements, *other.elements]
    event = start.click(compare, inputs, shown, show_progress_on=shown, **ENGINE_EVENT)
    house.cancels(stop, event)
