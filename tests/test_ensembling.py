"""Ensembling and alignment against NumPy, and what they promise: stability, order, threads, errors."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ensembles import SETTINGS, Array, aligned_rmse, ensemble
from numpy.typing import NDArray

import marigold_c as mc
from marigold_c import _C, _testing

Doubles = NDArray[np.float64]

SIZES = [(1, 1), (1, 7), (16, 16), (17, 31), (40, 513)]  # below, at and above a tile of the engine (256 pixels)
MEMBERS = [1, 2, 3, 4, 5, 8, 9, 10, 16, 17, 20, 33, 100]


def random_of(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- reductions ----


def lower_median(x: NDArray[Any]) -> NDArray[Any]:
    return np.sort(x, axis=0)[(len(x) - 1) // 2]


def merge(x: NDArray[Any], reduction: str) -> tuple[NDArray[Any], NDArray[Any]]:
    if reduction == "median":
        centre = lower_median(x)
        return centre, lower_median(np.abs(x - centre))
    wide = x.astype(np.float64)
    return wide.mean(0), wide.std(0, ddof=1) if len(x) > 1 else np.zeros(x.shape[1:])


@pytest.mark.parametrize("reduction", ["median", "mean"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_intrinsics(size: tuple[int, int], reduction: str) -> None:
    for members in MEMBERS:
        x = random_of(members).standard_normal((members, 2, 3, *size)).astype(np.float32)
        x[:, :, :, :, ::3] = np.round(x[:, :, :, :, ::3])  # with ties
        merged, uncertainty = mc.ensemble_intrinsics(x, True, reduction)
        expected, spread = merge(x, reduction)
        tolerance = 0.0 if reduction == "median" else 2e-6
        assert uncertainty is not None and merged.dtype == uncertainty.dtype == np.float32
        np.testing.assert_allclose(merged, expected, rtol=0, atol=tolerance, err_msg=str(members))
        np.testing.assert_allclose(uncertainty, spread, rtol=0, atol=tolerance, err_msg=str(members))


@pytest.mark.parametrize("reduction", ["closest", "mean"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_normals(size: tuple[int, int], reduction: str) -> None:
    for members in MEMBERS:
        x = random_of(members).standard_normal((members, 3, *size))
        x[:, 2] += 1.5
        x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
        mean = x.astype(np.float64).mean(0)
        mean /= np.maximum(np.linalg.norm(mean, axis=0), 1e-6)
        cosines = np.clip((mean * x).sum(1), -1, 1)
        merged, uncertainty = mc.ensemble_normals(x, output_uncertainty=True, reduction=reduction)
        assert uncertainty is not None and merged.shape == (1, 3, *size) and uncertainty.shape == (1, 1, *size)
        if reduction == "mean":
            np.testing.assert_allclose(merged[0], mean, rtol=0, atol=1e-6 * 10)
        else:
            # A member, and one whose cosine is the largest but for rounding.
            chosen = (merged[0] == x).all(1)
            assert chosen.any(0).all()
            np.testing.assert_allclose((cosines * chosen + (~chosen * -2.0)).max(0), cosines.max(0), rtol=0, atol=1e-6)
        # arccos is steep near 1, so that a rounding of the cosine by 1e-7 is an angle of up to 5e-4.
        np.testing.assert_allclose(uncertainty[0, 0], np.arccos(cosines).mean(0) / np.pi, rtol=0, atol=2e-4)


def test_closest_is_the_first_of_equals() -> None:
    x = np.zeros((3, 3, 1, 2), np.float32)
    x[:, 2] = 1
    merged, uncertainty = mc.ensemble_normals(x, True)
    assert uncertainty is not None
    np.testing.assert_array_equal(merged, x[:1])
    np.testing.assert_array_equal(uncertainty, 0)
    opposed = np.array([[0, 0, 1], [0, 0, -1]], np.float32).reshape(2, 3, 1, 1)
    merged, uncertainty = mc.ensemble_normals(opposed, True)
    assert uncertainty is not None
    np.testing.assert_array_equal(merged[0], opposed[0])  # the mean has no direction: all cosines are 0
    np.testing.assert_allclose(uncertainty, 0.5, atol=1e-6)


# ---- depth: the closed form ----


def closed_form(depth: Array, with_shift: bool) -> tuple[Doubles, Doubles]:
    """Scale and shift of every member in float64, scale 0 for those left out: csrc/ensemble/align_closed_form.c."""
    x = depth.reshape(len(depth), -1).astype(np.float64)
    mean = x.mean(1) if with_shift else np.zeros(len(x))
    root = np.sqrt(((x - mean[:, None]) ** 2).mean(1))
    part = np.flatnonzero(root > 1e-6)
    z = (x[part] - mean[part, None]) / root[part, None]
    vector = np.linalg.eigh(z @ z.T / z.shape[1])[1][:, -1]
    vector *= np.sign(vector.sum())
    scale = np.zeros(len(x))
    kept = (vector > 0) & (vector >= 0.5 * np.sort(vector)[(len(part) - 1) // 2])
    scale[part[kept]] = vector[kept] / root[part[kept]]
    return scale, -scale * mean


def align_depth(
    depth: Array, solver: str, with_shift: bool = True, reduction: str = "median", threads: int = 1, **options: Any
) -> tuple[Array, Array]:
    data = np.ascontiguousarray(depth, np.float32)
    out = _testing.align_depth(
        data, len(data), with_shift, solver, reduction,
        options.get("regularizer_strength", 0.02), options.get("max_iter", 2), options.get("tol", 1e-3), threads,
    )  # fmt: skip
    scale, shift = np.frombuffer(out, np.float32).reshape(2, -1)
    return scale, shift


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("with_shift", [True, False])
def test_closed_form_is_the_leading_eigenvector(setting: str, with_shift: bool) -> None:
    for members in (3, 5, 10, 20):
        depth, _ = ensemble(setting, members, 0)
        scale, shift = align_depth(depth, "closed-form", with_shift)
        expected_scale, expected_shift = closed_form(depth, with_shift)
        np.testing.assert_allclose(scale, expected_scale, rtol=1e-5)
        np.testing.assert_allclose(shift, expected_shift, rtol=1e-5, atol=1e-6)
        assert setting != "constant" or not with_shift or (scale == 0).sum() == 1


@pytest.mark.parametrize("reduction", ["median", "mean"])
def test_depth_is_the_reduction_of_the_aligned_members(reduction: str) -> None:
    for setting in SETTINGS:
        depth, _ = ensemble(setting, 7, 1)
        scale, shift = align_depth(depth, "closed-form")
        aligned = depth * scale[:, None, None, None] + shift[:, None, None, None]
        expected, spread = merge(aligned[scale != 0], reduction)
        extent = np.ptp(expected)
        merged, uncertainty = mc.ensemble_depth(depth, output_uncertainty=True, reduction=reduction)
        assert uncertainty is not None and merged.shape == uncertainty.shape == (1, 1, 48, 64)
        np.testing.assert_allclose(merged[0], (expected - expected.min()) / extent, rtol=0, atol=2e-6)
        np.testing.assert_allclose(uncertainty[0], spread / extent, rtol=0, atol=2e-6)
        assert merged.min() == 0 and merged.max() == 1


@pytest.mark.parametrize("members", [3, 5, 10, 20])
@pytest.mark.parametrize("setting", SETTINGS)
def test_closed_form_comes_nearer_to_the_truth_than_the_range_of_each_member(setting: str, members: int) -> None:
    errors = []
    for seed in range(6):
        depth, truth = ensemble(setting, members, seed)
        low, high = depth.min((2, 3), keepdims=True), depth.max((2, 3), keepdims=True)
        by_range = lower_median((depth - low) / np.maximum(high - low, 1e-6))
        errors.append((aligned_rmse(mc.ensemble_depth(depth)[0], truth), aligned_rmse(by_range, truth)))
    ours, simple = np.mean(errors, 0)
    assert ours < simple


def test_exact_members_give_their_map() -> None:
    random = random_of(3)
    truth = random.random((1, 1, 20, 30))
    truth = (truth - truth.min()) / np.ptp(truth)
    members = (random.uniform(0.1, 5, (6, 1, 1, 1)) * truth + random.uniform(-3, 3, (6, 1, 1, 1))).astype(np.float32)
    merged, uncertainty = mc.ensemble_depth(members, output_uncertainty=True)
    np.testing.assert_allclose(merged, truth, rtol=0, atol=1e-5)
    np.testing.assert_allclose(uncertainty, 0, atol=1e-5)


def test_scale_invariant_depth_keeps_its_zero() -> None:
    random = random_of(4)
    truth = random.uniform(0.2, 1, (1, 1, 20, 30))
    members = (random.uniform(0.1, 5, (6, 1, 1, 1)) * truth).astype(np.float32)
    merged, _ = mc.ensemble_depth(members, shift_invariant=False)
    np.testing.assert_allclose(merged, truth / truth.max(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("reduction", ["median", "mean"])
def test_absolute_depth_is_reduced_as_it_is(reduction: str) -> None:
    depth = random_of(5).uniform(0.5, 80, (6, 1, 20, 30)).astype(np.float32)
    merged, uncertainty = mc.ensemble_depth(depth, False, False, True, reduction)
    expected, spread = merge(depth, reduction)
    np.testing.assert_allclose(merged[0], expected, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(uncertainty)[0], spread, rtol=1e-5, atol=1e-6)


def test_constant_members_and_opposed_members_take_no_part() -> None:
    depth, _ = ensemble("plain", 5, 2)
    expected, _ = mc.ensemble_depth(depth)
    for extra in (np.full_like(depth[:1], 0.3), np.zeros_like(depth[:1]), 1 - depth[:1]):
        merged, _ = mc.ensemble_depth(np.concatenate([depth[:2], extra, depth[2:]]))
        np.testing.assert_allclose(merged, expected, rtol=0, atol=2e-2 if extra.std() else 2e-6)
    constant = np.stack([np.full((1, 6, 7), value, np.float32) for value in (0.1, 0.5, 0.7)])
    for shift_invariant, value in ((True, 0.0), (False, 1.0)):
        merged, uncertainty = mc.ensemble_depth(constant, True, shift_invariant, output_uncertainty=True)
        np.testing.assert_allclose(merged, value, atol=1e-6)
        assert np.isfinite(np.asarray(uncertainty)).all()


def test_one_member_is_brought_to_the_unit_range() -> None:
    depth, _ = ensemble("plain", 1, 0)
    for reduction in ("median", "mean"):
        for solver in ("closed-form", "reference"):
            merged, uncertainty = mc.ensemble_depth(depth, output_uncertainty=True, reduction=reduction, solver=solver)
            np.testing.assert_allclose(merged, (depth - depth.min()) / np.ptp(depth), rtol=0, atol=1e-5)
            np.testing.assert_array_equal(uncertainty, 0)


def test_max_res() -> None:
    depth, _ = ensemble("plain", 5, 3, 96, 128)
    rows, columns = (np.floor((np.arange(n) + 0.5) * 2).astype(int) for n in (48, 64))
    small = depth[:, :, rows][:, :, :, columns]
    scale, shift = (x[:, None, None, None] for x in align_depth(small, "closed-form"))
    expected = lower_median(depth * scale + shift)
    merged, _ = mc.ensemble_depth(depth, max_res=64)
    np.testing.assert_allclose(merged[0], (expected - expected.min()) / np.ptp(expected), rtol=0, atol=2e-6)
    assert not np.array_equal(merged, mc.ensemble_depth(depth, max_res=None)[0])
    np.testing.assert_array_equal(mc.ensemble_depth(depth, max_res=None)[0], mc.ensemble_depth(depth, max_res=128)[0])


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_small_change_stays_small(setting: str) -> None:
    for members in (3, 10, 20):
        for seed in range(3):
            depth, _ = ensemble(setting, members, seed)
            change = 1 + 1e-6 * random_of(seed).uniform(-1, 1, depth.shape)
            merged, uncertainty = mc.ensemble_depth(depth, output_uncertainty=True)
            again, uncertainty_again = mc.ensemble_depth((depth * change).astype(np.float32), output_uncertainty=True)
            assert uncertainty is not None and uncertainty_again is not None
            assert np.abs(merged - again).max() <= 1e-5
            assert np.abs(uncertainty - uncertainty_again).max() <= 1e-5


@pytest.mark.parametrize("reduction", ["median", "mean"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_order_of_the_members_does_not_matter(setting: str, reduction: str) -> None:
    for members in (3, 10, 20):
        depth, _ = ensemble(setting, members, 0)
        shuffled = depth[random_of(members).permutation(members)]
        for x, y in zip(
            mc.ensemble_depth(depth, output_uncertainty=True, reduction=reduction),
            mc.ensemble_depth(shuffled, output_uncertainty=True, reduction=reduction),
            strict=True,
        ):
            assert x is not None and y is not None
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-6)


# ---- depth: the references' solver ----


def reference_cost(depth: Array, scale: Array, shift: Array, strength: float, reduction: str) -> float:
    aligned = depth.reshape(len(depth), -1).astype(np.float64) * scale[:, None] + shift[:, None]
    first, second = np.triu_indices(len(depth), 1)
    pairs = np.sqrt(((aligned[first] - aligned[second]) ** 2).mean(1)).sum()
    merged, _ = merge(aligned, reduction)
    return float(pairs + strength * (abs(merged.min()) + abs(1 - merged.max())))


@pytest.mark.parametrize("reduction", ["median", "mean"])
def test_the_references_solver_lowers_its_cost(reduction: str) -> None:
    before, after = [], []
    for setting in ("plain", "spikes", "outlier"):
        for seed in range(3):
            depth, _ = ensemble(setting, 5, seed)
            low, high = depth.min((1, 2, 3)), depth.max((1, 2, 3))
            start = 1 / (high - low)
            scale, shift = align_depth(depth, "reference", reduction=reduction)
            before.append(reference_cost(depth, start, -start * low, 0.02, reduction))
            after.append(reference_cost(depth, scale, shift, 0.02, reduction))
            assert after[-1] <= before[-1] + 1e-6
    assert np.mean(after) < 0.95 * np.mean(before)


def test_the_references_solver_starts_from_the_range() -> None:
    depth, _ = ensemble("plain", 4, 0)
    low, high = depth.min((1, 2, 3)), depth.max((1, 2, 3))
    scale, shift = align_depth(depth, "reference", tol=1e9)
    np.testing.assert_allclose(scale, 1 / (high - low), rtol=1e-6)
    np.testing.assert_allclose(shift, -low / (high - low), rtol=1e-6)
    scale, shift = align_depth(depth, "reference", with_shift=False, tol=1e9)
    np.testing.assert_allclose(scale, 1 / high, rtol=1e-6)
    np.testing.assert_array_equal(shift, 0)


# ---- threads ----

CALLS: dict[str, Callable[[Array, int], Any]] = {
    "closed-form": lambda x, n: _C.ensemble_depth(x[:, 0], output_uncertainty=True, num_threads=n),
    "mean": lambda x, n: _C.ensemble_depth(x[:, 0], output_uncertainty=True, reduction="mean", num_threads=n),
    "reference": lambda x, n: _C.ensemble_depth(
        x[:, 0], output_uncertainty=True, solver="reference", max_iter=5, num_threads=n
    ),
    "normals": lambda x, n: _C.ensemble_normals(np.concatenate([x, x, x], 1), output_uncertainty=True, num_threads=n),
    "intrinsics": lambda x, n: _C.ensemble_intrinsics(
        np.stack([x, x, x], 2), output_uncertainty=True, reduction="mean", num_threads=n
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_number_of_threads_does_not_matter(name: str) -> None:
    depth, _ = ensemble("outlier", 6, 0, 61, 83)
    expected = CALLS[name](depth, 1)
    for threads in (2, 3, 7, 0):
        for x, y in zip(expected, CALLS[name](depth, threads), strict=True):
            np.testing.assert_array_equal(x, y)


def solve_long(depth: Array, running: threading.Event) -> None:
    running.set()
    mc.ensemble_depth(depth, solver="reference", max_iter=20, tol=0)


def test_other_threads_run_meanwhile() -> None:
    depth, _ = ensemble("plain", 16, 0, 192, 256)
    for _attempt in range(4):  # a busy machine may hold up the counting thread
        longest, running = 0.0, threading.Event()
        worker = threading.Thread(target=solve_long, args=(depth, running))
        worker.start()
        running.wait()
        begin = last = time.perf_counter()
        while worker.is_alive():
            time.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        if longest < 0.5 * (last - begin):
            return
    pytest.fail(f"the calling thread stood still for {longest:.3f} of {last - begin:.3f} s")


def test_ctrl_c_stops_the_solver() -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    depth, _ = ensemble("plain", 40, 0, 240, 320)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            mc.ensemble_depth(depth, solver="reference", max_iter=1000, tol=0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---- eigenvectors ----


def test_eigenvectors() -> None:
    for n in (1, 2, 3, 10, 61):
        for kind in ("random", "repeated", "diagonal"):
            a = random_of(n).standard_normal((n, n))
            matrix = {"random": a + a.T, "repeated": np.ones((n, n)), "diagonal": np.diag(a[0])}[kind]
            raw_values, raw_vectors = _testing.symmetric_eigen(matrix, n)
            values = np.frombuffer(raw_values)
            vectors = np.frombuffer(raw_vectors).reshape(n, n)
            np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix), rtol=0, atol=1e-12 * n)
            np.testing.assert_allclose(matrix @ vectors, vectors * values, rtol=0, atol=1e-12 * n)
            np.testing.assert_allclose(vectors.T @ vectors, np.eye(n), rtol=0, atol=1e-13 * n)


# ---- arrays and bad input ----


def test_kinds_of_arrays() -> None:
    depth, _ = ensemble("plain", 4, 0)
    half = depth.astype(np.float16)
    expected, _ = mc.ensemble_depth(half.astype(np.float32))
    swapped = half.astype(">f4")
    strided = np.repeat(half.astype(np.float32), 2, axis=3)[..., ::2]
    fortran = np.asfortranarray(half.astype(np.float64))
    for x in (half, swapped, strided, fortran, half.astype(np.float32)[:, :, ::-1][:, :, ::-1]):
        merged, _ = mc.ensemble_depth(x)
        assert merged.dtype == np.float32 and merged.flags.c_contiguous
        np.testing.assert_array_equal(merged, expected)
    integers = (random_of(1).random((3, 1, 4, 5)) * 255).astype(np.uint8)
    np.testing.assert_array_equal(mc.ensemble_depth(integers)[0], mc.ensemble_depth(integers.astype(np.float32))[0])
    kept = depth.copy()
    mc.ensemble_depth(depth, output_uncertainty=True, solver="reference")
    np.testing.assert_array_equal(depth, kept)


DEPTH = np.linspace(0, 1, 3 * 4 * 5, dtype=np.float32).reshape(3, 1, 4, 5)
BAD_DEPTH: list[tuple[Any, dict[str, Any], str]] = [
    (DEPTH[:, 0], {}, "3, 4, 5"),
    (DEPTH[0, 0], {}, "4, 5"),
    (DEPTH.reshape(1, 3, 4, 5), {}, "1, 3, 4, 5"),
    (DEPTH[:0], {}, "0, 4, 5"),
    (DEPTH[:, :, :0], {}, "3, 0, 5"),
    (DEPTH.astype(complex), {}, "complex"),
    (np.full((2, 1, 2, 2), "x"), {}, "dtype"),
    (np.where(DEPTH[1, 0, 2, 3] == DEPTH, np.nan, DEPTH), {}, "member 1 is -?nan"),
    (np.where(DEPTH[1, 0, 2, 3] == DEPTH, np.inf, DEPTH), {}, "element 13 of member 1 is inf"),
    (DEPTH * 1e20, {}, "1e18"),
    (np.zeros((257, 1, 2, 2), np.float32), {}, "257 members"),
    (DEPTH, {"reduction": "closest"}, "closest"),
    (DEPTH, {"reduction": "mode"}, "mode"),
    (DEPTH, {"solver": "newton"}, "newton"),
    (DEPTH, {"scale_invariant": False}, "shift alone"),
    (DEPTH, {"regularizer_strength": -1.0}, "regularizer_strength"),
    (DEPTH, {"regularizer_strength": float("nan")}, "regularizer_strength"),
    (DEPTH, {"max_iter": -1}, "max_iter"),
    (DEPTH, {"tol": -1.0}, "tol"),
    (DEPTH, {"tol": float("nan")}, "tol"),
    (DEPTH, {"max_res": -5}, "max_res"),
    (np.zeros((2, 1, 1, 100), np.float32), {"max_res": 50}, "max_res 50"),
]


@pytest.mark.parametrize("case", range(len(BAD_DEPTH)))
def test_bad_depth(case: int) -> None:
    depth, options, message = BAD_DEPTH[case]
    with pytest.raises(ValueError, match=message):
        mc.ensemble_depth(depth, **options)


def test_bad_normals_and_intrinsics() -> None:
    normals = np.ones((2, 3, 4, 5), np.float32)
    targets = np.ones((2, 1, 3, 4, 5), np.float32)
    for function, good, wrong in (
        (mc.ensemble_normals, normals, "median"),
        (mc.ensemble_intrinsics, targets, "closest"),
    ):
        for reduction in (wrong, "mode", ""):
            with pytest.raises(ValueError, match="reduction"):
                function(good, reduction=reduction)
        for bad in (good[0], good[..., :2, :, :], good[:0], good[..., :0], good * np.nan, good * np.inf):
            with pytest.raises(ValueError):
                function(bad)
        with pytest.raises(ValueError, match="300 members"):
            function(np.ones((300, *good.shape[1:]), np.float32))
