"""tools/first_hour.py in its smallest form, on the emulated device: the report has what each step found, and goes on
where one fails or takes too long."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tool(emulator: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("first_hour", TOOLS / "first_hour.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "first_hour", module)  # where its dataclasses look for themselves
    spec.loader.exec_module(module)
    return module


def run(tool: Any, folder: Path, *steps: str) -> tuple[int, Any, str]:
    code = tool.main(["--tiny", "--emulated", "--output", str(folder), "--steps", *steps])
    text = (folder / "first_hour.md").read_text(encoding="utf-8")
    return code, json.loads((folder / "first_hour.json").read_text(encoding="utf-8"))["steps"], text


def test_a_report(tool: Any, tmp_path: Path) -> None:
    left_out = ("diffusers, float16", "memcheck")
    chosen = ("machine", "kernels", "checkpoint", "float16", "operations", *left_out)
    code, steps, text = run(tool, tmp_path, *chosen)
    assert code == 0, text
    assert {name: one["state"] for name, one in steps.items()} == {
        name: "left out" if name in left_out else "done" for name in chosen
    }
    assert steps["kernels"]["figures"]["runs"] > 3
    figures = steps["float16"]["figures"]["sides"]["float16"]
    assert {"UNet", "pipeline, 1 step", "pipeline, 2 members", "memory, GB"} <= figures.keys()
    assert f"| float16 | {1e3 * figures['load and first run']:.1f} ms |" in text
    groups = {one["group"]: one for one in steps["operations"]["figures"]}
    assert all(one["calls"] > 0 and one["ms"] > 0 for name, one in groups.items() if name != "attention, head 512")
    # One picture: as many group norms as the networks have, and not those of the picture before.
    norms = [one for one in groups["group norm"]["slowest"] if one["operation"] == "groupnorm"]
    assert norms and all(one["ms"] >= 0 and one["dtype"] == "float16" for one in norms)
    assert f"| group norm | {groups['group norm']['calls']} |" in text


def test_what_fails_is_written_down(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def python(text: str) -> Any:
        return lambda settings, figures: [sys.executable, "-c", text.replace("FIGURES", str(figures))]

    slow = "import time; open(r'FIGURES', 'w').write('{\"sides\": {}}'); print('begun', flush=True); time.sleep(60)"
    steps = [
        tool.Step("failing", 1, python("print('one | two'); raise SystemExit(3)")),
        tool.Step("slow", 0.005, python(slow)),
        tool.Step("silent", 1, python("raise SystemExit(5)")),
        tool.Step("last", 1, python("import os; assert os.environ['WHICH'] == 'this'"), {"WHICH": "this"}),
        tool.Step("unneeded", 1, python(""), missing=lambda _: "a tool"),
    ]
    monkeypatch.setattr(tool, "STEPS", steps)
    code, found, text = run(tool, tmp_path, *(step.name for step in steps))
    assert code == 1
    assert {name: one["state"] for name, one in found.items()} == {
        "failing": "failed",
        "slow": "too long",
        "silent": "failed",
        "last": "done",
        "unneeded": "left out",
    }
    assert found["failing"]["exit code"] == 3 and found["slow"]["seconds"] < 30
    assert found["slow"]["figures"] == {"sides": {}}
    assert "| failing | failed |" in text and "one / two" in text and "| slow | too long | 3 | begun |" in text
    assert "| silent | failed | 0 | exit code 5 |" in text
    assert "| unneeded | left out |  | not there: a tool |" in text


def test_nothing_begins_when_the_time_is_over(tool: Any, tmp_path: Path) -> None:
    assert tool.main(["--tiny", "--emulated", "--minutes", "0", "--output", str(tmp_path), "--steps", "machine"]) == 0
    found = json.loads((tmp_path / "first_hour.json").read_text(encoding="utf-8"))["steps"]
    assert found == {"machine": {"state": "left out", "why": "the time is over"}}


@pytest.mark.parametrize("name", ["training", "cancelling", "out_of_memory"])
def test_what_a_gpu_must_bear(tool: Any, tmp_path: Path, name: str) -> None:
    code, steps, text = run(tool, tmp_path, "checkpoint", name)
    assert code == 0, text
    figures = steps[name]["figures"]
    same = [value for key, value in figures.items() if key.startswith("same")]
    if name == "training":
        assert np.isfinite(figures["losses"]).all() and figures["seconds of a step"] > 0
    else:
        assert same == [True]


def test_all_steps_fit_into_their_time(tool: Any) -> None:
    assert sum(step.minutes for step in tool.STEPS) <= 55
    assert len({step.name for step in tool.STEPS}) == len(tool.STEPS)
