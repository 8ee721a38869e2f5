"""Trains depth, normals and intrinsic images on views of game levels, in stages that resume.

    python tools/train_on_levels.py WORK --games FOLDER ... --models FOLDER ... --photographs FOLDER

Needs the extras "levels", "training" and "evaluation". FOLDER: what the packages of docs/training_data.md hold,
unpacked (dpkg -x); photographs of any size for the autoencoder, which needs no truth. After an interruption of any kind
the same command goes on; what is finished is kept (WORK/done). Depth begins with the package's weights.
The recipes are examples/recipes/levels-*.yaml; the runs with their curves lie in WORK/runs.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import model_cards
import numpy as np
from PIL import Image
from train_checkpoints import ROOT, Work

from marigold_c.loading.folders import WEIGHT_STEMS

HEIGHT, WIDTH = 192, 256
CROPS = 12  # of each photograph
FARTHEST, MEDIANS = 30.0, 4.0  # metres, and median depths of a view: the far plane of what is learned
NAMES = {"depth": "marigold-tiny-depth", "iid": "marigold-tiny-iid-lighting"}
# The runs that make the checkpoint that the package ships, each from the weights of the one before.
SHIPPED = {"depth": ("levels-depth-latent", "levels-depth", "levels-depth-256")}
# An autoencoder that shrinks by 4, without attention (0.65 M weights); a UNet with attention at a quarter of its
# input's sides (12.7 M).
VAE = {
    "block_out_channels": [16, 32, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "mid_block_add_attention": False,
    "norm_num_groups": 8,
    "sample_size": 256,
}
UNET = {
    "block_out_channels": [64, 96, 160, 224],
    "attention_head_dim": [2, 3, 5, 7],
    "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    "norm_num_groups": 16,
    "sample_size": 64,
}


def networks(folder: Path, base: str) -> Path:
    """A checkpoint's folder without weights: that of the package's `base` with other networks."""
    source, target = ROOT / "marigold_c" / "checkpoints" / base, folder / "networks" / base
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for part in ("scheduler", "tokenizer"):
        shutil.copytree(source / part, target / part)
    index: dict[str, Any] = json.loads((source / "model_index.json").read_text())
    (target / "model_index.json").write_text(json.dumps(index | {"default_processing_resolution": 256}, indent=2))
    for part, changes in (("text_encoder", {}), ("vae", VAE), ("unet", UNET)):
        (target / part).mkdir()
        config = json.loads((source / part / "config.json").read_text()) | changes
        (target / part / "config.json").write_text(json.dumps(config, indent=2))
    return target


def crop_photographs(source: Path, target: Path) -> None:
    """Windows of many sizes out of the photographs below `source`, as pictures of 192 x 256."""
    target.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    suffixes = (".jpg", ".jpeg", ".png", ".webp")
    for number, path in enumerate(sorted(one for one in source.rglob("*") if one.suffix.lower() in suffixes)):
        with Image.open(path) as opened:
            if min(opened.size) < max(HEIGHT, WIDTH):
                continue
            image = opened.convert("RGB")
        image.thumbnail((1600, 1600), Image.Resampling.LANCZOS)
        largest = min(image.width, image.height * WIDTH / HEIGHT)
        for crop in range(CROPS):
            width = max(WIDTH, int(largest * np.exp(rng.uniform(np.log(0.2), 0))))
            height = width * HEIGHT // WIDTH
            if width > image.width or height > image.height:
                continue
            left, top = rng.integers(0, image.width - width + 1), rng.integers(0, image.height - height + 1)
            window = image.crop((int(left), int(top), int(left) + width, int(top) + height))
            window.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(target / f"{number:05d}-{crop:02d}.png")


def draw_levels(work: Work, games: Sequence[Path], models: Sequence[Path], views: int) -> None:
    flags = [word for folder in models for word in ("--models", folder)]
    try:
        places = [*games, "-o", work.folder / "levels", *flags]
        work.marigold("prepare", "levels", *places, "--views", str(views), "--recolour", "0.5", "--quiet")
    except Exception:
        # A few levels of every game have no view that shows anything; they are named above.
        if len(list((work.folder / "levels" / "train" / "rgb").glob("*.png"))) < 1000:
            raise


def set_far_plane(part: Path) -> None:
    """depth_near: everything beyond four times a view's median depth, or FARTHEST, lies there. A scale that reaches to
    the horizon leaves no contrast for what stands in front of the camera. The sky keeps no depth: learned as the far
    plane, it taught that bright walls are the sky (benchmarks/LOG.md)."""
    (part / "depth_near").mkdir(exist_ok=True)
    for path in sorted((part / "depth").glob("*.npy")):
        depth = np.load(path)
        known = depth[depth > 0]
        far = min(FARTHEST, MEDIANS * float(np.median(known))) if known.size else FARTHEST
        np.save(part / "depth_near" / path.name, np.minimum(depth, np.float32(far)))


def begin_with_shipped(runs: Path) -> None:
    """Instead of hours from random weights: the autoencoder and the UNet of the package's checkpoint of depth, which
    these recipes made."""
    shipped, best = ROOT / "marigold_c" / "checkpoints" / NAMES["depth"], runs / "levels-autoencoder/checkpoint/best"
    shutil.copytree(runs / "levels-start", best)
    for part in ("vae", "unet"):
        stem = WEIGHT_STEMS[part]
        shutil.copyfile(shipped / part / f"{stem}.fp16.safetensors", best / part / f"{stem}.safetensors")


def export(work: Work, task: str) -> None:
    """The last run's best weights as the package has them, with a card: WORK/checkpoints/NAME."""
    runs, target = [work.runs / name for name in SHIPPED[task]], work.folder / "checkpoints" / NAMES[task]
    shutil.rmtree(target, ignore_errors=True)
    model_cards.export(runs[-1] / "checkpoint" / "best", target, variant=task == "depth")
    scores = model_cards.evaluate(work.folder, task, target, work.marigold, model_cards.LEVELS)
    model_cards.write_levels_card(target, task, scores, work.folder, runs, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--games", type=Path, nargs="+", required=True)
    parser.add_argument("--models", type=Path, nargs="*", default=[])
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--views", type=int, default=48, help="of each world; default: 48")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--from-nothing", action="store_true", help="not from the package's weights")
    parser.add_argument("--iterations", type=int, help="of each training, instead of the recipes': to try this out")
    args = parser.parse_args()
    work = Work(args)
    depth, iid = (networks(work.folder, name) for name in NAMES.values())
    work.stage("levels", lambda: draw_levels(work, args.games, args.models, args.views))
    for part in ("train", "val", "test"):
        work.stage(f"far-plane-{part}", lambda part=part: set_far_plane(work.folder / "levels" / part))  # type: ignore[misc]
    work.stage("photographs", lambda: crop_photographs(args.photographs, work.folder / "photographs" / "rgb"))
    work.stage("start", lambda: work.start("levels-start", str(depth)))
    if args.from_nothing:
        work.stage("levels-autoencoder", lambda: work.train("levels-autoencoder"))
    else:
        work.stage("levels-autoencoder", lambda: begin_with_shipped(work.runs))
    for name in SHIPPED["depth"]:
        work.stage(name, lambda name=name: work.train(name))  # type: ignore[misc]
    for task in SHIPPED:
        work.stage(f"export-{task}", lambda task=task: export(work, task))  # type: ignore[misc]
    work.stage("levels-normals", lambda: work.train("levels-normals"))
    source = work.runs / "levels-normals" / "checkpoint" / "best"
    work.stage("iid-start", lambda: work.start("levels-iid-start", str(iid), "--weights-from", source))
    work.stage("levels-iid-lighting", lambda: work.train("levels-iid-lighting"))


if __name__ == "__main__":
    main()
