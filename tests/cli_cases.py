"""The commands depth, normals and iid called in this process, and the names of what they write, for their tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import marigold_c as mc
from marigold_c.commands import cli

PIXELS = np.random.default_rng(4).integers(0, 256, (24, 40, 3), dtype=np.uint8)
COMMANDS = ("depth", "normals", "iid")
TARGETS = ("albedo", "shading", "residual")
OPTIONS = {"processing_resolution": 0, "generator": 3}

# Endings of the folders' names, and of the files', where they are not those of the format.
NAMES = {
    "depth": ("depth", {"png16": "bw", "png": "colored"}, ("photo_depth",)),
    "normals": ("normals", {"png": "vis"}, ("photo_normals",)),
    "iid": ("iid_lighting", {"png": "vis"}, tuple(f"photo_{name}" for name in sorted(TARGETS))),
}


def expected_file(command: str, kind: str, stem: str) -> str:
    folder, endings, _ = NAMES[command]
    suffix = "_colored.png" if (command, kind) == ("depth", "png") else ".png" if kind == "png16" else f".{kind}"
    return f"{folder}_{endings.get(kind, kind)}/{stem}{suffix}"


def run(command: str, out: Path, *arguments: str | Path) -> int:
    """At the image's own resolution, from OPTIONS' seed. One thread: see test_cli.py."""
    shared = ["--threads", "1", "--processing-res", "0", "--seed", "3", "--quiet"]
    return cli.main([command, "-o", str(out), *shared, *map(str, arguments)])


def opened(checkpoint: str | Path) -> Any:
    pipe = mc.load(mc.default_checkpoint(checkpoint) if checkpoint in COMMANDS else checkpoint, num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def written(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def changed_checkpoint(command: str, folder: Path, **entries: Any) -> Path:
    """The shipped checkpoint with other entries in its model_index.json."""
    folder.mkdir()
    for path in mc.default_checkpoint(command).iterdir():
        if path.is_dir():
            (folder / path.name).symlink_to(path)
    index = json.loads((mc.default_checkpoint(command) / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **entries}))
    return folder
