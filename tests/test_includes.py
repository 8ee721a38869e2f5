"""The arrows of ARCHITECTURE.md: which room of csrc may include which, and what keeps out of the engine."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from engine_rooms import CSRC, INCLUDES, room_of

SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in (".c", ".h", ".def", ".cu", ".cuh"))

PYTHON_HEADERS = re.compile(r"^(Python\.h|structmember\.h|numpy/.*|pythread\.h)$")
FORBIDDEN_CALLS = re.compile(r"(?<![\w.>])(exit|_exit|abort|printf|fprintf|puts|perror|alloca)\s*\(")
INCLUDE = re.compile(r'^\s*#\s*include\s*(<([^>]+)>|"([^"]+)")', re.MULTILINE)
COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.DOTALL)


def includes_of(path: Path) -> list[tuple[str, bool]]:
    """(name, whether it is a file of the project), names of project files relative to csrc."""
    found = []
    for match in INCLUDE.finditer(path.read_text(encoding="utf-8")):
        system, own = match.group(2), match.group(3)
        found.append(((path.parent / own).resolve().relative_to(CSRC).as_posix(), True) if own else (system, False))
    return found


def identify(path: Path) -> str:
    return path.relative_to(CSRC).as_posix()


def test_every_room_has_its_row() -> None:
    assert SOURCES
    assert {room_of(path) for path in SOURCES} <= set(INCLUDES)


def faults(of: Callable[[Path], list[str]]) -> dict[str, list[str]]:
    """What a rule finds, by file: all files are one test, since 330 for each rule cost more than what they look at."""
    return {f"csrc/{identify(path)}": found for path in SOURCES if (found := of(path))}


def test_includes_follow_the_arrows() -> None:
    def against(path: Path) -> list[str]:
        allowed = INCLUDES[room_of(path)]
        own = [name for name, is_own in includes_of(path) if is_own]
        missing = [f"{name} does not exist" for name in own if not (CSRC / name).is_file()]
        return missing + [
            f"{name}; allowed: {', '.join(allowed)}"
            for name in own
            if name not in allowed and name.split("/")[0] not in allowed
        ]

    assert faults(against) == {}


def test_python_stays_in_the_binding() -> None:
    def headers(path: Path) -> list[str]:
        return [name for name, _ in includes_of(path) if PYTHON_HEADERS.match(name) and room_of(path) != "py"]

    assert faults(headers) == {}


def test_threads_are_used_where_work_is_shared_out() -> None:
    """A loop on several threads is a driver's, an ensemble's or an evaluation's; threads themselves are the pool's."""
    sharers = ("backend/cpu/ops/", "backend/pack_weight.c", "ensemble/", "evaluation/", "core/thread_pool")

    def threads(path: Path) -> list[str]:
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"omp\.h|#\s*pragma\s+omp", text)
        if not identify(path).startswith(sharers):
            found += [name for name, is_own in includes_of(path) if is_own and name == "core/thread_pool.h"]
        if identify(path) != "core/thread_pool.c":
            found += re.findall(r"pthread_create|thrd_create", text)
        return found

    assert faults(threads) == {}


def test_the_engine_neither_prints_nor_exits() -> None:
    def calls(path: Path) -> list[str]:
        return FORBIDDEN_CALLS.findall(COMMENT_OR_STRING.sub(" ", path.read_text(encoding="utf-8")))

    assert faults(calls) == {}
