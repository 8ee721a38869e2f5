"""What is told about the package's checkpoints: their numbers on held-out scenes beside those of trivial guesses, and
the cards that hold them. Called by train_checkpoints.py; by itself:

    python tools/model_cards.py TASK CHECKPOINT WORK

prints the table for one checkpoint (task: depth, normals or iid) on WORK/scenes/test, guessing from WORK/scenes/train.
"""

from __future__ import annotations

import csv
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from marigold_c.datasets import Dataset, open_dataset
from marigold_c.loading.folders import WEIGHT_STEMS
from marigold_c.preparation.model import copy_weights

Array = NDArray[np.float32]
Scores = dict[str, dict[str, float]]

TRUTHS: dict[str, Any] = {
    "depth": "depth",
    "normals": "normals",
    "iid": {"albedo": "albedo", "shading": "shading", "residual": "residual"},
}


@dataclass(frozen=True)
class Pictures:
    """What is judged on: the folder below WORK that holds train and test, and where truths lie in them."""

    folder: str
    truths: Mapping[str, Any]


SCENES = Pictures("scenes", TRUTHS)
LEVELS = Pictures("levels", TRUTHS | {"depth": "depth_near"})

SHOWN = {
    "depth": {"abs_relative_difference": "AbsRel", "delta1_acc": "δ1"},
    "normals": {"mean_angular_error": "mean angle", "median_angular_error": "median angle"},
    "iid": {"psnr_albedo": "albedo, dB", "psnr_shading": "shading, dB", "psnr_residual": "residual, dB"},
}
GUESSED_FROM = 500  # scenes of the training set


def export(source: Path, target: Path, variant: bool) -> None:
    """A checkpoint of a run as the package has it: weights in float16; `variant`: as fp16 beside the default names."""
    target.mkdir(parents=True)
    shutil.copyfile(source / "model_index.json", target / "model_index.json")
    for part in ("scheduler", "tokenizer"):
        shutil.copytree(source / part, target / part)
    for component, stem in WEIGHT_STEMS.items():
        (target / component).mkdir()
        shutil.copyfile(source / component / "config.json", target / component / "config.json")
        name = f"{stem}.fp16.safetensors" if variant else f"{stem}.safetensors"
        copy_weights(source, component, target / component / name)


# ---- guesses without a network ----


def _open(folder: Path, task: str, part: str, pictures: Pictures) -> tuple[Dataset, Path]:
    place = f"{pictures.folder}/{part}"
    entry = {"name": f"folder_{task}", "disp_name": place.replace("/", "_"), "dir": place, "images": "rgb"}
    path = folder / "evaluation" / f"{part}_{task}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**entry, "truth": pictures.truths[task]}))
    return open_dataset(path, folder, task=task), path


def _truths(data: Dataset) -> list[Any]:
    return [data.read_truth(i).target for i in range(min(len(data), GUESSED_FROM))]


def _to_unit_range(depth: Array) -> Array:
    low, high = np.quantile(depth, (0.02, 0.98))
    return np.asarray(np.clip((depth - low) / max(high - low, 1e-6), 0, 1), np.float32)


def _depth_guesses(train: Dataset) -> dict[str, Callable[[Array], Array]]:
    median = np.median(np.stack([_to_unit_range(one) for one in _truths(train)]), axis=0).astype(np.float32)
    upwards = np.linspace(1, 0, median.shape[0], dtype=np.float32)[:, None].repeat(median.shape[1], 1)
    return {
        "the median depth of the scene everywhere": lambda image: np.full_like(median, 0.5),
        "a vertical gradient": lambda image: upwards,
        "the median depth map of the training set": lambda image: median,
    }


def _normal_guesses(train: Dataset) -> dict[str, Callable[[Array], Array]]:
    mean = np.mean(np.stack(_truths(train)), axis=0)
    constant = mean.mean(axis=(0, 1))

    def as_map(values: Array) -> Array:
        unit = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-6)
        return np.ascontiguousarray(unit.transpose(2, 0, 1), np.float32)

    whole, pixels = as_map(np.broadcast_to(constant, mean.shape)), as_map(mean)
    return {
        "the mean normal everywhere": lambda image: whole,
        "the mean normal map of the training set": lambda image: pixels,
    }


def _intrinsic_guess(image: Array) -> dict[str, Array]:
    linear = np.ascontiguousarray((image.astype(np.float32) / 255).transpose(2, 0, 1) ** 2.2)
    grey = np.broadcast_to(linear.mean(axis=0, keepdims=True), linear.shape)
    return {"albedo": linear, "shading": np.ascontiguousarray(grey), "residual": linear}


def _write_guesses(folder: Path, task: str, data: Dataset, guess: Callable[[Any], Any]) -> None:
    for index in range(len(data)):
        made = guess(data.read_image(index))
        for target, values in made.items() if isinstance(made, dict) else [(None, made)]:
            path = folder / data.prediction_path(index, target)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, values)


# ---- scores ----


