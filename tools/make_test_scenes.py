"""Renders tests/data/scenes.npz: six scenes with all labels, from which tests and tools make small data sets.

Run from the repository root, with the extra `scenes`:

    python tools/make_test_scenes.py

Arrays, K = 6 scenes of 96 x 128 pixels: rgb, albedo, shading, residual (K, H, W, 3) linear, rgb = albedo * shading +
residual; depth along the axis and distance along the ray (K, H, W) in metres, 0: no surface; normal (K, H, W, 3), x to
the right, y up, z towards the viewer, 0: no surface; roughness, metallicity (K, H, W); field_of_view (K,) in degrees
across the width; kind (K,). Half precision but for depth (to 2 ** -13 of itself) and distance (2 ** -12).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from marigold_c.preparation.scenes.generator import Settings, render_scene

SETTINGS = Settings(seed=0, size=(96, 128), samples_per_pixel=64)
INDICES = (0, 3, 4, 7, 9, 13)
TARGET = Path(__file__).resolve().parent.parent / "tests/data/scenes.npz"
NAMES = {"normal": "normals"}
KEPT_BITS = {"depth": 13, "distance": 12}
LABELS = ("rgb", "depth", "distance", "normal", "albedo", "shading", "residual", "roughness", "metallicity")


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """float32 with so many bits after the leading one: the zeros at the end compress."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.rint(mantissa * 2.0**bits) / 2.0**bits, exponent).astype(np.float32)


def main() -> None:
    rendered = [render_scene(SETTINGS, index) for index in INDICES]
    arrays: dict[str, np.ndarray] = {}
    for name in LABELS:
        values = np.stack([getattr(labels, NAMES.get(name, name)) for labels, _ in rendered])
        arrays[name] = rounded(values, KEPT_BITS[name]) if name in KEPT_BITS else values.astype(np.float16)
    arrays["field_of_view"] = np.array([metadata["field_of_view"] for _, metadata in rendered])
    arrays["kind"] = np.array([metadata["kind"] for _, metadata in rendered])
    np.savez_compressed(TARGET, **arrays)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
