"""What prediction files are called: the names that prs-eth/Marigold's infer scripts write. Called by dataset.py.

"id", "rgb_id", "rgb_i_d" are for depth, "stem" for normals and intrinsic images: the folder is the image's. "beside",
of depth completion, is Marigold-DC's: as "stem", but without the folder that all images lie in.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from ..errors import DatasetError

# rgb_id: rgb_0001.png -> pred_0001; id: 0001.png -> pred_0001; rgb_i_d: rgb_cam_00_fr0000.png -> pred_cam_00_fr0000.
NAMINGS = ("id", "rgb_id", "rgb_i_d", "stem", "beside")


def prediction_name(image: str, naming: str, target: str | None = None, folder: str = "") -> str:
    """The path of the .npy of a prediction for the image at `image`, both relative. `target`: which of several maps.
    `folder`: which all images lie in."""
    path = PurePosixPath(image)
    if naming == "beside":
        path = path.relative_to(folder)
    parts = path.name.split("_")
    if naming in ("rgb_id", "rgb_i_d") and len(parts) < 2:
        raise DatasetError(f"{image}: the images of this data set are called rgb_NUMBER")
    name = {
        "id": "pred_" + path.name,
        "rgb_id": "pred_" + "".join(parts[1:2]),
        "rgb_i_d": "pred_" + "_".join(parts[1:]),
        "stem": path.name,
        "beside": path.name,
    }[naming]
    # Of "a.b.png" the last part goes, of "rgb_0001.png" too; a name of only a suffix keeps it.
    stem = PurePosixPath(name).stem
    return str(path.with_name(f"{stem}.npy" if target is None else f"{stem}_{target}.npy"))
