"""The generic layout of training data: a folder of pictures and one for each label, files of a sample with one name.

Called by generator.py; described for people in docs/training_data.md. marigold_c.datasets reads it as own data
(folder_depth and its sisters), for evaluation and for training.

    DIR/rgb/00000042.png           uint8 (H, W, 3)
    DIR/depth/00000042.npy         float32 (H, W), metres; 0: not known
    DIR/normals/00000042.npy       float16 (H, W, 3); the zero vector: not known
    DIR/albedo/00000042.npy ...    float16 (H, W, 3)
    DIR/metadata/00000042.json
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...atomic_files import write_atomically

PICTURES, METADATA = "rgb", "metadata"
# Labels by the name of their folder, and whether single precision is kept; what the others lose in half precision is
# far below the noise of a rendering. material: roughness, metallicity, 0.
LABELS: Mapping[str, bool] = {
    "depth": True,
    "distance": True,
    "normals": False,
    "albedo": False,
    "base_color": False,
    "shading": False,
    "residual": False,
    "material": False,
    "linear": False,
}
DEFAULT_LABELS = tuple(name for name in LABELS if name not in ("distance", "linear"))
_LARGEST_HALF = float(np.finfo(np.float16).max)


def sample_name(index: int) -> str:
    return f"{index:08d}"


def picture_path(root: Path, name: str) -> Path:
    return root / PICTURES / f"{name}.png"


def is_complete(root: Path, name: str) -> bool:
    """Whether the sample is there: pictures are written last."""
    return picture_path(root, name).is_file()


def stored(label: str, values: NDArray[Any]) -> NDArray[Any]:
    """A label in the type that its file has."""
    if LABELS[label]:
        return values.astype(np.float32)
    halved: NDArray[np.float16] = np.clip(values, -_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)
    return halved


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def write_sample(
    root: Path, name: str, picture: NDArray[np.uint8], labels: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
) -> None:
    """The sample is there once its picture is, which comes last and whole."""
    for label, values in labels.items():
        _write(root / label / f"{name}.npy", partial(np.save, arr=stored(label, values)))
    text = (json.dumps(metadata, indent=1) + "\n").encode()
    _write(root / METADATA / f"{name}.json", lambda file: file.write(text))
    _write(picture_path(root, name), lambda file: Image.fromarray(picture).save(file, format="PNG"))
