"""The commands depth, normals and iid: names and contents of what they write."""

from __future__ import annotations

import io
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_cases import COMMANDS, NAMES, OPTIONS, PIXELS, TARGETS, changed_checkpoint, expected_file, opened, run, written
from PIL import Image

import marigold_c as mc
from marigold_c.images.files import Input, read_image


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(PIXELS).save(path)
    return path


# ---- names and contents ----


def test_normals(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("normals", out, photo) == 0
    assert written(out) == ["normals_npy/photo_normals.npy", "normals_vis/photo_normals.png"]
    pipe = opened("normals")
    prediction = pipe(PIXELS, **OPTIONS).prediction[0]
    array = np.load(out / "normals_npy/photo_normals.npy")
    assert (array.shape, array.dtype) == ((3, 24, 40), np.float32)
    assert np.array_equal(array, prediction.transpose(2, 0, 1))
    picture = np.asarray(Image.open(out / "normals_vis/photo_normals.png"))
    assert np.array_equal(picture, np.asarray(pipe.image_processor.visualize_normals(prediction)[0]))


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_flipped_normals(photo: Path, tmp_path: Path, axis: str) -> None:
    assert run("normals", tmp_path / "out", photo, f"--flip-{axis}") == 0
    pipe = opened("normals")
    prediction = pipe(PIXELS, **OPTIONS).prediction[0]
    expected = prediction.copy()
    expected[:, :, "xyz".index(axis)] *= -1
    assert np.array_equal(np.load(tmp_path / "out/normals_npy/photo_normals.npy"), expected.transpose(2, 0, 1))
    shown = pipe.image_processor.visualize_normals(prediction, **{f"flip_{axis}": True})[0]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/normals_vis/photo_normals.png")), np.asarray(shown))


def test_iid_of_lighting(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("iid", out, photo) == 0
    expected = [f"iid_lighting_{kind}/photo_{name}.{kind}" for kind in ("npy", "vis") for name in sorted(TARGETS)]
    assert written(out) == [name.replace(".vis", ".png") for name in expected]
    pipe = opened("iid")
    prediction = pipe(PIXELS, **OPTIONS).prediction
    pictures = pipe.image_processor.visualize_intrinsics(prediction, pipe.target_properties)[0]
    for index, name in enumerate(TARGETS):
        array = np.load(out / f"iid_lighting_npy/photo_{name}.npy")
        assert (array.shape, array.dtype) == ((24, 40, 3), np.float32)
        assert np.array_equal(array, prediction[index])
        picture = Image.open(out / f"iid_lighting_vis/photo_{name}.png")
        assert np.array_equal(np.asarray(picture), np.asarray(pictures[name]))


def test_iid_of_appearance(photo: Path, tmp_path: Path) -> None:
    """The paper's script asks the checkpoint's name; a checkpoint in the hub's cache is told by its targets."""
    properties = {
        "target_names": ["albedo", "material", "rest"],
        "albedo": {"prediction_space": "srgb"},
        "material": {"prediction_space": "stack", "sub_target_names": ["roughness", "metallicity", None]},
        "roughness": {"prediction_space": "linear"},
        "metallicity": {"prediction_space": "linear"},
        "rest": {"prediction_space": "linear"},
    }
    cached = changed_checkpoint("iid", tmp_path / "snapshot", target_properties=properties)
    assert run("iid", tmp_path / "out", photo, "--checkpoint", cached, "--format", "npy") == 0
    names = ("albedo", "material", "metallicity", "rest", "roughness")
    assert written(tmp_path / "out") == [f"iid_appearance_npy/photo_{name}.npy" for name in names]
    material = np.load(tmp_path / "out/iid_appearance_npy/photo_material.npy")
    assert np.array_equal(np.load(tmp_path / "out/iid_appearance_npy/photo_metallicity.npy"), material[:, :, 1])
    named = changed_checkpoint("iid", tmp_path / "my-appearance-v2")
    assert run("iid", tmp_path / "other", photo, "--checkpoint", named) == 0
    assert {path.name for path in (tmp_path / "other").iterdir()} == {"iid_appearance_npy", "iid_appearance_vis"}


def test_targets_without_names(photo: Path, tmp_path: Path) -> None:
    unnamed = changed_checkpoint("iid", tmp_path / "unnamed", target_properties=None)
    assert run("iid", tmp_path / "out", photo, "--checkpoint", unnamed, "--format", "npy") == 0
    assert written(tmp_path / "out") == [f"iid_lighting_npy/photo_target{index}.npy" for index in range(3)]


@pytest.mark.parametrize(
    "names",
    [
        ["a/../../../b", "c", "d"],
        ["/etc/a", "c", "d"],
        ["a\x1b[2J", "c", "d"],
        ["", "c", "d"],
        ["c", "c", "d"],
        ["c", "d"],
        ["c", "d", "e", "f"],
        ["x" * 300, "c", "d"],
        [1, "c", "d"],
        "abc",
        "stack",
        7,
        None,
    ],
)
def test_hostile_names_of_targets(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], names: Any) -> None:
    properties: dict[str, Any] = {"target_names": names}
    if isinstance(names, list):
        properties |= {str(name): {"prediction_space": "srgb"} for name in names}
    if names == "stack":
        stack = {"prediction_space": "stack", "sub_target_names": ["roughness", None, None]}
        properties = {"target_names": ["a", "b", "c"], "a": {}, "b": {}, "c": stack}
    hostile = changed_checkpoint("iid", tmp_path / "hostile", target_properties=properties)
    assert run("iid", tmp_path / "out", photo, "--checkpoint", hostile) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"marigold: error: {hostile}/model_index.json: ")
    assert error.count("\n") == 1
    assert "\x1b" not in error
    assert not (tmp_path / "out").exists()


