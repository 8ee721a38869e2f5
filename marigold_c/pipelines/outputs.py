"""What pipelines return."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _shape_of(value: Any) -> str:
    """ "float32 (1, 480, 640, 1)" of an array or tensor; of a list, its parts."""
    if isinstance(value, list):
        return f"[{', '.join(map(_shape_of, value))}]"
    if not hasattr(value, "shape"):
        return repr(value)
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


@dataclass(repr=False)
class MarigoldOutput:
    """Maps of N images.

    prediction: float32 (N, H, W, C), or a tensor (N, C, H, W) with output_type="pt"; for a list of images of different
    sizes a list with one such array for each. uncertainty: None, or of an ensemble of E. latent: None or float32
    (N*E, channels, h, w), which fits the argument `latents`; a list where prediction is one. To editors all are arrays,
    what a call usually returns.
    """

    prediction: NDArray[np.float32]
    uncertainty: NDArray[np.float32] | None = None
    latent: NDArray[np.float32] | None = None

    def __repr__(self) -> str:
        """One line: the types and shapes of the arrays."""
        parts = [f"{field.name}={_shape_of(getattr(self, field.name))}" for field in fields(self)]
        return f"{type(self).__name__}({', '.join(parts)})"

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in order."""
        return tuple(self[field.name] for field in fields(self) if self[field.name] is not None)

    def __getitem__(self, key: str | int | slice) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in (field.name for field in fields(self)):
            raise KeyError(key)
        return getattr(self, key)


@dataclass(repr=False)
class MarigoldDepthOutput(MarigoldOutput):
    """Depth (N, H, W, 1) in [0, 1], near to far, up to scale and shift; uncertainty (N, H, W, 1)."""


@dataclass(repr=False)
class MarigoldNormalsOutput(MarigoldOutput):
    """Unit normals (N, H, W, 3): x right, y up, z towards the camera; uncertainty (N, H, W, 1): angle / pi."""


@dataclass(repr=False)
class MarigoldIntrinsicsOutput(MarigoldOutput):
    """Targets (N*T, H, W, 3) in [0, 1], those of one image side by side; uncertainty (N*T, H, W, 3)."""
