"""The pipelines for depth, normals and intrinsic images, as diffusers' classes of these names."""

from __future__ import annotations

from typing import Any

from .ensembling import ensemble_depth, ensemble_intrinsics, ensemble_normals
from .outputs import MarigoldDepthOutput, MarigoldIntrinsicsOutput, MarigoldNormalsOutput
from .pipeline import MarigoldPipeline


class MarigoldDepthPipeline(MarigoldPipeline[MarigoldDepthOutput]):
    """Monocular depth, as diffusers' class of this name."""

    task = "depth"
    supported_prediction_types = ("depth", "disparity")
    _output = MarigoldDepthOutput
    _reductions = ("median", "mean")
    _ensembling_options = ("reduction", "solver", "regularizer_strength", "max_iter", "tol", "max_res")
    ensemble_depth = staticmethod(ensemble_depth)

    @property
    def scale_invariant(self) -> bool:
        """Whether predictions are known up to a factor only."""
        return bool(self.config.get("scale_invariant", True))

    @property
    def shift_invariant(self) -> bool:
        """Whether predictions are known up to an offset only."""
        return bool(self.config.get("shift_invariant", True))

    def _invariances(self) -> dict[str, bool]:
        return {"scale_invariant": self.scale_invariant, "shift_invariant": self.shift_invariant}


class MarigoldNormalsPipeline(MarigoldPipeline[MarigoldNormalsOutput]):
    """Surface normals, as diffusers' class of this name."""

    task = "normals"
    supported_prediction_types = ("normals",)
    _output = MarigoldNormalsOutput
    _reductions = ("closest", "mean")
    ensemble_normals = staticmethod(ensemble_normals)

    @property
    def use_full_z_range(self) -> bool:
        """Whether z spans [-1, 1]; else all normals face the camera."""
        return bool(self.config.get("use_full_z_range", True))


class MarigoldIntrinsicsPipeline(MarigoldPipeline[MarigoldIntrinsicsOutput]):
    """Intrinsic image decomposition into any number of targets, as diffusers' class of this name."""

    task = "intrinsics"
    supported_prediction_types = ("intrinsics",)
    _output = MarigoldIntrinsicsOutput
    _reductions = ("median", "mean")
    ensemble_intrinsics = staticmethod(ensemble_intrinsics)

    @property
    def n_targets(self) -> int:
        """Maps predicted for one image."""
        return self._engine.info()["num_targets"]

    @property
    def target_properties(self) -> dict[str, Any] | None:
        """Names, colour spaces and more of the targets, as model_index.json tells them."""
        return self.config.get("target_properties")
