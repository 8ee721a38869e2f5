"""Point clouds and meshes as .ply, .glb and .stl. Called by the commands, inside atomic_files.write_atomically.

They are written here, in few lines, because colours differ: a PLY has sRGB bytes, a glTF linear light, and a photograph
in a glTF must be shown unlit, which general mesh libraries do not write.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..atomic_files import write_atomically
from .point_clouds import Geometry
from .tone_mapping import linear_from_srgb

_LARGEST_GLB = 2**32 - 1
_FLOAT, _UNSIGNED_SHORT, _UNSIGNED_INT = 5126, 5123, 5125  # component types of glTF
_VERTICES, _INDICES = 34962, 34963  # targets of buffer views
_POINTS, _TRIANGLES = 0, 4  # modes of primitives


def _check(geometry: Geometry) -> None:
    vertices, colours, triangles = geometry.vertices, geometry.colours, geometry.triangles
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not len(vertices):
        raise ValueError(f"vertices have shape {vertices.shape}; expected (N, 3) with N at least 1")
    if not np.isfinite(vertices).all():
        raise ValueError("vertices are not finite")
    if colours is not None and (colours.shape != vertices.shape or colours.dtype != np.uint8):
        raise ValueError(f"colours are {colours.dtype} {colours.shape}; expected uint8 {vertices.shape}")
    if triangles is None:
        return
    if triangles.ndim != 2 or triangles.shape[1] != 3 or not len(triangles):
        raise ValueError(f"triangles have shape {triangles.shape}; expected (M, 3) with M at least 1")
    if triangles.max() >= len(vertices):
        raise ValueError(f"a triangle has corner {triangles.max()} of {len(vertices)} vertices")


def write_ply(file: BinaryIO, geometry: Geometry) -> None:
    """Binary little-endian PLY 1.0: x y z as float, red green blue as uchar, faces as uint. ValueError: bad arrays."""
    _check(geometry)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(geometry.vertices)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    fields: list[tuple[str, str, int]] = [("position", "<f4", 3)]
    if geometry.colours is not None:
        header += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
        fields.append(("colour", "u1", 3))
    rows = np.empty(len(geometry.vertices), np.dtype([(name, kind, (count,)) for name, kind, count in fields]))
    rows["position"] = geometry.vertices
    if geometry.colours is not None:
        rows["colour"] = geometry.colours
    if geometry.triangles is not None:
        header += [f"element face {len(geometry.triangles)}", "property list uchar uint vertex_indices"]
    file.write(("\n".join([*header, "end_header"]) + "\n").encode("ascii"))
    file.write(rows.tobytes())
    if geometry.triangles is not None:
        faces = np.empty(len(geometry.triangles), np.dtype([("count", "u1"), ("corners", "<u4", (3,))]))
        faces["count"] = 3
        faces["corners"] = geometry.triangles
        file.write(faces.tobytes())


def _linear_rgba(colours: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """sRGB bytes as the linear light that glTF wants, of 16 bits so that dark tones stay apart; opaque."""
    levels = np.linspace(0, 1, 256, dtype=np.float32)
    table = np.rint(linear_from_srgb(levels) * 65535).astype(np.uint16)
    return np.concatenate([table[colours], np.full((len(colours), 1), 65535, np.uint16)], axis=1)


def _buffers(geometry: Geometry) -> tuple[list[bytes], dict[str, Any]]:
    """The buffer views' contents, and the parts of the glTF that describe them."""
    vertices = geometry.vertices.astype("<f4")
    contents = [vertices.tobytes()]
    position = {"componentType": _FLOAT, "count": len(vertices), "type": "VEC3"}
    accessors: list[dict[str, Any]] = [
        position | {"min": vertices.min(axis=0).tolist(), "max": vertices.max(axis=0).tolist()}
    ]
    primitive: dict[str, Any] = {"attributes": {"POSITION": 0}, "mode": _POINTS, "material": 0}
    if geometry.colours is not None:
        primitive["attributes"]["COLOR_0"] = len(contents)
        contents.append(_linear_rgba(geometry.colours).astype("<u2").tobytes())
        accessors.append({"componentType": _UNSIGNED_SHORT, "normalized": True, "count": len(vertices), "type": "VEC4"})
    targets = [_VERTICES] * len(contents)
    if geometry.triangles is not None:
        primitive |= {"indices": len(contents), "mode": _TRIANGLES}
        contents.append(geometry.triangles.astype("<u4").tobytes())
        accessors.append({"componentType": _UNSIGNED_INT, "count": geometry.triangles.size, "type": "SCALAR"})
        targets.append(_INDICES)
    ends = np.cumsum([0, *(len(content) for content in contents)]).tolist()
    views = [
        {"buffer": 0, "byteOffset": start, "byteLength": len(content), "target": target}
        for start, content, target in zip(ends, contents, targets, strict=False)
    ]
    accessors = [{"bufferView": index} | accessor for index, accessor in enumerate(accessors)]
    described = {
        "buffers": [{"byteLength": ends[-1]}],
        "bufferViews": views,
        "accessors": accessors,
        "meshes": [{"primitives": [primitive]}],
    }
    return contents, described


