"""The tab "Relief": the photograph as a closed solid for a 3-D printer."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .settings_panel import SettingsPanel
from .visit import ENGINE_EVENT, PROGRESS, House, cancel_button


def relief_tab(house: House, panel: SettingsPanel) -> None:
    """Adds the tab's elements. Depth is computed with the settings above, unless it was already."""
    with gr.Row():
        size = gr.Slider(1, 50, 10, step=0.5, label="Longest side (cm)", min_width=200)
        height = gr.Slider(0.02, 1, 0.2, step=0.01, label="Height, as a part of the longer side", min_width=200)
        frame = gr.Slider(0, 0.2, 0.05, step=0.01, label="Frame, as a part of the longer side", min_width=200)
    with gr.Row():
        near = gr.Slider(0, 1, 0, step=0.01, label="Cut off what is nearer than", min_width=200)
        far = gr.Slider(0, 1, 1, step=0.01, label="Cut off what is farther than", min_width=200)
    with gr.Row():
        start = gr.Button("Make the relief", variant="primary", elem_id="make-relief")
        stop = cancel_button("cancel-relief")
    solid = gr.Model3D(label="Relief: drag to turn", height=480, elem_id="relief", camera_position=(None, 30, None))
    files = gr.File(label="File for the printer", file_count="multiple", interactive=False)
    command_line = gr.Textbox(label="The same on the command line", lines=2, interactive=False, buttons=["copy"])

    def make(
        request: gr.Request,
        size: float,
        height: float,
        frame: float,
        near: float,
        far: float,
        progress: Any = PROGRESS,
        *values: Any,
    ) -> tuple[Any, ...]:
        with house.job(request) as job:
            flags = {
                "relief_size": float(size),
                "relief_embossing": float(height),
                "relief_frame": float(frame),
                "relief_near_plane": float(near),
                "relief_far_plane": float(far),
            }
            wish = panel.wish(("depth", *values[1:]), ["stl"], **flags)
            found = house.answer(job, wish, request, "relief", progress)
            stl = str(next(path for path in found.files if path.suffix == ".stl"))
            return stl, [stl], found.command_line

    inputs = [size, height, frame, near, far, *panel.elements]
    event = start.click(make, inputs, [solid, files, command_line], show_progress_on=solid, **ENGINE_EVENT)
    house.cancels(stop, event)
