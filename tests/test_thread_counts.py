"""num_threads is bounded wherever it is taken: no number of threads may end the process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_trainer import open_trainer

import marigold_c as mc
from marigold_c import _C
from marigold_c.commands.cli import main
from marigold_c.loading.conversion import convert

# Large enough for every function to share its work out.
MAP = np.random.default_rng(0).random((300, 400), np.float32) + 0.5
VECTORS = np.stack([MAP, MAP, MAP], axis=-1)
MEMBERS = np.stack([MAP, MAP])[:, None]

CALLS: dict[str, Callable[[int], object]] = {
    "ensemble_depth": lambda n: _C.ensemble_depth(MEMBERS[:, 0], num_threads=n),
    "ensemble_depth, reference": lambda n: _C.ensemble_depth(MEMBERS[:, 0], solver="reference", num_threads=n),
    "ensemble_normals": lambda n: _C.ensemble_normals(np.repeat(MEMBERS, 3, 1), num_threads=n),
    "ensemble_intrinsics": lambda n: _C.ensemble_intrinsics(MEMBERS[None].swapaxes(0, 1), num_threads=n),
    "align_least_squares": lambda n: _C.align_least_squares(MAP, MAP, None, "depth", 0, n),
    "align_ransac": lambda n: _C.align_ransac(MAP, MAP, None, "depth", 0, 0, n),
    "align_median": lambda n: _C.align_median(MAP, MAP, None, 0, n),
    "depth_metrics": lambda n: _C.depth_metrics(MAP, MAP, None, n),
    "angular_errors": lambda n: _C.angular_errors(VECTORS, VECTORS, None, n),
    "ssim": lambda n: _C.ssim(VECTORS, VECTORS, None, n),
    "measure_machine": lambda n: _C.measure_machine(num_threads=n, seconds=0.01),
    "Pipeline": lambda n: _C.Pipeline(mc.default_checkpoint(), num_threads=n, task="depth"),
    "load": lambda n: mc.load(mc.default_checkpoint(), num_threads=n),
    "Trainer": lambda n: open_trainer(num_threads=n),
    "convert": lambda n: convert(mc.default_checkpoint(), "/nonexistent/file", num_threads=n),
}


@pytest.mark.parametrize("threads", [10**6, 4097, -1])
@pytest.mark.parametrize("name", CALLS)
def test_a_number_of_threads_is_bounded(name: str, threads: int) -> None:
    with pytest.raises(ValueError, match=f"num_threads`? is {threads}; allowed: 1 to 4096"):
        CALLS[name](threads)


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("measure_machine", "convert")])
def test_more_threads_than_processors_will_do(name: str) -> None:
    CALLS[name](3)


@pytest.mark.parametrize(
    "arguments",
    [["depth", "a.png", "-o", "out"], ["infer"], ["train"], ["convert", "a", "b"], ["bench"]],
    ids=lambda arguments: arguments[0],
)
def test_commands_name_the_flag(arguments: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--threads", "1000000"]) == 2
    assert "argument --threads: 1000000 is more than 4096" in capsys.readouterr().err
