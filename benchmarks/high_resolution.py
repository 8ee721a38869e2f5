"""Trains the second UNet of a small Marigold-HR, and compares the edges of base prediction and refinement.

    marigold prepare scenes -o DATA/train --count 1000 --size 192x256
    marigold prepare scenes -o DATA/val --count 32 --size 192x256 --seed 1
    python benchmarks/high_resolution.py DATA OUT --iterations 400

DATA/train and DATA/val: rgb/NAME.png, and depth/NAME.npy in metres, 0 where there is none. The second UNet begins as
the base model's, with zeros for the coarse prediction, and learns by `marigold train`, objective "refine". OUT becomes
a checkpoint of Marigold-HR; one that is there is only compared.

Edges: the scale-invariant boundary F1 of Depth Pro, as in real_photos.py; AbsRel, both after alignment, at full size.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from real_photos import aligned, boundary_f1

import marigold_c as mc
from marigold_c.preparation.model import make_model
from marigold_c.training.refinement import THRESHOLD

Array = np.ndarray[Any, Any]
CROP = (96, 128)
STEPS = 4  # of the refinement when it is compared
TILE = 128


def predicted(base: mc.MarigoldDepthPipeline, image: Array, resolution: int, seed: int) -> Array:
    """(H, W) of the image in [0, 1]."""
    return base(image, processing_resolution=resolution, generator=seed).prediction[0, :, :, 0]


def train(out: Path, args: argparse.Namespace) -> None:
    """`marigold train` with objective refine: runs of `out`'s name beside it, whose latest checkpoint becomes `out`."""
    start, run = out.with_name(f"{out.name}-start"), out.with_name(f"{out.name}-run")
    make_model(start, args.base, args.base, boosting=True)
    steps = args.iterations
    values = {
        "trainer": {
            "name": "MarigoldDepthHRTrainer",
            "init_seed": 0,
            "save_period": steps,
            "backup_period": 0,
            "validation_period": 0,
            "visualization_period": 0,
            "base_components": "copy",
            "refinement": {"crop_hw": list(CROP), "agreement": args.agreement, "base_denoising_steps": 1},
        },
        "pipeline": {"name": "MarigoldDepthHRPipeline"},
        "model": {"pretrained_path": str(start.resolve())},
        "dataset": {
            "train": {
                "name": "folder_depth",
                "disp_name": "train",
                "dir": str((args.data / "train").resolve()),
                "images": "rgb",
                "truth": "depth",
            }
        },
        "dataloader": {
            "effective_batch_size": args.batch,
            "max_train_batch_size": args.batch,
            "seed": 0,
            "on_bad_sample": "skip",
        },
        "lr": args.rate,
        "lr_scheduler": {
            "name": "IterExponential",
            "kwargs": {"total_iter": steps, "final_ratio": 0.05, "warmup_steps": 0},
        },
        "max_iter": steps,
    }
    config = run / f"{out.name}.yaml"
    run.mkdir()
    config.write_text(json.dumps(values, indent=1))  # JSON is YAML
    command = [sys.executable, "-m", "marigold_c", "train", config, "-o", run, "--threads", "1"]
    subprocess.run(command, check=True)
    shutil.copytree(run / out.name / "checkpoint" / "latest", out)


def compare(out: Path, data: Path, most: int) -> None:
    pipe = mc.MarigoldDepthHRPipeline.from_pretrained(out, num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    base = mc.MarigoldDepthPipeline.from_pipe(pipe)
    base.set_progress_bar_config(disable=True)
    names = sorted(path.stem for path in (data / "val" / "depth").glob("*.npy"))
    rows: dict[str, list[tuple[float, float]]] = {"base, half size": [], "base, full size": [], "refined": []}
    for name in names[:: max(1, len(names) // most)][:most]:
        image = np.asarray(Image.open(data / "val" / "rgb" / f"{name}.png").convert("RGB"))
        depth = np.load(data / "val" / "depth" / f"{name}.npy").astype(np.float64)
        truth, full = np.where(depth > 0, depth, np.nan), max(depth.shape)
        refined = pipe(
            image,
            ensemble_size=1,
            boosted_ensemble_size=1,
            boosted_num_inference_steps=STEPS,
            processing_resolution=full // 2,
            tile_size=TILE,
            generator=0,
        )
        assert refined.base_prediction is not None
        maps = (refined.base_prediction[0, :, :, 0], predicted(base, image, full, 0), refined.prediction[0, :, :, 0])
        for row, prediction in zip(rows.values(), maps, strict=True):
            fitted, known = aligned(prediction.astype(np.float64), truth), np.isfinite(truth)
            relative = np.abs(fitted[known] - truth[known]) / truth[known]
            row.append((boundary_f1(fitted, truth), float(relative.mean())))
    print(f"{len(rows['refined'])} pictures | edge F1 | AbsRel")
    for title, values in rows.items():
        f1, relative = np.mean(values, axis=0)
        print(f"{title} | {f1:.4f} | {relative:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", type=Path, default=mc.default_checkpoint("depth"))
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--agreement", type=float, default=THRESHOLD, help="of depth in [-1, 1]")
    parser.add_argument("--pictures", type=int, default=24)
    args = parser.parse_args()
    if not args.out.exists():
        train(args.out, args)
    compare(args.out, args.data, args.pictures)


if __name__ == "__main__":
    main()
