"""What the tabs of three-dimensional models share: a button, a view to turn, files, and the same as a command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from .settings_panel import SettingsPanel
from .visit import ENGINE_EVENT, PROGRESS, House, cancel_button


def model_view(
    house: House,
    panel: SettingsPanel,
    name: str,
    inputs: Sequence[Any],
    flags: Callable[..., dict[str, Any]],
    formats: Sequence[str],
    *,
    label: str,
    files_label: str,
    **view: Any,
) -> None:
    """Adds the elements. Depth is computed with the settings of `panel`, unless it was already.

    Args:
        name: What is made; also the ids of the elements.
        inputs: The tab's own elements.
        flags: Takes the request and their values; gives what the command takes beside the settings.
        formats: Of the files; the first is shown.
        view: Further options of the view.
    """
    with gr.Row():
        start = gr.Button(f"Make the {name}", variant="primary", elem_id=f"make-{name}")
        stop = cancel_button(f"cancel-{name}")
    model = gr.Model3D(label=label, height=480, elem_id=name, **view)
    files = gr.File(label=files_label, file_count="multiple", interactive=False)
    command_line = gr.Textbox(label="The same on the command line", lines=2, interactive=False, buttons=["copy"])

    def make(request: gr.Request, progress: Any = PROGRESS, *values: Any) -> tuple[Any, ...]:
        own, settings = values[: len(inputs)], values[len(inputs) :]
        with house.job(request) as job:
            wish = panel.wish(("depth", *settings[1:]), formats, **flags(request, *own))
            found = house.answer(job, wish, request, name, progress)
            made = {path.suffix.removeprefix("."): str(path) for path in found.files}
            return made[formats[0]], [made[one] for one in formats], found.command_line

    outputs = [model, files, command_line]
    event = start.click(make, [*inputs, *panel.elements], outputs, show_progress_on=model, **ENGINE_EVENT)
    house.cancels(stop, event)