def test_members_of_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, pixels in (("one/a.png", PIXELS), ("two/a.png", PIXELS[::-1]), ("b.png", None)):
            data = io.BytesIO(b"no image" if pixels is None else b"")
            if pixels is not None:
                Image.fromarray(pixels).save(data, format="PNG")
            member = tarfile.TarInfo(name)
            member.size = len(data.getvalue())
            archive.addfile(member, io.BytesIO(data.getvalue()))
    assert run("normals", tmp_path / "out", tmp_path / "a.tar", "--format", "npy") == 1
    assert "a.tar:b.png: " in capsys.readouterr().err
    assert written(tmp_path / "out") == ["normals_npy/a_2_normals.npy", "normals_npy/a_normals.npy"]
    expected = opened("normals")(PIXELS[::-1], **OPTIONS).prediction[0].transpose(2, 0, 1)
    assert np.array_equal(np.load(tmp_path / "out/normals_npy/a_2_normals.npy"), expected)


# ---- formats ----


def read_values(path: Path, kind: str) -> np.ndarray[Any, Any]:
    """(H, W, C), normals with channels last."""
    if kind == "npz":
        (values,) = np.load(path).values()
    elif kind == "exr":
        channels = pytest.importorskip("OpenEXR").File(str(path), separate_channels=True).channels()
        order = [name for name in ("Z", "R", "G", "B") if name in channels] if "X" not in channels else ["X", "Y", "Z"]
        values = np.stack([channels[name].pixels for name in order], axis=2)
    elif kind == "tiff":
        values = pytest.importorskip("tifffile").imread(path)
    else:
        image = read_image(Input(str(path), "", path))
        values = image.astype(np.float64) / np.iinfo(image.dtype).max
    return values if values.ndim == 3 else values[:, :, None]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_format(photo: Path, tmp_path: Path, command: str) -> None:
    pytest.importorskip("OpenEXR")
    pytest.importorskip("tifffile")
    kinds = ["npy", "npz", "png16", "png", "exr", "tiff"] + ["ply", "glb"] * (command == "depth")
    assert run(command, tmp_path / "out", photo, "--format", ",".join(kinds)) == 0
    stems = NAMES[command][2]
    assert written(tmp_path / "out") == sorted(expected_file(command, kind, stem) for kind in kinds for stem in stems)
    prediction = opened(command)(PIXELS, **OPTIONS).prediction
    for index, stem in enumerate(stems if command != "iid" else [f"photo_{name}" for name in TARGETS]):
        for kind in ("npz", "exr", "tiff"):
            values = read_values(tmp_path / "out" / expected_file(command, kind, stem), kind)
            assert values.dtype == np.float32
            assert np.array_equal(values, prediction[index])
        steps = read_values(tmp_path / "out" / expected_file(command, "png16", stem), "png16")
        wanted = (prediction[index] + 1) / 2 if command == "normals" else prediction[index]
        assert np.abs(steps - wanted).max() <= 1.01 / 65535


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("kind", "module", "extra"), [("exr", "OpenEXR", "exr"), ("tiff", "tifffile", "tiff")])
def test_a_format_whose_library_is_missing(
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    kind: str,
    module: str,
    extra: str,
) -> None:
    monkeypatch.setattr(
        "marigold_c.extras.find_spec", lambda name, *rest: None if name == module else find_spec(name, *rest)
    )
    # Said before anything else is looked at.
    assert run(command, tmp_path / "out", tmp_path / "missing.png", "--checkpoint", "nowhere", "--format", kind) == 2
    assert f"pip install 'marigold-c[{extra}]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_tone_maps(tmp_path: Path) -> None:
    openexr = pytest.importorskip("OpenEXR")
    linear = np.random.default_rng(5).uniform(0, 4, (24, 40, 3)).astype(np.float32)
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    path = tmp_path / "a.exr"
    openexr.File(header, {"RGB": linear}).write(str(path))
    pipe = opened("normals")
    arrays = {}
    for method in ("auto", "percentile", "clip"):
        assert run("normals", tmp_path / method, path, "--format", "npy", "--tone-map", method) == 0
        arrays[method] = np.load(tmp_path / method / "normals_npy/a_normals.npy")
        expected = pipe(read_image(Input("a", "a", path), method), **OPTIONS).prediction[0]
        assert np.array_equal(arrays[method], expected.transpose(2, 0, 1))
    assert np.array_equal(arrays["auto"], arrays["percentile"])
    assert not np.array_equal(arrays["auto"], arrays["clip"])


