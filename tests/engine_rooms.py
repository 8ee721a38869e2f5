"""The rooms of csrc, bottom first, and what each may know: which headers (test_includes.py), which functions
(test_objects.py)."""

from __future__ import annotations

from pathlib import Path

CSRC = Path(__file__).resolve().parent.parent / "csrc"

# A room may include its own headers and those that are listed; single files widen a row.
INCLUDES = {
    "include": ("include",),
    "core": ("core", "include"),
    "op": ("op", "core", "include"),
    "image": ("image", "core", "include"),
    "io": ("io", "core", "include"),
    "backend": ("backend", "op", "core", "include"),
    "graph": ("graph", "op", "io", "core", "include", "backend/backend.h"),
    "nn": ("nn", "graph", "io", "core", "include"),
    "schedule": ("schedule", "io", "core", "include"),
    "ensemble": ("ensemble", "core", "include"),
    "evaluation": ("evaluation", "core", "include"),
    "pipeline": ("pipeline", "schedule", "nn", "graph", "io", "image", "core", "include", "backend/backend.h"),
    "completion": ("completion", "pipeline", "schedule", "nn", "graph", "io", "core", "include", "backend/backend.h"),
    "video": ("video", "pipeline", "schedule", "nn", "graph", "io", "core", "include", "backend/backend.h"),
    "train": ("train", "pipeline", "schedule", "nn", "graph", "io", "core", "include", "backend/backend.h"),
    "py": ("py", "include"),
}

# What a room calls beside that, by the public header.
CALLS = {
    "ensemble": ("image",),
    "pipeline": ("ensemble",),
    "completion": ("image", "ensemble"),
    "video": ("image", "ensemble"),
    "train": ("image",),
    "py": (
        "core",
        "image",
        "backend",
        "schedule",
        "ensemble",
        "evaluation",
        "pipeline",
        "completion",
        "video",
        "train",
    ),
}


def room_of(path: Path) -> str:
    """The room of a file of csrc."""
    return path.relative_to(CSRC).parts[0]


def rooms_called_by(room: str) -> set[str]:
    """The other rooms whose functions a room may call."""
    included = {name.split("/")[0] for name in INCLUDES[room]}
    return (included | set(CALLS.get(room, ()))) - {room, "include"}
