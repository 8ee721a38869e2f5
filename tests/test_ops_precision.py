"""Every operation with bfloat16 activations, and with int8 weights, against float64 (reference_ops.py)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from combinations import over
from numpy.typing import NDArray
from test_ops import BACKENDS, CASES, FORWARD, ISAS, Array, Case, alias_pairs, inputs_of, run

from reference_ops import REFERENCES, Reference, round_to_bfloat16

# Half a unit in the last place, relative, of what activations and weights are rounded to.
BFLOAT16, INT8 = 2.0**-8, 0.5 / 127

# Operations at the edges of a network, which exist for float32 only, and casts, which test_ops.py covers.
FLOATS_ONLY = {
    *("time_embedding", "token_embedding", "nchw_to_nhwc", "nhwc_to_nchw", "cast"),
}
# Errors beyond the rounding of the result and of the weights, as multiples of BFLOAT16 times the magnitude.
TOLERANCES: dict[str, tuple[float, str]] = {
    "conv2d": (
        0.25,
        "block floating point of 13 bits, which the transforms amplify about tenfold, against the sum of terms",
    ),
    "linear": (0.01, "float32 sums of exact products"),
    "groupnorm": (0.07, "float32 statistics and products; the coarse SiLU"),
    "layernorm": (0.02, "float32 statistics and products"),
    "attention": (1.1, "probabilities, and keys and values given in float32, are rounded to bfloat16"),
    "geglu": (0.06, "the coarse GELU"),
    "activation": (0.06, "float32 polynomials; the coarse SiLU and GELU"),
    "concat": (0, "moves elements"),
    "channel_slice": (0, "moves elements"),
    "scale": (0.01, "float32 arithmetic"),
    "add": (0.01, "float32 arithmetic"),
}


def applies(case: Case) -> bool:
    return case.op not in FLOATS_ONLY and not case.params.get("few_rows") and case.note != "extremes"


HALF_CASES = [case for case in CASES if applies(case)]
BATCHED = [case for case in HALF_CASES if case.batch > 1]
WEIGHTED = [case for case in HALF_CASES if case.op in ("conv2d", "linear")]


def is_activation(case: Case, slot: int) -> bool:
    return not case.is_weight(slot) and not (case.op == "conv2d" and slot == 4)


@cache
def rounded_inputs(case: Case) -> list[Array | None]:
    """What test_ops.py gives, the activations rounded to bfloat16: so the first rounding is not counted as an error."""
    return [
        round_to_bfloat16(array).astype(np.float32) if array is not None and is_activation(case, slot) else array
        for slot, array in enumerate(inputs_of(case))
    ]


@cache
def reference_of(case: Case) -> Reference:
    return REFERENCES[case.op](rounded_inputs(case), case.params)


def weight_error(case: Case, precision: str) -> float:
    """The largest relative error of a sum of terms through the rounding of its weights."""
    if case.op not in ("conv2d", "linear"):
        return 0.0
    return BFLOAT16 if precision == "bfloat16" else 0.0


def check(found: Array, expected: Reference, allowed: Any) -> None:
    assert found.shape == expected.value.shape
    error = np.abs(found.astype(np.float64) - expected.value)
    worst = np.nan_to_num(error / allowed, nan=np.inf)
    assert np.all(worst <= 1.0), f"{np.max(worst):.3g} times the allowed error, largest error {np.max(error):.3g}"


def test_every_operation_is_covered() -> None:
    assert {case.op for case in HALF_CASES} == set(TOLERANCES)
    assert set(TOLERANCES) | FLOATS_ONLY == set(FORWARD)


@pytest.mark.parametrize("case", HALF_CASES, ids=str)
@over(("backend", "isa"), BACKENDS)
def test_bfloat16_agrees_with_float64(backend: str, isa: str | None, case: Case) -> None:
    expected = reference_of(case)
    found = run(backend, isa, 1, case, rounded_inputs(case), precision="bfloat16")
    beyond = 1e-6 if backend == "ref" else TOLERANCES[case.op][0] * BFLOAT16 + weight_error(case, "bfloat16")
    check(found, expected, 1.01 * BFLOAT16 * np.abs(expected.value) + beyond * expected.magnitude + 1e-37)


def largest_weights(case: Case) -> Array:
    """(K,): by what each column's elements are scaled to int8."""
    weight = inputs_of(case)[1]
    assert weight is not None
    return np.abs(weight).max(axis=tuple(range(1, weight.ndim)))


@cache
def sums_of_magnitudes(case: Case) -> NDArray[np.float64]:
    """The sum over a window of |x|, for each output: what an error of one unit in every weight adds up to."""
    inputs = rounded_inputs(case)
    weight = inputs[1]
    assert weight is not None
    ones = [np.abs(inputs[0]) if inputs[0] is not None else None, np.ones_like(weight)]
    linear = {key: value for key, value in case.params.items() if key not in ("relu", "activation")}
    return REFERENCES[case.op](ones, linear).value