# ---- shapes ----


def shape_bytes(tmp_path: Path, kind: str, geometry: Any) -> bytes:
    mc.write_geometry(tmp_path / f"expected.{kind}", geometry)
    return (tmp_path / f"expected.{kind}").read_bytes()


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ("", {}),
        ("--focal-length 33", {"focal_length": 33}),
        ("--field-of-view 90 --near 2 --far 3", {"field_of_view": 90, "near": 2, "far": 3}),
        ("--max-points 200 --edge-threshold inf", {"max_points": 200, "edge_threshold": np.inf}),
        ("--edge-threshold 0.02", {"edge_threshold": 0.02}),
    ],
)
def test_shapes(photo: Path, tmp_path: Path, flags: str, options: dict[str, Any]) -> None:
    depth = opened("depth")(PIXELS, **OPTIONS).prediction[0]
    assert run("depth", tmp_path / "mesh", photo, "--format", "ply,glb", *flags.split()) == 0
    for kind in ("ply", "glb"):
        expected = shape_bytes(tmp_path, kind, mc.depth_to_mesh(depth, PIXELS, **options))
        assert (tmp_path / f"mesh/depth_{kind}/photo_depth.{kind}").read_bytes() == expected
    assert run("depth", tmp_path / "points", photo, "--format", "glb", "--geometry", "points", *flags.split()) == 0
    options.pop("edge_threshold", None)
    expected = shape_bytes(tmp_path, "glb", mc.depth_to_points(depth, PIXELS, **options))
    assert (tmp_path / "points/depth_glb/photo_depth.glb").read_bytes() == expected