def _means(folder: Path, task: str) -> dict[str, float]:
    """Means over the scenes that have a finite number: a residual that is black everywhere has an infinite PSNR."""
    with (folder / "per_sample_metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    values = {name: np.array([float(row[name]) for row in rows]) for name in SHOWN[task] if name in rows[0]}
    finite = {name: found[np.isfinite(found)] for name, found in values.items()}
    return {name: float(found.mean()) for name, found in finite.items() if len(found)}


def evaluate(
    folder: Path, task: str, checkpoint: Path, marigold: Callable[..., None], pictures: Pictures = SCENES
) -> Scores:
    """Means over the test pictures by `marigold eval`: of one step, of four, and of the guesses."""
    data, config = _open(folder, task, "test", pictures)
    train, _ = _open(folder, task, "train", pictures)
    root = folder / "evaluation" / task
    shutil.rmtree(root, ignore_errors=True)
    common = ["--dataset-config", config, "--base-data-dir", folder, "--quiet"]
    judged = ["--no-report", *(["--alignment", "least_square"] if task == "depth" else [])]
    places = {f"{steps} step{'s' * (steps > 1)}": root / f"{steps}" for steps in (1, 4)}
    for steps, place in zip((1, 4), places.values(), strict=True):
        marigold(
            *("infer", task, "--checkpoint", checkpoint, "--denoise-steps", str(steps), "--processing-res", "0"),
            *("--seed", "1234", "-o", place, *common),
        )
    guesses: Mapping[str, Callable[[Array], Any]] = {"the image itself": _intrinsic_guess}
    if task != "iid":
        guesses = (_depth_guesses if task == "depth" else _normal_guesses)(train)
    for number, (name, guess) in enumerate(guesses.items()):
        places[name] = root / f"guess{number}"
        _write_guesses(places[name], task, data, guess)
    scores = {}
    for name, place in places.items():
        marigold("eval", task, "--predictions", place, "-o", place / "scores", *judged, *common)
        scores[name] = _means(place / "scores", task)
    return scores


def table(task: str, scores: Scores) -> str:
    names = SHOWN[task]
    lines = ["| | " + " | ".join(names.values()) + " |", "|---" * (len(names) + 1) + "|"]
    unit, digits = ("°", 1) if task == "normals" else ("", 3 if task == "depth" else 1)
    for label, values in scores.items():
        cells = [f"{values[name]:.{digits}f}{unit}" if name in values else "" for name in names]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


# ---- cards ----


def _seconds_of_iterations(run: Path) -> list[float]:
    with (run / "training.csv").open(newline="") as file:
        return [float(row["seconds"]) for row in csv.DictReader(file)]


def _as_part(run: Path) -> str:
    # A run that was paused or slowed down now and then has iterations that took hours.
    seconds = _seconds_of_iterations(run)
    return f"`{run.name}`: {len(seconds)} iterations, {len(seconds) * statistics.median(seconds) / 60:.0f} min"


def _scenes(folder: Path, part: str) -> int:
    return len(list((folder / "scenes" / part / "rgb").glob("*.png")))


def facts_of(folder: Path, runs: Sequence[Path]) -> dict[str, Any]:
    """What a checkpoint is, from what the runs left that made it, each from the weights of the one before."""
    run = runs[-1]
    config = yaml.safe_load((run / "config.yaml").read_text())
    state = json.loads((run / "checkpoint" / "latest" / "training_state.json").read_text())
    vae = json.loads((run / "checkpoint" / "best" / "vae" / "config.json").read_text())
    return {
        "scenes": (_scenes(folder, "train"), _scenes(folder, "more")),
        "held_out": _scenes(folder, "test"),
        "recipes": "; then ".join(map(_as_part, runs)),
        "best": state["best_iteration"],
        "batch": config["dataloader"]["effective_batch_size"],
        "scaling_factor": vae["scaling_factor"],
    }


WHAT = {
    "depth": "depth",
    "normals": "surface normals",
    "iid": "intrinsic images (albedo, shading, residual; all linear, shading and residual up to a scale; image = "
    "albedo * shading + residual)",
}
PAPERS = {"depth": "marigold-depth-v1-1", "normals": "marigold-normals-v1-1", "iid": "marigold-iid-lighting-v1-1"}
JUDGED = {
    "depth": "after the best affine alignment of each image",
    "normals": "angles to the true normal, of each image, then averaged",
    "iid": "shading and residual scaled to the truth by least squares",
}


def write_card(checkpoint: Path, task: str, scores: Scores, facts: Mapping[str, Any]) -> None:
    targets = 3 if task == "iid" else 1
    text = f"""---
license: apache-2.0
---

# {checkpoint.name}

A small Marigold model of {WHAT[task]} in the layout of diffusers, shipped so that the command works without a download.
**A demonstration, not the quality of the paper**: sensible on rendered scenes of its kind, rough on photographs.

Made by this program alone, from random weights, on two processors: `python tools/train_checkpoints.py`. Minutes are
iterations times their median.

| | |
|---|---|
| data | {facts["scenes"][0]} rendered rooms, streets and landscapes of 128x96 pixels, `marigold prepare scenes`, \
seed 0; for all but the autoencoder {facts["scenes"][1]} more with a quarter of the samples |
| `examples/recipes` | {facts["recipes"]} |
| chosen | iteration {facts["best"]}, in batches of {facts["batch"]}, the best on 64 scenes that were watched (seed 1) |
| UNet | 6.27 M parameters, channels 64, 96, 96, 128, one layer a block, 2, 3, 3, 4 heads, 16 norm groups, \
{4 + 4 * targets} channels in, {4 * targets} out |
| VAE | 2.78 M parameters, channels 32, 32, 64, 128, 8 norm groups, scaling factor {facts["scaling_factor"]:.4f} |
| text encoder | a random CLIP of two layers, width 64: only the empty prompt is ever used |
| schedule | DDIM, v-prediction, zero terminal SNR, trailing; 1 step |
| resolution | 128 (longer side) |
| weights | float16{" (`*.fp16.safetensors`)" if task == "depth" else ""}; computed in float32 |

On {facts["held_out"]} scenes that no choice depended on (seed 2), by `marigold eval`; {JUDGED[task]}:

{table(task, scores)}
The other rows are guesses without a network. Limits: it has only seen rendered scenes of this generator, at this size,
with its materials and lights; people, animals, text, glass, night and anything far larger than 128 pixels are outside
of what it knows.

For real results use a checkpoint of the authors of Marigold, for example `prs-eth/{PAPERS[task]}`.
"""
    (checkpoint / "README.md").write_text(text, encoding="utf-8")


LEVELS_CARD = """---
license: gpl-3.0
---

# {name}

A small Marigold model of {what} in the layout of diffusers, shipped so that the command works without a download.
**A demonstration, not the quality of the paper.** It sees the things in a photograph, roughly.

Made by this program alone, from random weights, on one processor: `python tools/train_on_levels.py`.

| | |
|---|---|
| data | {train} views of 256x192 pixels of {worlds} worlds out of free games (`marigold prepare levels`): UFO: Alien \
Invasion, OpenArena, Nexuiz, TORCS, furnished with models of Sweet Home 3D and of the games. For the autoencoder also \
{photographs} windows of photographs out of Debian's packages of wallpapers (GNOME, MATE, Plasma, UKUI, Lomiri) |
| licences | of the games' art: GPL-2+ mostly, GPL-2, GPL-3+, LGPL-2+, CC-BY 3.0, CC-BY-SA 3.0, Free Art License; \
of furniture: CC0, CC-BY 3.0; of photographs: CC-BY 4.0, CC-BY-SA 3.0 and 4.0, GPL-2+, CC0. It is not \
settled whether weights derive from what they are trained on; these are given under the GPL, \
version 3, as the strictest of them; the program is not |
| `examples/recipes` | {recipes} |
| chosen | iteration {best}, in batches of {batch}, the best on views of worlds that were watched |
| UNet | 12.7 M parameters, channels 64, 96, 160, 224, {channels_in} channels in, {channels_out} out |
| VAE | 0.65 M parameters, channels 16, 32, 64, shrinks by 4, scaling factor {scaling_factor:.4f} |
| text encoder | a random CLIP of two layers, width 64: only the empty prompt is ever used |
| schedule | DDIM, v-prediction, zero terminal SNR, trailing; 1 step, trained end to end |
| resolution | 256 (longer side) |
| weights | float16{variant}; computed in float32 |

On {held_out} views of worlds that no choice depended on, by `marigold eval`; {judged}:

{table}
The other rows are guesses without a network.
{more}
For real results use a checkpoint of the authors of Marigold, for example `prs-eth/{paper}`.
"""


def write_levels_card(checkpoint: Path, task: str, scores: Scores, work: Path, runs: Sequence[Path], more: str) -> None:
    """more: what else is known, as Markdown: photographs, failures."""
    facts, targets = facts_of(work, runs), 3 if task == "iid" else 1
    count = {part: len(list((work / "levels" / part / "rgb").glob("*.png"))) for part in ("train", "test")}
    made = [path.read_text().split()[0] for path in (work / "levels" / "done").iterdir()]
    text = LEVELS_CARD.format(
        name=checkpoint.name,
        what=WHAT[task],
        train=count["train"],
        worlds=sum(int(number) > 0 for number in made),
        photographs=len(list((work / "photographs" / "rgb").glob("*.png"))),
        channels_in=4 + 4 * targets,
        channels_out=4 * targets,
        variant=" (`*.fp16.safetensors`)" if task == "depth" else "",
        held_out=count["test"],
        judged=JUDGED[task],
        table=table(task, scores),
        paper=PAPERS[task],
        more=more,
        **{name: facts[name] for name in ("recipes", "best", "batch", "scaling_factor")},
    )
    (checkpoint / "README.md").write_text(text, encoding="utf-8")


def _marigold(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "marigold_c", *map(str, words)], check=True)


if __name__ == "__main__":
    asked, opened, work = sys.argv[1:4]
    print(table(asked, evaluate(Path(work).resolve(), asked, Path(opened), _marigold)))
