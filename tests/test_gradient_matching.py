"""The absolute loss of depth, with gradient matching. Beside autograd: tests/oracle/test_gradient_matching.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import marigold_c as mc


def losses_of(**options: Any) -> list[float]:
    """Of a truth, and of the same with near and far exchanged."""
    folder = mc.default_checkpoint("depth")
    trainer = mc.Trainer.from_pretrained(folder, task="depth", objective="e2e", num_threads=1, **options)
    rng = np.random.default_rng(4)
    inputs = {"image_latent": rng.standard_normal((1, 4, 3, 4)).astype(np.float32)}
    truth = np.linspace(-1, 1, 24 * 32, dtype=np.float32).reshape(1, 1, 24, 32)
    return [trainer.forward_backward(**inputs, pixel_target=one) for one in (truth, -truth)]


def test_near_and_far_keep_their_places() -> None:
    fitted = losses_of()
    assert fitted[0] == pytest.approx(fitted[1], rel=1e-6)
    absolute = losses_of(pixel_loss="absolute")
    assert abs(absolute[0] - absolute[1]) > 0.01 * max(absolute)
