"""tools/cuda_estimate.py: its list of operations has the products of the checkpoint's weights, and its bounds follow
from counts of machine code; no nvcc is needed."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("cuda_estimate", ROOT / "tools" / "cuda_estimate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "cuda_estimate", module)  # where its dataclasses look for themselves
    spec.loader.exec_module(module)
    return module


def test_each_weight_is_multiplied_once(tool: Any) -> None:
    """But those of the time step, of the text's keys and values, and of the latent's 1x1 convolutions."""
    from make_sd2_checkpoint import unet_tensors, vae_tensors

    preset = tool.PRESETS["sd2"]
    small = ("time_emb", "attn2.to_k", "attn2.to_v", "quant_conv")
    expected = Counter(
        (shape[0], math.prod(shape[1:]))
        for name, shape, kind in (*unet_tensors(preset), *vae_tensors(preset))
        if kind == "weight" and not any(word in name for word in small)
    )
    works = tool.picture(768, 768)
    assert Counter((one.columns, one.depth) for one in works if one.group in ("convolutions", "linear")) == expected


def test_pixels_and_tokens(tool: Any) -> None:
    works = tool.picture(768, 768)
    assert max(one.rows for one in works if one.group == "convolutions") == 768 * 768
    assert {(one.rows, one.columns, one.depth) for one in works if one.group == "attention, head 512"} == {
        (96 * 96, 96 * 96, 512)
    }
    # Five attentions on each of three levels, and one in the middle.
    tokens = Counter((one.rows, one.columns) for one in works if one.group == "attention, head 64")
    assert tokens == {(5 * 9216, 9216): 5, (10 * 2304, 2304): 5, (20 * 576, 576): 5, (20 * 144, 144): 1}
    quarter = tool.picture(384, 384)
    assert len(quarter) == len(works)
    assert sum(one.flops for one in quarter) < sum(one.flops for one in works) / 4


MACHINE_CODE = """
0000 MOV
0010 LDSM.16.M88.4
0020 BRA `(.L) 0x50
0030 LDGSTS.E.BYPASS.128
0040 IMAD
0050 HMMA.16816.F32
0060 HMMA.16816.F32
0070 BRA 0x10
0080 EXIT
0090 BRA 0x90
"""


def test_bounds_of_a_loop(tool: Any) -> None:
    from ptx.sass import Code, Line

    rows = [row.split(maxsplit=2) for row in MACHINE_CODE.strip().splitlines()]
    code = Code("kernel", [Line(int(row[0], 16), row[1], row[2] if len(row) > 2 else "") for row in rows])
    tile = tool.Tile("file.cu", "kernel", 128, 64, 32, 8, 4096)
    step = tool.step_of_code(code, tile)
    assert (step.least, step.instructions, step.products, step.wavefronts) == (5, 7, 2, 8)
    gpu = tool.Gpu("86", processors=10, clock=1e9, flops=512, reached=0.5, l2=1e12, memory=1e12)
    expected = {"tensor cores": 8 * 2 * 4096 / 256, "schedulers": 10, "shared memory": 64, "L2": 40.96}
    assert step.cycles(gpu, step.least) == pytest.approx(expected)
    # 11 x 2 blocks take three rounds over ten processors.
    work = tool.Work("convolutions", 11 * 128, 128, 90)
    low, high = tool.seconds_of(work, {"narrow": step}, gpu)
    assert low == pytest.approx(3 * 3 * 256e-9) and high == pytest.approx(3 * 3 * (256 + 14 + 64 + 40.96) * 1e-9)
