"""Every operation on every backend and instruction set against the float64 references of reference_ops.py."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
from combinations import over
from numpy.typing import NDArray

from marigold_c import _testing as engine
from marigold_c.errors import DeviceError
from reference_ops import GELU, NONE, QUICK_GELU, REFERENCES, RELU, SILU, TANH, Reference, round_to_bfloat16

Array = NDArray[np.float32]
Shape = tuple[int, ...]
Fill = Callable[[np.random.Generator, Shape], NDArray[Any]]

ACTIVATIONS = (SILU, GELU, QUICK_GELU, RELU, TANH)
ROUNDING = 2.0**-24  # half a unit in the last place of a float32, relative
SMALLEST = 2.0**-149

# Allowed error of the cpu backend, as a multiple of ROUNDING times the magnitude that reference_ops gives. One ROUNDING
# is what a single correctly rounded operation does; the ref backend, which computes in double, is held to that.
TOLERANCES: dict[str, tuple[float, str]] = {
    "conv2d": (
        16,
        "blocked float32 sums, and the transforms of Winograd F(4x4,3x3), against the sum of absolute terms",
    ),
    "linear": (10, "a float32 sum over C in any order, against the sum of absolute terms"),
    "groupnorm": (6, "x*factor + offset has the error of x*factor, which the magnitude counts; then SiLU"),
    "layernorm": (6, "float32 mean and deviation, each a sum over C"),
    "attention": (8, "online softmax rescales its sums once per block of keys"),
    "geglu": (6, "polynomial erf"),
    "activation": (6, "polynomial exp, erf and tanh; relative errors grow in tails, where |x| is the magnitude"),
    "concat": (0, "moves elements"),
    "channel_slice": (0, "moves elements"),
    "scale": (2, "a product and a sum"),
    "cast": (0, "the nearest bfloat16, exactly; every bfloat16 is a float32"),
    "add": (1, "one rounding"),
    "time_embedding": (4, "float32 exponents and angles, as in torch; the magnitude counts both"),
    "token_embedding": (1, "one rounding"),
    "nchw_to_nhwc": (0, "moves elements"),
    "nhwc_to_nchw": (0, "moves elements"),
}

ISAS: list[str] = engine.isas()
BACKENDS: list[tuple[str, str | None]] = [("ref", None), *(("cpu", isa) for isa in ISAS)]


# ---- cases ----


@dataclass(frozen=True, eq=False)
class Case:
    op: str
    shapes: Sequence[Shape | None]
    params: dict[str, Any] = field(default_factory=dict)
    fills: dict[int, Fill] = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        shapes = ",".join("x".join(map(str, shape)) if shape else "none" for shape in self.shapes)
        params = ",".join(f"{name}={value}" for name, value in self.params.items())
        return "-".join(part for part in (self.op, shapes, params, self.note) if part)

    def is_weight(self, slot: int) -> bool:
        shape = self.shapes[slot]
        named = (self.op in ("conv2d", "linear") and slot == 1) or (self.op == "token_embedding" and slot > 0)
        return named or (shape is not None and len(shape) == 1)

    @property
    def batch(self) -> int:
        first = self.shapes[0]
        assert first is not None
        return first[0]


def normal(rng: np.random.Generator, shape: Shape) -> NDArray[Any]:
    return rng.standard_normal(shape)


def times(factor: float, offset: float = 0.0) -> Fill:
    return lambda rng, shape: rng.standard_normal(shape) * factor + offset


def constant(value: float) -> Fill:
    return lambda rng, shape: np.full(shape, value)


def values(*listed: float) -> Fill:
    """The listed values in turn."""
    return lambda rng, shape: np.resize(np.array(listed), shape)


def integers(limit: int) -> Fill:
    return lambda rng, shape: rng.integers(limit, size=shape)


@cache
def inputs_of(case: Case) -> list[Array | None]:
    rng = np.random.default_rng(zlib.crc32(str(case).encode()))
    return [
        None if shape is None else case.fills.get(slot, normal)(rng, shape).astype(np.float32)
        for slot, shape in enumerate(case.shapes)
    ]


@cache
def reference_of(case: Case) -> Reference:
    inputs = [None if array is None else array.astype(np.float64) for array in inputs_of(case)]
    return REFERENCES[case.op](inputs, case.params)


def convolved(x: Shape, weight: Shape, params: dict[str, int]) -> Shape:
    """The output's shape; importing this file computes no convolution."""
    height = (params.get("upsampled_h") or x[1]) + params.get("pad_top", 0) + params.get("pad_bottom", 0)
    width = (params.get("upsampled_w") or x[2]) + params.get("pad_left", 0) + params.get("pad_right", 0)
    stride = params.get("stride", 1)
    return (x[0], (height - weight[2]) // stride + 1, (width - weight[3]) // stride + 1, weight[0])


def conv2d_case(
    x: Shape,
    filters: int,
    window: Shape = (3, 3),
    pad: Shape = (1, 1, 1, 1),
    extra: str = "bias",
    vector_batch: int = 1,
    **params: int,
) -> Case:
    """pad: top, left, bottom, right; extra: which of bias, residual and vector are given."""
    named_pads = zip(("pad_top", "pad_left", "pad_bottom", "pad_right"), pad, strict=True)
    params |= {name: size for name, size in named_pads if size}
    weight = (filters, x[3], *window)
    out = convolved(x, weight, params)
    return Case(
        "conv2d",
        [
            *(x, weight),
            (filters,) if "bias" in extra else None,
            out if "residual" in extra else None,
            (vector_batch, 1, 1, filters) if "vector" in extra else None,
        ],
        params,
    )


def conv2d_cases() -> Iterator[Case]:
    none, point = (0, 0, 0, 0), (1, 1)
    for x, filters in (
        ((1, 1, 1, 3), 17),
        ((1, 5, 7, 3), 64),
        ((3, 5, 7, 17), 40),
        ((1, 9, 4, 64), 96),
        ((3, 8, 12, 40), 130),
        ((1, 13, 11, 130), 64),
        ((1, 2, 3, 96), 3),
        ((3, 16, 24, 64), 64),
        ((1, 37, 41, 96), 96),
        ((1, 1, 50, 17), 17),
        ((1, 6, 6, 320), 160),
    ):
        yield conv2d_case(x, filters)
    for extra in ("", "residual", "vector", "bias residual", "bias residual vector"):
        yield conv2d_case((3, 6, 7, 40), 64, extra=extra, vector_batch=3)
        yield conv2d_case((3, 6, 7, 40), 64, point, none, extra=extra)
        for x in ((3, 6, 7, 40), (2, 37, 33, 17)):  # gathered windows, and Winograd's
            yield conv2d_case(x, 67, extra=extra, vector_batch=x[0], relu=True)
    for x, filters in (((1, 1, 1, 17), 40), ((1, 5, 7, 130), 64), ((3, 12, 10, 96), 130), ((1, 40, 33, 3), 3)):
        yield conv2d_case(x, filters, point, none)
    for x in ((1, 2, 2, 3), (1, 7, 5, 17), (3, 8, 10, 64), (1, 33, 31, 40)):  # the encoder pads right and bottom only
        yield conv2d_case(x, 40, pad=(0, 0, 1, 1), stride=2)
        yield conv2d_case(x, 17, stride=2, extra="bias residual")
    for x, (height, width) in (
        ((1, 2, 2, 17), (3, 4)),
        ((3, 3, 5, 40), (6, 10)),
        ((1, 3, 5, 64), (5, 9)),
        ((1, 9, 12, 96), (18, 24)),
        ((1, 7, 1, 3), (14, 1)),
    ):
        yield conv2d_case(x, 64, upsampled_h=height, upsampled_w=width)
    yield conv2d_case((1, 61, 47, 130), 96, extra="bias residual vector")
    yield conv2d_case((1, 4, 5, 40), 17, upsampled_h=9, upsampled_w=11, stride=2, extra="bias residual vector")
    yield conv2d_case((1, 5, 7, 17), 40, pad=none)
    yield conv2d_case((1, 3, 3, 64), 40, pad=none)
    yield conv2d_case((3, 5, 7, 17), 40, pad=(2, 0, 1, 3))
    yield conv2d_case((1, 9, 8, 17), 40, (2, 5), (0, 3, 1, 0))
    yield conv2d_case((1, 9, 8, 3), 40, (5, 5), (2, 2, 2, 2), stride=3)
    yield conv2d_case((1, 28, 28, 3), 40, (14, 14), none, stride=14)
    yield conv2d_case((1, 6, 5, 40), 17, (1, 3), (0, 1, 0, 1))
    yield conv2d_case((1, 6, 5, 40), 17, point, (1, 1, 1, 1), stride=2)


def linear_cases() -> Iterator[Case]:
    for x, outputs in (
        ((1, 1, 1, 3), 17),
        ((1, 1, 2, 17), 3),
        ((3, 1, 1, 40), 130),
        ((1, 7, 11, 64), 96),
        ((3, 5, 7, 130), 40),
        ((1, 1, 300, 96), 64),
        ((1, 1031, 1, 64), 17),
        ((1, 1, 1, 1280), 320),
        ((3, 4, 5, 320), 640),
    ):
        for few_rows in (False, True):
            yield Case("linear", [x, (outputs, x[3]), (outputs,)], {"few_rows": few_rows})
    # More rows than a tile, more columns than a group, more channels than a chunk.
    yield Case("linear", [(1, 13, 31, 1100), (1300, 1100), (1300,), (1, 13, 31, 1300)])
    for activation, residual, bias in itertools.product((NONE, *ACTIVATIONS), (False, True), (False, True)):
        x = (3, 5, 7, 40)
        shapes = [x, (64, 40), (64,) if bias else None, (3, 5, 7, 64) if residual else None]
        yield Case("linear", shapes, {"activation": activation})
    yield Case("linear", [(1, 5, 7, 40), (17, 40, 1, 1), (17,)])


def groupnorm_cases() -> Iterator[Case]:
    for x, groups in (
        ((1, 1, 1, 40), 8),
        ((3, 5, 7, 3), 3),
        ((1, 5, 7, 17), 1),
        ((3, 5, 7, 64), 32),
        ((1, 8, 6, 96), 32),
        ((1, 33, 29, 130), 13),
        ((3, 1, 300, 40), 4),
        ((1, 64, 48, 64), 32),
        ((1, 6, 6, 320), 32),
    ):
        for silu in (False, True):
            yield Case("groupnorm", [x, (x[3],), (x[3],)], {"groups": groups, "epsilon": 1e-6, "silu": silu})
    for note, fill in HARD_FOR_NORMS.items():
        params = {"groups": 8, "epsilon": 1e-5, "silu": True}
        yield Case("groupnorm", [(3, 7, 9, 40), (40,), (40,)], params, {0: fill}, note)


HARD_FOR_NORMS: dict[str, Fill] = {
    "constant": constant(3.7),
    "zero": constant(0.0),
    "huge": times(1e15),
    "tiny": times(1e-15),
    "far from zero": times(1.0, 1000.0),
    "far from zero, small spread": times(0.01, -300.0),
    "one spike": lambda rng, shape: np.where(np.arange(np.prod(shape)).reshape(shape) == 5, 1e6, 0.25),
}


def layernorm_cases() -> Iterator[Case]:
    for x in ((1, 1, 1, 3), (3, 5, 7, 17), (1, 7, 11, 40), (1, 1, 300, 64), (3, 1, 2, 130), (1, 6, 6, 1280)):
        yield Case("layernorm", [x, (x[3],), (x[3],)], {"epsilon": 1e-5})
    for note, fill in HARD_FOR_NORMS.items():
        yield Case("layernorm", [(1, 5, 7, 40), (40,), (40,)], {"epsilon": 1e-5}, {0: fill}, note)


def attention_case(
    queries: Shape,
    keys: Shape,
    heads: int,
    size: int,
    batch: int = 1,
    kv_batch: int = 1,
    fill: Fill = normal,
    causal: bool = False,
) -> Case:
    """queries and keys are maps of tokens (H, W)."""
    q, k = (batch, *queries, heads * size), (kv_batch, *keys, heads * size)
    return Case(
        "attention", [q, k, k], {"heads": heads, "causal": causal}, {0: fill}, "" if fill is normal else "large logits"
    )


def attention_cases() -> Iterator[Case]:
    one, two, some, many, most = (1, 1), (1, 2), (7, 11), (15, 20), (1031, 1)
    for heads, size in itertools.product((1, 2, 5), (13, 40, 64, 80)):
        yield attention_case((5, 7), some, heads, size)
    for queries, keys in itertools.product((one, two, some, many), repeat=2):
        yield attention_case(queries, keys, 3, 40)
    for tokens in (one, two, some, many):
        yield attention_case(tokens, tokens, 2, 64, causal=True)
        yield attention_case(tokens, tokens, 1, 512)
    yield attention_case(most, most, 1, 40)
    yield attention_case(most, two, 4, 64)
    yield attention_case(two, most, 4, 13)
    yield attention_case(some, some, 5, 64, batch=3, kv_batch=3)
    yield attention_case(some, two, 5, 64, batch=3)
    yield attention_case(some, some, 3, 80, batch=3, kv_batch=3, causal=True)
    yield attention_case(most, most, 1, 40, causal=True)
    yield attention_case(many, many, 2, 64, batch=3, kv_batch=3)
    yield attention_case(some, many, 2, 64, fill=times(100.0))
    yield attention_case(many, many, 1, 512, fill=times(30.0))
    yield attention_case(some, some, 2, 40, fill=times(1000.0), causal=True)


EXTREMES = values(
    0.0, -0.0, 1e-30, -1e-30, 0.5, -0.5, 3.0, -3.0, 6.0, -6.0, 12.0, -12.0, 40.0, -40.0, 95.0, -95.0, 1e4, -1e4
)
SIZES: tuple[Shape, ...] = ((1, 1, 1, 3), (3, 5, 7, 17), (1, 5, 7, 40), (1, 33, 29, 64), (3, 1, 300, 130))


def pointwise_cases() -> Iterator[Case]:
    for x in SIZES:
        yield Case("geglu", [(*x[:3], 2 * x[3])])
        yield Case("scale", [x], {"factor": 0.18215})
        yield Case("scale", [x], {"factor": -1.7, "offset": 0.3})
        yield Case("cast", [x], {"dtype": "bfloat16"})
        yield Case("cast", [x], {"dtype": "float32"})
        yield Case("concat", [x, (*x[:3], 40)])
        yield Case("concat", [x, (*x[:3], 3)])
        yield Case("channel_slice", [x], {"begin": x[3] // 3, "count": x[3] // 2})
        yield Case("channel_slice", [x], {"begin": 0, "count": x[3]})
        yield Case("channel_slice", [x], {"begin": x[3] - 1, "count": 1})
        yield Case("nchw_to_nhwc", [x])
        yield Case("nchw_to_nhwc", [(x[0], x[3], x[1], x[2])])
        yield Case("nhwc_to_nchw", [x])
        for activation in (NONE, *ACTIVATIONS):
            yield Case("activation", [x], {"activation": activation})
        for kept in itertools.product((False, True), repeat=3):
            small = tuple(size if keep else 1 for size, keep in zip(x[:3], kept, strict=True))
            yield Case("add", [x, (*small, x[3])])
    for activation in ACTIVATIONS:
        yield Case("activation", [(1, 5, 7, 17)], {"activation": activation}, {0: EXTREMES}, "extremes")
    yield Case("geglu", [(1, 5, 7, 34)], {}, {0: EXTREMES}, "extremes")


def embedding_cases() -> Iterator[Case]:
    for channels, flip, shift in itertools.product((4, 130, 320), (False, True), (0.0, 1.0)):
        params = {"channels": channels, "flip_sin_to_cos": flip, "frequency_shift": shift, "max_period": 10000.0}
        yield Case("time_embedding", [(3, 1, 1, 1)], params, {0: values(999.0, 1.0, 500.5)})
        yield Case("time_embedding", [(1, 1, 1, 1)], params, {0: constant(0.0)})
    for batch, tokens, channels in ((1, 1, 3), (1, 2, 130), (3, 7, 17), (1, 77, 64)):
        shapes = [(batch, 1, tokens, 1), (50, channels), (77, channels)]
        yield Case("token_embedding", shapes, {}, {0: integers(50)})


CASES = [
    *(*conv2d_cases(), *linear_cases(), *groupnorm_cases(), *layernorm_cases(), *attention_cases()),
    *(*pointwise_cases(), *embedding_cases()),
]
BATCHED = [case for case in CASES if case.batch > 1]


def alias_pairs() -> list[Any]:
    """Each case with each slot that its output may take over."""
    table, pairs = engine.op_table(), []
    for case in CASES:
        for slot, shape in enumerate(case.shapes):
            if table[case.op]["alias"] >> slot & 1 and shape is not None:
                pairs.append(pytest.param(case, slot, id=f"{case}-{slot}"))
    return pairs


def run(
    backend: str,
    isa: str | None,
    threads: int,
    case: Case,
    inputs: Sequence[Array | None],
    alias: int = -1,
    precision: str = "float32",
) -> Array:
    shape, data = engine.run_op(backend, isa, threads, case.op, case.params, list(inputs), alias, precision)
    return np.frombuffer(data, dtype=np.float32).reshape(shape)


# ---- tests ----


# Gradients have their cases in test_gradients.py.
FORWARD = {name: row for name, row in engine.op_table().items() if not row["is_gradient"]}


def test_every_operation_is_covered() -> None:
    operations = set(FORWARD)
    assert {case.op for case in CASES} == operations
    assert set(REFERENCES) == operations
    assert set(TOLERANCES) == operations


def test_every_slot_is_covered() -> None:
    """Each slot is filled in some case; each optional one is empty in another."""
    for name, row in FORWARD.items():
        for slot in range(row["inputs"]):
            filled = {len(c.shapes) > slot and c.shapes[slot] is not None for c in CASES if c.op == name}
            assert filled == ({True} if row["required"] >> slot & 1 else {True, False}), f"{name}, slot {slot}"


@pytest.mark.parametrize("case", CASES, ids=str)
@over(("backend", "isa"), BACKENDS)
def test_agrees_with_float64(backend: str, isa: str | None, case: Case) -> None:
    expected = reference_of(case)
    found = run(backend, isa, 1, case, inputs_of(case)).astype(np.float64)
    assert found.shape == expected.value.shape
    if backend == "ref":
        allowed = ROUNDING * np.abs(expected.value) + 1e-12 * expected.magnitude + SMALLEST
    else:
        allowed = TOLERANCES[case.op][0] * ROUNDING * expected.magnitude + SMALLEST
    error = np.abs(found - expected.value)
    worst = np.nan_to_num(error / allowed, nan=np.inf)
    assert np.all(worst <= 1.0), f"{np.max(worst):.3g} times the allowed error, largest error {np.max(error):.3g}"


@pytest.mark.parametrize("case", CASES, ids=str)
@over("isa", ISAS)
def test_threads_do_not_change_a_bit(isa: str, case: Case) -> None:
    single = run("cpu", isa, 1, case, inputs_of(case))
    for threads in (2, 3):
        np.testing.assert_array_equal(run("cpu", isa, threads, case, inputs_of(case)), single)


@pytest.mark.parametrize("case", BATCHED, ids=str)
@over(("backend", "isa"), BACKENDS)
def test_images_of_a_batch_do_not_affect_each_other(backend: str, isa: str | None, case: Case) -> None:
    inputs = inputs_of(case)
    together = run(backend, isa, 2, case, inputs)
    for image in range(case.batch):
        alone = [
            array[image : image + 1] if array is not None and not case.is_weight(slot) and len(array) > 1 else array
            for slot, array in enumerate(inputs)
        ]
        np.testing.assert_array_equal(run(backend, isa, 2, case, alone)[0], together[image])


@pytest.mark.parametrize("x", [(7, 8, 12, 160), (5, 16, 24, 40), (3, 40, 52, 17)], ids=str)
@over("isa", ISAS)
def test_images_of_a_batch_do_not_affect_each_other_in_fixed_point(isa: str, x: Shape) -> None:
    """Winograd's block floating point, where images share a filter's transform: their products have other heights."""
    filters = 67
    case = conv2d_case(x, filters, extra="bias vector residual", vector_batch=x[0])
    inputs = inputs_of(case)
    together = run("cpu", isa, 2, case, inputs, precision="bfloat16")
    for image in range(case.batch):
        alone = [
            array if array is None or case.is_weight(slot) else array[image : image + 1]
            for slot, array in enumerate(inputs)
        ]
        np.testing.assert_array_equal(run("cpu", isa, 2, case, alone, precision="bfloat16")[0], together[image])


@pytest.mark.parametrize(("case", "slot"), alias_pairs())
@over(("backend", "isa"), BACKENDS)
def test_output_may_take_over_an_input(backend: str, isa: str | None, case: Case, slot: int) -> None:
    apart = run(backend, isa, 2, case, inputs_of(case))
    assert apart.shape == case.shapes[slot]
    np.testing.assert_array_equal(run(backend, isa, 2, case, inputs_of(case), slot), apart)


FOLLOW = -2  # as `alias`: the output begins a little before the first input, in the same memory


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("filters", "channels", "height"), [(8, 8, 270), (3, 9, 170), (40, 70, 170)])
@over("isa", ISAS)
def test_output_may_follow_upon_its_input(isa: str, precision: str, filters: int, channels: int, height: int) -> None:
    """Large maps: rows of the output lie where rows of the input lay that no tile needs any more. Much lower
    ones are refused: they would be a few waves of tiles."""
    padded = {"pad_top": 1, "pad_left": 1, "pad_bottom": 1, "pad_right": 1}
    case = Case("conv2d", [(1, height, 470, channels), (filters, channels, 3, 3), (filters,)], padded)
    apart = run("cpu", isa, 2, case, inputs_of(case), precision=precision)
    for threads in (1, 3):
        found = run("cpu", isa, threads, case, inputs_of(case), FOLLOW, precision)
        np.testing.assert_array_equal(found, apart)


@pytest.mark.parametrize(
    "case",
    [
        Case(
            "conv2d", [(1, 450, 470, 8), (9, 8, 3, 3)], {"pad_top": 1, "pad_left": 1, "pad_bottom": 1, "pad_right": 1}
        ),
        Case("conv2d", [(1, 24, 24, 8), (8, 8, 3, 3)], {"pad_top": 1, "pad_left": 1, "pad_bottom": 1, "pad_right": 1}),
        Case("conv2d", [(1, 450, 470, 8), (8, 8, 3, 3)], {}),
        Case("add", [(1, 450, 470, 8), (1, 450, 470, 8)]),
    ],
    ids=["more channels", "few waves", "fewer rows", "another operation"],
)
def test_outputs_that_may_not_follow(case: Case) -> None:
    with pytest.raises(ValueError, match="may not follow"):
        run("cpu", None, 1, case, inputs_of(case), FOLLOW)


@over(("backend", "isa"), BACKENDS)
def test_ids_outside_the_table_read_its_ends(backend: str, isa: str | None) -> None:
    """Ids come from files: a wrong one must not read other memory."""
    table = np.arange(20, dtype=np.float32).reshape(5, 4)
    ids = np.array([-1.0, 4.0, 5.0, 1e30, np.nan], dtype=np.float32).reshape(1, 1, 5, 1)
    case = Case("token_embedding", [ids.shape, table.shape, (5, 4)])
    found = run(backend, isa, 1, case, [ids, table, np.zeros((5, 4), np.float32)])
    np.testing.assert_array_equal(found[0, 0], table[[0, 4, 4, 4, 0]])


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (17, 3, 3, 3), (40, 64, 1, 1), (33, 130, 3, 3), (70, 5, 14, 14)])
@over("dtype", ["float32", "float16", "bfloat16"])
@over("offset", [0, 1, 2])
def test_weights_are_packed_from_any_type_and_address(shape: Shape, dtype: str, offset: int) -> None:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if dtype == "bfloat16":
        stored = (weight.view(np.uint32) >> 16).astype(np.uint16)
        weight = (stored.astype(np.uint32) << 16).view(np.float32)
    else:
        stored = weight.astype(dtype)
        weight = stored.astype(np.float32)
    source = bytes(offset) + stored.tobytes()
    packed = engine.pack_weight(source, offset, dtype, 0, 0, "float32", shape, 1)
    np.testing.assert_array_equal(np.frombuffer(packed, np.float32), weight.ravel())
    matrix = weight.transpose(2, 3, 1, 0).reshape(-1, shape[0])  # position in the window and channel, filter
    for panel, threads in ((8, 1), (32, 2)):
        padded = np.pad(matrix, ((0, 0), (0, -shape[0] % panel)))
        expected = padded.reshape(len(matrix), -1, panel).transpose(1, 0, 2)
        packed = engine.pack_weight(source, offset, dtype, panel, 1, "float32", shape, threads)
        np.testing.assert_array_equal(np.frombuffer(packed, np.float32), expected.ravel())


