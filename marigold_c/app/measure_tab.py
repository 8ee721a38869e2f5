"""The tab "Measure": a few distances that are known make metres of depth."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ..images.sliders import jpeg_uri, thumbnail
from .engine import Job
from .limits import Photograph
from .measuring import Point, fit_metres, parse_points, positions, sparse_metres
from .settings_panel import SettingsPanel
from .visit import ENGINE_EVENT, PROGRESS, House, cancel_button, told

_SHOWN_PIXELS = 2**19
_GUIDED = "guided by the points: depth itself follows two or more of them (50 steps unless set above)"
_METHODS = ("scale and shift, at once", _GUIDED)
# A click is a line in the field of the points, where the distance is typed behind it.
_CLICK = """
const b = this.getBoundingClientRect(), t = document.querySelector('#points textarea');
const at = (from, size, count) => Math.min(count - 1, Math.max(0, Math.floor((from / size) * count)));
const column = at(event.clientX - b.left, b.width, +this.dataset.width);
const row = at(event.clientY - b.top, b.height, +this.dataset.height);
t.value = t.value.trimEnd() + (t.value.trim() ? String.fromCharCode(10) : '') + column + ', ' + row + ', ';
t.dispatchEvent(new Event('input', {bubbles: true})); t.focus();
"""


def _clickable(photograph: Photograph) -> str:
    height, width = photograph.pixels.shape[:2]
    click = html.escape(" ".join(_CLICK.split()), quote=True)
    return (
        f'<img src="{jpeg_uri(thumbnail(photograph.pixels, _SHOWN_PIXELS))}" data-width="{width}" '
        f'data-height="{height}" onclick="{click}" style="max-width:100%;cursor:crosshair" '
        'alt="the photograph: a click adds a point to the field below">'
    )


def _table(points: list[Point], metres: Any, places: Any) -> str:
    """What is known and measured of each point, and how far it is from the one before."""
    rows = []
    for index, point in enumerate(points):
        known = "" if point.metres is None else f"{point.metres:g} m"
        step = "" if index == 0 else f"{np.linalg.norm(places[index] - places[index - 1]):.3f} m"
        measured = f"{metres[point.row, point.column]:.3f} m"
        cells = (str(index + 1), f"{point.column}, {point.row}", known, measured, step)
        rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    heads = ("point", "column, row", "known", "distance", "from the point before")
    head = "".join(f"<th scope='col'>{name}</th>" for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def measure_tab(house: House, panel: SettingsPanel) -> None:
    """Adds the tab's elements. Depth is computed with the settings above, unless it was already."""
    gr.Markdown(
        "Show the photograph, click points, and type the distance of at least one of them in metres (two or more give "
        "scale and shift, or guide the depth). What is measured then is as good as the depth and the field of view are."
    )
    show = gr.Button("Show the photograph", elem_id="show-photograph")
    shown = gr.HTML(elem_id="clicked", min_height=60)
    points = gr.Textbox(label="Points, one a line: column, row, metres if known", lines=4, elem_id="points")
    method = gr.Radio(list(_METHODS), value=_METHODS[0], label="Metres by", elem_id="method")
    angle = gr.Slider(0, 150, 0, step=1, label="Field of view in degrees (0: by EXIF, else 60)")
    with gr.Row():
        start = gr.Button("Measure", variant="primary", elem_id="measure")
        stop = cancel_button("cancel-measure")
    table = gr.HTML(elem_id="measured", min_height=60)
    files = gr.File(label="Depth in metres", file_count="multiple", interactive=False)

    def display(request: gr.Request) -> str:
        with told():
            return _clickable(house.photograph(request))

    def metres_of(
        job: Job, request: gr.Request, wanted: list[Point], guided: bool, values: Any, progress: Any
    ) -> tuple[Any, Path]:
        """Metres, and the folder for them."""
        wish = panel.wish(("depth", *values[1:]), ["npy"])
        if guided:
            sparse = sparse_metres(wanted, *house.photograph(request).pixels.shape[:2])
            folder = house.session(request).new_folder("measure")
            return house.complete(job, wish, request, folder, sparse, progress), folder
        found = house.answer(job, wish, request, "measure", progress)
        metres = fit_metres(found.output.prediction[0, :, :, 0], wanted, found.is_disparity)
        return metres, house.session(request).folder / "measure"

    def measure(
        request: gr.Request, text: str, method: str, angle: float, progress: Any = PROGRESS, *values: Any
    ) -> Any:
        with house.job(request) as job:
            photograph = house.photograph(request)
            wanted = parse_points(text, *photograph.pixels.shape[:2])
            metres, folder = metres_of(job, request, wanted, method == _GUIDED, values, progress)
            path = folder / f"{photograph.name}_metres.npy"
            np.save(path, metres)
            places = positions(metres, wanted, photograph.field_of_view_for(angle))
            return _table(wanted, metres, places), [str(path)]

    show.click(display, None, shown, concurrency_limit=None, api_visibility="private")
    event = start.click(
        measure, [points, method, angle, *panel.elements], [table, files], show_progress_on=table, **ENGINE_EVENT
    )
    house.cancels(stop, event)
