"""The tab "3-D": the photograph as a mesh or a cloud of points to turn, from its depth."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from ..images.point_clouds import ASSUMED_FAR, ASSUMED_NEAR, EDGE_THRESHOLD
from .settings_panel import SettingsPanel
from .visit import ENGINE_EVENT, PROGRESS, House, cancel_button

_MOST_POINTS = 300_000  # a phone turns these
_SHAPES = {"mesh": "mesh", "points": "points"}


def scene_tab(house: House, panel: SettingsPanel) -> None:
    """Adds the tab's elements. Depth is computed with the settings above, unless it was already."""
    gr.Markdown("Depth has no unit and the camera is not known: distances and the angle of view are assumed here.")
    with gr.Row():
        shape = gr.Radio(list(_SHAPES), value="mesh", label="Shape", min_width=160)
        angle = gr.Slider(0, 150, 0, step=1, label="Field of view in degrees (0: by EXIF, else 60)", min_width=200)
        edge = gr.Slider(0.01, 0.5, EDGE_THRESHOLD, step=0.01, label="Cut edges steeper than", min_width=200)
        whole = gr.Checkbox(False, label="Cut nothing", min_width=120)
    with gr.Row():
        near = gr.Number(ASSUMED_NEAR, label="Nearest distance", minimum=0.001, min_width=120)
        far = gr.Number(ASSUMED_FAR, label="Farthest distance", minimum=0.002, min_width=120)
    with gr.Row():
        start = gr.Button("Make the scene", variant="primary", elem_id="make-scene")
        stop = cancel_button("cancel-scene")
    scene = gr.Model3D(label="Scene: drag to turn, scroll to come nearer", height=480, elem_id="scene")
    files = gr.File(label="Files", file_count="multiple", interactive=False)
    command_line = gr.Textbox(label="The same on the command line", lines=2, interactive=False, buttons=["copy"])

    def make(
        request: gr.Request,
        shape: str,
        angle: float,
        edge: float,
        whole: bool,
        near: float,
        far: float,
        progress: Any = PROGRESS,
        *values: Any,
    ) -> tuple[Any, ...]:
        with house.job(request) as job:
            flags = {
                "geometry": _SHAPES.get(shape),
                "field_of_view": house.photograph(request).field_of_view_for(angle),
                "edge_threshold": math.inf if whole else float(edge),
                "near": float(near),
                "far": float(far),
                "max_points": _MOST_POINTS,
            }
            depth = ("depth", *values[1:])
            wish = panel.wish(depth, ["glb", "ply"], **flags)
            found = house.answer(job, wish, request, "scene", progress)
            glb = next(path for path in found.files if path.suffix == ".glb")
            return str(glb), [str(path) for path in found.files], found.command_line

    inputs = [shape, angle, edge, whole, near, far, *panel.elements]
    event = start.click(make, inputs, [scene, files, command_line], show_progress_on=scene, **ENGINE_EVENT)
    house.cancels(stop, event)
