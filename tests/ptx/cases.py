"""Operations whose launches the interpreter runs: odd sizes, several tiles, every optional operand."""

from __future__ import annotations

from dataclasses import dataclass

import test_gradients
import test_ops
from test_ops import Case

PAD = {"pad_top": 1, "pad_left": 1, "pad_bottom": 1, "pad_right": 1}

CONV2D = [
    Case("conv2d", [(2, 9, 8, 40), (70, 40, 3, 3), (70,), (2, 9, 8, 70), (2, 1, 1, 70)], PAD),
    Case("conv2d", [(1, 12, 11, 20), (24, 20, 3, 3), (24,)], {**PAD, "stride": 2, "relu": True}),
    Case("conv2d", [(1, 5, 6, 17), (9, 17, 3, 3)], {**PAD, "upsampled_h": 10, "upsampled_w": 13}),
]
ATTENTION = [
    Case("attention", [(2, 1, 70, 128), (2, 1, 130, 128), (2, 1, 130, 128)], {"heads": 2}),
    Case("attention", [(1, 1, 66, 40)] * 3, {"heads": 1, "causal": True}),
    Case("attention", [(1, 1, 64, 160), (1, 1, 70, 160), (1, 1, 70, 160)], {"heads": 1}),
]
NORMS = [
    Case("groupnorm", [(2, 10, 7, 32), (32,), (32,)], {"groups": 8, "epsilon": 1e-5, "silu": True}),
    Case("layernorm", [(2, 3, 5, 70), (70,), (70,)], {"epsilon": 1e-5}),
]
MOVES = [Case("nchw_to_nhwc", [(2, 5, 7, 9)]), Case("nhwc_to_nchw", [(2, 5, 7, 9)])]


@dataclass(frozen=True)
class Run:
    """An operation in a precision: "float32", "float16", "bfloat16", "tf32" or, of attention, "mixed"."""

    case: Case
    precision: str
    gradient: bool = False

    def __str__(self) -> str:
        return f"{'gradient of ' if self.gradient else ''}{self.case}-{self.precision}"

    @property
    def least_capability(self) -> int:
        return 80 if self.precision in ("bfloat16", "tf32", "mixed") else 75

    @property
    def activations(self) -> str:
        return {"tf32": "float32", "mixed": "bfloat16"}.get(self.precision, self.precision)

    def __call__(self) -> None:
        isa = "tf32" if self.precision == "tf32" else None
        precision = "float32" if self.precision == "tf32" else self.precision
        if not self.gradient:
            test_ops.run("cuda", isa, 1, self.case, test_ops.inputs_of(self.case), precision=precision)
        elif precision == "float32":
            test_gradients.gradients("cuda", isa, 1, self.case)
        else:
            test_gradients.half_gradients("cuda", isa, 1, self.case, precision)


def all_runs() -> list[Run]:
    halves, floats = ("float16", "bfloat16"), ("float32", "tf32")
    found = [Run(CONV2D[0], precision) for precision in (*halves, *floats)]
    found += [Run(case, "float16") for case in CONV2D[1:]] + [Run(CONV2D[2], "float32")]
    found += [Run(case, "float16") for case in ATTENTION]
    found += [Run(ATTENTION[1], precision) for precision in ("bfloat16", *floats, "mixed")]
    found += [Run(case, precision) for case in NORMS for precision in ("float16", "float32")]
    found += [Run(case, "float32") for case in MOVES]
    small = Case("attention", [(1, 1, 70, 24), (1, 1, 66, 24), (1, 1, 66, 24)], {"heads": 1})
    causal = Case("attention", [(1, 1, 66, 40)] * 3, {"heads": 1, "causal": True})
    found += [Run(case, "float16", gradient=True) for case in (small, causal)]
    found += [Run(small, precision, gradient=True) for precision in ("mixed", *floats)]
    filters = Case("conv2d", [(1, 7, 6, 20), (12, 20, 3, 3), (12,)], {**PAD, "stride": 2})
    found += [Run(case, "float16", gradient=True) for case in (filters, *NORMS)]
    return found


# What a kernel writes, where that is not the type of the activations.
FLOAT32 = ("channel_partials", "group_statistics", "sum_partials", "partial_sums", "row_statistics", "layer_sums",
           "group_sums", "group_means", "attention_rows", "transpose", "bias")  # fmt: skip
FLOAT64 = ("squares", "total")
# Relative to the largest element of a result. Halves may be rounded to either side.
TOLERANCES = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 1.6e-2, "float64": 1e-12}


def written_type(kernel: str, run: Run) -> str:
    if any(name in kernel for name in FLOAT64):
        return "float64"
    if any(name in kernel for name in FLOAT32):
        return "float32"
    if run.precision == "mixed" and "attention_gradient_kernelI13__nv_bfloat16f" in kernel:
        return "float32"
    return run.activations
