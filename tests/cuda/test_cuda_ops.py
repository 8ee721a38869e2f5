"""Every operation of the CUDA backend: against float64, in several orders of a block's threads, in every precision."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from test_ops import (
    BATCHED,
    CASES,
    FORWARD,
    ROUNDING,
    SMALLEST,
    TOLERANCES,
    Array,
    Case,
    alias_pairs,
    inputs_of,
    reference_of,
    run,
)
from test_ops_precision import HALF_CASES, is_activation

from reference_ops import REFERENCES, Reference, round_to_bfloat16

ORDERS = (1, 2, 3)  # of a block's threads: last to first, and two shuffled
ROUNDED = {"bfloat16": 2.0**-8, "float16": 2.0**-11}

# Errors beyond the rounding of the result, as multiples of half a unit of the type times the magnitude.
HALF_TOLERANCES: dict[str, tuple[float, str]] = {
    "conv2d": (1.05, "weights are rounded; float32 sums of exact products"),
    "linear": (1.6, "weights and bias are rounded; with an activation, so is the product before it"),
    "groupnorm": (0.07, "float32 statistics and products"),
    "layernorm": (0.02, "float32 statistics and products"),
    "attention": (1.1, "probabilities, and keys and values given in float32, are rounded"),
    "geglu": (0.01, "float32 arithmetic"),
    "activation": (0.01, "float32 arithmetic"),
    "concat": (0, "moves elements"),
    "channel_slice": (0, "moves elements"),
    "scale": (0.01, "float32 arithmetic"),
    "add": (0.01, "float32 arithmetic"),
}


def check(found: Array, expected: Reference, allowed: Any) -> None:
    assert found.shape == expected.value.shape
    error = np.abs(found.astype(np.float64) - expected.value)
    worst = np.nan_to_num(error / allowed, nan=np.inf)
    assert np.all(worst <= 1.0), f"{np.max(worst):.3g} times the allowed error, largest error {np.max(error):.3g}"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_float64(case: Case) -> None:
    expected = reference_of(case)
    allowed = TOLERANCES[case.op][0] * ROUNDING * expected.magnitude + SMALLEST
    check(run("cuda", None, 1, case, inputs_of(case)), expected, allowed)


def fits(case: Case, precision: str) -> bool:
    """Whether the case's numbers are within the range of the type: norms are given huge and tiny ones, too."""
    return precision == "bfloat16" or case.note not in ("huge", "tiny", "one spike", "large logits")


HALVES = [
    pytest.param(case, precision, id=f"{case}-{precision}")
    for case in HALF_CASES
    for precision in ROUNDED
    if fits(case, precision)
]


def rounded_inputs(case: Case, precision: str) -> list[Array | None]:
    """Activations that the type has exactly: so their rounding is not counted as an error."""
    rounded = round_to_bfloat16 if precision == "bfloat16" else lambda array: array.astype(np.float16)
    return [
        rounded(array).astype(np.float32) if array is not None and is_activation(case, slot) else array
        for slot, array in enumerate(inputs_of(case))
    ]


@cache
def half_reference(case: Case, precision: str) -> Reference:
    inputs = [None if array is None else array.astype(np.float64) for array in rounded_inputs(case, precision)]
    return REFERENCES[case.op](inputs, case.params)


@pytest.mark.parametrize(("case", "precision"), HALVES)
def test_halves_agree_with_float64(case: Case, precision: str) -> None:
    expected, unit = half_reference(case, precision), ROUNDED[precision]
    allowed = 1.01 * unit * np.abs(expected.value) + HALF_TOLERANCES[case.op][0] * unit * expected.magnitude + 2.0**-25
    check(run("cuda", None, 1, case, rounded_inputs(case, precision), precision=precision), expected, allowed)


@pytest.mark.parametrize("case", [case for case in HALF_CASES if case.op == "attention"], ids=str)
def test_attention_to_float32_keys(case: Case) -> None:
    inputs = inputs_of(case)
    query = inputs[0]
    assert query is not None
    mixed = [round_to_bfloat16(query).astype(np.float32), *inputs[1:]]
    expected = REFERENCES["attention"]([None if a is None else a.astype(np.float64) for a in mixed], case.params)
    unit = ROUNDED["bfloat16"]
    # Scores, too, are those of rounded keys: the magnitude counts them.
    allowed = 1.01 * unit * np.abs(expected.value) + 2.2 * unit * expected.magnitude
    check(run("cuda", None, 1, case, mixed, precision="mixed"), expected, allowed)


# Variants that the environment chooses, and the cases that they are for.
VARIANTS = {
    ("MARIGOLD_CUDA_CONV2D_TILE", "wide"): [case for case in HALF_CASES if case.op == "conv2d"],
    ("MARIGOLD_CUDA_ATTENTION", "tiled"): [case for case in HALF_CASES if case.op == "attention"],
}


