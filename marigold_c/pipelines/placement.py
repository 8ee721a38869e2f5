"""Where a pipeline is computed and in what precision: the arguments of `to`, and what a CPU makes of float16."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from .._cuda import is_cuda
from ..loading.options import DTYPES, plain_dtype

_KEYWORDS = ("device", "dtype", "torch_dtype", "silence_dtype_warnings")


def _device_name(device: Any) -> str:
    return f"cuda:{device}" if isinstance(device, int) else str(device)


def wanted_placement(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, str]:
    """ "device" and "dtype" as far as `to` was told them: names, numbers of GPUs, devices and types of torch or NumPy.

    TypeError: an unknown keyword, or more than a device and a type.
    """
    unknown = sorted(set(kwargs) - set(_KEYWORDS))
    if unknown:
        raise TypeError(f"to() has no argument {', '.join(unknown)}; it has {', '.join(_KEYWORDS)}")
    wanted: dict[str, str] = {}
    given = [("", value) for value in args]
    given += [(name.removeprefix("torch_"), kwargs[name]) for name in _KEYWORDS[:3] if name in kwargs]
    for name, value in given:
        if value is None:
            continue
        kind = name or ("dtype" if plain_dtype(value) in (*DTYPES, "auto") else "device")
        if kind in wanted:
            raise TypeError(f"to() takes one device and one dtype; got {(*args, *kwargs.values())}")
        wanted[kind] = plain_dtype(value) if kind == "dtype" else _device_name(value)
    return wanted


def computed_dtype(dtype: str, device: str) -> str:
    """What is computed for what was asked: processors have no arithmetic of float16 that would be fast."""
    return "bfloat16" if dtype == "float16" and not is_cuda(device) else dtype


def say_computed_dtype(dtype: str, device: str) -> None:
    """A warning where computed_dtype differs."""
    computed = computed_dtype(dtype, device)
    if computed != dtype:
        warnings.warn(
            f"dtype {dtype!r} is computed as {computed!r} on the CPU (8 bits of precision instead of 11); "
            "dtype='float32' is exact",
            stacklevel=4,
        )
