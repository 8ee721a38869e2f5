"""`marigold bench`: what it measures, what it says, and the estimate beside arithmetic by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import marigold_c as mc
from marigold_c import _C
from marigold_c.commands import bench as bench_module
from marigold_c.commands.cli import main

STAGES = ("encode", "unet", "decode")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small image and short measurements."""
    monkeypatch.setattr(bench_module, "HEIGHT", 64)
    monkeypatch.setattr(bench_module, "WIDTH", 96)
    monkeypatch.setattr(bench_module, "SECONDS_OF_PRODUCTS", 0.05)
    monkeypatch.setattr(bench_module, "SECONDS_OF_STAGE", 0.0)


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["bench", "--threads", "1", *arguments]) == 0
    return capsys.readouterr().out


def test_machine_speeds_are_plausible() -> None:
    speed = _C.measure_machine(num_threads=1, seconds=0.2)
    assert speed["isa"] == _C.best_isa()
    assert speed["num_threads"] == 1
    for kind in ("float32", "bfloat16", "int8"):
        assert 1e8 < speed[kind] < 1e14, kind  # type: ignore[literal-required]
    assert 1e8 < speed["copy"] < 1e13


def test_machine_measures_the_instruction_set_asked_for() -> None:
    """The widest vectors multiply faster than the plain code, by far more than a loaded machine scatters."""
    if _C.best_isa() == "scalar":
        pytest.skip("this processor has one instruction set")
    plain = _C.measure_machine(num_threads=1, isa="scalar", seconds=0.4)
    best = _C.measure_machine(num_threads=1, seconds=0.4)
    assert plain["isa"] == "scalar"
    assert best["float32"] > 1.3 * plain["float32"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"seconds": 0.0}, ValueError, "seconds is 0"),
        ({"seconds": float("nan")}, ValueError, "seconds is nan"),
        ({"seconds": 61.0}, ValueError, "seconds is 61"),
        ({"num_threads": -1}, ValueError, "num_threads is -1"),
        ({"isa": "abacus"}, mc.DeviceError, "abacus"),
    ],
)
def test_machine_refuses_bad_arguments(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        _C.measure_machine(**options)


@pytest.mark.usefixtures("quick")
def test_json_holds_machine_stages_and_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(bench(capsys, "--json"))
    machine = report["machine"]
    assert machine["processors"] == _C.available_threads()
    assert machine["threads"] == 1
    assert machine["instruction_sets"][-1] == _C.best_isa()
    assert report["shipped"] is True
    assert Path(report["checkpoint"]) == mc.default_checkpoint()
    assert tuple(report["stages"]) == STAGES
    assert all(one["first"] > 0 and one["later"] > 0 for one in report["stages"].values())
    later = [report["stages"][name]["later"] for name in STAGES]
    assert report["image_1_step"] == pytest.approx(sum(later))
    assert report["image_4_steps"] == pytest.approx(sum(later) + 3 * later[1])
    estimate = report["estimate_sd2"]["stages"]
    products = machine["products_gflops"]["float32"] * 1e9
    for name, tera in {"encode": 1.92, "unet": 1.49, "decode": 4.28}.items():
        factor = bench_module.SPEED_OVER_PRODUCTS["float32"][name]
        assert estimate[name] == pytest.approx(tera * 1e12 / products / factor)


@pytest.mark.usefixtures("quick")
def test_text_says_what_was_measured_and_what_is_an_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    text = bench(capsys)
    assert "at 64x96" in text
    assert "the small demonstration of this package" in text
    assert "not measured" in text
    for stage in STAGES:
        assert f"  {stage} " in text
    own = bench(capsys, "--checkpoint", str(mc.default_checkpoint("normals")))
    assert "marigold-tiny-normals" in own
    assert "demonstration" not in own


@pytest.mark.usefixtures("quick")
def test_the_instruction_set_can_be_forced(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARIGOLD_ISA", "scalar")
    assert json.loads(bench(capsys, "--json"))["machine"]["instruction_set"] == "scalar"


def test_wrong_usage_and_missing_checkpoints(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["bench", "--threads", "0"]) == 2
    assert main(["bench", "photo.jpg"]) == 2
    assert main(["bench", "--threads", "1", "--checkpoint", str(tmp_path / "none")]) == 1
    assert "no checkpoint at" in capsys.readouterr().err
