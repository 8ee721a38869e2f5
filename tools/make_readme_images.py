"""Writes docs/images/demo.jpg, the picture in README.md: photographs beside their depth by the shipped checkpoint.

Run from anywhere with marigold_c installed: python tools/make_readme_images.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import marigold_c as mc

ROOT = Path(__file__).resolve().parent.parent
ROWS = ("examples/photo.jpg", "tests/data/scene0.png")
OUTPUT = ROOT / "docs" / "images" / "demo.jpg"
WIDTH = 480
GAP = 8


def main() -> None:
    pipe = mc.load(mc.default_checkpoint("depth"))
    pairs = []
    for name in ROWS:
        image = Image.open(ROOT / name).convert("RGB")
        depth = pipe.image_processor.visualize_depth(pipe(image, generator=0).prediction)[0]
        size = (WIDTH, round(WIDTH * image.height / image.width))
        pairs.append([picture.resize(size, Image.Resampling.LANCZOS) for picture in (image, depth)])
    height = sum(left.height for left, _ in pairs) + GAP * (len(pairs) - 1)
    sheet = Image.new("RGB", (2 * WIDTH + GAP, height), "white")
    top = 0
    for left, right in pairs:
        sheet.paste(left, (0, top))
        sheet.paste(right, (WIDTH + GAP, top))
        top += left.height + GAP
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(OUTPUT, quality=88)
    print(OUTPUT)


if __name__ == "__main__":
    main()
