"""The settings of a prediction as elements of the page, and their values as a wish. Called by the tabs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from .command import Command
from .limits import Limits, Refused
from .wishes import SMALL, Wish, check_wish, make_wish

TASKS = {"depth": "depth", "surface normals": "normals", "intrinsic images": "iid"}
_OWN = "the checkpoint's own"
_RESOLUTIONS = (256, 384, 512, 640, 768, 1024)
_DTYPES = ("float32", "bfloat16", "int8")
_COLOR_MAPS = ("Spectral", "binary", "Spectral_r", "binary_r")
_FORMATS = {"npy": "npy", "16-bit PNG": "png16", "PNG": "png"}


class SettingsPanel:
    """elements: in the order in which wish() takes their values."""

    def __init__(self, commands: Mapping[str, Command], checkpoints: Sequence[str], limits: Limits) -> None:
        self._commands, self._checkpoints, self._limits = commands, checkpoints, limits
        self.task = gr.Radio(list(TASKS), value="depth", label="What to compute")
        checkpoint = gr.Radio([SMALL, *checkpoints], value=[*checkpoints, SMALL][0], label="Checkpoint")
        with gr.Row():
            steps = gr.Slider(0, limits.steps, value=0, step=1, label="Steps (0: the checkpoint's own)", min_width=200)
            members = gr.Slider(1, limits.members, value=1, step=1, label="Members of the ensemble", min_width=200)
        with gr.Row():
            resolution = gr.Radio([_OWN, *map(str, _RESOLUTIONS)], value=_OWN, label="Resolution", min_width=120)
            dtype = gr.Radio(list(_DTYPES), value="float32", label="Precision", min_width=120)
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**53 - 1, min_width=120)
        with gr.Row():
            color_map = gr.Radio(list(_COLOR_MAPS), value="Spectral", label="Colour map (depth)", min_width=120)
            uncertainty = gr.Checkbox(False, label="Uncertainty (needs 2 members or more)", min_width=200)
        self.elements = [self.task, checkpoint, steps, members, resolution, dtype, seed, color_map, uncertainty]

    def wish(self, values: Sequence[Any], formats: Sequence[str] = tuple(_FORMATS.values()), **flags: Any) -> Wish:
        """values: of the elements; they come from a browser, so they are checked. flags: further ones, of depth."""
        task, checkpoint, steps, members, resolution, dtype, seed, color_map, uncertainty = values
        return make_wish(
            self._commands,
            self._checkpoints,
            task=TASKS.get(task, ""),
            checkpoint="" if checkpoint == SMALL else checkpoint,
            steps=int(steps),
            members=int(members),
            resolution=0 if resolution == _OWN else int(resolution),
            dtype=dtype,
            seed=int(seed or 0),
            color_map=color_map,
            uncertainty=bool(uncertainty),
            formats=formats,
            flags=flags,
        )

    def video_words(self, values: Sequence[Any]) -> list[str]:
        """The same values as flags of `marigold video`. Refused: what it does not do, or is not offered."""
        wish = self.wish(values, ())
        if wish.command.name not in ("depth", "normals"):
            raise Refused("Videos are made of depth or normals: choose one of them above.")
        if {"ensemble_size", "output_uncertainty"} & {name for name, value in wish.flags.items() if value}:
            raise Refused("Frames of a video are no ensembles: set members to 1.")
        check_wish(wish, self._limits)
        return [f"--task={wish.command.name}", *wish.words()]
