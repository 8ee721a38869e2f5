"""The same for programs: named endpoints of Gradio's HTTP interface, /v1_depth, /v1_normals and /v1_iid.

Names carry the version: what a v1 endpoint takes and gives stays. Described in docs/app.md.
"""

# No `from __future__ import annotations`: Gradio reads the types of the return values as they stand.
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from .command import Command
from .limits import Refused
from .results import answer
from .uploads import take_photograph
from .visit import ENGINE_CONCURRENCY, House, told
from .wishes import make_wish

Dtype = Literal["float32", "bfloat16", "int8"]
_FORMATS = ("npy", "npz", "png16", "png")


def _file_data(path: Path) -> dict[str, Any]:
    """A file of an answer, to which Gradio adds its url: its clients download it."""
    size = path.stat().st_size
    return {"path": str(path), "orig_name": path.name, "size": size, "meta": {"_type": "gradio.FileData"}}


def _checked(formats: str, command: Command) -> list[str]:
    known = (*_FORMATS, *command.shape_formats)
    names = [name.strip() for name in formats.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise Refused(f"formats {formats!r}: choose from {', '.join(known)}")
    return names


def _predict(
    house: House,
    commands: Mapping[str, Command],
    checkpoints: Sequence[str],
    photo: dict[str, Any],
    task: str,
    formats: str,
    shapes: Mapping[str, Any],
    chosen: Mapping[str, Any],
) -> dict[str, Any]:
    """What every endpoint does: {"files": [FileData, ...], "command": str, "python": str}."""
    owner = secrets.token_hex(16)
    with told(), house.engine.job(owner) as job:
        photograph = take_photograph(photo, house.uploads, house.limits)
        kinds = _checked(formats, commands[task])
        flags: dict[str, Any] = {}
        if {"glb", "ply"} & set(kinds):
            flags = {**shapes, "field_of_view": photograph.field_of_view_for(shapes["field_of_view"])}
        wish = make_wish(commands, checkpoints, task=task, formats=kinds, flags=flags, **chosen)
        folder = house.uploads / f"answer-{owner}"
        folder.mkdir()
        found = answer(house.engine, job, wish, photograph, folder, house.limits, lambda *_steps: None, {})
        files = [_file_data(path) for path in found.files]
        return {"files": files, "command": found.command_line, "python": found.python_lines}


def add_interface(house: House, commands: Mapping[str, Command], checkpoints: Sequence[str]) -> None:
    """Adds the endpoints; within Blocks."""

    def depth(
        photo: dict[str, Any],
        steps: int = 0,
        members: int = 1,
        resolution: int = 0,
        dtype: Dtype = "float32",
        seed: int = 0,
        checkpoint: str = "",
        uncertainty: bool = False,
        formats: str = "npy,png16,png",
        color_map: str = "Spectral",
        field_of_view: float = 0.0,
        edge_threshold: float = 0.05,
        geometry: Literal["mesh", "points"] = "mesh",
    ) -> dict[str, Any]:
        """Depth of a photograph. photo: a FileData of an upload. formats: of npy, npz, png16, png, glb, ply, stl (a
        relief), separated by commas. 0 and "" mean the checkpoint's own, or what the photograph's EXIF says. Returns
        files, and the command and Python lines that repeat them.
        """
        chosen = _chosen(steps, members, resolution, dtype, seed, checkpoint, uncertainty) | {"color_map": color_map}
        shapes = {"geometry": geometry, "field_of_view": field_of_view, "edge_threshold": edge_threshold}
        return _predict(house, commands, checkpoints, photo, "depth", formats, shapes, chosen)

    def of_task(task: str) -> Any:
        def predict(
            photo: dict[str, Any],
            steps: int = 0,
            members: int = 1,
            resolution: int = 0,
            dtype: Dtype = "float32",
            seed: int = 0,
            checkpoint: str = "",
            uncertainty: bool = False,
            formats: str = "npy,png16,png",
        ) -> dict[str, Any]:
            """As v1_depth, without its colour map and shapes."""
            chosen = _chosen(steps, members, resolution, dtype, seed, checkpoint, uncertainty) | {"color_map": ""}
            return _predict(house, commands, checkpoints, photo, task, formats, {}, chosen)

        return predict

    for name, function in {"depth": depth, "normals": of_task("normals"), "iid": of_task("iid")}.items():
        gr.api(function, api_name=f"v1_{name}", **ENGINE_CONCURRENCY)


def _chosen(
    steps: int, members: int, resolution: int, dtype: str, seed: int, checkpoint: str, uncertainty: bool
) -> dict[str, Any]:
    return {
        "steps": int(steps),
        "members": int(members),
        "resolution": int(resolution),
        "dtype": str(dtype),
        "seed": int(seed),
        "checkpoint": str(checkpoint),
        "uncertainty": bool(uncertainty),
    }
