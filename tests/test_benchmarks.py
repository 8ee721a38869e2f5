"""The benchmark scripts on the small preset: the written checkpoint opens and runs, and the comparison reports."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_cases import make_scenes

import marigold_c as mc

pytestmark = pytest.mark.long

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def run(script: str, *arguments: object, timeout: int = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "checkpoint"
    done = run("make_sd2_checkpoint.py", folder, "--preset", "tiny")
    assert done.returncode == 0, done.stderr
    return folder


def test_random_checkpoint_runs(checkpoint: Path) -> None:
    pipe = mc.load(checkpoint, num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    prediction = pipe(np.full((33, 57, 3), 99, np.uint8), generator=0).prediction
    assert prediction.shape == (1, 33, 57, 1)
    assert np.isfinite(prediction).all()


def test_random_checkpoint_is_reproducible(checkpoint: Path, tmp_path: Path) -> None:
    assert run("make_sd2_checkpoint.py", tmp_path, "--preset", "tiny").returncode == 0
    files = sorted(path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file())
    assert files
    for name in files:
        digests = {hashlib.sha256((folder / name).read_bytes()).digest() for folder in (checkpoint, tmp_path)}
        assert len(digests) == 1, name


def test_peers_reports_ours_alone(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "peers.json"
    options = ("--ours", "float32", "--rows", "all", "--sizes", "40x56", "--repeats", 1, "--threads", 1)
    parts = ("--scaling", "--growth", "48,64")
    done = run("peers.py", "--checkpoint", checkpoint, "--ours-only", *options, *parts, "--output", output)
    assert done.returncode == 0, done.stderr
    table = output.with_suffix(".md").read_text(encoding="utf-8")
    assert "| 40x56 sum of stages |" in table and table in done.stdout
    report = json.loads(output.read_text(encoding="utf-8"))
    (comparison,) = report["comparisons"]
    stages, pipelines = ["encode", "unet", "decode"], ["1-step", "4-steps", "4-steps-10-members"]
    assert [entry["row"] for entry in comparison["measurements"]] == stages + pipelines
    for entry in comparison["measurements"]:
        assert entry["first"]["marigold_c float32"] > 0
        assert entry["median"]["marigold_c float32"] > 0
    alone = report["alone"]["marigold_c float32"]
    assert alone["peak_bytes"] > 10e6
    assert 0 < alone["start"]["before"] < alone["start"]["after"]
    assert [one["row"] for one in report["scaling"]] == [*stages, "1-step"]
    assert [one["size"] for one in report["growth"]] == [[32, 48], [48, 64]]


def test_peers_compares_precisions_or_leaves_them_out(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "peers.json"
    options = ("--rows", "unet", "--parts", "rows", "--sizes", "40x56", "--repeats", 1, "--threads", 1)
    done = run("peers.py", "--checkpoint", checkpoint, "--ours-only", *options, "--output", output)
    assert done.returncode == 0, done.stderr
    (comparison,) = json.loads(output.read_text(encoding="utf-8"))["comparisons"]
    for dtype in ("bfloat16", "int8"):
        side = f"marigold_c {dtype}"
        if f"{side}: dtype" in done.stderr:  # not supported (yet), and said so
            assert side not in comparison["sides"]
        else:
            assert 0 < comparison["measurements"][0]["disagreement"][side]["typical"] < 0.5


def test_ratios_are_to_the_fastest_peer_of_each_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import peer_tables

    def table(peer: str, ours: float, theirs: float) -> dict[str, Any]:
        seconds = {"marigold_c float32": ours, peer: theirs}
        rows = [{"row": row, "size": [8, 8], "median": seconds} for row in ("encode", "unet", "decode")]
        return {"peer": peer, "sizes": [(8, 8)], "measurements": rows}

    # The machine was slower for the second table: only ratios within a table count.
    tables = [table("PyTorch float32", 1.0, 3.0), table("OpenVINO float32", 2.0, 4.0)]
    assert "| marigold_c float32 | float32 peers | OpenVINO float32 | 0.50 |" in peer_tables.worst_ratios(tables)


def test_peers_does_not_time_what_disagrees(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other weights under the name of a peer: that side gets no timing, the reference keeps its own."""
    other = tmp_path / "other"
    assert run("make_sd2_checkpoint.py", other, "--preset", "tiny", "--seed", 1).returncode == 0
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import peer_libraries
    import peer_parts
    from peer_worker import Contestant

    reference = peer_libraries.REFERENCE
    bench = peer_parts.Bench(tmp_path, 32, 1)
    workers = bench.open([Contestant(reference, one, 1, one) for one in (checkpoint, other)])
    workers[1].contestant = Contestant("PyTorch bfloat16", other, 1, other)
    measured = peer_parts.measure(bench, workers, "decode", (40, 56))
    for worker in workers:
        worker.close()
    assert list(measured["median"]) == list(measured["first"]) == [reference]
    assert "PyTorch bfloat16, decode at 40x56 differs" in capsys.readouterr().err


