"""Depth completion: what is refused and by which words, files of measured points, the fit by robust least squares, the
command, and what is the same to the bit. The guided method beside torch: tests/oracle/test_completion.py."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import marigold_c as mc
from marigold_c.commands.cli import main
from marigold_c.errors import NotFiniteError
from marigold_c.images.readers import InputError

HEIGHT, WIDTH = 24, 40
Array = NDArray[np.float32]
FEW: dict[str, Any] = {"num_inference_steps": 2, "processing_resolution": 0, "generator": 3}


def image() -> NDArray[np.uint8]:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [127 + 100 * np.sin(x / 5 + channel) * np.cos(y / 7) for channel in range(3)]
    return np.stack(planes, -1).astype(np.uint8)


def points(count: int = 12) -> Array:
    rng = np.random.default_rng(1)
    sparse = np.zeros((HEIGHT, WIDTH), np.float32)
    sparse.flat[rng.permutation(sparse.size)[:count]] = rng.uniform(1, 4, count)
    return sparse


def open_pipeline(**options: Any) -> mc.MarigoldDepthCompletionPipeline:
    path = options.pop("path", mc.default_checkpoint("depth"))
    pipe = mc.MarigoldDepthCompletionPipeline.from_pretrained(path, **{"num_threads": 1, **options})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe() -> mc.MarigoldDepthCompletionPipeline:
    return open_pipeline()


# ---- the fit ----
def fitted_by_least_squares(depth: NDArray[Any], metres: NDArray[Any]) -> tuple[float, float]:
    """Huber's estimate by a solver of linear least squares on rows times the roots of their weights."""
    design = np.stack([depth, np.ones_like(depth)], 1)
    root = np.ones(len(depth))
    for _ in range(1000):
        line = np.linalg.lstsq(design * root[:, None], metres * root, rcond=None)[0]
        error = np.abs(design @ line - metres)
        limit = 1.345 * 1.4826 * np.median(error)
        root = np.sqrt(np.minimum(1, limit / np.maximum(error, 1e-300)))
    return float(line[0]), float(line[1])


@pytest.mark.parametrize("count", [5, 40, 1000])
@pytest.mark.parametrize("outliers", [0.0, 0.2])
def test_fit_is_that_of_numpy(count: int, outliers: float) -> None:
    rng = np.random.default_rng(count)
    depth = rng.random(count)
    metres = 3.5 * depth + 0.8 + 0.02 * rng.standard_normal(count)
    metres[: int(outliers * count)] += 5
    found = mc.align_to_points(depth.astype(np.float64), metres)
    np.testing.assert_allclose(found, fitted_by_least_squares(depth, metres), rtol=1e-7)


def test_fit_is_a_minimum_of_hubers_loss() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    depth = rng.random(200)
    metres = 2 * depth + 1 + 0.05 * rng.standard_t(2, 200)
    scale, shift = mc.align_to_points(depth, metres)
    limit = 1.345 * 1.4826 * np.median(np.abs(scale * depth + shift - metres))
    best = optimize.least_squares(
        lambda line: line[0] * depth + line[1] - metres, (1.0, 0.0), loss="huber", f_scale=limit, xtol=1e-14, gtol=1e-12
    )
    np.testing.assert_allclose([scale, shift], best.x, rtol=1e-5)


def test_fit_passes_outliers_over() -> None:
    """Two points of ten were read off wrongly; a line through all errs by half a metre."""
    depth = np.linspace(0, 1, 10)
    metres = 2 * depth + 1
    metres[[2, 7]] += 4
    scale, shift = mc.align_to_points(depth, metres)
    assert abs(scale - 2) < 0.01 and abs(shift - 1) < 0.01


def test_fit_of_a_line_is_exact() -> None:
    depth = np.array([0.2, 0.4, 0.9])
    np.testing.assert_allclose(mc.align_to_points(depth, 3 * depth + 0.5), (3, 0.5), rtol=1e-12)