def write_glb(file: BinaryIO, geometry: Geometry) -> None:
    """Binary glTF 2.0 of one mesh or point cloud with vertex colours, unlit and seen from both sides.

    ValueError: bad arrays; more than the 4 GiB that the format can hold.
    """
    _check(geometry)
    contents, described = _buffers(geometry)
    document = {
        "asset": {"version": "2.0", "generator": "marigold-c"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        # Without the extension a viewer lights it: then it should look dull, not like polished metal.
        "materials": [
            {
                "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
                "doubleSided": True,
                "extensions": {"KHR_materials_unlit": {}},
            }
        ],
        **described,
    }
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
    text += b" " * (-len(text) % 4)
    size = sum(len(content) for content in contents)  # every one is a multiple of 4
    total = 12 + 8 + len(text) + 8 + size
    if total > _LARGEST_GLB:
        raise ValueError(f"the GLB would have {total} bytes, the format ends at {_LARGEST_GLB}; raise the stride")
    file.write(struct.pack("<4sII", b"glTF", 2, total))
    file.write(struct.pack("<I4s", len(text), b"JSON") + text)
    file.write(struct.pack("<I4s", size, b"BIN\0"))
    for content in contents:
        file.write(content)


def write_stl(file: BinaryIO, geometry: Geometry) -> None:
    """Binary STL: triangles and their normals, without colours. ValueError: bad arrays, points without triangles."""
    _check(geometry)
    if geometry.triangles is None:
        raise ValueError(f"an STL file holds triangles; these are {len(geometry.vertices)} points without any")
    corners = geometry.vertices.astype(np.float64)[geometry.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    rows = np.zeros(len(corners), np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]))
    rows["normal"] = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    rows["corners"] = corners
    file.write(b"marigold-c".ljust(80, b"\0") + struct.pack("<I", len(rows)))  # must not begin with "solid"
    file.write(rows.tobytes())


GEOMETRY_FORMATS: dict[str, Callable[[BinaryIO, Geometry], None]] = {
    "ply": write_ply,
    "glb": write_glb,
    "stl": write_stl,
}


def write_geometry(path: str | PathLike[str], geometry: Geometry) -> None:
    """Writes points or a mesh into a file, whole or not at all.

    Args:
        path: Its ending says the format: .ply, .glb or .stl.
        geometry: Of depth_to_points, depth_to_mesh or depth_to_relief.

    Raises:
        ValueError: Another ending; points without triangles as .stl.
        OSError: The file cannot be written.
    """
    path = Path(path)
    write = GEOMETRY_FORMATS.get(path.suffix.lower().removeprefix("."))
    if write is None:
        raise ValueError(f"{path}: choose an ending from {', '.join(GEOMETRY_FORMATS)}")
    write_atomically(path, lambda file: write(file, geometry))
