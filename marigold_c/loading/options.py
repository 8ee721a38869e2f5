"""How a checkpoint is opened: its precision and the number of threads, as the engine takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..messages import suggestion
from .packed import is_packed

DTYPES = ("float32", "bfloat16", "float16", "int8")
_SHORT = {
    **dict.fromkeys(("fp32", "f32", "float"), "float32"),
    **dict.fromkeys(("bf16",), "bfloat16"),
    **dict.fromkeys(("fp16", "f16", "half"), "float16"),
    **dict.fromkeys(("i8", "q8"), "int8"),
}


def plain_dtype(dtype: Any) -> str:
    """ "float32" of "float32", "fp32", torch.float32, np.float32 or np.dtype("float32"); what is no type as it is."""
    if isinstance(dtype, type) and issubclass(dtype, np.generic):
        return dtype.__name__
    name = str(dtype).removeprefix("torch.")
    return _SHORT.get(name, name)


def dtype_name(checkpoint: Path, dtype: Any, torch_dtype: Any = None) -> str:
    """plain_dtype; without one, that of a packed file."""
    if dtype is not None and torch_dtype is not None and plain_dtype(dtype) != plain_dtype(torch_dtype):
        raise ValueError(f"dtype {dtype} and torch_dtype {torch_dtype} are both given; they are the same option")
    chosen = dtype if dtype is not None else torch_dtype
    if chosen is None:
        return "auto" if is_packed(checkpoint) else "float32"
    name = plain_dtype(chosen)
    if name not in DTYPES and name != "auto":
        raise NotImplementedError(
            f'dtype "{name}" is not supported; supported: float32, float16 (on a GPU), bfloat16, int8, auto'
            f"{suggestion(name, (*DTYPES, *_SHORT, 'auto'))}"
        )
    return name


VAE_TILE = 768  # pixels, as the VAE of Stable Diffusion 2 has it (sample_size)


def vae_tiling_name(vae_tiling: Any) -> str:
    """As the engine takes it: "auto", "on" or "off"."""
    names: dict[Any, str] = {"auto": "auto", True: "on", False: "off"}
    try:
        return names[vae_tiling]
    except (KeyError, TypeError):
        raise ValueError(f'`vae_tiling` must be "auto", True or False; got {vae_tiling!r}.') from None


def recompute_name(recompute: Any) -> str:
    """As the engine takes it: "auto", "off", "unet" or "on"."""
    names: dict[Any, str] = {"auto": "auto", False: "off", "unet": "unet", True: "on"}
    try:
        return names[recompute]
    except (KeyError, TypeError):
        raise ValueError(f'`recompute` must be "auto", False, "unet" or True; got {recompute!r}.') from None


def checked_threads(num_threads: int | None) -> int:
    """As the engine takes it: 0 for all."""
    if num_threads is not None and not 1 <= num_threads <= 4096:
        raise ValueError(f"`num_threads` is {num_threads}; allowed: 1 to 4096, or None for all")
    return num_threads or 0
