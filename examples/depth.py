"""Depth of one photograph, as an array and as a picture.

    python examples/depth.py [PHOTO] [CHECKPOINT]

CHECKPOINT: a folder in diffusers layout or a hub id such as prs-eth/marigold-depth-v1-1; default: the small one that
comes with the package, a demonstration.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

import marigold_c as mc


def main() -> None:
    given = dict(enumerate(sys.argv))
    photo = Path(given.get(1, Path(__file__).with_name("photo.jpg")))
    pipe = mc.load(given.get(2, mc.default_checkpoint("depth")))
    out = pipe(Image.open(photo), generator=mc.Generator(0))

    depth = out.prediction[0, :, :, 0]  # float32 (H, W): 0 is near, 1 is far
    rows, columns = depth.shape
    print(f"{photo.name}: {columns}x{rows} pixels, depth {depth[rows // 2, columns // 2]:.2f} in the centre")

    picture = Path(f"{photo.stem}_depth.png")
    pipe.image_processor.visualize_depth(out.prediction)[0].save(picture)
    print(f"coloured depth: {picture.resolve()}")


if __name__ == "__main__":
    main()
