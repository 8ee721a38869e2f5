"""`marigold_c.metrics`: the metrics of predictions, under the name that scripts know (evaluation/metrics.py)."""

from __future__ import annotations

from .evaluation.metrics import (
    COMPLETION_METRICS,
    DEPTH_METRICS,
    INTRINSICS_METRICS,
    NORMALS_METRICS,
    NormalsPool,
    angular_errors,
    completion,
    depth,
    has_lpips,
    intrinsics,
    normals,
)

__all__ = [
    "COMPLETION_METRICS",
    "DEPTH_METRICS",
    "INTRINSICS_METRICS",
    "NORMALS_METRICS",
    "NormalsPool",
    "angular_errors",
    "completion",
    "depth",
    "has_lpips",
    "intrinsics",
    "normals",
]