def run_ops(output: Path, *options: object) -> list[dict[str, Any]]:
    done = run("ops.py", "--tiny", "--threads", 1, "--repeats", 1, "--output", output, *options)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(output.read_text(encoding="utf-8"))["operations"]
    assert all(one["seconds"] > 0 and one["share"] > 0 for one in found)
    return found


def test_ops_times_every_operation(tmp_path: Path) -> None:
    found = run_ops(tmp_path / "ops.json")
    names = {one["operation"].split()[0] for one in found}
    assert names == {"UNet", "VAE", "linear", "attention", "groupnorm", "layernorm", "geglu", "add", "concat"}
    large = next(one for one in found if one["operation"] == "VAE 3x3 36x48 128 to 128")
    assert large["direct"] == 2 * 36 * 48 * 128 * 128 * 9
    assert large["done"] == large["direct"] / 4  # Winograd F(4x4, 3x3): 36 products for 144


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_ops_times_other_precisions(dtype: str, tmp_path: Path) -> None:
    for words in ("linear 24 320", "attention 24", "UNet 3x3 4x6 320", "groupnorm 4x6"):
        assert run_ops(tmp_path / "ops.json", "--dtype", dtype, "--only", words), words


def test_peers_refuses_what_it_cannot_run(checkpoint: Path) -> None:
    assert "multiples of 8" in run("peers.py", "--checkpoint", checkpoint, "--sizes", "41x56").stderr
    assert "choose from" in run("peers.py", "--checkpoint", checkpoint, "--rows", "decode,paint").stderr
    assert "choose from PyTorch float32" in run("peers.py", "--checkpoint", checkpoint, "--peers", "abacus").stderr
    assert "not DTYPE=PATH" in run("peers.py", "--checkpoint", checkpoint, "--packed", "int4=x").stderr


