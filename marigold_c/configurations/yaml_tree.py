"""YAML files as trees that know where each value was written, merged over their base files.

Called by the configurations of training and of data sets; models.py says whether their values fit. A configuration is a
mapping; `base_config` lists files that it is merged over: mappings merge key by key, everything else is replaced, later
files win.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ..extras import optional_module

BASE_KEY = "base_config"
_DEEPEST = 32  # of nested values, and of files that are based on each other
_LARGEST_FILE = 2**20
_MOST_VALUES = 100_000
# YAML 1.1 takes 8e-05 for a text because it has no dot; everybody means the number.
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")

_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class ConfigError(ValueError):
    """A configuration has an unknown key, or a value that does not fit; the message names file, key and value."""


@dataclass(frozen=True)
class Value:
    """What stands at one place of a file. content: a scalar, a list of Value, or a dict of Value by key. line None: of
    a mapping that was in no file."""

    content: Any
    file: Path
    line: int | None

    def fail(self, key: str, reason: str) -> ConfigError:
        where = f"{self.file}" if self.line is None else f"{self.file}, line {self.line}"
        return ConfigError(f"{where}: {key}: {reason}" if key else f"{where}: {reason}")

    def _below(self, path: str) -> Iterator[Value]:
        """What stands along a path of keys and positions, "val[0].dir", as far as it is written; first this."""
        place = self
        yield place
        for part in re.findall(r"[^.\[\]]+", path):
            content = place.content
            key = int(part) if isinstance(content, list) else part
            if not isinstance(content, dict | list) or (key not in content if isinstance(content, dict) else False):
                return
            place = content[key]
            yield place

    def find(self, path: str) -> Value:
        """What stands at a path; where a part of it is not written, what stands above."""
        return [*self._below(path)][-1]

    def written(self, path: str) -> bool:
        """Whether there is a value that is not null at a path of keys."""
        places = [*self._below(path)]
        return len(places) == len(path.split(".")) + 1 and places[-1].content is not None

    def refuse(self, path: str, reason: str) -> ConfigError:
        """An error at the place of a path."""
        return self.find(path).fail(path, reason)


def find_beside(name: str, file: Path, *, folder: bool = False) -> Path | None:
    """A file (or folder) named in the configuration `file`: in the nearest folder at or above that one, or where the
    command runs. prs-eth's configurations name files from the root of the repository that they lie in."""
    given = Path(name).expanduser()
    places = [given] if given.is_absolute() else [above / given for above in file.absolute().parents] + [given]
    return next((place for place in places if (place.is_dir() if folder else place.is_file())), None)


def _tree(node: Any, loader: Any, file: Path, depth: int, seen: Iterator[int]) -> Value:
    """seen: counts the values. A few aliases of aliases stand for more of them than there are atoms."""
    yaml = optional_module("yaml", "reading YAML")
    line = node.start_mark.line + 1
    if next(seen) >= _MOST_VALUES:
        raise ConfigError(f"{file}, line {line}: more than {_MOST_VALUES} values")
    if depth > _DEEPEST:
        raise ConfigError(f"{file}, line {line}: nested more than {_DEEPEST} levels deep")
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
        raise ConfigError(f"{file}, line {line}: not valid YAML: the tag {node.tag}")
    content: Any
    if isinstance(node, yaml.MappingNode):
        content = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node, deep=True))
            if key in content:
                raise ConfigError(f"{file}, line {key_node.start_mark.line + 1}: the key {key} is there twice")
            content[key] = _tree(value_node, loader, file, depth + 1, seen)
    elif isinstance(node, yaml.SequenceNode):
        content = [_tree(item, loader, file, depth + 1, seen) for item in node.value]
    elif node.style is None and _NUMBER.fullmatch(node.value) and isinstance(loader.construct_object(node), str):
        content = float(node.value)
    else:
        content = loader.construct_object(node, deep=True)
    return Value(content, file, line)


def _tree_of(loader: Any, file: Path) -> Value:
    try:
        node = loader.get_single_node()
        return Value({}, file, 1) if node is None else _tree(node, loader, file, 0, count())
    finally:
        loader.dispose()


def _parse(file: Path) -> Value:
    yaml = optional_module("yaml", "reading YAML")
    try:
        size = file.stat().st_size
        text = file.read_text(encoding="utf-8") if size <= _LARGEST_FILE else ""
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8: {error}") from error
    if size > _LARGEST_FILE:
        raise ConfigError(f"{file}: has {size} bytes, more than the {_LARGEST_FILE} of a configuration")
    try:
        tree = _tree_of(yaml.SafeLoader(text), file)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree.content, dict):
        raise tree.fail("", f"expected keys and values, found {type(tree.content).__name__}")
    return tree


def _merge(below: Value, above: Value) -> Value:
    if not isinstance(below.content, dict) or not isinstance(above.content, dict):
        return above
    merged = dict(below.content)
    for key, value in above.content.items():
        merged[key] = _merge(merged[key], value) if key in merged else value
    return Value(merged, above.file, above.line)


def load_tree(file: Path, _open: tuple[Path, ...] = ()) -> Value:
    """The mapping in a YAML file, merged over the files of its `base_config`. ConfigError, or OSError for the file."""
    if file.resolve() in _open or len(_open) > _DEEPEST:
        raise ConfigError(f"{file}: is its own {BASE_KEY}: {' -> '.join(str(one) for one in (*_open, file.resolve()))}")
    tree = _parse(file)
    bases = tree.content.pop(BASE_KEY, None)
    merged = Value({}, file, 1)
    if bases is not None and bases.content is not None:
        if not isinstance(bases.content, list) or not all(isinstance(base.content, str) for base in bases.content):
            raise bases.fail(BASE_KEY, "expected a list of files")
        for base in bases.content:
            found = find_beside(base.content, file)
            if found is None:
                raise base.fail(BASE_KEY, f"no file {base.content} in {file.absolute().parent} or a folder above it")
            merged = _merge(merged, load_tree(found, (*_open, file.resolve())))
    return _merge(merged, tree)


def tree_of(values: Any, origin: Path) -> Value:
    """The tree of a mapping that is in no file; messages name `origin`."""
    if isinstance(values, Mapping):
        values = {str(key): tree_of(value, origin) for key, value in values.items()}
    elif isinstance(values, list | tuple):
        values = [tree_of(value, origin) for value in values]
    return Value(values, origin, None)


def plain(value: Value) -> Any:
    """The tree as ordinary dictionaries, lists and scalars."""
    if isinstance(value.content, dict):
        return {key: plain(item) for key, item in value.content.items()}
    if isinstance(value.content, list):
        return [plain(item) for item in value.content]
    return value.content
