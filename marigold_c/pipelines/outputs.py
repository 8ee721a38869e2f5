"""What pipelines return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..images.arrays import preview_stride

_SHOWN_PIXELS, _LISTED_PIXELS = 2**19, 2**16  # of a preview: by show(), and as the value of a notebook's cell


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

    _kind: ClassVar[str]
    prediction: NDArray[np.float32]
    uncertainty: NDArray[np.float32] | None = None
    latent: NDArray[np.float32] | None = None

    def __repr__(self) -> str:
        """One line: the types and shapes of the arrays."""
        parts = [f"{field.name}={_shape_of(getattr(self, field.name))}" for field in fields(self)]
        return f"{type(self).__name__}({', '.join(parts)})"

    def remember(self, images: Sequence[NDArray[Any]], properties: Mapping[str, Any] | None) -> None:
        """Keeps small copies of the images (N, H, W, C) for show(); properties: of intrinsic targets, or None."""
        kept = []
        for image in (one for group in images for one in group):
            stride = preview_stride(image.shape[0], image.shape[1], _SHOWN_PIXELS)
            kept.append(image[::stride, ::stride, :3].copy())
        self.__dict__.update(_photographs=kept, _properties=properties)

    def _html(self, limit: int) -> str | None:
        from .shown import output_html  # what makes pictures is imported when one is looked at

        kept = self.__dict__
        if not kept.get("_photographs"):
            return None
        return output_html(self._kind, self.prediction, kept["_photographs"], kept["_properties"], limit)

    def _repr_html_(self) -> str | None:
        """What notebooks show of the value of a cell: a small slider for each map. None of an output made by hand."""
        return self._html(_LISTED_PIXELS)

    def show(self) -> None:
        """Shows a slider between each image and its maps, and the values under the pointer, in a notebook.

        HTML alone, without an extension. Images are shown at no more than half a megapixel; at most eight of them.
        ImportError: there is no IPython. ValueError: an output that no pipeline made.
        """
        notebook = import_module("IPython.display")
        text = self._html(_SHOWN_PIXELS)
        if text is None:
            raise ValueError("this output was not made by a pipeline: it does not know its image")
        notebook.display(notebook.HTML(text))

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

    _kind: ClassVar[str] = "depth"


@dataclass(repr=False)
class MarigoldNormalsOutput(MarigoldOutput):
    """Unit normals (N, H, W, 3): x right, y up, z towards the camera; uncertainty (N, H, W, 1): angle / pi."""

    _kind: ClassVar[str] = "normals"


@dataclass(repr=False)
class MarigoldIntrinsicsOutput(MarigoldOutput):
    """Targets (N*T, H, W, 3) in [0, 1], those of one image side by side; uncertainty (N*T, H, W, 3)."""

    _kind: ClassVar[str] = "intrinsics"