def test_fit_refuses() -> None:
    with pytest.raises(ValueError, match=r"depth is 0\.5 at all 3 measured points"):
        mc.align_to_points(np.full(3, 0.5), np.array([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="2 or more points"):
        mc.align_to_points(np.ones(1), np.ones(1))


def test_align_fits_the_ordinary_prediction(pipe: mc.MarigoldDepthCompletionPipeline) -> None:
    out = pipe(image(), points(), method="align", **FEW)
    ordinary = mc.MarigoldDepthPipeline.from_pipe(pipe)
    ordinary.set_progress_bar_config(disable=True)
    depth = ordinary(image(), **FEW).prediction[0, :, :, 0].astype(np.float64)
    chosen = points() > 0
    scale, shift = fitted_by_least_squares(depth[chosen], points()[chosen].astype(np.float64))
    np.testing.assert_allclose([out.scale[0], out.shift[0]], [scale, shift], rtol=1e-6)
    np.testing.assert_allclose(out.prediction[0, :, :, 0], scale * depth + shift, atol=1e-5)


# ---- the guided method ----
def test_guidance_comes_near_to_the_points(pipe: mc.MarigoldDepthCompletionPipeline) -> None:
    sparse = points(30)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    sparse = np.where(sparse > 0, 1 + x / WIDTH + y / HEIGHT, 0).astype(np.float32)
    errors = {}
    for name, rates in (("guided", {}), ("without", {"latent_rate": 0.0, "affine_rate": 0.0})):
        options = {**FEW, "num_inference_steps": 20, **rates}
        metres = pipe(image(), sparse, **options).prediction[0, :, :, 0]
        errors[name] = float(np.abs(metres - sparse)[sparse > 0].mean())
    print(errors)
    assert errors["guided"] < 0.8 * errors["without"]


def test_threads_and_recomputation_do_not_change_a_bit(pipe: mc.MarigoldDepthCompletionPipeline) -> None:
    """Of an ensemble: a member's map is decoded between steps, in the same memory."""
    options = {**FEW, "ensemble_size": 3}
    first, memory = pipe(image(), points(), **options), {}
    for threads, recompute in ((1, False), (1, "unet"), (1, True), (3, "auto")):
        opened = open_pipeline(num_threads=threads)
        one = opened(image(), points(), recompute=recompute, **options)
        memory[recompute] = opened.memory_stats()["activations"]
        np.testing.assert_array_equal(first.prediction, one.prediction)
        np.testing.assert_array_equal([first.scale, first.shift], [one.scale, one.shift])
    assert memory["auto"] == memory[False] > memory["unet"] > memory[True]


LIMITED = """
import resource, sys
import numpy as np
import marigold_c as mc
pipe = mc.MarigoldDepthCompletionPipeline.from_pretrained(mc.default_checkpoint("depth"), num_threads=1)
pipe.set_progress_bar_config(disable=True)
image, sparse = np.zeros((64, 512, 3), np.uint8), np.zeros((64, 512), np.float32)
sparse[:2, 0] = 1, 2
options = {"num_inference_steps": 1, "generator": 1, "processing_resolution": 0}
pipe(image[:8, :8], sparse[:8, :8], **options)
used = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]), -1))
pipe(image, sparse, **options)
print(pipe.memory_stats()["activations"])
"""


def test_memory_decides_what_is_computed_twice() -> None:
    """Address spaces that hold one network's activations, and only the inputs of layers."""
    sparse = np.zeros((64, 512), np.float32)
    sparse[:2, 0] = 1, 2
    needed, scratch = {}, 0
    for recompute in (False, "unet", True):
        opened = open_pipeline()
        opened(np.zeros((64, 512, 3), np.uint8), sparse, recompute=recompute, **{**FEW, "num_inference_steps": 1})
        needed[recompute] = opened.memory_stats()["activations"]
        scratch = opened.memory_stats()["workspace"]
    for more, less in ((False, "unet"), ("unet", True)):
        space = ((needed[more] + needed[less]) // 2 + scratch) * 8 // 7  # an eighth is left to others
        script = [sys.executable, "-c", LIMITED, str(space)]
        done = subprocess.run(script, capture_output=True, text=True, check=True)
        assert int(done.stdout) == needed[less], (done.stderr, needed)


def test_seed_is_torchs_noise_and_draws_all_members(pipe: mc.MarigoldDepthCompletionPipeline) -> None:
    options = {**FEW, "ensemble_size": 3}
    out = pipe(image(), points(), **options)
    noise = mc.Generator(3).randn((3, 4, HEIGHT // 8, WIDTH // 8))
    same = pipe(image(), points(), latents=noise, **{**options, "generator": None})
    np.testing.assert_array_equal(out.prediction, same.prediction)
    assert out.prediction.shape == (1, HEIGHT, WIDTH, 1) and out.uncertainty.shape == out.prediction.shape
    assert out.scale.shape == out.shift.shape == (3,)


def test_bfloat16_is_near_to_float32(pipe: mc.MarigoldDepthCompletionPipeline) -> None:
    exact = pipe(image(), points(), **FEW).prediction
    rounded = open_pipeline(dtype="bfloat16")(image(), points(), **FEW).prediction
    error = float(np.abs(exact - rounded).mean()) / float(np.ptp(points()[points() > 0]))
    print(error)
    assert 0 < error < 0.05


def test_packed_file_gives_the_same(pipe: mc.MarigoldDepthCompletionPipeline, tmp_path: Path) -> None:
    path = mc.convert(mc.default_checkpoint("depth"), tmp_path / "depth.safetensors", num_threads=1)
    packed = open_pipeline(path=path)(image(), points(), **FEW)
    np.testing.assert_allclose(packed.prediction, pipe(image(), points(), **FEW).prediction, atol=1e-5)


def test_ordinary_predictions_are_not_disturbed(pipe: mc.MarigoldDepthCompletionPipeline) -> None:
    before = pipe(image(), points(), method="align", **FEW).prediction
    pipe(image(), points(), **FEW)
    np.testing.assert_array_equal(before, pipe(image(), points(), method="align", **FEW).prediction)


def test_progress_and_interruption() -> None:
    """What a callback raises, as Ctrl-C does, ends the call within a step; the pipeline stays usable."""
    pipe = open_pipeline()
    seen: list[tuple[int, int]] = []
    scheduler = mc.DDIMScheduler.from_config(pipe.scheduler.config)
    noise = mc.Generator(0).randn((2, 4, HEIGHT // 8, WIDTH // 8))

    def tell(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipe._engine.complete(
            image()[None], points(), noise, scheduler._handle, ensemble_size=2, num_inference_steps=4,
            processing_resolution=0, progress=tell,
        )  # fmt: skip
    assert seen == [(1, 8), (2, 8), (3, 8)]
    assert np.isfinite(pipe(image(), points(), **FEW).prediction).all()


def test_interruption_is_heard_within_a_step() -> None:
    """Ctrl-C, and cancel() of another thread: of one large step, whose end nobody is told of."""
    pipe = open_pipeline()
    large, sparse = np.tile(image(), (12, 12, 1)), np.tile(points(), (12, 12))
    steps: list[int] = []
    pipe.set_progress_callback(lambda done, _total: steps.append(done))
    options = {**FEW, "num_inference_steps": 1}

    def cancel() -> None:
        while not pipe.cancel():
            time.sleep(0.001)

    for stop in (cancel, lambda: signal.raise_signal(signal.SIGINT)):
        timer = threading.Timer(0.2, stop)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            pipe(large, sparse, **options)
        timer.join()
    assert steps == []
    pipe.set_progress_callback(None)
    np.testing.assert_array_equal(
        pipe(image(), points(), **FEW).prediction, open_pipeline()(image(), points(), **FEW).prediction
    )


def with_value(value: float) -> Array:
    sparse = points()
    sparse[5, 7] = value
    return sparse


def only(*values: float) -> Array:
    sparse = np.zeros((HEIGHT, WIDTH), np.float32)
    sparse.flat[: len(values)] = values
    return sparse


REFUSED = {
    "another size": (points()[:, :-1], r"shape \(24, 39\), and the image has 24 rows of 40 pixels"),
    "turned": (points().T, r"shape \(40, 24\)"),
    "no point": (only(), "has 0 measured points"),
    "one point": (only(2.0), "has 1 measured points"),
    "one depth": (only(2.0, 2.0, 2.0), "all 3 measured points of `sparse_depth` are at 2 m"),
    "negative": (with_value(-0.5), r"is -0\.5 at row 5, column 7"),
    "infinite": (with_value(np.inf), "is inf at row 5, column 7"),
    "no number": (with_value(np.nan), "is nan at row 5, column 7"),
    "texts": (np.full((HEIGHT, WIDTH), "1.0"), "real numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("method", ["guided", "align"])
def test_points_that_are_refused(pipe: mc.MarigoldDepthCompletionPipeline, name: str, method: str) -> None:
    sparse, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        pipe(image(), sparse, method=method, **FEW)


@pytest.mark.parametrize("name", [name for name in REFUSED if name not in ("another size", "turned", "texts")])
def test_the_engine_refuses_them_itself(pipe: mc.MarigoldDepthCompletionPipeline, name: str) -> None:
    noise = mc.Generator(0).randn((1, 4, HEIGHT // 8, WIDTH // 8))
    with pytest.raises(ValueError, match=REFUSED[name][1]):
        pipe._engine.complete(image()[None], REFUSED[name][0], noise, pipe.scheduler._handle, processing_resolution=0)


def test_other_arguments_that_are_refused(pipe: mc.MarigoldDepthCompletionPipeline) -> None:
    with pytest.raises(ValueError, match=r"`image` has 2 images; depth is completed for one"):
        pipe(np.stack([image()] * 2), points(), **FEW)
    with pytest.raises(ValueError, match="`method` must be one of guided, align; got 'fast'"):
        pipe(image(), points(), method="fast", **FEW)
    with pytest.raises(ValueError, match='`recompute` must be "auto", False, "unet" or True; got 3'):
        pipe(image(), points(), recompute=3, **FEW)
    with pytest.raises(ValueError, match=r"learning rates are -1 and 0\.005"):
        pipe(image(), points(), latent_rate=-1, **FEW)
    with pytest.raises(ValueError, match=r"`latents` has unexpected shape=\(1, 4, 3, 4\)"):
        pipe(image(), points(), latents=np.zeros((1, 4, 3, 4), np.float32), **{**FEW, "generator": None})
    noise = mc.Generator(0).randn((1, 4, HEIGHT // 8, WIDTH // 8))
    lcm = mc.LCMScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(NotImplementedError, match="steps by DDIMScheduler, not by LCMScheduler"):
        pipe._engine.complete(image()[None], points(), noise, lcm._handle, processing_resolution=0)


def test_the_engine_refuses_what_python_checks_before(pipe: mc.MarigoldDepthCompletionPipeline) -> None:
    noise = mc.Generator(0).randn((1, 4, HEIGHT // 8, WIDTH // 8))

    def complete(count: int = 1, **options: Any) -> None:
        pixels = np.stack([image()] * count)
        pipe._engine.complete(pixels, points(), noise, pipe.scheduler._handle, processing_resolution=0, **options)

    for rate in (np.inf, np.nan, -0.1):
        with pytest.raises(ValueError, match="the learning rates are"):
            complete(latent_rate=rate)
        with pytest.raises(ValueError, match="the learning rates are"):
            complete(affine_rate=rate)
    with pytest.raises(ValueError, match='recompute "often" is unknown; known: auto, off, unet, on'):
        complete(recompute="often")
    with pytest.raises(ValueError, match="2 images; depth is completed for one at a time"):
        complete(count=2)


def test_a_loss_that_is_no_number_is_named(pipe: mc.MarigoldDepthCompletionPipeline) -> None:
    """Depths whose squares, as float32, are infinite."""
    with pytest.raises(
        NotFiniteError, match=r"guided step 1: the loss is .*, and the norm of its gradient -?(inf|nan)"
    ):
        pipe(image(), with_value(1e30), **FEW)


def test_dtypes_and_tasks_that_are_refused() -> None:
    normals = mc.load(mc.default_checkpoint("normals"), num_threads=1)
    noise = mc.Generator(0).randn((1, 4, HEIGHT // 8, WIDTH // 8))
    with pytest.raises(NotImplementedError, match="depth is completed by a checkpoint for depth, not for normals"):
        normals._engine.complete(image()[None], points(), noise, normals.scheduler._handle, processing_resolution=0)
    with pytest.raises(NotImplementedError, match='"float32" or "bfloat16", not "int8"'):
        open_pipeline(dtype="int8")(image(), points(), **FEW)
    assert np.isfinite(open_pipeline(dtype="int8")(image(), points(), method="align", **FEW).prediction).all()


# ---- files of measured points ----
def pfm(values: Array, order: str) -> bytes:
    head = f"Pf\n{values.shape[1]} {values.shape[0]}\n{-1.0 if order == '<' else 1.0}\n".encode()
    return head + values[::-1].astype(f"{order}f4").tobytes()


def npy(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def png(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def rows(sparse: Array) -> str:
    return "".join(f"{x}, {y}, {sparse[y, x]:.9g}\n" for y, x in np.argwhere(sparse))


@pytest.mark.parametrize("kind", ["npy", "npy-float64", "pfm-little", "pfm-big", "csv", "csv-header", "png"])
def test_files_of_points(kind: str, tmp_path: Path) -> None:
    sparse = np.rint(points() * 1000).astype(np.uint16)
    metres = (sparse / 1000).astype(np.float32)
    data = {
        "npy": npy(metres),
        "npy-float64": npy(metres.astype(np.float64)),
        "pfm-little": pfm(metres, "<"),
        "pfm-big": pfm(metres, ">"),
        "csv": rows(metres).encode(),
        "csv-header": ("\ufeffx,y,metres\n\n# by tape\n" + rows(metres)).encode(),
        "png": png(sparse),
    }[kind]
    path = tmp_path / f"sparse.{kind.split('-')[0]}"
    path.write_bytes(data)
    np.testing.assert_allclose(mc.read_sparse_depth(path, HEIGHT, WIDTH), metres, rtol=1e-6)


def test_unit_of_png(tmp_path: Path) -> None:
    path = tmp_path / "kitti.png"
    path.write_bytes(png(np.full((HEIGHT, WIDTH), 640, np.uint16)))
    assert mc.read_sparse_depth(path, HEIGHT, WIDTH, png_unit=1 / 256)[0, 0] == 2.5


BAD_FILES = {
    "size.npy": (npy(points()[1:]), r"shape \(23, 40\), and the image has 24 rows of 40 pixels"),
    "objects.npy": (npy(np.array(["a"])), "no array of real numbers"),
    "cut.npy": (npy(points())[:100], "size.npy|cut.npy"),
    "colours.png": (png(image()), "no greyscale PNG"),
    "cut.pfm": (pfm(points(), "<")[:-4], "a PFM of 40 x 24 has 3840 bytes of values, this one 3836"),
    "colours.pfm": (b"PF\n2 2\n-1.0\n" + bytes(48), "no PFM of one channel"),
    "fields.csv": (b"1,2,3\n4,5\n", r"line 2 is '4,5'; a line is x,y,metres"),
    "words.csv": (b"1,2,far\n", r"line 1 is '1,2,far'"),
    "outside.csv": (b"1,2,3\n40,0,2\n", "point 2: x is 40, outside the image, whose x go from 0 to 39"),
    "between.csv": (b"1.5,2,3\n", r"point 1: x is 1\.5; it must be a whole number"),
    "minus.csv": (b"1,2,-3\n", "point 1: the distance is -3"),
    "endless.csv": (b"1,2,inf\n", "point 1: the distance is inf"),
    "twice.csv": (b"1,2,3\n1,2,4\n", "point 2: the pixel x 1, y 2 has a distance already, 3 m"),
    "bytes.csv": (b"\xff\xfe\x00", "bytes.csv"),
    "sparse.txt": (b"", r"read from \.npy, \.png, \.pfm, \.csv"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_are_refused(name: str, tmp_path: Path) -> None:
    data, words = BAD_FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=words) as raised:
        mc.read_sparse_depth(tmp_path / name, HEIGHT, WIDTH)
    assert str(raised.value).startswith(str(tmp_path / name))


# ---- the command ----
def command(tmp_path: Path, *flags: str) -> int:
    Image.fromarray(image()).save(tmp_path / "room.png")
    few = ("--denoise-steps", "2", "--processing-res", "0", "--seed", "3", "--threads", "1")
    return main(["complete", str(tmp_path / "room.png"), "-o", str(tmp_path / "out"), *few, *flags])


def test_command_with_three_distances(tmp_path: Path, pipe: mc.MarigoldDepthCompletionPipeline) -> None:
    known = ("--known", "3,4,1.25", "--known", "30,4,2.5", "--known", "20,20,1.75")
    assert command(tmp_path, *known) == 0
    found = np.load(tmp_path / "out" / "room_metres.npy")
    sparse = mc.sparse_map([(3, 4, 1.25), (30, 4, 2.5), (20, 20, 1.75)], HEIGHT, WIDTH)
    np.testing.assert_array_equal(found, pipe(image(), sparse, **FEW).prediction[0, :, :, 0])
    assert Image.open(tmp_path / "out" / "room_metres_colored.png").size == (WIDTH, HEIGHT)


def test_command_with_a_file_and_an_ensemble(tmp_path: Path, pipe: mc.MarigoldDepthCompletionPipeline) -> None:
    (tmp_path / "sparse.npy").write_bytes(npy(points()))
    flags = ("--depth", str(tmp_path / "sparse.npy"), "--known", "0,0,3.5", "--ensemble-size", "3")
    assert command(tmp_path, *flags) == 0
    sparse = points()
    sparse[0, 0] = 3.5
    out = pipe(image(), sparse, ensemble_size=3, **FEW)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "room_metres.npy"), out.prediction[0, :, :, 0])
    uncertainty = np.load(tmp_path / "out" / "room_metres_uncertainty.npy")
    np.testing.assert_array_equal(uncertainty, out.uncertainty[0, :, :, 0])


def test_command_aligns(tmp_path: Path, pipe: mc.MarigoldDepthCompletionPipeline) -> None:
    (tmp_path / "sparse.csv").write_text(rows(points()))
    assert command(tmp_path, "--depth", str(tmp_path / "sparse.csv"), "--method", "align") == 0
    expected = pipe(image(), points(), method="align", **FEW).prediction[0, :, :, 0]
    np.testing.assert_allclose(np.load(tmp_path / "out" / "room_metres.npy"), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 2, "no measured points: give --depth PATH or --known X,Y,METRES"),
        (("--known", "3,4"), 2, "'3,4' is not X,Y,METRES"),
        (("--known", "3,4,2", "--known", "40,4,2.5"), 1, "--known 2: x is 40, outside the image"),
        (("--known", "3,24,2", "--known", "3,4,2.5"), 1, "--known 1: y is 24, outside the image"),
        (("--known", "3,4,0"), 1, "--known 1: the distance is 0"),
        (("--known", "3,4,nan"), 2, "finite"),
        (("--known", "3,4,2"), 1, "has 1 measured points"),
        (("--depth", "nowhere.npy"), 1, "nowhere.npy: No such file"),
    ],
)
def test_command_refuses(
    flags: tuple[str, ...], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, *flags) == code
    assert words in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))


# ---- the command over folders ----
NAMES = ("chair", "door", "room")


def write_pairs(tmp_path: Path) -> None:
    """Three photographs, and their points in three kinds of files."""
    for folder in ("photos", "points"):
        (tmp_path / folder).mkdir()
    for name in NAMES:
        Image.fromarray(image()).save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "points/chair.npy").write_bytes(npy(points(12)))
    (tmp_path / "points/door.csv").write_text(rows(points(20)))
    (tmp_path / "points/room.pfm").write_bytes(pfm(points(30), "<"))


def over_folder(tmp_path: Path, *flags: str) -> int:
    few = ("--denoise-steps", "2", "--processing-res", "0", "--seed", "3", "--threads", "1")
    paths = (str(tmp_path / "photos"), "--depth", str(tmp_path / "points"), "-o", str(tmp_path / "out"))
    return main(["complete", *paths, *few, *flags])


def test_command_over_a_folder(tmp_path: Path, pipe: mc.MarigoldDepthCompletionPipeline) -> None:
    write_pairs(tmp_path)
    assert over_folder(tmp_path) == 0
    assert len(list((tmp_path / "out").iterdir())) == 6
    for name, count in zip(NAMES, (12, 20, 30), strict=True):
        expected = pipe(image(), points(count), **FEW).prediction[0, :, :, 0]
        np.testing.assert_array_equal(np.load(tmp_path / "out" / f"{name}_metres.npy"), expected)


def test_one_bad_pair_is_named_and_the_others_are_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path)
    (tmp_path / "points/door.csv").write_text("3,4,-1\n")
    assert over_folder(tmp_path) == 1
    said = capsys.readouterr().err
    door = tmp_path / "photos/door.png"
    assert f"marigold: error: {door}: {tmp_path / 'points/door.csv'}: point 1: the distance is -1" in said
    assert "1 of 3 inputs failed" in said
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {f"{name}_{ending}" for name in ("chair", "room") for ending in ("metres.npy", "metres_colored.png")}


@pytest.mark.parametrize(("extra", "words"), [(None, "there is none"), ("room.npy", "there is more than one")])
def test_points_of_an_image_are_one_file(
    extra: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path)
    if extra is None:
        (tmp_path / "points/room.pfm").unlink()
    else:
        (tmp_path / "points" / extra).write_bytes(npy(points()))
    assert over_folder(tmp_path, "--method", "align") == 1
    said = capsys.readouterr().err
    assert f"{tmp_path / 'photos/room.png'}: measured points are one of room.npy" in said
    assert words in said


def test_skip_existing_makes_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path)
    assert over_folder(tmp_path, "--method", "align") == 0
    out = tmp_path / "out"
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "door_metres_colored.png").unlink()
    kept = (out / "chair_metres.npy").stat().st_mtime_ns
    capsys.readouterr()
    assert over_folder(tmp_path, "--method", "align", "--skip-existing") == 0
    assert "1 done, 2 were there" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
    assert (out / "chair_metres.npy").stat().st_mtime_ns == kept
    assert over_folder(tmp_path, "--method", "align", "--skip-existing", "--ensemble-size", "3") == 0
    assert "0 done, 3 were there" in capsys.readouterr().err  # align has no uncertainty to be missing


def test_points_of_one_image_are_not_those_of_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path)
    assert over_folder(tmp_path, "--known", "3,4,2") == 1
    assert "--known has points of one image; there are 3" in capsys.readouterr().err
    one_file = ("--depth", str(tmp_path / "points/chair.npy"))
    assert over_folder(tmp_path, *one_file) == 1
    assert "is no folder; 3 images need one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
