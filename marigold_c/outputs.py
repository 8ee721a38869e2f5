"""What pipelines return."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass
class MarigoldDepthOutput:
    """Depth in [0, 1], near to far, up to scale and shift.

    prediction: float32 (N, H, W, 1), or a tensor (N, 1, H, W) with output_type="pt"; for a list of images of different
    sizes a list with one such array for each. uncertainty: None or as prediction. latent: None or float32 (N, 4, h, w),
    which fits the argument `latents`; a list where prediction is one.
    """

    prediction: Any
    uncertainty: Any = None
    latent: Any = None

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in order."""
        return tuple(self[field.name] for field in fields(self) if self[field.name] is not None)

    def __getitem__(self, key: str | int | slice) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in (field.name for field in fields(self)):
            raise KeyError(key)
        return getattr(self, key)