@pytest.mark.parametrize(
    ("variable", "value", "case"),
    [pytest.param(*chosen, case, id=f"{chosen[1]}-{case}") for chosen, cases in VARIANTS.items() for case in cases],
)
def test_variants_agree_with_float64(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, case: Case) -> None:
    precision = "bfloat16"
    monkeypatch.setenv(variable, value)
    expected, unit = half_reference(case, precision), ROUNDED[precision]
    allowed = 1.01 * unit * np.abs(expected.value) + HALF_TOLERANCES[case.op][0] * unit * expected.magnitude + 2.0**-25
    check(run("cuda", None, 1, case, rounded_inputs(case, precision), precision=precision), expected, allowed)


COOPERATIVE = ("conv2d", "attention", "groupnorm", "layernorm", "nchw_to_nhwc", "nhwc_to_nchw")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", [case for case in CASES if case.op in COOPERATIVE], ids=str)
def test_order_of_threads_does_not_change_a_bit(emulator: Any, case: Case, precision: str) -> None:
    """Threads of a block go on one by one, between barriers in any order: what one writes and another reads without a
    barrier between them shows in one order or another."""
    if precision != "float32" and case not in HALF_CASES:
        pytest.skip("float32 only")
    first = run("cuda", None, 1, case, inputs_of(case), precision=precision)
    for order in ORDERS:
        emulator.order(order)
        np.testing.assert_array_equal(run("cuda", None, 1, case, inputs_of(case), precision=precision), first)


@pytest.mark.parametrize("case", BATCHED, ids=str)
def test_images_of_a_batch_do_not_affect_each_other(case: Case) -> None:
    """To the tolerance of one image: cuBLAS may choose another kernel for more rows."""
    inputs = inputs_of(case)
    together = run("cuda", None, 1, case, inputs)
    allowed = 2 * TOLERANCES[case.op][0] * ROUNDING * np.broadcast_to(reference_of(case).magnitude, together.shape)
    for image in range(case.batch):
        alone = [
            array[image : image + 1] if array is not None and not case.is_weight(slot) and len(array) > 1 else array
            for slot, array in enumerate(inputs)
        ]
        error = np.abs(run("cuda", None, 1, case, alone)[0] - together[image])
        assert np.all(error <= (allowed[image] if len(allowed) > 1 else allowed[0]) + SMALLEST)


@pytest.mark.parametrize(("case", "slot"), alias_pairs())
def test_output_may_take_over_an_input(case: Case, slot: int) -> None:
    apart = run("cuda", None, 1, case, inputs_of(case))
    np.testing.assert_array_equal(run("cuda", None, 1, case, inputs_of(case), slot), apart)


def test_ids_outside_the_table_read_its_ends() -> None:
    table = np.arange(20, dtype=np.float32).reshape(5, 4)
    ids = np.array([-1.0, 4.0, 5.0, 1e30, np.nan], dtype=np.float32).reshape(1, 1, 5, 1)
    case = Case("token_embedding", [ids.shape, table.shape, (5, 4)])
    found = run("cuda", None, 1, case, [ids, table, np.zeros((5, 4), np.float32)])
    np.testing.assert_array_equal(found[0, 0], table[[0, 4, 4, 4, 0]])


def test_every_operation_is_covered() -> None:
    assert {case.op for case in HALF_CASES} == set(HALF_TOLERANCES)
    assert {case.op for case in CASES} == set(FORWARD)


# ---- TF32 ----

# Errors as multiples of half a unit of eleven bits times the magnitude: both factors are rounded.
TF32_TOLERANCES = {"conv2d": 2.01, "linear": 2.01, "attention": 4.5}


@pytest.mark.parametrize("case", [case for case in CASES if case.op in TF32_TOLERANCES], ids=str)
def test_tf32_agrees_with_float64(case: Case) -> None:
    expected = reference_of(case)
    allowed = TF32_TOLERANCES[case.op] * 2.0**-11 * expected.magnitude + SMALLEST
    check(run("cuda", "tf32", 1, case, inputs_of(case)), expected, allowed)


def test_tf32_is_used_where_it_is(emulator: Any) -> None:
    """Turing has none: there the same request means float32."""
    for case in (next(case for case in CASES if case.op == op) for op in TF32_TOLERANCES):
        exact, rounded = (run("cuda", isa, 1, case, inputs_of(case)) for isa in (None, "tf32"))
        assert not np.array_equal(rounded, exact)
        emulator.device(1, 75)
        np.testing.assert_array_equal(run("cuda", "tf32", 1, case, inputs_of(case)), exact)
        emulator.device(1, 86)
