"""Marigold: depth from one photograph, by an engine in C with the interface of diffusers.

import marigold_c as mc
from PIL import Image
pipe = mc.load("prs-eth/marigold-depth-v1-1")        # or mc.default_checkpoint(): small, a demonstration
depth = pipe(Image.open("photo.jpg")).prediction     # float32 (1, H, W, 1) in [0, 1]
"""

from __future__ import annotations

from . import errors as errors
from ._openblas import load as _load_openblas

_library = _load_openblas()  # before the extension, which is linked against it

from . import _C  # noqa: E402
from ._C import Generator, resize  # noqa: E402
from .errors import CheckpointError, DeviceError  # noqa: E402
from .image_processor import MarigoldImageProcessor  # noqa: E402
from .loading import default_checkpoint  # noqa: E402
from .outputs import MarigoldDepthOutput  # noqa: E402
from .pipelines import MarigoldDepthPipeline, load  # noqa: E402
from .schedulers import DDIMScheduler, LCMScheduler  # noqa: E402

__version__ = _C.__version__

__all__ = [
    "CheckpointError",
    "DDIMScheduler",
    "DeviceError",
    "Generator",
    "LCMScheduler",
    "MarigoldDepthOutput",
    "MarigoldDepthPipeline",
    "MarigoldImageProcessor",
    "__version__",
    "default_checkpoint",
    "errors",
    "load",
    "resize",
]
