"""Configurations read from JSON files: dictionaries whose keys are attributes too, as in diffusers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from ..errors import CheckpointError


class Config(dict[str, Any]):
    """A read-only dictionary; config["beta_start"] is config.beta_start."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"this configuration has no entry {name!r}") from None

    def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise TypeError("a configuration cannot be changed; make a new object with from_config(config, key=value)")

    __setattr__ = __setitem__ = __delitem__ = __delattr__ = _refuse
    setdefault = pop = popitem = update = clear = _refuse

    def __reduce__(self) -> tuple[type[Config], tuple[dict[str, Any]]]:
        return (Config, (dict(self),))


def read_json_object(path: Path) -> Mapping[str, Any]:
    """The object in a JSON file; CheckpointError if it holds something else."""
    return json_object(path.read_bytes(), path)


def json_object(text: str | bytes, path: Path) -> Mapping[str, Any]:
    """The object in the text of a file; CheckpointError if it holds something else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_config(path: Path) -> Config:
    return Config(read_json_object(path))