def test_shapes_have_a_default_limit(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GLB of all pixels of a large photograph would have gigabytes."""
    monkeypatch.setattr("marigold_c.commands.depth.MAX_POINTS", 200)
    assert run("depth", tmp_path / "out", photo, "--format", "glb", "--geometry", "points") == 0
    depth = opened("depth")(PIXELS, **OPTIONS).prediction[0]
    expected = shape_bytes(tmp_path, "glb", mc.depth_to_points(depth, PIXELS, max_points=200))
    assert (tmp_path / "out/depth_glb/photo_depth.glb").read_bytes() == expected


def test_the_focal_length_is_that_of_the_image(tmp_path: Path) -> None:
    """Also where the map has the processing resolution."""
    pixels = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    flags = ["--format", "ply", "--processing-res", "32", "--output-processing-res", "--focal-length", "60"]
    assert run("depth", tmp_path / "out", tmp_path / "photo.png", *flags) == 0
    pipe = opened("depth")
    depth = pipe(pixels, generator=3, processing_resolution=32, match_input_resolution=False).prediction[0]
    assert depth.shape == (24, 32, 1)
    expected = shape_bytes(tmp_path, "ply", mc.depth_to_mesh(depth, pixels, focal_length=30))
    assert (tmp_path / "out/depth_ply/photo_depth.ply").read_bytes() == expected


def test_shapes_of_disparity(photo: Path, tmp_path: Path) -> None:
    checkpoint = changed_checkpoint("depth", tmp_path / "disparity", prediction_type="disparity")
    flags = ["--checkpoint", checkpoint, "--format", "ply", "--geometry", "points"]
    assert run("depth", tmp_path / "out", photo, *flags) == 0
    disparity = opened(checkpoint)(PIXELS, **OPTIONS).prediction[0]
    expected = shape_bytes(tmp_path, "ply", mc.depth_to_points(disparity, PIXELS, prediction_type="disparity"))
    assert (tmp_path / "out/depth_ply/photo_depth.ply").read_bytes() == expected


def test_a_mesh_of_which_nothing_is_left(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("depth", tmp_path / "out", photo, "--format", "ply", "--max-points", "1") == 1
    assert "photo.png: no triangle is left of 1 x 1 points" in capsys.readouterr().err
    assert written(tmp_path / "out") == []


# ---- ensembles and resizing ----


@pytest.mark.parametrize(("command", "reduction"), [("depth", "mean"), ("normals", "mean"), ("iid", "mean")])
def test_uncertainty(photo: Path, tmp_path: Path, command: str, reduction: str) -> None:
    out = tmp_path / "out"
    flags = ["--ensemble-size", "3", "--output-uncertainty", "--format", "npy,png", "--batch-size", "2"]
    assert run(command, out, photo, *flags, "--reduction", reduction) == 0
    pipe = opened(command)
    result = pipe(
        PIXELS, ensemble_size=3, output_uncertainty=True, ensembling_kwargs={"reduction": reduction}, **OPTIONS
    )
    prefix, _, stems = NAMES[command]
    parts = [""] if command != "iid" else [f"_{name}" for name in TARGETS]
    names = [f"{prefix}_uncertainty/photo{part}_uncertainty.{kind}" for part in parts for kind in ("npy", "png")]
    assert written(out / f"{prefix}_uncertainty") == sorted(Path(name).name for name in names)
    for index, part in enumerate(parts):
        array = np.load(out / f"{prefix}_uncertainty/photo{part}_uncertainty.npy")
        assert np.array_equal(array, np.squeeze(result.uncertainty[index]))
        picture = Image.open(out / f"{prefix}_uncertainty/photo{part}_uncertainty.png")
        shown = pipe.image_processor.visualize_uncertainty(result.uncertainty[index : index + 1])[0]
        assert np.array_equal(np.asarray(picture), np.asarray(shown))
        stem = stems[0] if command != "iid" else f"photo{part}"
        prediction = np.load(out / expected_file(command, "npy", stem))
        expected = result.prediction[index]
        assert np.array_equal(prediction, expected.transpose(2, 0, 1) if command == "normals" else np.squeeze(expected))


@pytest.mark.parametrize("kind", ["png16", "ply"])
def test_uncertainty_beside_formats_that_do_not_hold_it(photo: Path, tmp_path: Path, kind: str) -> None:
    flags = ["--ensemble-size", "3", "--output-uncertainty", "--format", kind]
    assert run("depth", tmp_path / "out", photo, *flags) == 0
    assert written(tmp_path / "out/depth_uncertainty") == ["photo_uncertainty.npy"]


def test_solver(photo: Path, tmp_path: Path) -> None:
    pipe = opened("depth")
    arrays = {}
    for solver in ("closed-form", "reference"):
        flags = ["--ensemble-size", "3", "--format", "npy", "--solver", solver]
        assert run("depth", tmp_path / solver, photo, *flags) == 0
        arrays[solver] = np.load(tmp_path / solver / "depth_npy/photo_depth.npy")
        expected = pipe(PIXELS, ensemble_size=3, ensembling_kwargs={"solver": solver}, **OPTIONS).prediction
        assert np.array_equal(arrays[solver], expected[0, :, :, 0])
    assert not np.array_equal(*arrays.values())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_papers_resizing(tmp_path: Path, command: str) -> None:
    """Its code takes any resolution, and rounds sizes down to what the network can have."""
    pixels = np.random.default_rng(2).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    flags = ["--preset", "paper", "--processing-res", "50", "--resample-method", "bicubic", "--denoise-steps", "2"]
    assert run(command, tmp_path / "out", tmp_path / "photo.png", *flags, "--format", "npy") == 0
    options = {"preset": "paper", "processing_resolution": 50, "num_inference_steps": 2, "generator": 3}
    methods = {f"resample_method_{which}": "bicubic" for which in ("input", "output")}
    expected = opened(command)(pixels, **options, **methods).prediction[0]
    array = np.load(tmp_path / "out" / expected_file(command, "npy", NAMES[command][2][0]))
    assert np.array_equal(array, expected.transpose(2, 0, 1) if command == "normals" else np.squeeze(expected))


def test_zeros_instead_of_noise(photo: Path, tmp_path: Path) -> None:
    """As checkpoints of E2E-FT need it; the seed does not matter then."""
    assert run("normals", tmp_path / "out", photo, "--noise", "zeros", "--format", "npy") == 0
    expected = opened("normals")(PIXELS, processing_resolution=0, latents="zeros").prediction[0]
    assert np.array_equal(np.load(tmp_path / "out/normals_npy/photo_normals.npy"), expected.transpose(2, 0, 1))
