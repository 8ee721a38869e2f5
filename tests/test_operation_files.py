"""The same operation is in a file of the same name in every backend: its own, or one that a few share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"
OPERATIONS = re.findall(r"^MG_(?:GRADIENT_)?OP\(\w+, (\w+),", (CSRC / "op" / "ops.def").read_text(), re.MULTILINE)

# What makes an operation known to its backend.
DEFINITIONS = {
    "ref": r"^void mg_ref_(\w+)\(const struct mg_op_call \*call\) \{",
    "cpu": r"^const struct mg_cpu_driver mg_cpu_(\w+) = \{",
    "cuda": r"^const struct mg_cuda_driver mg_cuda_(\w+) = \{",
}
SHARED = {
    "layout": ("nchw_to_nhwc", "nhwc_to_nchw"),
    "conv2d_gradient": ("conv2d_input_gradient", "conv2d_weight_gradient"),
    "linear_gradient": ("linear_input_gradient", "linear_weight_gradient"),
    "groupnorm_gradient": ("groupnorm_sums", "groupnorm_gradient"),
    "layernorm_gradient": ("layernorm_sums", "layernorm_gradient"),
    "attention_gradient": ("attention_rows", "attention_query_gradient", "attention_key_value_gradient"),
}
# On a GPU it is the kernels of the three operations above, one after the other.
ELSEWHERE = {("cuda", "self_attention_gradient"): "attention_gradient"}


def files_of(backend: str) -> dict[str, str]:
    """Operation -> the file's name without its ending."""
    found = {}
    for path in sorted((CSRC / "backend" / backend / "ops").iterdir()):
        for name in re.findall(DEFINITIONS[backend], path.read_text(encoding="utf-8"), re.MULTILINE):
            assert name not in found, f"{path.name} and {found[name]}"
            found[name] = path.stem
    return found


@pytest.mark.parametrize("backend", DEFINITIONS)
def test_an_operation_has_the_same_file_in_every_backend(backend: str) -> None:
    assert len(OPERATIONS) > 30
    expected = {name: name for name in OPERATIONS}
    expected |= {name: stem for stem, names in SHARED.items() for name in names}
    expected |= {name: stem for (where, name), stem in ELSEWHERE.items() if where == backend}
    assert files_of(backend) == expected
