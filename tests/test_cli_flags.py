"""The flags of the commands depth, normals and iid: those of the paper's scripts, wrong ones, help; and what goes wrong
before the first image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_cases import COMMANDS, NAMES, PIXELS, expected_file, opened, run, written
from PIL import Image

import marigold_c as mc
from marigold_c.commands import cli


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(PIXELS).save(path)
    return path


# ---- flags ----

# All of the paper's script/{depth,normals,iid}/run.py, with a value that is not the default.
PAPERS_FLAGS = {
    "--denoise_steps": "2",
    "--processing_res": "64",
    "--ensemble_size": "3",
    "--half_precision": None,
    "--output_processing_res": None,
    "--resample_method": "nearest",
    "--seed": "7",
    "--batch_size": "2",
    "--apple_silicon": None,
}


@pytest.mark.parametrize("dashes", [False, True])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_of_the_papers_scripts(photo: Path, tmp_path: Path, command: str, dashes: bool) -> None:
    checkpoint = tmp_path / "fp16"
    for path in mc.default_checkpoint(command).rglob("*"):
        if path.is_file():
            name = path.name if ".fp16." in path.name else path.name.replace(".safetensors", ".fp16.safetensors")
            link = checkpoint / path.relative_to(mc.default_checkpoint(command)).with_name(name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    (checkpoint / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"not what --half_precision means")
    flags = {"--checkpoint": str(checkpoint), "--input_rgb_dir": str(photo.parent), "--output_dir": str(tmp_path / "o")}
    flags |= PAPERS_FLAGS | ({"--color_map": "binary"} if command == "depth" else {})
    words = [word for flag, value in flags.items() for word in (flag, value) if word is not None]
    assert (
        cli.main(
            [
                command,
                "--threads",
                "1",
                *(word.replace("_", "-") if dashes and word in flags else word for word in words),
            ]
        )
        == 0
    )
    prediction = opened(command)(
        PIXELS,
        num_inference_steps=2,
        processing_resolution=64,
        ensemble_size=3,
        match_input_resolution=False,
        resample_method_input="nearest",
        resample_method_output="nearest",
        generator=7,
    ).prediction[0]
    array = np.load(tmp_path / "o" / expected_file(command, "npy", NAMES[command][2][0]))
    assert np.array_equal(array, prediction.transpose(2, 0, 1) if command == "normals" else np.squeeze(prediction))


@pytest.mark.parametrize("command", COMMANDS)
def test_half_precision_of_the_shipped_checkpoints(photo: Path, tmp_path: Path, command: str) -> None:
    """They have one set of weights, under the one name or the other."""
    assert run(command, tmp_path / "out", photo, "--fp16", "--format", "npy") == 0
    assert run(command, tmp_path / "other", photo, "--variant", "ema") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_are_those_of_the_papers_scripts(command: str) -> None:
    args = vars(cli.parse([command, "a.png", "-o", "out"]))
    defaults = {"denoise_steps": None, "processing_res": None, "ensemble_size": 1, "fp16": False, "seed": None}
    defaults |= {"output_processing_res": False, "resample_method": None, "batch_size": 0, "apple_silicon": False}
    assert args | defaults == args
    assert args.get("color_map") == ("Spectral" if command == "depth" else None)


WRONG = {
    "depth|normals|iid": [
        "--ensemble-size 0",
        "--ensemble-size 257",
        "--ensemble-size x",
        "--ensemble-size 3 --reduction average",
        "--output-uncertainty",
        "--output-uncertainty --ensemble-size 1",
        "--preset prs-eth",
        "--processing-res 50",
        "--processing-res 50 --preset diffusers",
        "--noise ones",
        "--noise zeros --sequence",
        "--sequence --blend 1.5",
        "--sequence --blend -0.1",
        "--sequence --blend nan",
        "--sequence --blend x",
        "--tone-map filmic",
        "--format npy,jpg",
        "--format npy;png",
        "--format=",
        "--batch-size -1",
        "--batch-size 99999999999",
        "--denoise-steps 1.5",
        "--seed one",
        "--vae",
        "--fp16 --variant ema",
        "--output-dirs out",
        "--ensemble 3",
    ],
    "depth": [
        "--reduction closest",
        "--solver bfgs",
        "--geometry cube",
        *(f"--{name} {value}" for name in ("focal-length", "near", "far") for value in ("0", "-1", "inf", "nan", "x")),
        *(f"--field-of-view {value}" for value in ("0", "180", "-60", "nan", "wide")),
        "--focal-length 30 --field-of-view 60",
        "--near 3 --far 3",
        "--near 20",
        "--max-points 0",
        "--max-points 1e3",
        "--edge-threshold 0",
        "--edge-threshold nan",
        "--flip-x",
    ],
    "normals": ["--reduction median", "--color-map binary", "--solver reference", "--format ply", "--flip-w"],
    "iid": ["--reduction closest", "--color-map binary", "--format glb", "--flip-x", "--near 1"],
}


@pytest.mark.parametrize(
    ("command", "flags"),
    [(command, flags) for commands, rows in WRONG.items() for command in commands.split("|") for flags in rows],
)
def test_wrong_values(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, flags: str
) -> None:
    out = tmp_path / "out"
    assert cli.main([command, str(photo), "-o", str(out), *flags.split()]) == 2
    error = capsys.readouterr().err
    assert f"marigold {command}: error: " in error
    assert any(word.strip("-=") in error.splitlines()[-1] for word in flags.split() if word.startswith("--"))
    assert "_integer" not in error
    assert "lambda" not in error
    assert not out.exists()


def test_underscores_only_in_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = tmp_path / "a_b.png"
    Image.fromarray(PIXELS).save(name)
    assert cli.main(["normals", f"--output_dir={tmp_path}/my_out", "--processing_res=0", "--threads=1", str(name)]) == 0
    assert written(tmp_path / "my_out") == ["normals_npy/a_b_normals.npy", "normals_vis/a_b_normals.png"]
    assert cli.main(["normals", "-o", str(tmp_path / "out"), "--", "--my_photo.png"]) == 1
    assert "--my_photo.png: " in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    for flag in PAPERS_FLAGS:
        assert flag.replace("_", "-") in text
    assert f"prs-eth/marigold-{command}" in text
    assert "_" not in text  # flags are shown in one spelling
    assert ("--solver" in text) == (command == "depth")


# ---- what goes wrong ----


@pytest.mark.parametrize(("command", "other"), [("depth", "normals"), ("normals", "iid"), ("iid", "depth")])
def test_a_checkpoint_of_another_task(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, other: str
) -> None:
    assert run(command, tmp_path / "out", photo, "--checkpoint", mc.default_checkpoint(other)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"use marigold {other}" in error
    assert not (tmp_path / "out").exists()


def test_a_wrong_vae(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {
        tmp_path / "nowhere": "no such folder",
        tmp_path: "no config.json",
        photo: "no safetensors file",
        mc.default_checkpoint() / "unet": "UNet2DConditionModel",
    }
    for path, reason in wrong.items():
        assert run("depth", tmp_path / "out", photo, "--vae", path) == 1
        error = capsys.readouterr().err
        assert error.startswith("marigold: error: ")
        assert error.count("\n") == 1
        assert str(path) in error
        assert reason in error
    assert not (tmp_path / "out").exists()


def test_a_photograph_as_the_checkpoint(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("depth", tmp_path / "out", photo, "--checkpoint", photo) == 1
    error = capsys.readouterr().err
    assert (
        f'{photo}: no safetensors file, which would begin with the length of a header and the header\'s "{{"' in error
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("dtype", "hint"), [("float23", "; did you mean float32?"), ("Int8", "; did you mean int8?"), ("x", "")]
)
def test_a_precision_that_does_not_exist(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], dtype: str, hint: str
) -> None:
    assert run("depth", tmp_path / "out", photo, "--dtype", dtype) == 1
    expected = f'dtype "{dtype}" is not supported; supported: float32, float16 (on a GPU), bfloat16, int8, auto{hint}\n'
    assert capsys.readouterr().err.endswith(expected)
    with pytest.raises(NotImplementedError, match="is not supported"):
        mc.load(mc.default_checkpoint(), dtype=dtype)


@pytest.mark.parametrize("command", COMMANDS)
def test_quiet_and_warnings(photo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str) -> None:
    """Two members are hardly an ensemble: the pipeline warns of it, and the command says so in a line of its own."""
    flags = [command, str(photo), "-o", str(tmp_path / "out"), "--threads", "1"]
    flags += ["--processing-res", "0", "--ensemble-size", "2"]
    assert cli.main([*flags, "--quiet", "--output-uncertainty"]) == 0
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""
    assert cli.main(flags) == 0
    captured = capfd.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert [line.partition(":")[0] for line in lines if not line.startswith("[1/1] ")] == ["marigold"] * (
        len(lines) - 1
    )
    assert sum("marigold: warning: `ensemble_size` == 2" in line for line in lines) == 1


def test_output_that_cannot_be(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Before the checkpoint is looked for, which may be a large download.
    assert run("normals", photo, photo, "--checkpoint", tmp_path / "nowhere") == 1
    assert capsys.readouterr().err == f"marigold: error: {photo}: a file; results go into a folder\n"
    out = tmp_path / "out"
    out.mkdir()
    (out / "normals_vis").write_text("in the way")
    assert run("normals", out, photo) == 1
    assert str(out / "normals_vis") in capsys.readouterr().err
    assert run("normals", Path("/proc/marigold"), photo) == 1
    assert "/proc/marigold" in capsys.readouterr().err
    assert photo.read_bytes().startswith(b"\x89PNG")


# ---- flags as people write them ----


def test_old_names(photo: Path, tmp_path: Path) -> None:
    assert run("depth", tmp_path, photo, "--old_names", "--format", "npy,png16,png") == 0
    assert {"depth_bw/photo_pred.png", "depth_colored/photo_pred_colored.png", "depth_npy/photo_pred.npy"} <= set(
        written(tmp_path)
    )


def test_none_is_what_is_not_given(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run("depth", out, photo, "--color_map", "None", "--seed", "None") == 0
    assert written(out) == ["depth_bw/photo_depth.png", "depth_npy/photo_depth.npy"]
    assert cli.parse(["normals", "a.png", "-o", "out", "--seed", "none"]).seed is None
    assert run("depth", out, photo, "--color-map", "None", "--format", "png") == 2
    assert "--color-map None leaves nothing to write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (
            "depth a.png -o out --denoise-step 4",
            "unrecognized arguments: --denoise-step 4; did you mean --denoise-steps?",
        ),
        ("depth a.png -o out --color-maps=binary", "--color-maps; did you mean --color-map?"),
        ("depth a.png -o out --zyxwv", "unrecognized arguments: --zyxwv\n"),
        ("dpeth a.png -o out", "; did you mean depth?"),
        ("depth a.png -o out --resample-method bilinaer", "; did you mean bilinear?"),
        ("depth a.png -o out --color-map spektral", "Unexpected color map spektral; did you mean Spectral?"),
        ("depth a.png -o out --format npy,pgn", "; did you mean png?"),
    ],
)
def test_did_you_mean(words: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words.split()) == 2
    assert meant in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_results_that_are_there(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """They are named before they are replaced; with --skip-existing, images that have them all are left out."""
    out = tmp_path / "out"
    loud = [command, "-o", str(out), "--threads", "1", "--processing-res", "0", "--seed", "3", str(photo)]
    loud += ["--ensemble-size", "3", "--output-uncertainty", "--format", "npy,png"]
    assert cli.main(loud) == 0
    assert "replaces" not in capsys.readouterr().err
    files = {name: (out / name).read_bytes() for name in written(out)}
    assert cli.main(loud) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "replaces" in line]
    assert sorted(line.partition(" replaces ")[2].split(", ")) == sorted(str(out / name) for name in files)
    for name in files:
        (out / name).write_bytes(b"kept")
    assert cli.main([*loud, "--skip-existing"]) == 0
    assert "0 done, 1 were there" in capsys.readouterr().err
    assert {(out / name).read_bytes() for name in files} == {b"kept"}
    (out / next(iter(files))).unlink()
    assert cli.main([*loud, "--skip-existing"]) == 0
    assert {name: (out / name).read_bytes() for name in written(out)} == files


def test_skipping_frames_of_a_sequence_is_refused(photo: Path, tmp_path: Path) -> None:
    assert run("depth", tmp_path / "out", photo, "--sequence", "--skip-existing") == 2
