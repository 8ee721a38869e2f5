"""The commands of prs-eth/Marigold's README and of the scripts that it calls, with `marigold TASK` in the place of
`python script/TASK/run.py`, `marigold infer TASK` of infer.py, `marigold eval TASK` of eval.py, `marigold train` of
train.py. Checkpoints, configurations and data have the names of the README, and are the small ones of the tests.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from cli_cases import PIXELS
from evaluation_cases import TARGETS, write_config, write_sets
from oracle_repositories import APPEARANCE, make_repository
from PIL import Image
from training_cases import make_scenes, settings

from marigold_c.commands import cli

RUN = (
    "python script/{task}/run.py --checkpoint {checkpoint} {flags} "
    "--input_rgb_dir input/in-the-wild_example --output_dir output/in-the-wild_example"
)
ACADEMIC = {
    "depth-v1-1": "--denoise_steps 1 --ensemble_size 10",
    "normals-v1-1": "--denoise_steps 4 --ensemble_size 10",
    "iid-appearance-v1-1": "--denoise_steps 4 --ensemble_size 1",
    "iid-lighting-v1-1": "--denoise_steps 4 --ensemble_size 1",
    "depth-v1-0": "--denoise_steps 50 --ensemble_size 10",
}
CURRENT = [name for name in ACADEMIC if name != "depth-v1-0"]
# (script's task, repository or folder, flags): practical use, academic comparisons, a folder of downloaded weights.
RUNS = [
    *((f"prs-eth/marigold-{name}", "--fp16") for name in CURRENT),
    *((f"prs-eth/marigold-{name}", flags) for name, flags in ACADEMIC.items()),
    *((f"checkpoint/marigold-{name}", "--denoise_steps 4 --ensemble_size 1") for name in CURRENT),
]
FILES = {
    "depth": ("depth_bw/photo_depth.png", "depth_colored/photo_depth_colored.png", "depth_npy/photo_depth.npy"),
    "normals": ("normals_npy/photo_normals.npy", "normals_vis/photo_normals.png"),
    "iid-appearance": tuple(
        f"iid_appearance_{kind}/photo_{name}.{ending}"
        for kind, ending in (("npy", "npy"), ("vis", "png"))
        for name in ("albedo", "material", "metallicity", "rest", "roughness")
    ),
    "iid-lighting": tuple(
        f"iid_lighting_{kind}/photo_{name}.{ending}"
        for kind, ending in (("npy", "npy"), ("vis", "png"))
        for name in ("albedo", "residual", "shading")
    ),
}
# (task, repository, flags of infer.py, configuration, folder of results, flags of eval.py) of script/*/eval*/.
EVALUATIONS = [
    (
        *("depth", "depth-v1-1", "--denoise_steps 1 --ensemble_size 10 --processing_res 0"),
        *("nyu_test", "--alignment least_square"),
    ),
    (
        *("depth", "depth-v1-0", "--denoise_steps 50 --ensemble_size 10 --processing_res 0"),
        *("nyu_test", "--alignment least_square"),
    ),
    (
        *("normals", "normals-v1-1", "--denoise_steps 4 --ensemble_size 10 --processing_res 640"),
        *("scannet_normals_test", ""),
    ),
    (
        *("iid", "iid-appearance-v1-1", "--denoise_steps 4 --ensemble_size 1 --processing_res 640"),
        *("appearance_interiorverse_test", "--target_names albedo material --targets_to_eval_in_linear_space material"),
    ),
    (
        *("iid", "iid-lighting-v1-1", "--denoise_steps 4 --ensemble_size 1 --processing_res 0"),
        *("lighting_hypersim_test", "--target_names albedo shading residual --use_mask"),
    ),
]


def marigold(command: str) -> int:
    """A command of the README by the name that it has here."""
    match = re.fullmatch(r"python script/(depth|normals|iid)/(run|infer|eval|train)\.py (.*)", command)
    assert match is not None, command
    task, script, flags = match.groups()
    words = {"run": [task], "infer": ["infer", task], "eval": ["eval", task], "train": ["train"]}[script]
    return cli.main([*words, *flags.split()])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the README."""
    monkeypatch.chdir(tmp_path)
    for name in ACADEMIC:
        for place in ("prs-eth", "checkpoint"):
            properties = APPEARANCE if "appearance" in name else None
            make_repository(tmp_path / place / f"marigold-{name}", name.split("-")[0], properties)
    (tmp_path / "input" / "in-the-wild_example").mkdir(parents=True)
    Image.fromarray(PIXELS).save(tmp_path / "input" / "in-the-wild_example" / "photo.jpg")
    return tmp_path


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("checkpoint", "flags"), RUNS)
def test_run(checkpoint: str, flags: str, here: Path) -> None:
    name = checkpoint.split("marigold-")[1]
    command = RUN.format(task=name.split("-")[0], checkpoint=checkpoint, flags=flags)
    assert marigold(" ".join(command.split())) == 0
    expected = FILES[name.rsplit("-v", 1)[0]]
    assert written(here / "output" / "in-the-wild_example") == sorted(expected)
    for file in expected:
        if file.endswith(".npy"):
            array = np.load(here / "output" / "in-the-wild_example" / file)
            assert PIXELS.shape[:2] in (array.shape[:2], array.shape[-2:])


