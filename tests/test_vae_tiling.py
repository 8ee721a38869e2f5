"""The autoencoder in tiles: chosen by an argument, by the command, and by the memory that is there. That tiles are
diffusers': tests/oracle/test_vae_tiling.py."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import marigold_c as mc
from marigold_c import _testing
from marigold_c.commands import cli

IMAGE = np.random.default_rng(2).integers(0, 256, (72, 104, 3), dtype=np.uint8)
OPTIONS: dict[str, Any] = {"num_inference_steps": 1, "processing_resolution": 0, "generator": 1}


def load(**options: Any) -> Any:
    pipe = mc.load(mc.default_checkpoint("depth"), **{"num_threads": 1, **options})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def predict(pipe: Any, image: Any = IMAGE, **options: Any) -> Any:
    return pipe(image, **{**OPTIONS, **options}).prediction


@pytest.fixture(scope="module")
def whole() -> Any:
    return predict(load(vae_tiling=False))


def test_what_fits_into_a_tile_is_whole(whole: Any) -> None:
    pipe = load(vae_tiling=True)
    np.testing.assert_array_equal(predict(pipe), whole)
    pipe.enable_vae_tiling(128)
    np.testing.assert_array_equal(predict(pipe), whole)
    assert not pipe._engine.info()["vae_tiled"]


def test_tiles_are_near_to_the_whole(whole: Any) -> None:
    pipe = load()
    pipe.enable_vae_tiling(64)
    tiled = predict(pipe)
    assert pipe._engine.info()["vae_tiled"]
    assert 1e-4 < np.abs(tiled - whole).mean() < 0.1
    pipe.disable_vae_tiling()
    np.testing.assert_array_equal(predict(pipe), whole)
    pipe.vae.enable_tiling(tile_size=64)
    np.testing.assert_array_equal(predict(pipe), tiled)
    pipe.vae.disable_tiling()
    np.testing.assert_array_equal(predict(pipe), whole)


def test_the_choice_outlives_another_opening(whole: Any) -> None:
    pipe = load()
    pipe.vae.enable_tiling(tile_size=64)
    tiled = predict(pipe)
    np.testing.assert_array_equal(predict(mc.MarigoldDepthPipeline.from_pipe(pipe)), tiled)
    pipe.to("cpu", "bfloat16")
    predict(pipe)
    assert pipe._engine.info()["vae_tiled"]
    pipe.to("cpu", "float32")
    np.testing.assert_array_equal(predict(pipe), tiled)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_other_precisions_and_threads(dtype: str) -> None:
    pipes = [load(dtype=dtype), load(dtype=dtype, num_threads=2)]
    for pipe in pipes:
        pipe.enable_vae_tiling(64)
    exact = load()
    exact.enable_vae_tiling(64)
    one, two = map(predict, pipes)
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - predict(exact)).mean() < 0.08


def test_tiles_need_less_memory() -> None:
    image = np.zeros((64, 1024, 3), np.uint8)
    peaks = []
    for tiled in (False, True):
        pipe = load()
        if tiled:
            pipe.enable_vae_tiling(64)
        pipe.vae.decode(pipe.vae.encode(image.transpose(2, 0, 1)[None].astype(np.float32)))
        peaks.append(pipe.memory_stats()["activations"])
    assert peaks[1] < peaks[0] / 8


def test_wrong_choices_are_refused() -> None:
    pipe = load()
    with pytest.raises(ValueError, match='`vae_tiling` must be "auto", True or False; got 3'):
        load(vae_tiling=3)
    for size in (0, 24, 100, 1 << 17):
        with pytest.raises(ValueError, match=f"tiles of the VAE of {size} pixels; they must be a multiple of 32"):
            pipe.enable_vae_tiling(size)
    with pytest.raises(ValueError, match='tiling "sometimes" is unknown'):
        pipe._engine.set_vae_tiling("sometimes", 64)


LIMITED = """
import resource, sys, warnings
import numpy as np
import marigold_c as mc
pipe = mc.load(mc.default_checkpoint("depth"), num_threads=1)
pipe.set_progress_bar_config(disable=True)
image = np.zeros((64, 2304, 3), np.uint8)
options = {"num_inference_steps": 1, "processing_resolution": 0, "generator": 1, "match_input_resolution": False}
pipe(image[:, :64], **options)
used = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]), -1))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    pipe(image, **options)
    pipe.vae.decode(np.zeros((1, 4, 8, 288), np.float32))
