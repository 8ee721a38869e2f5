"""Small data sets by folders, one for each task, and the commands infer and eval on them, for the tests of both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from marigold_c.commands import cli

TARGETS = ("albedo", "shading", "residual")  # of the shipped checkpoint
SIZE = (24, 40)


def scene(seed: int, size: tuple[int, int] = SIZE) -> dict[str, NDArray[Any]]:
    """A picture and truths that have nothing to do with it, but valid ranges and some invalid pixels."""
    random = np.random.default_rng(seed)
    height, width = size
    normal = random.standard_normal((height, width, 3)).astype(np.float32)
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    normal[: 1 + seed % 3, :5] = 0
    depth = random.uniform(0.5, 8, (height, width)).astype(np.float32)
    depth[-1, seed % width :] = 0
    return {
        "rgb": random.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "depth": depth,
        "normal": normal,
        **{name: random.uniform(0, 1, (height, width, 3)).astype(np.float32) for name in TARGETS},
    }


def write_sets(base: Path, count: int = 4, size: tuple[int, int] = SIZE) -> None:
    """BASE/set with images in two folders, and BASE/depth.yaml, normals.yaml, iid.yaml."""
    root = base / "set"
    for number in range(count):
        data = scene(number, size)
        name = f"room{number % 2}/{number:03d}"
        for folder in ("rgb", "depth", "normal", *TARGETS):
            path = root / folder / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            if folder == "rgb":
                Image.fromarray(data["rgb"]).save(path.with_suffix(".png"))
            else:
                np.save(path, data[folder])
    shared = {"dir": "set", "images": "rgb"}
    write_config(
        base / "depth.yaml", name="folder_depth", disp_name="small depth", truth="depth", max_depth=10.0, **shared
    )
    write_config(base / "normals.yaml", name="folder_normals", disp_name="small normals", truth="normal", **shared)
    truth = {name: name for name in TARGETS}
    write_config(base / "iid.yaml", name="folder_iid", disp_name="small intrinsics", truth=truth, **shared)


def write_config(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(keys))  # JSON is YAML


def arguments(command: str, task: str, base: Path, *more: str | Path) -> list[str]:
    # One thread: waiting for a second costs more than it gives on images this small when the machine is shared.
    shared = [command, task, "--dataset-config", base / f"{task}.yaml", "--base-data-dir", base, "--threads", "1"]
    return [str(one) for one in (*shared, *more)]


def infer(task: str, base: Path, out: Path, *more: str | Path) -> int:
    options = ["--processing-res", "0", *([] if "--preset" in more else ["--denoise-steps", "1"])]
    seed = [] if {"--seed", "--preset", "--noise"} & set(more) else ["--seed", "5"]
    return cli.main(arguments("infer", task, base, "-o", out, *options, *seed, *more))


def evaluate(task: str, base: Path, predictions: Path, *more: str | Path) -> int:
    return cli.main(arguments("eval", task, base, "--predictions", predictions, *more))


def started(command: str, task: str, base: Path, *more: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    words = arguments(command, task, base, *more)
    return subprocess.Popen([sys.executable, "-m", "marigold_c", *words], **options)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
