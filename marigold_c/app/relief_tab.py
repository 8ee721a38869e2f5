"""The tab "Relief": the photograph as a closed solid for a 3-D printer."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .model_view import model_view
from .settings_panel import SettingsPanel
from .visit import House


def relief_tab(house: House, panel: SettingsPanel) -> None:
    """Adds the tab's elements."""
    with gr.Row():
        size = gr.Slider(1, 50, 10, step=0.5, label="Longest side (cm)", min_width=200)
        height = gr.Slider(0.02, 1, 0.2, step=0.01, label="Height, as a part of the longer side", min_width=200)
        frame = gr.Slider(0, 0.2, 0.05, step=0.01, label="Frame, as a part of the longer side", min_width=200)
    with gr.Row():
        near = gr.Slider(0, 1, 0, step=0.01, label="Cut off what is nearer than", min_width=200)
        far = gr.Slider(0, 1, 1, step=0.01, label="Cut off what is farther than", min_width=200)

    def flags(
        _request: gr.Request, size: float, height: float, frame: float, near: float, far: float
    ) -> dict[str, Any]:
        return {
            "relief_size": float(size),
            "relief_embossing": float(height),
            "relief_frame": float(frame),
            "relief_near_plane": float(near),
            "relief_far_plane": float(far),
        }

    model_view(
        *(house, panel, "relief", [size, height, frame, near, far], flags, ["stl"]),
        label="Relief: drag to turn",
        files_label="File for the printer",
        camera_position=(None, 30, None),
    )
