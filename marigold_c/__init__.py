"""Marigold: depth, surface normals and intrinsic images from one photograph, by an engine in C with the interface of
diffusers.

import marigold_c as mc
from PIL import Image
pipe = mc.load("prs-eth/marigold-depth-v1-1")        # or mc.default_checkpoint(): small, a demonstration
depth = pipe(Image.open("photo.jpg")).prediction     # float32 (1, H, W, 1) in [0, 1]
"""

from __future__ import annotations

from importlib.util import find_spec as _find_spec
from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _find_spec(f"{__name__}._C") is None:  # said before anything of the package is needed
    _folder = _Path(__file__).resolve().parent
    if (_folder.parent / "setup.py").is_file():
        raise ImportError(
            f"{_folder} is the source of marigold_c, and its extension is not built. Start Python in another folder to "
            f"use an installed marigold_c, or build the extension here: pip install -e '{_folder.parent}'"
        )
    raise ImportError(f"{_folder} lacks the extension _C of marigold_c: install it again")

from . import errors as errors
from ._openblas import load as _load_openblas

_library = _load_openblas()  # before the engine looks for it by its name

from . import _C, metrics, utils  # noqa: E402
from ._C import Generator, resize  # noqa: E402
from .errors import CheckpointError, DeviceError, NotFiniteError  # noqa: E402
from .evaluation.alignment import align_least_squares, align_median, align_ransac  # noqa: E402
from .images.geometry_files import write_geometry  # noqa: E402
from .images.image_processor import MarigoldImageProcessor  # noqa: E402
from .images.locations import read_image  # noqa: E402
from .images.point_clouds import depth_to_mesh, depth_to_points  # noqa: E402
from .images.relief import depth_to_relief  # noqa: E402
from .images.sparse_depth import read_sparse_depth, sparse_map  # noqa: E402
from .loading.conversion import convert  # noqa: E402
from .loading.folders import default_checkpoint  # noqa: E402
from .pipelines.completion import MarigoldDepthCompletionOutput, MarigoldDepthCompletionPipeline  # noqa: E402
from .pipelines.components import AutoencoderTiny  # noqa: E402
from .pipelines.ensembling import ensemble_depth, ensemble_intrinsics, ensemble_normals  # noqa: E402
from .pipelines.high_resolution import MarigoldDepthHROutput, MarigoldDepthHRPipeline  # noqa: E402
from .pipelines.opening import load  # noqa: E402
from .pipelines.outputs import MarigoldDepthOutput, MarigoldIntrinsicsOutput, MarigoldNormalsOutput  # noqa: E402
from .pipelines.point_alignment import align_to_points  # noqa: E402
from .pipelines.schedulers import (  # noqa: E402
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)
from .pipelines.sequences import predict_sequence  # noqa: E402
from .pipelines.tasks import MarigoldDepthPipeline, MarigoldIntrinsicsPipeline, MarigoldNormalsPipeline  # noqa: E402
from .pipelines.videos import predict_video  # noqa: E402
from .training.trainer import Trainer  # noqa: E402

__version__ = _C.__version__

if not _TYPE_CHECKING:  # type checkers know the names

    def __getattr__(name: str) -> object:
        raise AttributeError(
            f"marigold_c has no {name}: it has Marigold's pipelines, AutoencoderTiny and the schedulers DDIM, "
            "LCM, Euler and DPM-Solver++; what is not of Marigold stays with diffusers"
        )


__all__ = [
    "AutoencoderTiny",
    "CheckpointError",
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "DeviceError",
    "EulerDiscreteScheduler",
    "Generator",
    "LCMScheduler",
    "MarigoldDepthCompletionOutput",
    "MarigoldDepthCompletionPipeline",
    "MarigoldDepthHROutput",
    "MarigoldDepthHRPipeline",
    "MarigoldDepthOutput",
    "MarigoldDepthPipeline",
    "MarigoldImageProcessor",
    "MarigoldIntrinsicsOutput",
    "MarigoldIntrinsicsPipeline",
    "MarigoldNormalsOutput",
    "MarigoldNormalsPipeline",
    "NotFiniteError",
    "Trainer",
    "__version__",
    "align_least_squares",
    "align_median",
    "align_ransac",
    "align_to_points",
    "convert",
    "default_checkpoint",
    "depth_to_mesh",
    "depth_to_points",
    "depth_to_relief",
    "ensemble_depth",
    "ensemble_intrinsics",
    "ensemble_normals",
    "errors",
    "load",
    "metrics",
    "predict_sequence",
    "predict_video",
    "read_image",
    "read_sparse_depth",
    "resize",
    "sparse_map",
    "utils",
    "write_geometry",
]