@pytest.mark.parametrize(("task", "checkpoint", "infer", "data", "evaluation"), EVALUATIONS)
def test_infer_and_eval(task: str, checkpoint: str, infer: str, data: str, evaluation: str, here: Path) -> None:
    write_sets(here / "data", 1)
    config = here / "config" / f"dataset_{task}" / f"data_{data}.yaml"
    config.parent.mkdir(parents=True)
    if "appearance" in data:
        truth = {"albedo": TARGETS[0], "material": TARGETS[1]}
        write_config(config, name="folder_iid", disp_name="small", dir="set", images="rgb", truth=truth)
    else:
        config.write_bytes((here / "data" / f"{task}.yaml").read_bytes())
    results = f"output/eval/{data}"
    shared = f"--base_data_dir data --dataset_config config/dataset_{task}/data_{data}.yaml"
    assert (
        marigold(
            f"python script/{task}/infer.py --checkpoint prs-eth/marigold-{checkpoint} --seed 1234 {infer} {shared} "
            f"--output_dir {results}/prediction"
        )
        == 0
    )
    flags = f"{evaluation} {shared} --prediction_dir {results}/prediction --output_dir {results}/eval_metric"
    assert marigold(f"python script/{task}/eval.py {flags.strip()}") == 0
    assert [name for name in written(here / results / "eval_metric") if name.endswith(".csv")]


@pytest.mark.parametrize("name", ["depth", "normals", "iid_lighting"])
def test_train_and_resume(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = name.split("_")[0]
    make_scenes(here / "data" / "train", 4)
    monkeypatch.setenv("BASE_DATA_DIR", str(here / "data"))
    monkeypatch.setenv("BASE_CKPT_DIR", str(here / "checkpoint"))
    (here / "config").mkdir()
    values = settings(task, model__pretrained_path=f"marigold-{name.replace('_', '-')}-v1-1", max_iter=2)
    (here / "config" / f"train_marigold_{name}.yaml").write_text(json.dumps(values))
    assert marigold(f"python script/{task}/train.py --config config/train_marigold_{name}.yaml") == 0
    run = here / "output" / f"train_marigold_{name}"
    before = sorted(path.name for path in (run / "checkpoint").iterdir())
    resumed = f"python script/{task}/train.py --resume_run output/train_marigold_{name}/checkpoint/latest"
    assert marigold(resumed) == 0
    assert sorted(path.name for path in (run / "checkpoint").iterdir()) == before  # it was done
    assert sorted(path.name for path in (here / "output").iterdir()) == [run.name]