def panels_of(weight: NDArray[Any], panel: int, group: int) -> NDArray[Any]:
    """[panel][position in the window][channel / group][column][channel % group], zeros where there is nothing."""
    filters, channels, height, width = weight.shape
    padded = np.pad(weight, ((0, -filters % panel), (0, -channels % group), (0, 0), (0, 0)))
    parts = padded.reshape(-1, panel, padded.shape[1] // group, group, height * width)
    return parts.transpose(0, 4, 2, 1, 3)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (17, 3, 3, 3), (40, 64, 1, 1), (33, 130, 3, 3)])
@pytest.mark.parametrize("panel", [8, 32])
def test_weights_are_packed_in_pairs_of_bfloat16(shape: Shape, panel: int) -> None:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    packed = np.frombuffer(
        engine.pack_weight(weight.tobytes(), 0, "float32", panel, 2, "bfloat16", shape, 2), np.uint16
    )
    found = (packed.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(found, panels_of(round_to_bfloat16(weight), panel, 2).ravel())


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (17, 3, 3, 3), (40, 64, 1, 1), (33, 130, 3, 3)])
@pytest.mark.parametrize("panel", [8, 32])
def test_weights_are_packed_in_fours_of_int8(shape: Shape, panel: int) -> None:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    weight[0] = 0.0  # a filter of nothing
    packed = engine.pack_weight(weight.tobytes(), 0, "float32", panel, 4, "int8", shape, 2)
    scale = np.abs(weight).max(axis=(1, 2, 3)) / np.float32(127)
    integers = np.round(weight / np.where(scale > 0, scale, 1)[:, None, None, None])
    expected = panels_of(integers, panel, 4)
    columns = expected.shape[0] * panel
    scales_at = -(-expected.size // 64) * 64
    sums_at = scales_at + -(-columns * 4 // 64) * 64
    found = np.frombuffer(packed, np.int8, expected.size)
    # Half a unit may go either way.
    assert np.abs(found - expected.ravel()).max() <= 1
    assert np.mean(found != expected.ravel()) < 1e-3
    scales = np.frombuffer(packed, np.float32, columns, scales_at)
    np.testing.assert_array_equal(scales, np.pad(scale, (0, columns - shape[0])))
    sums = np.frombuffer(packed, np.int32, columns, sums_at)
    np.testing.assert_array_equal(sums, found.reshape(expected.shape).astype(np.int32).sum(axis=(1, 2, 4)).ravel())
    assert len(packed) == sums_at + columns * 4


def test_unknown_backend_is_named_with_the_known_ones() -> None:
    case = Case("scale", [(1, 1, 1, 1)], {"factor": 1.0})
    with pytest.raises(DeviceError, match=r'"tpu".*"cpu", "ref"'):
        run("tpu", None, 1, case, inputs_of(case))
