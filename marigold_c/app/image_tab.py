"""The tab "Image": maps of the photograph, their values under the pointer, all files to download."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .settings_panel import SettingsPanel
from .visit import ENGINE_EVENT, PROGRESS, House, cancel_button

_FORMATS = {"npy": "npy", "16-bit PNG": "png16", "PNG": "png", "npz": "npz"}


def image_tab(house: House, panel: SettingsPanel) -> None:
    """Adds the tab's elements."""
    formats = gr.CheckboxGroup(list(_FORMATS), value=["npy", "16-bit PNG", "PNG"], label="Files to write")
    with gr.Row():
        start = gr.Button("Compute", variant="primary", elem_id="compute")
        stop = cancel_button("cancel")
    shown = gr.HTML(elem_id="maps", min_height=120)
    files = gr.File(
        label="Files, as the command writes them", file_count="multiple", interactive=False, elem_id="files"
    )
    command_line = gr.Textbox(label="The same on the command line", lines=2, interactive=False, buttons=["copy"])
    python_lines = gr.Textbox(label="The same in Python", lines=5, interactive=False, buttons=["copy"])

    # Gradio finds the request and the progress by their places, so they stand before *values.
    def compute(request: gr.Request, chosen: list[str], progress: Any = PROGRESS, *values: Any) -> tuple[Any, ...]:
        with house.job(request) as job:
            wish = panel.wish(values, [_FORMATS[name] for name in chosen if name in _FORMATS] or ["npy"])
            found = house.answer(job, wish, request, "image", progress)
            html = house.sliders(found, house.photograph(request))
            return html, [str(path) for path in found.files], found.command_line, found.python_lines

    outputs = [shown, files, command_line, python_lines]
    event = start.click(compute, [formats, *panel.elements], outputs, show_progress_on=shown, **ENGINE_EVENT)
    house.cancels(stop, event)
