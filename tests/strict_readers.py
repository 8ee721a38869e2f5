"""The rules of JSON and of safetensors once more, in Python: what the engine must accept, and nothing else."""

from __future__ import annotations

import json
import math
import struct
from typing import Any


def strict_json(raw: bytes) -> Any:
    """The same rules on top of Python's reader; ValueError where they are broken."""

    def check(value: Any, depth: int = 0) -> Any:
        if isinstance(value, str):
            value.encode()  # UnicodeEncodeError, a ValueError, for a lone surrogate
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("not finite")
        if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
            value = check(float(value)) if abs(value) < 2**1023 else check(math.inf)
        if isinstance(value, list | dict) and depth >= 64:
            raise ValueError("too deep")
        if isinstance(value, list):
            return [check(item, depth + 1) for item in value]
        if isinstance(value, dict):
            return {check(key): check(item, depth + 1) for key, item in value.items()}
        return value

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs) or any("\0" in key for key, _ in pairs):
            raise ValueError("duplicate key, or a key with a NUL")
        return dict(pairs)

    def refuse(word: str) -> Any:
        raise ValueError(word)

    return check(json.loads(raw.decode(), object_pairs_hook=unique, parse_constant=refuse))


def strict_safetensors(raw: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """The rules of the format once more, in Python; ValueError where they are broken."""
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4}
    sizes |= {"U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}

    def count(value: Any) -> int:
        if type(value) is not int or value < 0:
            raise ValueError(f"{value!r} is no count")
        return value

    if len(raw) < 8 or struct.unpack_from("<Q", raw)[0] > len(raw) - 8:
        raise ValueError("header")
    start = 8 + struct.unpack_from("<Q", raw)[0]
    header = strict_json(raw[8:start])
    if not isinstance(header, dict):
        raise ValueError("no object")
    metadata = header.pop("__metadata__", None)
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    ):
        raise ValueError("metadata")
    found: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    spans = []
    for key, entry in header.items():
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], map(count, entry["data_offsets"])
            size = sizes[dtype] * math.prod(map(count, shape))
        except (KeyError, TypeError) as error:
            raise ValueError("entry") from error
        if not isinstance(shape, list) or not isinstance(entry["data_offsets"], list) or len(shape) > 8:
            raise ValueError("lists")
        if not begin <= end <= len(raw) - start or end - begin != size:
            raise ValueError("offsets")
        spans.append((begin, end))
        found[key] = (dtype, tuple(shape), raw[start + begin : start + end])
    spans.sort()
    if [0, *(end for _, end in spans)] != [*(begin for begin, _ in spans), len(raw) - start]:
        raise ValueError("coverage")
    return found
