"""Models of configurations. pydantic says whether types and bounds fit; messages name file, line, key and what is
expected. A section is a class, a key one of the lines below in it:

    class Noise(Section):
        strength: float = number("strength", 0.9, 0, 1)
"""

from __future__ import annotations

import re
from typing import Any, TypeVar, get_args

from ..extras import check_module
from ..messages import suggestion
from .yaml_tree import ConfigError, Value, plain

check_module("pydantic", "checking configurations")

from pydantic import BaseModel, ConfigDict, Field, ValidationError  # noqa: E402
from pydantic.fields import FieldInfo  # noqa: E402


class Section(BaseModel):
    """A mapping with known keys. Made by `checked`, or in Python with the names of its fields."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
    )


S = TypeVar("S", bound=Section)


def number(
    key: str, default: Any = ..., low: float | None = None, high: float | None = None, *, above: bool = False
) -> Any:
    """A finite number from low to high; above: more than low."""
    bounds = [] if low is None else [f"{'above' if above else 'of at least'} {low:g}"]
    bounds += [] if high is None else [f"{'' if bounds else 'of '}at most {high:g}"]
    return Field(
        default,
        alias=key,
        strict=True,
        ge=None if above else low,
        gt=low if above else None,
        le=high,
        description=" ".join(["a number", " and ".join(bounds)]).strip(),
    )


def integer(key: str, default: Any = ..., low: int = -(2**63), high: int = 2**64 - 1) -> Any:
    return Field(default, alias=key, strict=True, ge=low, le=high, description=f"an integer from {low} to {high}")


def flag(key: str, default: Any = ...) -> Any:
    return Field(default, alias=key, strict=True, description="true or false")


def text(key: str, default: Any = ...) -> Any:
    return Field(default, alias=key, strict=True, min_length=1, description="a text")


def choice(key: str, choices: tuple[str, ...], default: Any = ...) -> Any:
    """One of some texts."""
    pattern = f"^(?:{'|'.join(map(re.escape, choices))})$"
    return Field(default, alias=key, strict=True, pattern=pattern, description=f"one of {', '.join(choices)}")


def entries(key: str, expected: str, default: Any = ...) -> Any:
    """A list, whose length and types the annotation says."""
    return Field(default, alias=key, description=expected)


def mapping(key: str, default: Any = None) -> Any:
    """Keys and values that are looked at elsewhere."""
    return Field(default, alias=key, description="keys and values")


def section(key: str, kind: type[Section] | None = None) -> Any:
    """A mapping with the keys of a class. If it is absent: an empty one of `kind`, or None."""
    return mapping(key) if kind is None else Field({}, alias=key, description="keys and values")


def _section_in(annotation: Any) -> type[Section] | None:
    """The class of a section in Section | None or tuple[Section, ...]."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for one in get_args(annotation) if (found := _section_in(one))), None)


def _fields(model: type[Section]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _field_at(model: type[Section], path: tuple[str | int, ...]) -> tuple[FieldInfo | None, dict[str, FieldInfo]]:
    """The field at the end of a path, None for an unknown key, and the fields beside it."""
    section_class: type[Section] | None = model
    field, beside = None, _fields(model)
    for part in path:
        if isinstance(part, str) and section_class is not None:
            beside = _fields(section_class)
            field = beside.get(part)
            section_class = None if field is None else _section_in(field.annotation)
    return field, beside


def _refusal(model: type[Section], tree: Value, prefix: str, error: Any) -> ConfigError:
    path, kind, given = error["loc"], error["type"], error["input"]
    field, beside = _field_at(model, path)
    if isinstance(path[-1], int) and kind != "model_type":  # an item of a list: the list is what is said to be wrong
        path, kind = path[:-1], "item"
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    name = f"{prefix}.{name}" if prefix else name
    value = repr(plain(tree.find(name)) if kind == "item" else given)
    expected = f"; expected {field.description}" if field and field.description else ""
    match kind:
        case "missing":
            reason = f"is missing{expected}"
        case "extra_forbidden":
            reason = f"unknown key with the value {value}; known here: {', '.join(sorted(beside))}"
            reason += suggestion(str(path[-1]), beside)
        case "value_error":
            reason = str(error["ctx"]["error"])
        case "model_type":
            reason = f"expected keys and values, found {value}"
        case _:
            reason = f"is {value}{expected}"
    return tree.refuse(name, reason)


def checked(model: type[S], tree: Value, path: str = "") -> S:
    """The section at a path of a tree; keys whose value is null count as absent. ConfigError names all that does not
    fit, a line each, in the order of the model."""
    values = _without_nulls(plain(tree.find(path)))
    try:
        return model.model_validate(values, by_alias=True, by_name=False)
    except ValidationError as error:
        refusals = [_refusal(model, tree, path, one) for one in error.errors(include_url=False)]
    raise ConfigError("\n".join(map(str, refusals)))


def _without_nulls(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_nulls(value) for key, value in values.items() if value is not None}
    return [_without_nulls(value) for value in values] if isinstance(values, list) else values
