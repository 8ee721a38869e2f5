"""The cases behind tests/data/numeric.npz, shared by tools/make_reference_numeric.py, which needs no engine, and the
tests, which need no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).parent / "data" / "numeric.npz"

MODES = ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
ANTIALIASED = ("bilinear", "bicubic")
FILTERS = [(mode, False) for mode in MODES] + [(mode, True) for mode in ANTIALIASED]

RANDN_CASES = [
    (0, [1]),
    (1, [16]),
    (2024, [17]),
    (5, [15, 15]),
    (7, [3, 16, 2, 1, 15, 40, 7, 8, 5]),
    (2**32 - 1, [1000]),
    (2**32 + 3, [33, 1, 32]),
]

RESIZE_SIZES = [
    ((1, 1), (3, 4)),
    ((7, 13), (16, 5)),
    ((16, 5), (7, 13)),
    ((33, 20), (12, 31)),
    ((3, 50), (1, 8)),
    ((1, 8), (3, 50)),
    ((20, 3), (7, 1)),
    ((9, 9), (9, 9)),
]

Shape = tuple[int, int, int, int]
PREPROCESS_CASES: list[tuple[str, Shape, int, str]] = [
    ("uint8", (2, 37, 21, 3), 24, "bilinear"),
    ("uint8", (1, 9, 14, 1), 0, "bilinear"),
    ("uint16", (1, 13, 30, 1), 40, "bicubic"),
    ("float32", (1, 21, 37, 3), 16, "area"),
    ("float32", (1, 5, 3, 3), 32, "nearest"),
    ("uint8", (1, 1, 1, 3), 8, "nearest-exact"),
]

# The published configurations of Marigold: v1-0 (leading), v1-1 (trailing, zero terminal SNR), LCM; then more options.
_SD = {
    **{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False},
    **{"set_alpha_to_one": False, "steps_offset": 1, "prediction_type": "v_prediction", "num_train_timesteps": 1000},
}
_DDIM = {"_class_name": "DDIMScheduler", "clip_sample": False}
_LCM = {"_class_name": "LCMScheduler", **_SD}
SCHEDULER_CASES: list[tuple[dict[str, Any], int, float]] = [
    ({**_DDIM, **_SD, "timestep_spacing": "leading"}, 10, 0.0),
    ({**_DDIM, **_SD, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}, 4, 0.0),
    ({**_DDIM, **_SD, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}, 1, 0.0),
    ({**_DDIM, **_SD, "timestep_spacing": "trailing"}, 3, 0.5),
    ({**_LCM}, 1, 0.0),
    ({**_LCM}, 4, 0.0),
    ({**_LCM, "original_inference_steps": 20, "timestep_scaling": 0.02, "prediction_type": "epsilon"}, 3, 0.0),
    ({**_LCM, "prediction_type": "sample"}, 2, 0.0),
    ({**_DDIM, "timestep_spacing": "linspace"}, 7, 0.3),
    ({**_DDIM, "prediction_type": "sample", "beta_schedule": "squaredcos_cap_v2"}, 5, 0.0),
    ({**_DDIM, "num_train_timesteps": 40, "trained_betas": [0.001 * (i + 1) for i in range(40)]}, 6, 0.0),
]


def planes(h: int, w: int) -> NDArray[np.float32]:
    return np.random.default_rng(h * 1000 + w).random((1, 2, h, w), np.float32)


def pixels(kind: str, shape: Shape) -> NDArray[Any]:
    values = np.random.default_rng(sum(shape)).random(shape)
    if kind == "float32":
        return values.astype(np.float32)
    return (values * np.iinfo(kind).max).round().astype(kind)


def references() -> dict[str, NDArray[Any]]:
    with np.load(DATA) as stored:
        return dict(stored)
