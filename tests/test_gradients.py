"""The gradient of every operation: on ref against central differences of reference_ops.py, on cpu against ref.

engine.run_gradient records the backward pass as training does and runs its operations on fenced memory."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from combinations import over
from numpy.typing import NDArray
from test_ops import ISAS, Array, Case, conv2d_case, inputs_of, times, values

from marigold_c import _testing as engine
from reference_ops import GELU, NONE, QUICK_GELU, REFERENCES, RELU, SILU, TANH

STEP = 1e-5  # of central differences in float64

# Forward operations without a gradient: where numbers enter or leave a network, and what is never trained through.
NO_GRADIENT = {
    "time_embedding",
    "token_embedding",
}
# Allowed error of cpu against ref, relative to the largest element of the gradient of that input.
TOLERANCE = 5e-6


# ---- cases: small enough for two evaluations for each element of each input ----


def conv2d_cases() -> Iterator[Case]:
    everything = "bias residual vector"
    yield conv2d_case((1, 4, 5, 3), 2)
    yield conv2d_case((2, 3, 4, 2), 3, extra=everything, vector_batch=2)
    yield conv2d_case((2, 3, 4, 2), 3, extra=everything, relu=True)
    yield conv2d_case((2, 4, 5, 2), 3, extra=everything, stride=2)
    yield conv2d_case((1, 5, 4, 2), 3, pad=(0, 0, 1, 1), stride=2, extra="")
    yield conv2d_case((2, 2, 3, 2), 3, upsampled_h=4, upsampled_w=5)
    yield conv2d_case((1, 3, 2, 2), 3, upsampled_h=5, upsampled_w=2, extra="residual")
    yield conv2d_case((1, 5, 7, 2), 3, (5, 3), (2, 1, 0, 1), stride=3)
    yield conv2d_case((1, 4, 3, 2), 3, (1, 1), (0, 0, 0, 0))
    yield conv2d_case((1, 4, 3, 2), 3, pad=(2, 2, 2, 2))


def linear_cases() -> Iterator[Case]:
    for few_rows, activation in itertools.product((False, True), (NONE, SILU, GELU, QUICK_GELU, TANH, RELU)):
        params = {"activation": activation, "few_rows": few_rows}
        yield Case("linear", [(2, 2, 3, 4), (5, 4), (5,), (2, 2, 3, 5)], params)
    yield Case("linear", [(1, 2, 3, 4), (5, 4)])
    yield Case("linear", [(1, 2, 3, 4), (5, 4, 1, 1), (5,)])


def norm_cases() -> Iterator[Case]:
    for silu in (False, True):
        yield Case("groupnorm", [(2, 3, 2, 6), (6,), (6,)], {"groups": 3, "epsilon": 1e-5, "silu": silu})
    far = {0: times(0.1, 1.0)}
    yield Case("groupnorm", [(1, 3, 5, 4), (4,), (4,)], {"groups": 1, "epsilon": 1e-6, "silu": True}, far, "far")
    yield Case("layernorm", [(2, 3, 2, 5), (5,), (5,)], {"epsilon": 1e-5})
    yield Case("layernorm", [(1, 2, 2, 7), (7,), (7,)], {"epsilon": 1e-2}, far, "far")


def attention_cases() -> Iterator[Case]:
    for causal in (False, True):
        shape = (2, 1, 4, 6)
        yield Case("attention", [shape, shape, shape], {"heads": 2, "causal": causal})
    yield Case("attention", [(2, 2, 3, 4), (1, 1, 2, 4), (1, 1, 2, 4)], {"heads": 2})
    yield Case("attention", [(2, 1, 3, 4), (2, 1, 5, 4), (2, 1, 5, 4)], {"heads": 1}, {0: times(3.0)}, "large logits")


def pointwise_cases() -> Iterator[Case]:
    x = (2, 2, 3, 4)
    yield Case("geglu", [x])
    for activation in (NONE, SILU, GELU, QUICK_GELU, RELU, TANH):
        yield Case("activation", [x], {"activation": activation})
        wide = values(-9.0, -4.0, -1.5, 0.3, 1.1, 2.0, 5.0, 11.0)
        yield Case("activation", [(1, 2, 2, 2)], {"activation": activation}, {0: wide}, "wide")
    yield Case("concat", [x, (2, 2, 3, 3)])
    yield Case("channel_slice", [x], {"begin": 1, "count": 2})
    yield Case("scale", [x], {"factor": -1.7, "offset": 0.3})
    yield Case("nchw_to_nhwc", [x])
    yield Case("nhwc_to_nchw", [x])
    for small in ((2, 2, 3), (1, 2, 3), (2, 1, 1), (1, 1, 1), (1, 2, 1)):
        yield Case("add", [x, (*small, 4)])


SMALL = [*conv2d_cases(), *linear_cases(), *norm_cases(), *attention_cases(), *pointwise_cases()]


def large_cases() -> Iterator[Case]:
    """Odd sizes, more than one tile, group, chunk or block of everything that the cpu's drivers cut."""
    for x, filters in (((1, 1, 1, 3), 17), ((2, 5, 7, 17), 40), ((1, 13, 11, 66), 35), ((2, 24, 21, 40), 64)):
        yield conv2d_case(x, filters, extra="bias residual vector", vector_batch=x[0])
        yield conv2d_case(x, filters, pad=(0, 0, 1, 1) if x[1] > 1 else (1, 1, 1, 1), stride=2)
        yield conv2d_case(x, filters, upsampled_h=2 * x[1], upsampled_w=2 * x[2] + 1)
        yield conv2d_case(x, filters, (1, 1), (0, 0, 0, 0), relu=True)
    yield conv2d_case((1, 9, 8, 5), 7, (5, 4), (2, 1, 3, 2), stride=3)
    yield conv2d_case((1, 6, 5, 200), 30)
    yield conv2d_case((1, 3, 3, 5), 7, pad=(3, 2, 4, 2))
    for few_rows in (False, True):
        yield Case("linear", [(2, 7, 9, 33), (70, 33), (70,), (2, 7, 9, 70)], {"few_rows": few_rows})
        yield Case("linear", [(1, 1, 1, 300), (17, 300), (17,)], {"few_rows": few_rows})
    yield Case("linear", [(1, 19, 31, 205), (700, 205), (700,)], {"activation": SILU})
    for x, groups in (((2, 33, 29, 34), 17), ((1, 5, 7, 96), 32), ((3, 1, 1, 40), 8)):
        for silu in (False, True):
            yield Case("groupnorm", [x, (x[3],), (x[3],)], {"groups": groups, "epsilon": 1e-5, "silu": silu})
    for x in ((2, 13, 15, 17), (1, 31, 40, 64), (1, 1, 1, 130)):
        yield Case("layernorm", [x, (x[3],), (x[3],)], {"epsilon": 1e-5})
    for q, k, heads in (
        ((1, 10, 13, 40), (1, 10, 13, 40), 1),
        ((2, 11, 9, 66), (2, 7, 10, 66), 3),
        ((2, 9, 12, 64), (1, 1, 2, 64), 4),
        ((1, 25, 26, 32), (1, 25, 26, 32), 1),
    ):
        yield Case("attention", [q, k, k], {"heads": heads})
    yield Case("attention", [(1, 12, 11, 26)] * 3, {"heads": 2, "causal": True})
    for x in ((2, 5, 7, 18), (1, 33, 29, 64), (3, 1, 301, 130)):
        yield Case("geglu", [x])
        for activation in (SILU, GELU, QUICK_GELU, RELU, TANH):
            yield Case("activation", [x], {"activation": activation})
        yield Case("channel_slice", [x], {"begin": x[3] // 3, "count": x[3] // 2})
        yield Case("concat", [x, (*x[:3], 7)])
        for kept in itertools.product((False, True), repeat=3):
            small = tuple(size if keep else 1 for size, keep in zip(x[:3], kept, strict=True))
            yield Case("add", [x, (*small, x[3])])


LARGE = list(large_cases())


# ---- gradients ----


@cache
def seed_of(case: Case) -> Array:
    inputs = [None if array is None else array.astype(np.float64) for array in inputs_of(case)]
    shape = REFERENCES[case.op](inputs, case.params).value.shape
    rng = np.random.default_rng(zlib.crc32(f"seed of {case}".encode()))
    return rng.standard_normal(shape).astype(np.float32)


def gradients(
    backend: str, isa: str | None, threads: int, case: Case, start: float = 0.0
) -> tuple[list[Array | None], list[str]]:
    found, names = engine.run_gradient(
        backend, isa, threads, case.op, case.params, inputs_of(case), seed_of(case), start
    )
    shaped = [
        None if data is None else np.frombuffer(data, np.float32).reshape(case.shapes[slot])
        for slot, data in enumerate(found[: len(case.shapes)])
    ]
    return shaped, names


def differences(case: Case, slot: int) -> NDArray[np.float64]:
    """Of the output, weighted with the seed, by each element of one input."""
    inputs = [None if array is None else array.astype(np.float64) for array in inputs_of(case)]
    seed = seed_of(case).astype(np.float64)
    moved = inputs[slot]
    assert moved is not None
    result = np.empty(moved.shape)
    for index in np.ndindex(*moved.shape):
        original, ends = moved[index], []
        for step in (STEP, -STEP):
            moved[index] = original + step
            ends.append(np.sum(seed * REFERENCES[case.op](inputs, case.params).value))
        moved[index] = original
        result[index] = (ends[0] - ends[1]) / (2 * STEP)
    return result


def trained(case: Case, slot: int) -> bool:
    return case.is_weight(slot)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_ref_agrees_with_central_differences(case: Case) -> None:
    found, _ = gradients("ref", None, 1, case)
    for slot, array in enumerate(inputs_of(case)):
        gradient = found[slot]
        if array is None:
            assert gradient is None
            continue
        assert gradient is not None, f"input {slot} has no gradient"
        expected = differences(case, slot)
        allowed = 1e-6 * max(np.abs(expected).max(), 1e-3) + 1e-8 * np.abs(seed_of(case)).sum()
        error = np.abs(gradient - expected).max()
        assert error <= allowed, f"input {slot}: error {error:.3g}, allowed {allowed:.3g}"


@cache
def gradients_of_ref(case: Case) -> list[Array | None]:
    return gradients("ref", None, 1, case, 0.25)[0]


@pytest.mark.parametrize("case", [*SMALL, *LARGE], ids=str)
@over("isa", ISAS)
def test_cpu_agrees_with_ref(isa: str, case: Case) -> None:
    found, _ = gradients("cpu", isa, 1, case, 0.25)
    for slot, expected in enumerate(gradients_of_ref(case)):
        gradient = found[slot]
        if expected is None or gradient is None:
            assert gradient is expected
            continue
        error, largest = np.abs(gradient - expected).max(), np.abs(expected).max()
        assert error <= TOLERANCE * largest + 1e-30, f"input {slot}: error {error:.3g} of {largest:.3g}"


# In bfloat16: each activation on the way is rounded (2^-9 of it), an attention has three on its longest way. Gradients
# of weights are sums of exact products of what was rounded.
HALF_TOLERANCE = 8e-3
HALF = [
    case
    for case in (*SMALL, *LARGE)
    if not case.params.get("few_rows") and case.op not in ("nchw_to_nhwc", "nhwc_to_nchw")
]


def to_bfloat16(array: Array | None) -> Array | None:
    """To the nearest, as float32; vectors are float32 in every precision."""
    if array is None or array.ndim == 1:
        return array
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


@cache
def half_inputs(case: Case) -> tuple[list[Array | None], Array | None]:
    """The inputs and the gradient of the output."""
    return [to_bfloat16(array) for array in inputs_of(case)], to_bfloat16(seed_of(case))


def half_gradients(backend: str, isa: str | None, threads: int, case: Case, precision: str) -> list[Array | None]:
    inputs, seed = half_inputs(case)
    found, _ = engine.run_gradient(backend, isa, threads, case.op, case.params, inputs, seed, 0.25, precision)
    return [None if data is None else np.frombuffer(data, np.float32) for data in found]


@cache
def half_gradients_of_ref(case: Case) -> list[Array | None]:
    return half_gradients("ref", None, 1, case, "float32")


@pytest.mark.parametrize("case", HALF, ids=str)
@over("isa", ISAS)
def test_bfloat16_agrees_with_ref(isa: str, case: Case) -> None:
    found = half_gradients("cpu", isa, 1, case, "bfloat16")
    for slot, expected in enumerate(half_gradients_of_ref(case)):
        gradient = found[slot]
        if expected is None or gradient is None:
            assert gradient is expected
            continue
        error, largest = np.abs(gradient - expected).max(), np.abs(expected).max()
        assert error <= HALF_TOLERANCE * largest + 1e-30, f"input {slot}: error {error:.3g} of {largest:.3g}"


@pytest.mark.parametrize(
    ("precision", "case"),
    [*(("float32", case) for case in LARGE), *(("bfloat16", case) for case in LARGE if case in HALF)],
    ids=str,
)
@over("isa", ISAS)
def test_threads_do_not_change_a_bit(isa: str, precision: str, case: Case) -> None:
    single = half_gradients("cpu", isa, 1, case, precision)
    for threads in (2, 3):
        for one, other in zip(single, half_gradients("cpu", isa, threads, case, precision), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("case", [case for case in SMALL if any(map(case.is_weight, range(len(case.shapes))))], ids=str)
@over("backend", ["ref", "cpu"])
def test_gradients_of_weights_are_added(backend: str, case: Case) -> None:
    first, second = gradients(backend, None, 1, case, 0.0)[0], gradients(backend, None, 1, case, 3.0)[0]
    for slot in range(len(case.shapes)):
        one, other = first[slot], second[slot]
        if one is not None and other is not None:
            added = 3.0 if case.is_weight(slot) else 0.0
            np.testing.assert_allclose(other, one + np.float32(added), rtol=0, atol=2e-6 * (3.0 + np.abs(one).max()))


def test_every_gradient_operation_is_covered() -> None:
    """A new line in ops.def needs a case whose backward pass records it, small and large."""
    table = engine.op_table()
    forward = {name for name, row in table.items() if not row["is_gradient"]}
    assert {case.op for case in SMALL} == forward - NO_GRADIENT - {"cast"}
    for cases in (SMALL, LARGE):
        recorded = {name for case in cases for name in gradients("cpu", None, 1, case)[1]}
        assert {name for name, row in table.items() if row["is_gradient"]} <= recorded


@pytest.mark.parametrize("op", sorted(NO_GRADIENT - {"token_embedding"}))
def test_operations_without_a_gradient_say_so(op: str) -> None:
    shapes: dict[str, Any] = {
        "time_embedding": [(2, 1, 1, 1)],
    }
    params: dict[str, dict[str, Any]] = {
        "time_embedding": {
            "channels": 4,
            "flip_sin_to_cos": True,
            "frequency_shift": 0.0,
            "max_period": 10000.0,
        },
    }
    case = Case(op, shapes.get(op, [(1, 2, 2, 3)]), params.get(op, {}))
    with pytest.raises(NotImplementedError, match=f"{op} has no gradient"):
        gradients("ref", None, 1, case)
