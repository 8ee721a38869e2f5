"""Furniture of Sweet Home 3D's catalogues (.sh3f) with its true size. Calls wavefront.py, world.py.

Format: E. Puybaret, Sweet Home 3D: PluginFurnitureCatalog.properties, sizes in centimetres, models y up.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np

from .wavefront import read_obj
from .world import LevelError, Model, Part

CATALOGUE = "PluginFurnitureCatalog.properties"


def catalogue(path: Path) -> list[dict[str, str]]:
    """What a catalogue holds, but for doors and windows. LevelError: it is no catalogue."""
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(CATALOGUE).decode("latin1")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise LevelError(f"{path}: no catalogue of furniture: {error}") from None
    rows: dict[str, dict[str, str]] = {}
    for key, number, value in re.findall(r"(?m)^(\w+)#(\d+)=(.*?)\s*$", text):
        rows.setdefault(number, {})[key] = value
    return [row for row in rows.values() if "model" in row and row.get("doorOrWindow", "false") != "true"]


def read_furniture(path: Path, row: dict[str, str], side: int = 256) -> Model:
    """A model as large as the catalogue says, z up. LevelError: what it is damaged by."""
    with zipfile.ZipFile(path) as archive:
        model = read_obj(archive, row["model"].lstrip("/"), side)
    try:
        size = np.array([float(row[key]) for key in ("width", "depth", "height")]) / 100
    except (KeyError, ValueError):
        raise LevelError(f"{path}: {row['model']}: no size") from None
    low, high = model.box()
    factor = size / np.maximum(high - low, 1e-6)
    if not (size.min() > 0 and size.max() < 20 and factor.max() < 1e6):
        raise LevelError(f"{path}: {row['model']}: a size of {size} m")
    parts = []
    for part in model.parts:
        normals = part.normal / factor
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        points = (part.position * factor).astype(np.float32)
        parts.append(Part(part.texture, points, part.uv, normals.astype(np.float32), part.triangles, part.alpha_test))
    return Model(row.get("id", row["model"]).replace("/", "-"), parts, "furniture")
