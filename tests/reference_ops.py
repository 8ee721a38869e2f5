"""Every operation of csrc/op/ops.def once more, in float64 NumPy, written independently of the C code.

A function takes the inputs (float64, or None for an empty slot) and the parameters of an operation, and returns its
value together with a magnitude (broadcastable to the value): the size of the numbers that float32 arithmetic rounds on
the way. The error that may be expected of a float32 implementation is a small multiple of 2**-24 times the magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float64]
Inputs = Sequence[Array | None]
Params = Mapping[str, Any]

NONE, SILU, GELU, QUICK_GELU, RELU, TANH = range(6)


class Reference(NamedTuple):
    value: Array
    magnitude: Array


def given(inputs: Inputs, slot: int) -> Array:
    """The input in a slot that must be filled."""
    array = inputs[slot]
    assert array is not None
    return array


def optional(inputs: Inputs, slot: int) -> Array | float:
    """The input in a slot that may be empty, or 0."""
    array = inputs[slot] if slot < len(inputs) else None
    return 0.0 if array is None else array


def largest(array: Array) -> Array:
    """One magnitude for the whole array."""
    return np.asarray(np.max(np.abs(array), keepdims=True))


def erfc(x: Array) -> Array:
    return np.array([math.erfc(value) for value in x.flat]).reshape(x.shape)


def activate(x: Array, activation: int) -> Array:
    if activation == SILU:
        return x * np.exp(-np.logaddexp(0.0, -x))
    if activation == GELU:
        return 0.5 * x * erfc(-x / math.sqrt(2.0))
    if activation == QUICK_GELU:
        return x * np.exp(-np.logaddexp(0.0, -1.702 * x))
    if activation == RELU:
        return np.maximum(x, 0.0)
    if activation == TANH:
        return np.tanh(x)
    return x


def float32(value: float) -> float:
    """A parameter as the C structure holds it."""
    return float(np.float32(value))


# ---- convolution and linear ----


def nearest(x: Array, height: int, width: int) -> Array:
    """Nearest-neighbour upsampling with torch's float32 source index."""

    def source(out_size: int, in_size: int) -> NDArray[np.int64]:
        ratio = np.float32(in_size) / np.float32(out_size)
        index: NDArray[np.float32] = np.floor(np.arange(out_size, dtype=np.float32) * ratio)
        return np.minimum(index.astype(np.int64), in_size - 1)

    return x[:, source(height, x.shape[1])][:, :, source(width, x.shape[2])]


