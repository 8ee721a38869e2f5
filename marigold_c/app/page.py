"""The page: a photograph, its settings, and a tab for each thing to do with both."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr

from ..images.sliders import jpeg_uri, thumbnail
from .command import Command, VideoCommand
from .compare_tab import compare_tab
from .image_tab import image_tab
from .interface import add_interface
from .limits import Photograph, read_photograph
from .measure_tab import measure_tab
from .relief_tab import relief_tab
from .scene_tab import scene_tab
from .settings_panel import SettingsPanel
from .uploads import take_photograph
from .video_tab import video_tab
from .visit import House, told

_EXAMPLES = Path(__file__).parent / "examples"
_PREVIEW_PIXELS = 2**17

# Fonts of the visitor's own machine: Gradio's would be fetched.
THEME = gr.themes.Default(
    primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)
CSS = """
.marigold-slider input[type=range] { accent-color: var(--color-accent); }
#measured td, #measured th { padding: 2px 12px 2px 0; text-align: left; }
.marigold-slider figcaption, #photograph-shown p, #measured { color: var(--body-text-color); }
#photograph-shown img { max-height: 320px; max-width: 100%; }
span.or, span.min_value, span.max_value, a.download-link, footer, footer * {
    color: var(--body-text-color) !important; opacity: 1;
}
button[role=tab][aria-selected=true] { color: var(--body-text-color) !important; }
button.primary { background: var(--primary-600) !important; }
button.stop { background: #b91c1c !important; }
#maps summary { cursor: pointer; font-weight: 600; padding: 4px 0; }
"""


def _preview(photograph: Photograph) -> str:
    height, width = photograph.pixels.shape[:2]
    said = html.escape("; ".join([f"{photograph.file}: {width} x {height} pixels", *photograph.notes]))
    uri = jpeg_uri(thumbnail(photograph.pixels, _PREVIEW_PIXELS))
    return f'<img src="{uri}" alt="the chosen photograph"><p>{said}</p>'


def _photograph_chooser(house: House) -> None:
    with gr.Row():
        chooser = gr.File(label="Photograph", height=140, elem_id="photograph")
        shown = gr.HTML(elem_id="photograph-shown", min_height=140)
    paths = sorted(_EXAMPLES.glob("*.jpg"))
    with gr.Row():
        buttons = [gr.Button(f"Example: {path.stem}", size="sm") for path in paths]

    def choose(request: gr.Request, sent: Any) -> str:
        with told():
            session = house.session(request)
            session.photograph = None
            session.photograph = take_photograph(sent, house.uploads, house.limits)
            return _preview(session.photograph)

    def take_example(path: Path) -> Any:
        def take(request: gr.Request) -> str:
            with told():
                photograph = read_photograph(path, path.name, house.limits)
                house.session(request).photograph = photograph
                return _preview(photograph)

        return take

    def forget(request: gr.Request) -> str:
        house.session(request).photograph = None
        return ""

    # preprocess=False: Gradio would open what a path or a URL names before we look at it.
    chooser.upload(choose, chooser, shown, preprocess=False, concurrency_limit=None, api_visibility="private")
    chooser.clear(forget, None, shown, concurrency_limit=None, api_visibility="private")
    for button, path in zip(buttons, paths, strict=True):
        button.click(take_example(path), None, shown, concurrency_limit=None, api_visibility="private")


def build_page(house: House, commands: Mapping[str, Command], video: VideoCommand, checkpoints: Sequence[str]) -> Any:
    """The page as Blocks of Gradio, with the interface for programs. Videos are there where PyAV is."""
    with gr.Blocks(title="marigold", analytics_enabled=False, fill_width=False) as page:
        gr.Markdown(
            "# Marigold\nDepth, surface normals and intrinsic images of a photograph, computed on this machine."
        )
        _photograph_chooser(house)
        with gr.Accordion("Settings", open=True):
            panel = SettingsPanel(commands, checkpoints, house.limits)
        with gr.Tab("Image"):
            image_tab(house, panel)
        with gr.Tab("3-D"):
            scene_tab(house, panel)
        with gr.Tab("Compare"):
            compare_tab(house, panel, lambda: SettingsPanel(commands, checkpoints, house.limits))
        with gr.Tab("Measure"):
            measure_tab(house, panel)
        with gr.Tab("Relief"):
            relief_tab(house, panel)
        if find_spec("av") is not None:
            with gr.Tab("Video"):
                video_tab(house, video, panel)
        add_interface(house, commands, checkpoints)

        def leave(request: gr.Request) -> None:
            house.leave(request)

        page.unload(leave)
    page.queue(max_size=house.limits.waiting, default_concurrency_limit=1)
    return page
