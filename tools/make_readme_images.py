"""Writes docs/images/demo.jpg, the picture in README.md: images beside what the shipped checkpoints make of them.

Run from anywhere with marigold_c installed: python tools/make_readme_images.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

import marigold_c as mc

ROOT = Path(__file__).resolve().parent.parent
ROWS = (
    "examples/photo.jpg",
    "marigold_c/app/examples/coffee.jpg",
    "marigold_c/app/examples/cat.jpg",
    "tests/data/scene0.png",
)
OUTPUT = ROOT / "docs" / "images" / "demo.jpg"
WIDTH = 320
GAP = 6


def opened(task: str) -> Any:
    pipe = mc.load(mc.default_checkpoint(task))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def views(image: Image.Image, pipes: dict[str, Any]) -> list[Image.Image]:
    """The image, its depth, its normals, its albedo and its shading."""
    outputs = {task: pipe(image, generator=0, ensemble_size=5).prediction for task, pipe in pipes.items()}
    show = pipes["depth"].image_processor
    targets = show.visualize_intrinsics(outputs["intrinsics"], pipes["intrinsics"].target_properties)[0]
    return [
        image,
        show.visualize_depth(outputs["depth"])[0],
        show.visualize_normals(outputs["normals"])[0],
        targets["albedo"],
        targets["shading"],
    ]


def main() -> None:
    pipes = {task: opened(task) for task in ("depth", "normals", "intrinsics")}
    rows = []
    for name in ROWS:
        image = Image.open(ROOT / name).convert("RGB")
        size = (WIDTH, round(WIDTH * image.height / image.width))
        rows.append([view.resize(size, Image.Resampling.LANCZOS) for view in views(image, pipes)])
    width = len(rows[0]) * (WIDTH + GAP) - GAP
    height = sum(row[0].height + GAP for row in rows) - GAP
    sheet = Image.new("RGB", (width, height), "white")
    top = 0
    for row in rows:
        for column, view in enumerate(row):
            sheet.paste(view, (column * (WIDTH + GAP), top))
        top += row[0].height + GAP
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(OUTPUT, quality=85)
    print(OUTPUT)


if __name__ == "__main__":
    main()