@pytest.mark.parametrize("case", WEIGHTED, ids=str)
@over("isa", ISAS)
def test_int8_agrees_with_float64(isa: str, case: Case) -> None:
    """A weight is off by half a unit of its column's scale at most; a linear layer's row of x by half of its own."""
    inputs, expected = rounded_inputs(case), reference_of(case)
    found = run("cpu", isa, 1, case, inputs, precision="int8")
    weight_unit = INT8 * largest_weights(case) * sums_of_magnitudes(case)
    x_unit: Any = 0.0
    if case.op == "linear":
        x, weight = inputs[0], inputs[1]
        assert x is not None and weight is not None
        x_unit = INT8 * np.abs(x).max(axis=3, keepdims=True) * np.abs(weight).reshape(len(weight), -1).sum(axis=1)
    other = 1.01 * BFLOAT16 * np.abs(expected.value) + 0.25 * BFLOAT16 * expected.magnitude + 1e-37
    check(found, expected, 1.2 * (1.01 * weight_unit + 1.01 * x_unit) + other)


@pytest.mark.parametrize("case", [case for case in HALF_CASES if case.op == "attention"], ids=str)
@over(("backend", "isa"), BACKENDS)
def test_keys_and_values_may_be_float32(backend: str, isa: str | None, case: Case) -> None:
    inputs = [rounded_inputs(case)[0], *inputs_of(case)[1:]]
    expected = REFERENCES[case.op](inputs, case.params)
    found = run(backend, isa, 1, case, inputs, precision="mixed")
    beyond = 1e-6 if backend == "ref" else 1.6 * BFLOAT16
    check(found, expected, 1.01 * BFLOAT16 * np.abs(expected.value) + beyond * expected.magnitude + 1e-37)


@pytest.mark.parametrize("case", HALF_CASES, ids=str)
@over("isa", ISAS)
@over("precision", ["bfloat16", "int8"])
def test_threads_do_not_change_a_bit(isa: str, precision: str, case: Case) -> None:
    inputs = rounded_inputs(case)
    single = run("cpu", isa, 1, case, inputs, precision=precision)
    np.testing.assert_array_equal(run("cpu", isa, 3, case, inputs, precision=precision), single)


@pytest.mark.parametrize("case", BATCHED, ids=str)
@over("isa", ISAS)
@over("precision", ["bfloat16", "int8"])
def test_images_of_a_batch_do_not_affect_each_other(isa: str, precision: str, case: Case) -> None:
    inputs = rounded_inputs(case)
    together = run("cpu", isa, 2, case, inputs, precision=precision)
    for image in range(case.batch):
        alone = [
            array[image : image + 1] if array is not None and not case.is_weight(slot) and len(array) > 1 else array
            for slot, array in enumerate(inputs)
        ]
        np.testing.assert_array_equal(run("cpu", isa, 2, case, alone, precision=precision)[0], together[image])


@pytest.mark.parametrize(
    ("case", "slot"), [pair for pair in alias_pairs() if applies(pair.values[0]) and is_activation(*pair.values)]
)
@over("isa", ISAS)
def test_output_may_take_over_an_input(isa: str, case: Case, slot: int) -> None:
    inputs = rounded_inputs(case)
    apart = run("cpu", isa, 2, case, inputs, precision="bfloat16")
    np.testing.assert_array_equal(run("cpu", isa, 2, case, inputs, slot, "bfloat16"), apart)


def test_values_that_are_no_numbers_are_not_lost() -> None:
    """Fixed point has no NaN or infinity: a block that holds one gives NaN where it is read, and only there."""
    for bad in (np.nan, np.inf):
        case = Case(
            "conv2d", [(1, 24, 24, 8), (8, 8, 3, 3)], {"pad_top": 1, "pad_left": 1, "pad_bottom": 1, "pad_right": 1}
        )
        inputs = rounded_inputs(case)
        x = inputs[0]
        assert x is not None
        x[0, 2, 2, 3] = bad
        found = run("cpu", None, 1, case, inputs, precision="bfloat16")
        assert not np.isfinite(found[0, 1:4, 1:4]).any()
        assert np.isfinite(found[0, 12:, 12:]).all()
        row = Case("linear", [(1, 1, 5, 8), (8, 8)])
        inputs = rounded_inputs(row)
        x = inputs[0]
        assert x is not None
        x[0, 0, 2, 3] = bad
        for precision in ("bfloat16", "int8"):
            found = run("cpu", None, 1, row, inputs, precision=precision)
            assert not np.isfinite(found[0, 0, 2]).any()
            assert np.isfinite(np.delete(found, 2, axis=2)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@over("isa", ISAS)
def test_weights_that_are_no_numbers_are_not_lost(isa: str, bad: float) -> None:
    """Scaled integers have no NaN or infinity either: a filter that holds one gives NaN, the others what they gave."""
    same = {"pad_top": 1, "pad_left": 1, "pad_bottom": 1, "pad_right": 1}
    for case in (
        Case("conv2d", [(1, 24, 24, 8), (40, 8, 3, 3)], same),
        Case("conv2d", [(1, 5, 5, 8), (40, 8, 3, 3)], {**same, "stride": 2}),
        Case("linear", [(1, 1, 5, 8), (40, 8)]),
    ):
        for precision in ("bfloat16", "int8"):
            x, weight = rounded_inputs(case)
            assert weight is not None
            broken = weight.copy()
            broken[(3, 5) if weight.ndim == 2 else (3, 5, 1, 1)] = bad
            sound, found = (run("cpu", isa, 1, case, [x, those], precision=precision) for those in (weight, broken))
            assert not np.isfinite(found[..., 3]).any(), (case, precision)
            np.testing.assert_array_equal(np.delete(found, 3, axis=-1), np.delete(sound, 3, axis=-1))