def test_train_peers_compares_sides(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "train.json"
    sides = ["marigold_c float32", "marigold_c float32, recomputing"]
    options = ("--latent", "8x12", "--repeats", 1, "--threads", 1, "--sides", ";".join(sides), "--output", output)
    done = run("train_peers.py", "--checkpoint", checkpoint, *options)
    assert done.returncode == 0, done.stderr
    reports = json.loads(output.read_text(encoding="utf-8"))["sides"]
    assert [report["side"] for report in reports] == sides
    assert all(report["step"] > 0 and report["difference"] == 0 for report in reports)
    assert "| marigold_c float32, recomputing |" in output.with_suffix(".md").read_text(encoding="utf-8")


def test_train_peers_sees_what_disagrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import train_peers

    reference = {"loss": [1.0], "a": [2.0, 0.5], "b": [1e-9, 1e-9]}
    assert train_peers.disagreement(reference, {"loss": [1.0], "a": [2.0, 0.5], "b": [2e-9, -1e-9]}) < 1e-4
    assert train_peers.disagreement(reference, {"loss": [1.0], "a": [2.0, 0.6], "b": [1e-9, 1e-9]}) == pytest.approx(
        0.05
    )
    assert train_peers.disagreement(reference, {"loss": [1.0], "a": [2.0, 0.5]}) == float("inf")


def test_completion_of_scenes(tmp_path: Path) -> None:
    """Of two scenes with ten points; the points themselves are exact for an interpolation."""
    pytest.importorskip("scipy.interpolate")
    make_scenes(tmp_path, 2)
    few = ("--points", "10", "--steps", 2, "--processing-res", 32, "--threads", 1)
    done = run("completion.py", "scenes", tmp_path, *few)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| 10 ")]
    assert [row[1].strip() for row in rows] == ["guided", "align", "griddata"]
    assert all(0 < float(row[2]) <= float(row[3]) < 3 for row in rows)  # MAE and RMSE of scenes some metres deep
    assert "no rgb" in run("completion.py", "scenes", tmp_path / "nowhere").stderr


def test_high_resolution_trains_and_compares(tmp_path: Path) -> None:
    """A few steps: a checkpoint that opens, another one than it began as, and a table of three rows."""
    for part in ("train", "val"):
        make_scenes(tmp_path / part, 2, size=(96, 128))
    out = tmp_path / "hr"
    few = ("--iterations", "2", "--pictures", "1", "--batch", "1", "--agreement", "2")
    done = run("high_resolution.py", tmp_path, out, *few)
    assert done.returncode == 0, done.stderr
    assert isinstance(mc.load(out, num_threads=1), mc.MarigoldDepthHRPipeline)
    assert [line.split(" |")[0] for line in done.stdout.splitlines()[-3:]] == [
        "base, half size",
        "base, full size",
        "refined",
    ]
    before, after = (
        sorted((folder / "boosting_unet").glob("*.safetensors")) for folder in (tmp_path / "hr-start", out)
    )
    assert [path.name for path in before] == [path.name for path in after]
    assert before[0].read_bytes() != after[0].read_bytes()


def test_maps_of_a_still_video() -> None:
    """All methods are measured, and the noise of the frames shows in each."""
    done = run("video_consistency.py", "--size", "64", "--frames", "4")
    assert done.returncode == 0, done.stderr
    truth, *lines = done.stdout.splitlines()
    assert truth == "the truth, moved: 0.000 % of the range"
    found = {line.split(":")[0]: [float(word) for word in line.split() if word[0].isdigit()] for line in lines}
    assert list(found) == ["alone", "blend", "rolling"]
    assert all(0 < still < 5 and 0 < moving < 20 for still, moving in found.values())


def test_a_clip_of_known_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Depth of a ray is where its point is; two cameras see one point alike; what changes beside the motion counts."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import camera_clip as clips

    pictures, depths, cameras = clips.clip(4, 64)
    assert pictures.shape == (4, 48, 64, 3) and 1 < depths.min() < depths.max() < 8
    points = cameras[1].position + cameras[1].rays(48, 64) * depths[1][:, :, None]
    pixel, depth = cameras[1].project(points, 48, 64)
    rows, columns = np.mgrid[:48, :64]
    np.testing.assert_allclose(pixel, np.stack([columns, rows], axis=2), atol=1e-9)
    np.testing.assert_allclose(depth, depths[1], rtol=1e-12)
    low, high = clips.ROOM
    assert (points > low - 1e-9).all() and (points < high + 1e-9).all()
    before, after, seen = clips.Warp(cameras[1], cameras[2], depths[1], depths[2]).places()
    assert 0.8 < seen.mean() < 1  # the camera turns: an eighth of the picture comes in from the side
    assert np.abs(pictures[1][before, after].astype(int) - pictures[2])[seen].mean() < 12
    assert clips.inconsistency(2 + 3 * depths, depths, cameras, False) < 1e-9
    assert clips.inconsistency(1 - 2 / depths, depths, cameras, True) < 1e-9
    flicker = depths * np.array([1, 1.05, 1, 1.05])[:, None, None]
    assert clips.inconsistency(flicker, depths, cameras, False) > 1
    # An error that lies on the surfaces moves with them; by another motion than the clip's it would flicker.
    places = np.stack(
        [c.position + c.rays(48, 64) * depth[:, :, None] for c, depth in zip(cameras, depths, strict=True)]
    )
    painted, still = depths + 0.3 * np.sin(4 * places[..., 0]), [cameras[0]] * 4
    right, wrong = (clips.inconsistency(painted, depths, path, False) for path in (cameras, still))
    assert 0 < 3 * right < wrong


def test_memory_of_the_autoencoder() -> None:
    done = run("vae_tiling.py", "--size", "192", "--tile", "64")
    assert done.returncode == 0, done.stderr
    whole, tiles, apart = done.stdout.splitlines()
    planned = [float(line.split()[1]) for line in (whole, tiles)]
    assert planned[1] < planned[0] and 0 < float(apart.split(": ")[1].split()[0]) < 0.1


def test_a_guided_step_beside_torch(checkpoint: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    few = ("--size", "32x40", "--repeats", 1, "--steps", 2, "--threads", 1)
    done = run("completion.py", "step", "--checkpoint", checkpoint, *few, timeout=900)  # imports torch and diffusers
    assert done.returncode == 0, done.stderr
    assert "| marigold_c |" in done.stdout and "| PyTorch |" in done.stdout
    assert float(done.stdout.split("depths differ by ")[1].split()[0]) < 1e-3  # metres, of 1 to 3
