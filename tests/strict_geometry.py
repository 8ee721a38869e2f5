"""Readers of .ply and .glb by the letter of the formats, for files that the package writes."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Shape:
    """vertices (N, 3), colours (N, 3) as stored or None, triangles (M, 3) or None; the rest of a glTF document."""

    vertices: Any
    colours: Any
    triangles: Any
    document: dict[str, Any] | None = None


def strict_ply(data: bytes) -> Shape:
    """Binary little-endian PLY 1.0 of vertices, colours and triangles; ValueError for anything else."""
    head, mark, body = data.partition(b"end_header\n")
    lines = head.decode("ascii").splitlines()
    if not mark or lines[:2] != ["ply", "format binary_little_endian 1.0"]:
        raise ValueError("header")
    elements: list[tuple[str, int, list[str]]] = []
    for line in lines[2:]:
        words = line.split(" ")
        if words[0] == "element":
            elements.append((words[1], int(words[2]), []))
        elif words[0] == "property":
            elements[-1][2].append(" ".join(words[1:]))
        else:
            raise ValueError(line)
    name, count, properties = elements[0]
    positions = ["float x", "float y", "float z"]
    colours = ["uchar red", "uchar green", "uchar blue"]
    if name != "vertex" or properties not in (positions, positions + colours):
        raise ValueError("vertex")
    coloured = len(properties) == 6
    width = 15 if coloured else 12
    rows = np.frombuffer(body[: count * width], np.uint8).reshape(count, width)
    shape = Shape(rows[:, :12].copy().view("<f4"), rows[:, 12:] if coloured else None, None)
    rest = body[count * width :]
    if len(elements) > 1:
        name, count, properties = elements[1]
        if len(elements) > 2 or name != "face" or properties != ["list uchar uint vertex_indices"]:
            raise ValueError("face")
        faces = np.frombuffer(rest, np.uint8).reshape(count, 13)
        if not (faces[:, 0] == 3).all():
            raise ValueError("corners")
        shape.triangles, rest = faces[:, 1:].copy().view("<u4"), b""
    if rest:
        raise ValueError("trailing bytes")
    return shape


def _accessor(document: dict[str, Any], binary: bytes, index: int) -> Any:
    accessor = document["accessors"][index]
    view = document["bufferViews"][accessor["bufferView"]]
    kind = np.dtype({5126: "<f4", 5123: "<u2", 5125: "<u4"}[accessor["componentType"]])
    columns = {"VEC3": 3, "VEC4": 4, "SCALAR": 1}[accessor["type"]]
    start, length = view["byteOffset"], view["byteLength"]
    if view["buffer"] != 0 or start % 4 or (kind.itemsize * columns) % 4 or "byteStride" in view:
        raise ValueError("alignment")
    if start + length > len(binary) or length != accessor["count"] * columns * kind.itemsize:
        raise ValueError("length")
    return np.frombuffer(binary[start : start + length], kind).reshape(accessor["count"], columns)


def strict_glb(data: bytes) -> Shape:
    """Binary glTF 2.0 of one primitive; ValueError or KeyError where the rules are broken."""
    magic, version, total = struct.unpack_from("<4sII", data)
    if (magic, version, total) != (b"glTF", 2, len(data)) or total % 4:
        raise ValueError("header")
    size, kind = struct.unpack_from("<I4s", data, 12)
    if kind != b"JSON" or size % 4:
        raise ValueError("JSON chunk")
    document = json.loads(data[20 : 20 + size])
    length, kind = struct.unpack_from("<I4s", data, 20 + size)
    binary = data[28 + size :]
    if kind != b"BIN\0" or length != len(binary) or length % 4 or document["buffers"] != [{"byteLength": length}]:
        raise ValueError("binary chunk")
    if document["asset"]["version"] != "2.0" or document["scenes"][document["scene"]] != {"nodes": [0]}:
        raise ValueError("scene")
    ((primitive,),) = [mesh["primitives"] for mesh in document["meshes"]]
    vertices = _accessor(document, binary, primitive["attributes"]["POSITION"])
    stated = document["accessors"][primitive["attributes"]["POSITION"]]
    if stated["min"] != vertices.min(axis=0).tolist() or stated["max"] != vertices.max(axis=0).tolist():
        raise ValueError("bounds")
    shape = Shape(vertices, None, None, document)
    if "COLOR_0" in primitive["attributes"]:
        number = primitive["attributes"]["COLOR_0"]
        if document["accessors"][number].get("normalized") is not True:
            raise ValueError("colours")
        shape.colours = _accessor(document, binary, number)
        if len(shape.colours) != len(vertices) or not (shape.colours[:, 3] == 65535).all():
            raise ValueError("colours")
    if primitive["mode"] != (4 if "indices" in primitive else 0):
        raise ValueError("mode")
    if "indices" in primitive:
        shape.triangles = _accessor(document, binary, primitive["indices"]).reshape(-1, 3)
        if shape.triangles.max() >= len(vertices):
            raise ValueError("index")
    for material in document["materials"]:
        if not set(material.get("extensions", ())) <= set(document["extensionsUsed"]):
            raise ValueError("extension")
    return shape