print(pipe._engine.info()["vae_tiled"], *(str(one.message) for one in said))
"""


def test_memory_decides() -> None:
    """An address space in which the whole does not fit, and one in which it does. Whoever decodes is told."""
    pipe = load(vae_tiling=False)
    predict(pipe, np.zeros((64, 2304, 3), np.uint8))
    needed = pipe.memory_stats()["activations"] + pipe.memory_stats()["workspace"]
    for space, tiled, told in ((needed * 3 // 4, "True", 2), (16 * needed, "False", 0)):
        script = [sys.executable, "-c", LIMITED, str(space)]
        done = subprocess.run(script, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(tiled), (done.stdout, done.stderr)
        assert done.stdout.count("memory did not hold the image whole") == told, done.stdout


def test_the_command(tmp_path: Path) -> None:
    image = np.random.default_rng(4).integers(0, 256, (32, 808, 3), dtype=np.uint8)  # longer than a tile of 768
    Image.fromarray(image).save(tmp_path / "photo.png")
    options = ["--denoise-steps", "1", "--processing-res", "0", "--seed", "1", "--threads", "1", "--format", "npy"]
    for tiling in (True, False):
        out = tmp_path / f"tiling-{tiling}"
        flags = ["-o", str(out), "--quiet", "--vae-tiling", "on" if tiling else "off", *options]
        assert cli.main(["depth", str(tmp_path / "photo.png"), *flags]) == cli.EXIT_DONE
        written = np.load(out / "depth_npy" / "photo_depth.npy")
        np.testing.assert_array_equal(written, predict(load(vae_tiling=tiling), image)[0, :, :, 0])


def test_no_warning_where_tiles_were_asked_for() -> None:
    pipe = load(vae_tiling=True)
    pipe.enable_vae_tiling(64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict(pipe)


# ---- how much memory there is ----
V2 = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = "32 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


def memory_of(root: Path, mountinfo: str, cgroup: str, files: dict[str, str]) -> int:
    texts = {
        "proc/self/mountinfo": mountinfo,
        "proc/self/cgroup": cgroup,
        "proc/meminfo": "MemTotal:       32768000 kB\nMemFree:         1000 kB\nMemAvailable:    2048000 kB\n",
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return int(_testing.host_memory(str(root)))


def test_memory_is_the_least_of_system_and_groups(tmp_path: Path) -> None:
    available = 2048000 << 10
    assert memory_of(tmp_path / "a", "", "", {}) == available
    group = {
        "pod/memory.max": "1000000\n",
        "pod/memory.current": "700000\n",
        "pod/memory.stat": "anon 1\ninactive_file 50000\n",
    }
    assert memory_of(tmp_path / "b", V2, "0::/pod\n", group) == 350000
    assert memory_of(tmp_path / "c", V2, "0::/pod/one\n", {**group, "pod/one/memory.max": "max\n"}) == 350000
    inner = {"pod/one/memory.max": "300000\n", "pod/one/memory.current": "400000\n"}
    assert memory_of(tmp_path / "d", V2, "0::/pod/one\n", {**group, **inner}) == 0
    first = {
        "memory/pod/memory.limit_in_bytes": "900000\n",
        "memory/pod/memory.usage_in_bytes": "500000\n",
        "memory/pod/memory.stat": "inactive_file 7\ntotal_inactive_file 100000\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.usage_in_bytes": "1\n",
    }
    assert memory_of(tmp_path / "e", V1, "5:memory:/pod\n", first) == 500000
    assert memory_of(tmp_path / "f", V2, "0::/pod\n", {"pod/memory.max": "many\n"}) == available
