"""The tab "3-D": the photograph as a mesh or a cloud of points to turn, from its depth."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from ..images.point_clouds import ASSUMED_FAR, ASSUMED_NEAR, EDGE_THRESHOLD
from .model_view import model_view
from .settings_panel import SettingsPanel
from .visit import House

_MOST_POINTS = 300_000  # a phone turns these
_SHAPES = {"mesh": "mesh", "points": "points"}


def scene_tab(house: House, panel: SettingsPanel) -> None:
    """Adds the tab's elements."""
    gr.Markdown("Depth has no unit and the camera is not known: distances and the angle of view are assumed here.")
    with gr.Row():
        shape = gr.Radio(list(_SHAPES), value="mesh", label="Shape", min_width=160)
        angle = gr.Slider(0, 150, 0, step=1, label="Field of view in degrees (0: by EXIF, else 60)", min_width=200)
        edge = gr.Slider(0.01, 0.5, EDGE_THRESHOLD, step=0.01, label="Cut edges steeper than", min_width=200)
        whole = gr.Checkbox(False, label="Cut nothing", min_width=120)
    with gr.Row():
        near = gr.Number(ASSUMED_NEAR, label="Nearest distance", minimum=0.001, min_width=120)
        far = gr.Number(ASSUMED_FAR, label="Farthest distance", minimum=0.002, min_width=120)

    def flags(
        request: gr.Request, shape: str, angle: float, edge: float, whole: bool, near: float, far: float
    ) -> dict[str, Any]:
        return {
            "geometry": _SHAPES.get(shape),
            "field_of_view": house.photograph(request).field_of_view_for(angle),
            "edge_threshold": math.inf if whole else float(edge),
            "near": float(near),
            "far": float(far),
            "max_points": _MOST_POINTS,
        }

    model_view(
        *(house, panel, "scene", [shape, angle, edge, whole, near, far], flags, ["glb", "ply"]),
        label="Scene: drag to turn, scroll to come nearer",
        files_label="Files",
    )
