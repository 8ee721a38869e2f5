"""Which file of csrc needs which, read from the built objects: no two need each other, directly or around a corner, and
a room calls only those below it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from engine_rooms import CSRC, INCLUDES, room_of, rooms_called_by

ROOT = CSRC.parent
SOURCES = sorted(CSRC.rglob("*.c"))

Needs = dict[str, dict[str, set[str]]]  # file -> file that it needs -> for which symbols


def objects_in(folder: Path) -> dict[str, Path]:
    """Source file in csrc -> object, of those that are newer than their source."""
    pairs = {path: (folder / path.relative_to(ROOT)).with_suffix(".o") for path in SOURCES}
    return {
        path.relative_to(CSRC).as_posix(): built
        for path, built in pairs.items()
        if built.is_file() and built.stat().st_mtime >= path.stat().st_mtime
    }


def symbols_of(objects: Mapping[str, Path]) -> dict[str, tuple[set[str], set[str]]]:
    """Of each of two or more: those defined for other files, and those wanted of other files."""
    # One process for all: two hundred take seconds. A heading "OBJECT:" stands above what is listed of each.
    command = ["nm", "-P", "-g", *map(str, objects.values())]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, tuple[set[str], set[str]]] = {name: (set(), set()) for name in objects}
    headings = {f"{built}:": name for name, built in objects.items()}
    for line in listed.splitlines():
        if line in headings:
            defined, wanted = found[headings[line]]
        elif line:
            symbol, kind = line.split()[:2]
            (wanted if kind == "U" else defined).add(symbol)
    return found


def needs_of(objects: Mapping[str, Path]) -> Needs:
    symbols = symbols_of(objects)
    home = {symbol: name for name, (defined, _) in symbols.items() for symbol in defined}
    needs: Needs = {name: {} for name in objects}
    for name, (_, wanted) in symbols.items():
        for symbol in wanted:
            if home.get(symbol, name) != name:
                needs[name].setdefault(home[symbol], set()).add(symbol)
    return needs


def reached_from(start: str, needs: Needs) -> set[str]:
    found: set[str] = set()
    left = list(needs[start])
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += needs[name]
    return found


def circles_of(needs: Needs) -> list[set[str]]:
    """The largest sets of files of which each needs every other, itself included."""
    reached = {name: reached_from(name, needs) for name in needs}
    circles = [{other for other in reached[name] if name in reached[other]} for name in needs if name in reached[name]]
    return [circle for i, circle in enumerate(circles) if circle not in circles[:i]]


def arrows_within(circle: set[str], needs: Needs) -> Iterator[str]:
    for name in sorted(circle):
        for other in sorted(circle & set(needs[name])):
            yield f"{name} needs {', '.join(sorted(needs[name][other]))} of {other}"


@pytest.fixture(scope="module")
def needs(tmp_path_factory: pytest.TempPathFactory) -> Needs:
    """Of the objects of the editable install; of a build of its own if that was made elsewhere, or of other sources."""
    objects = objects_in(ROOT / "build" / "objects")
    if len(objects) < len(SOURCES):
        folder = tmp_path_factory.mktemp("build")
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-temp", str(folder / "objects")]
        quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([*command, "--build-lib", str(folder / "lib")], cwd=ROOT, env=quiet, check=True)
        objects = objects_in(folder / "objects")
    assert len(objects) == len(SOURCES)
    return needs_of(objects)


def test_no_two_files_need_each_other(needs: Needs) -> None:
    circles = circles_of(needs)
    assert not circles, "\n".join(line for circle in circles for line in arrows_within(circle, needs))


@pytest.mark.parametrize("room", [room for room in INCLUDES if room != "include"])
def test_a_room_calls_only_those_below_it(room: str, needs: Needs) -> None:
    order = list(INCLUDES)
    assert all(order.index(other) < order.index(room) for other in rooms_called_by(room))
    against = [
        f"{name} needs {', '.join(sorted(symbols))} of {other}"
        for name, others in needs.items()
        if room_of(CSRC / name) == room
        for other, symbols in others.items()
        if room_of(CSRC / other) not in {room, *rooms_called_by(room)}
    ]
    assert not against, "\n".join(against)


def compiled(folder: Path, texts: Mapping[str, str]) -> dict[str, Path]:
    objects = {}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
        objects[name] = folder / f"{name}.o"
        subprocess.run([os.environ.get("CC", "cc"), "-c", str(folder / name), "-o", str(objects[name])], check=True)
    return objects


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ({"a": "b", "b": "a", "c": "a"}, [{"a.c", "b.c"}]),
        ({"a": "b", "b": "c", "c": "a"}, [{"a.c", "b.c", "c.c"}]),
        ({"a": "b", "b": "c", "c": ""}, []),
        ({"a": "a", "b": "", "c": "b"}, []),
    ],
    ids=["two", "around a corner", "none", "itself"],
)
def test_circles_are_found(calls: dict[str, str], expected: list[set[str]], tmp_path: Path) -> None:
    def body(called: Iterable[str]) -> str:
        return "".join(f"void {name}(void); {name}();" if name else "" for name in called)

    texts = {f"{name}.c": f"void {name}(void) {{ {body([called])} }}" for name, called in calls.items()}
    assert circles_of(needs_of(compiled(tmp_path, texts))) == expected
