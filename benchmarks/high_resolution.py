"""Trains the second UNet of a small Marigold-HR, and compares the edges of base prediction and refinement.

    marigold prepare scenes -o DATA/train --count 1000 --size 192x256
    marigold prepare scenes -o DATA/val --count 32 --size 192x256 --seed 1
    python benchmarks/high_resolution.py DATA OUT --minutes 8

DATA/train and DATA/val: rgb/NAME.png, and depth/NAME.npy in metres, 0 where there is none. The second UNet begins as
the base model's, with zeros for the coarse prediction. OUT becomes a checkpoint of Marigold-HR; one that is there is
only compared. Recipe: base predictions at half the resolution, enlarged, aligned to the truth; crops; cells where both
agree; objective "refine".

Edges: the scale-invariant boundary F1 of Depth Pro, as in real_photos.py; AbsRel, both after alignment, at full size.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from real_photos import aligned, boundary_f1

import marigold_c as mc
from marigold_c.preparation.model import make_model
from marigold_c.training.refinement import THRESHOLD, agreement_mask, align_coarse
from marigold_c.training.targets import EmptyTarget, depth_image

Array = np.ndarray[Any, Any]
CROP = (96, 128)
STEPS = 4  # of the refinement when it is compared
TILE = 128


def make_checkpoint(out: Path, base: Path) -> None:
    like, made = out.with_name(f"{out.name}-like"), out.with_name(f"{out.name}-new")
    shutil.copytree(base, like)
    shutil.copytree(base / "unet", like / "boosting_unet")
    config = like / "boosting_unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "in_channels": 12}))
    make_model(made, like, source=base)
    shutil.copytree(base, out)
    shutil.copytree(made / "boosting_unet", out / "boosting_unet")
    index = out / "model_index.json"
    named = {"_class_name": "MarigoldDepthHRPipeline", "boosting_unet": ["diffusers", "UNet2DConditionModel"]}
    index.write_text(json.dumps({**json.loads(index.read_text()), **named}, indent=2))
    shutil.rmtree(like)
    shutil.rmtree(made)


class Examples:
    """Crops of photographs with their coarse predictions and truths, as latents."""

    def __init__(self, folder: Path, pipe: mc.MarigoldDepthHRPipeline, seed: int, threshold: float) -> None:
        self.threshold = threshold
        self.names = sorted(path.stem for path in (folder / "depth").glob("*.npy"))
        self.folder, self.rng = folder, np.random.default_rng(seed)
        self.vae, self.factor = pipe.vae, pipe.vae.config["scaling_factor"]
        self.base = mc.MarigoldDepthPipeline.from_pipe(pipe)
        self.base.set_progress_bar_config(disable=True)

    def encode(self, planes: list[Array]) -> Array:
        return self.vae.encode(np.stack(planes)) * np.float32(self.factor)

    def one(self) -> tuple[Array, Array, Array, Array]:
        while True:
            name = self.names[self.rng.integers(len(self.names))]
            image = np.asarray(Image.open(self.folder / "rgb" / f"{name}.png").convert("RGB"))
            depth = np.load(self.folder / "depth" / f"{name}.npy").astype(np.float32)
            mask = depth > 0
            try:
                truth = depth_image(depth[None], mask[None])[0]
            except EmptyTarget:
                continue
            coarse = predicted(self.base, image, max(depth.shape) // 2, int(self.rng.integers(2**31)))
            coarse = align_coarse(2 * coarse - 1, truth, mask)
            y, x = (
                int(self.rng.integers(0, (side - crop) // 8 + 1)) * 8
                for side, crop in zip(depth.shape, CROP, strict=True)
            )
            window = (slice(y, y + CROP[0]), slice(x, x + CROP[1]))
            cells = agreement_mask(coarse[window], truth[window], mask[window], self.threshold)
            if cells.any():
                planes = image[window].astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
                return planes, coarse[window], truth[window], cells

    def batch(self, count: int) -> dict[str, Any]:
        images, coarse, truths, cells = zip(*(self.one() for _ in range(count)), strict=True)
        three = [np.repeat(one[None], 3, 0) for one in (*coarse, *truths)]
        latents = self.encode([*images, *three])
        image, rough, target = latents[:count], latents[count : 2 * count], latents[2 * count :]
        return {
            "image_latent": image,
            "coarse_latent": rough,
            "target_latent": target,
            "noise": self.rng.standard_normal(target.shape).astype(np.float32),
            "timesteps": self.rng.integers(0, 1000, count),
            "mask": np.stack(cells)[:, None],
        }


def predicted(base: mc.MarigoldDepthPipeline, image: Array, resolution: int, seed: int) -> Array:
    """(H, W) of the image in [0, 1]."""
    return base(image, processing_resolution=resolution, generator=seed).prediction[0, :, :, 0]


def train(out: Path, data: Path, minutes: float, rate: float, count: int, threshold: float) -> None:
    pipe = mc.MarigoldDepthHRPipeline.from_pretrained(out, num_threads=1)
    trainer = mc.Trainer.from_pretrained(out, objective="refine", learning_rate=rate, num_threads=1)
    examples, began, losses = Examples(data / "train", pipe, 0, threshold), time.monotonic(), []
    while (passed := (time.monotonic() - began) / 60) < minutes:
        decay = max(0.05, 1 - passed / minutes)
        losses.append(trainer.train_step(**examples.batch(count), learning_rate=rate * decay)[0])
        if len(losses) % 50 == 0:
            print(f"{len(losses)} steps, {passed:.1f} min: loss {np.mean(losses[-50:]):.4f}", flush=True)
    trainer.save_pretrained(out)
    print(f"trained: {len(losses)} steps of {count}, loss {np.mean(losses[:50]):.4f} to {np.mean(losses[-50:]):.4f}")


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
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threshold", type=float, default=THRESHOLD, help="of agreement, of depth in [-1, 1]")
    parser.add_argument("--pictures", type=int, default=24)
    args = parser.parse_args()
    if not args.out.exists():
        make_checkpoint(args.out, args.base)
        compare(args.out, args.data, args.pictures)
        train(args.out, args.data, args.minutes, args.rate, args.batch, args.threshold)
    compare(args.out, args.data, args.pictures)


if __name__ == "__main__":
    main()
