"""The rooms of the package: which there are, on which floors they lie, who imports whom.

python tools/draw_imports.py [FOLDER] [--dot FILE]

A room is a folder of the package or a file at its root; an arrow runs from a room to one that it imports, wherever the
import stands (within functions and under TYPE_CHECKING as well). The floor of a room is the length of the longest chain
of arrows below it; rooms that need each other in a circle share a floor. --dot writes a drawing for Graphviz.
tests/test_imports.py reads the same arrows.
"""

from __future__ import annotations

import argparse
import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "marigold_c"
Arrows = dict[str, set[str]]


def module_of(path: Path, package: Path) -> str:
    """ "images.arrays" of images/arrays.py, "images" of images/__init__.py, "" of the package itself."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_in(package: Path) -> dict[str, Path]:
    """Files by the name of their module, the engine's stub (_C.pyi) included."""
    paths = [path for path in sorted(package.rglob("*")) if path.suffix in (".py", ".pyi")]
    return {module_of(path, package): path for path in paths}


def _imported(node: ast.AST, module: str, is_package: bool, name: str) -> Iterator[tuple[str, str]]:
    """(module, symbol) of each name that an import statement takes from the package; symbol "" of a whole module."""
    if isinstance(node, ast.Import):
        for one in node.names:
            if one.name == name or one.name.startswith(f"{name}."):
                yield one.name[len(name) + 1 :], ""
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            above = module.split(".") if module else []
            above = above if is_package else above[:-1]
            base = above[: len(above) - node.level + 1]
        elif node.module and node.module.split(".")[0] == name:
            base = node.module.split(".")[1:]
            yield from ((".".join(base), one.name) for one in node.names)
            return
        else:
            return
        base = [*base, *(node.module.split(".") if node.module else [])]
        yield from ((".".join(base), one.name) for one in node.names)


def read_arrows(package: Path = PACKAGE) -> Arrows:
    """By module, the modules of the package that it imports. `from . import x` means x where that is a module."""
    modules = modules_in(package)
    arrows: Arrows = {}
    for module, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = set()
        for node in ast.walk(tree):
            for target, symbol in _imported(node, module, path.stem == "__init__", package.name):
                whole = f"{target}.{symbol}" if target else symbol
                found.add(whole if whole in modules else target)
        arrows[module] = found - {module}
    return arrows


def room_of(module: str) -> str:
    return module.split(".")[0] or "__init__"


def room_arrows(arrows: Mapping[str, set[str]]) -> Arrows:
    rooms: Arrows = defaultdict(set)
    for module, targets in arrows.items():
        rooms[room_of(module)] |= {room_of(target) for target in targets} - {room_of(module)}
    return dict(rooms)


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of two and more that reach each other (strongly connected components: Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for target in sorted(arrows.get(node, ())):
            if target not in number:
                visit(target)
                lowest[node] = min(lowest[node], lowest[target])
            elif target in stack:
                lowest[node] = min(lowest[node], number[target])
        if lowest[node] == number[node]:
            group = [*stack[stack.index(node) :]]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(arrows):
        if node not in number:
            visit(node)
    return found


def floors(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """The rooms from the lowest floor up."""
    group = {room: frozenset({room}) for room in arrows}
    for circle in circles(arrows):
        group |= dict.fromkeys(circle, frozenset(circle))
    heights: dict[frozenset[str], int] = {}

    def height(one: frozenset[str]) -> int:
        if one not in heights:
            below = {group[target] for room in one for target in arrows[room]} - {one}
            heights[one] = 1 + max((height(other) for other in below), default=-1)
        return heights[one]

    levels: dict[int, list[str]] = defaultdict(list)
    for room in sorted(arrows):
        levels[height(group[room])].append(room)
    return [levels[level] for level in sorted(levels)]


def drawing(arrows: Mapping[str, set[str]]) -> str:
    """For `dot -Tsvg`."""
    lines = ["digraph rooms {", "  rankdir=TB; node [shape=box, fontname=sans];"]
    for level in floors(arrows):
        lines.append("  { rank=same; " + " ".join(f'"{room}";' for room in level) + " }")
    lines += [f'  "{room}" -> "{target}";' for room in sorted(arrows) for target in sorted(arrows[room])]
    return "\n".join([*lines, "}", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="Rooms, floors and arrows of the package.")
    parser.add_argument("package", nargs="?", type=Path, default=PACKAGE, metavar="FOLDER", help="default: marigold_c")
    parser.add_argument("--dot", type=Path, metavar="FILE", help="write a drawing for Graphviz")
    args = parser.parse_args()
    modules = read_arrows(args.package.resolve())
    rooms = room_arrows(modules)
    levels = floors(rooms)
    for height, level in reversed([*enumerate(levels)]):
        print(f"{height:3d}  {'  '.join(level)}")
    arrows = sum(len(targets) for targets in rooms.values())
    print(f"{len(rooms)} rooms on {len(levels)} floors, {arrows} arrows; {len(modules)} files")
    for title, found in (("rooms", circles(rooms)), ("files", circles(modules))):
        for circle in found:
            print(f"circle of {title}: {', '.join(circle)}")
    if args.dot is not None:
        args.dot.write_text(drawing(rooms), encoding="utf-8")


if __name__ == "__main__":
    main()
