"""YAML files as trees that know where each value was written, merged over their base files, and read key by key.

Called by config.py, which says what keys there are. A configuration is a mapping; `base_config` lists files that it is
merged over: mappings merge key by key, everything else is replaced, later files win.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from ..extras import optional_module

BASE_KEY = "base_config"
_DEEPEST = 32  # of nested values, and of files that are based on each other
_LARGEST_FILE = 2**20
# YAML 1.1 takes 8e-05 for a text because it has no dot; everybody means the number.
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")

_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration has an unknown key, or a value that does not fit; the message names file, key and value."""


@dataclass(frozen=True)
class Value:
    """What stands at one place of a file. content: a scalar, a list of Value, or a dict of Value by key."""

    content: Any
    file: Path
    line: int

    def fail(self, key: str, reason: str) -> ConfigError:
        where = f"{self.file}, line {self.line}"
        return ConfigError(f"{where}: {key}: {reason}" if key else f"{where}: {reason}")


def find_beside(name: str, file: Path, *, folder: bool = False) -> Path | None:
    """A file (or folder) named in the configuration `file`: in the nearest folder at or above that one, or where the
    command runs. prs-eth's configurations name files from the root of the repository that they lie in."""
    given = Path(name).expanduser()
    places = [given] if given.is_absolute() else [above / given for above in file.absolute().parents] + [given]
    return next((place for place in places if (place.is_dir() if folder else place.is_file())), None)


def _tree(node: Any, loader: Any, file: Path, depth: int) -> Value:
    yaml = optional_module("yaml", "reading YAML")
    line = node.start_mark.line + 1
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
            content[key] = _tree(value_node, loader, file, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        content = [_tree(item, loader, file, depth + 1) for item in node.value]
    else:
        content = loader.construct_object(node, deep=True)
    return Value(content, file, line)


def _parse(file: Path) -> Value:
    yaml = optional_module("yaml", "reading YAML")
    try:
        size = file.stat().st_size
        text = file.read_text(encoding="utf-8") if size <= _LARGEST_FILE else ""
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8: {error}") from error
    if size > _LARGEST_FILE:
        raise ConfigError(f"{file}: has {size} bytes, more than the {_LARGEST_FILE} of a configuration")
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        tree = Value({}, file, 1) if node is None else _tree(node, loader, file, 0)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()
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


def plain(value: Value) -> Any:
    """The tree as ordinary dictionaries, lists and scalars."""
    if isinstance(value.content, dict):
        return {key: plain(item) for key, item in value.content.items()}
    if isinstance(value.content, list):
        return [plain(item) for item in value.content]
    return value.content


_MISSING: Any = object()


class Section:
    """A mapping of a configuration, read key by key; `with Section(...) as section` refuses keys that nobody read."""

    def __init__(self, value: Value, name: str = "") -> None:
        if not isinstance(value.content, dict):
            raise value.fail(name, f"expected keys and values, found {value.content!r}")
        self.value, self.name = value, name
        self._read: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.finish()

    def finish(self) -> None:
        for key, value in self.value.content.items():
            if key not in self._read:
                known = ", ".join(sorted(self._read))
                raise value.fail(self.path(key), f"unknown key with the value {plain(value)!r}; known here: {known}")

    def path(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def fail(self, key: str, reason: str) -> ConfigError:
        """An error at the place of a key, or of the section if the key is not written."""
        place: Value = self.value.content.get(key, self.value)
        return place.fail(self.path(key), reason)

    def has(self, key: str) -> bool:
        """Whether a key is written and not null; it counts as read."""
        self._read.add(key)
        return key in self.value.content and self.value.content[key].content is not None

    def ignore(self, *keys: str) -> None:
        """Keys that may be there and mean nothing to this program."""
        self._read.update(keys)

    def raw(self, key: str) -> Value:
        if not self.has(key):
            raise self.fail(key, "is missing")
        value: Value = self.value.content[key]
        return value

    def _take(self, key: str, default: Any, convert: Callable[[Any], T], expected: str) -> T:
        if not self.has(key):
            if default is _MISSING:
                raise self.fail(key, f"is missing; expected {expected}")
            return default  # type: ignore[no-any-return]
        content = self.value.content[key].content
        try:
            return convert(content)
        except (TypeError, ValueError):
            raise self.fail(key, f"is {plain(self.value.content[key])!r}; expected {expected}") from None

    def number(
        self, key: str, default: Any = _MISSING, low: float = -math.inf, high: float = math.inf, above: bool = False
    ) -> Any:
        """A finite number from low to high; above: more than low. Null and absent keys give the default."""

        def convert(content: Any) -> float:
            if isinstance(content, str) and _NUMBER.fullmatch(content):
                content = float(content)
            if isinstance(content, bool) or not isinstance(content, (int, float)) or not math.isfinite(content):
                raise ValueError
            if not low <= content <= high or (above and content == low):
                raise ValueError
            return float(content)

        bounds = f" {'above' if above else 'of at least'} {low:g}" if low > -math.inf else ""
        bounds += f"{' and' if bounds else ' of'} at most {high:g}" if high < math.inf else ""
        return self._take(key, default, convert, f"a number{bounds}")

    def integer(self, key: str, default: Any = _MISSING, low: int = -(2**63), high: int = 2**64 - 1) -> Any:
        def convert(content: Any) -> int:
            if isinstance(content, bool) or not isinstance(content, int) or not low <= content <= high:
                raise ValueError
            return content

        return self._take(key, default, convert, f"an integer from {low} to {high}")

    def flag(self, key: str, default: Any = _MISSING) -> Any:
        def convert(content: Any) -> bool:
            if not isinstance(content, bool):
                raise ValueError
            return content

        return self._take(key, default, convert, "true or false")

    def text(self, key: str, default: Any = _MISSING, choices: Sequence[str] = ()) -> Any:
        def convert(content: Any) -> str:
            if not isinstance(content, str) or not content or (choices and content not in choices):
                raise ValueError
            return content

        return self._take(key, default, convert, f"one of {', '.join(choices)}" if choices else "a text")

    def items(self, key: str, kind: type, default: Any = _MISSING, length: int | None = None) -> Any:
        """A tuple of the values of a list, each of one kind: float, int or str."""

        def convert(content: Any) -> tuple[Any, ...]:
            if not isinstance(content, list) or (length is not None and len(content) != length):
                raise ValueError
            values = [item.content for item in content]
            allowed = (int, float) if kind is float else (kind,)
            if any(isinstance(value, bool) or not isinstance(value, allowed) for value in values):
                raise ValueError
            return tuple(kind(value) for value in values)

        many = "a list" if length is None else f"a list of {length}"
        return self._take(
            key, default, convert, f"{many} of {({float: 'numbers', int: 'integers'}).get(kind, 'texts')}"
        )

    def section(self, key: str) -> Section:
        """The mapping at a key; an empty one if the key is absent or null."""
        if not self.has(key):
            return Section(Value({}, self.value.file, self.value.line), self.path(key))
        return Section(self.value.content[key], self.path(key))

    def sections(self, key: str) -> Iterator[Section]:
        """The mappings of a list; none if the key is absent or null."""
        if not self.has(key):
            return
        value = self.value.content[key]
        if not isinstance(value.content, list):
            raise self.fail(key, f"is {plain(value)!r}; expected a list")
        for index, item in enumerate(value.content):
            yield Section(item, f"{self.path(key)}[{index}]")