def correlate(x: Array, weight: Array, params: Params) -> Array:
    """(N,H,W,C) with (K,C,R,S) by sliding windows."""
    x = nearest(x, params.get("upsampled_h") or x.shape[1], params.get("upsampled_w") or x.shape[2])
    rows = (params.get("pad_top", 0), params.get("pad_bottom", 0))
    columns = (params.get("pad_left", 0), params.get("pad_right", 0))
    x = np.pad(x, ((0, 0), rows, columns, (0, 0)))
    stride = params.get("stride", 1)
    windows = sliding_window_view(x, weight.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    return np.tensordot(windows, weight, axes=((3, 4, 5), (1, 2, 3)))


def conv2d(inputs: Inputs, params: Params) -> Reference:
    x, weight = given(inputs, 0), given(inputs, 1)
    terms = [optional(inputs, slot) for slot in (2, 3, 4)]
    value = correlate(x, weight, params) + sum(terms)
    sizes = correlate(np.abs(x), np.abs(weight), params) + sum(np.abs(term) for term in terms)
    return Reference(activate(value, RELU if params.get("relu") else NONE), largest(sizes))


def linear(inputs: Inputs, params: Params) -> Reference:
    x, weight = given(inputs, 0), given(inputs, 1).reshape(given(inputs, 1).shape[:2])
    bias, residual = optional(inputs, 2), optional(inputs, 3)
    value = activate(x @ weight.T + bias, params.get("activation", NONE)) + residual
    return Reference(value, largest(np.abs(x) @ np.abs(weight).T + np.abs(bias) + np.abs(residual)))


# ---- normalisation ----


def normalise(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array]:
    mean = x.mean(axis=axes, keepdims=True)
    deviation = np.sqrt(np.square(x - mean).mean(axis=axes, keepdims=True) + float32(epsilon))
    return (x - mean) / deviation, (np.abs(x).max(axis=axes, keepdims=True) + np.abs(mean)) / deviation + 0 * x


def groupnorm(inputs: Inputs, params: Params) -> Reference:
    x, gamma, beta = (given(inputs, slot) for slot in range(3))
    grouped = x.reshape(*x.shape[:3], params["groups"], -1)
    normal, sizes = (a.reshape(x.shape) for a in normalise(grouped, (1, 2, 4), params["epsilon"]))
    activation = SILU if params.get("silu") else NONE
    return Reference(activate(normal * gamma + beta, activation), sizes * np.abs(gamma) + np.abs(beta))


def layernorm(inputs: Inputs, params: Params) -> Reference:
    x, gamma, beta = (given(inputs, slot) for slot in range(3))
    normal, sizes = normalise(x, (3,), params["epsilon"])
    return Reference(normal * gamma + beta, sizes * np.abs(gamma) + np.abs(beta))


# ---- attention ----


def attention(inputs: Inputs, params: Params) -> Reference:
    q, k, v = (given(inputs, slot) for slot in range(3))
    heads = params["heads"]
    size = q.shape[3] // heads
    scale = float32(1.0 / math.sqrt(size))

    def split(a: Array) -> Array:  # (N, heads, tokens, size)
        return a.reshape(a.shape[0], -1, heads, size).swapaxes(1, 2)

    q_heads, k_heads, v_heads = split(q), split(k), split(v)
    scores = q_heads @ k_heads.swapaxes(2, 3) * scale
    if params.get("causal"):
        scores = np.where(np.tri(scores.shape[2], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=3, keepdims=True))
    weights /= weights.sum(axis=3, keepdims=True)
    # A rounding of the scores is a relative rounding of the weights.
    score_size = np.max(np.abs(q_heads) @ np.abs(k_heads).swapaxes(2, 3)) * scale
    value = (weights @ v_heads).swapaxes(1, 2).reshape(q.shape)
    sizes = (weights @ np.abs(v_heads)).swapaxes(1, 2).reshape(q.shape)
    return Reference(value, sizes * (1.0 + score_size))


# ---- pointwise and channels ----


def geglu(inputs: Inputs, params: Params) -> Reference:
    value, gate = np.split(given(inputs, 0), 2, axis=3)
    return Reference(value * activate(gate, GELU), np.abs(value * gate))


def activation(inputs: Inputs, params: Params) -> Reference:
    x = given(inputs, 0)
    return Reference(activate(x, params["activation"]), np.abs(x))


def concat(inputs: Inputs, params: Params) -> Reference:
    value = np.concatenate([given(inputs, 0), given(inputs, 1)], axis=3)
    return Reference(value, np.abs(value))


def channel_slice(inputs: Inputs, params: Params) -> Reference:
    value = given(inputs, 0)[..., params["begin"] : params["begin"] + params["count"]]
    return Reference(value, np.abs(value))


def scale(inputs: Inputs, params: Params) -> Reference:
    product, offset = given(inputs, 0) * float32(params["factor"]), float32(params.get("offset", 0.0))
    return Reference(product + offset, np.abs(product) + abs(offset))


def round_to_bfloat16(x: Array) -> Array:
    """To the nearest of the numbers with eight binary digits, ties to even; within the range of a normal float32."""
    fraction, exponent = np.frexp(np.asarray(x, np.float64))
    return np.asarray(np.ldexp(np.round(fraction * 256), exponent - 8))


def cast(inputs: Inputs, params: Params) -> Reference:
    x = given(inputs, 0)
    value = round_to_bfloat16(x)  # what is to be float32 was bfloat16 before
    return Reference(value, np.abs(value))


def add(inputs: Inputs, params: Params) -> Reference:
    value = given(inputs, 0) + given(inputs, 1)
    return Reference(value, np.abs(value))


# ---- embeddings ----


def time_embedding(inputs: Inputs, params: Params) -> Reference:
    half = params["channels"] // 2
    exponent = -np.log(float32(params["max_period"])) * np.arange(half) / (half - float32(params["frequency_shift"]))
    angles = given(inputs, 0).reshape(-1, 1, 1, 1) * np.exp(exponent)
    parts = [np.sin(angles), np.cos(angles)]
    value = np.concatenate(parts[::-1] if params["flip_sin_to_cos"] else parts, axis=3)
    # Torch, and so the models, take exponents and angles in float32: an engine may do so too.
    sizes = 1.0 + np.abs(angles) * (1.0 + np.abs(exponent))
    return Reference(value, np.concatenate([sizes, sizes], axis=3))


def token_embedding(inputs: Inputs, params: Params) -> Reference:
    ids, table, positions = (given(inputs, slot) for slot in range(3))
    value = table[ids[..., 0].astype(np.int64)] + positions[: ids.shape[2]]
    return Reference(value, np.abs(value))


# ---- layout, schedule, heads ----


def nchw_to_nhwc(inputs: Inputs, params: Params) -> Reference:
    value = given(inputs, 0).transpose(0, 2, 3, 1)
    return Reference(value, np.abs(value))


def nhwc_to_nchw(inputs: Inputs, params: Params) -> Reference:
    value = given(inputs, 0).transpose(0, 3, 1, 2)
    return Reference(value, np.abs(value))


REFERENCES: dict[str, Callable[[Inputs, Params], Reference]] = {
    function.__name__: function
    for function in (
        *(conv2d, linear, groupnorm, layernorm, attention, geglu, activation, concat, channel_slice, scale, cast, add),
        *(time_embedding, token_embedding, nchw_to_nhwc, nhwc_to_nchw),
    )
}
