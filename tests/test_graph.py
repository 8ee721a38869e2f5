"""The planner: random graphs give what NumPy gives, whatever memory is shared, in little more than is alive at once."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_c import _testing

Item = tuple[object, ...]


def floats(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array, dtype=np.float32).tobytes()


def random_program(rng: np.random.Generator, length: int) -> tuple[list[Item], list[np.ndarray]]:
    """A random list of operations and the value of each, computed by NumPy in float32."""
    items: list[Item] = []
    values: list[np.ndarray] = []
    n, h, w = 2, int(rng.integers(1, 6)), int(rng.integers(1, 6))
    for kind in ("input", "input", "constant", "constant"):
        value = rng.standard_normal((n, h, w, int(rng.integers(1, 5)))).astype(np.float32)
        items.append((kind, floats(value), value.shape))
        values.append(value)
    for _ in range(length):
        a, b = (int(i) for i in rng.integers(max(0, len(values) - 8), len(values), 2))
        choice = rng.integers(4)
        if choice == 0 and values[a].shape == values[b].shape:
            items.append(("add", a, b))
            values.append(values[a] + values[b])
        elif choice == 1 and values[a].shape[3] + values[b].shape[3] < 64:
            items.append(("concat", a, b))
            values.append(np.concatenate([values[a], values[b]], axis=3))
        elif choice == 2 and values[a].shape[3] > 1:
            count = int(rng.integers(1, values[a].shape[3]))
            items.append(("slice", a, 1, count))
            values.append(values[a][..., 1 : 1 + count])
        else:
            items.append(("scale", a, 0.5))
            values.append(values[a] * np.float32(0.5))
    return items, values


@pytest.mark.parametrize("backend", ["ref", "cpu"])
@pytest.mark.parametrize("seed", range(60))
def test_random_graphs(backend: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    items, values = random_program(rng, 40)
    output = len(items) - 1
    items.append(("scale", output, 1.0))
    data, activation, live, _ = _testing.run_graph(backend, items, len(items) - 1)
    np.testing.assert_array_equal(np.frombuffer(data, np.float32), values[output].ravel())
    assert live <= activation <= 1.25 * live + 1024


def test_operations_on_constants_take_no_activation_memory() -> None:
    value = np.arange(64, dtype=np.float32).reshape(1, 4, 4, 4)
    items: list[Item] = [
        ("constant", floats(value), value.shape),
        ("scale", 0, 2.0),
        ("input", floats(value), value.shape),
        ("add", 2, 1),
    ]
    data, activation, _, operations = _testing.run_graph("cpu", items, 3)
    np.testing.assert_array_equal(np.frombuffer(data, np.float32), 3 * value.ravel())
    assert (activation, operations) == (value.nbytes, 2)  # the sum takes over the input's memory


def test_input_read_twice_by_one_operation_is_not_overwritten() -> None:
    value = np.ones((1, 2, 2, 3), np.float32)
    items: list[Item] = [("input", floats(value), value.shape), ("scale", 0, 3.0), ("add", 1, 1)]
    data, *_ = _testing.run_graph("cpu", items, 2)
    np.testing.assert_array_equal(np.frombuffer(data, np.float32), np.full(12, 6, np.float32))


def test_chain_of_pointwise_operations_needs_one_buffer() -> None:
    value = np.ones((1, 8, 8, 16), np.float32)
    items: list[Item] = [("input", floats(value), value.shape), *(("scale", i, 1.0) for i in range(20))]
    _, activation, live, _ = _testing.run_graph("cpu", items, 20)
    assert activation == live == value.nbytes


def test_first_error_of_a_graph_is_reported() -> None:
    a, b = np.zeros((1, 2, 2, 3), np.float32), np.zeros((1, 2, 3, 3), np.float32)
    items: list[Item] = [
        ("input", floats(a), a.shape),
        ("input", floats(b), b.shape),
        ("concat", 0, 1),
        ("slice", 2, 5, 9),
    ]
    with pytest.raises(ValueError, match=r"concat: N, H, W and the types must agree; .*\[1, 2, 2, 3\], \[1, 2, 3, 3\]"):
        _testing.run_graph("cpu", items, 3)


# ---- types that the operations would read as others ----


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([("bfloat16", 0), ("attention", 3, 0, 3)], "k and v must have one type"),
        ([("bfloat16", 0), ("attention", 3, 3, 0)], "k and v must have one type"),
        ([("bfloat16", 0), ("attention", 0, 3, 3)], "k and v must have one type, that of q or float32"),
        ([("bfloat16", 2), ("convolution", 0, 1, 3)], "the channel vector must be float32"),
    ],
    ids=str,
)
def test_types_that_do_not_fit_are_refused(items: list[tuple[object, ...]], message: str) -> None:
    numbers = np.zeros(64, np.float32).tobytes()
    inputs = [("input", numbers, (1, 2, 4, 8)), ("constant", numbers, (8, 8, 1, 1)), ("input", numbers, (1, 1, 1, 8))]
    with pytest.raises(ValueError, match=message):
        _testing.run_graph("ref", [*inputs, *items], 4)
