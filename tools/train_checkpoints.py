"""Trains the package's checkpoints of normals and intrinsic images from nothing: scenes, autoencoder, a first model of
depth, normals, intrinsic images, cards. (That of depth: train_on_levels.py.)

    python tools/train_checkpoints.py WORK

Needs the extras "scenes", "training" and "evaluation". Every stage goes on where it was after an interruption of any
kind (run the same command again); what is finished is kept. The results lie in WORK/checkpoints, in the layout of
marigold_c/checkpoints; --install copies them there. The recipes are examples/recipes/tiny-*.yaml.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import model_cards
import yaml

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "examples" / "recipes"
# The recipes that make a checkpoint, each from the weights of the one before.
START = ("tiny-autoencoder", "tiny-depth-start")
RUNS = {
    "normals": (*START, "tiny-normals"),
    "iid": (*START, "tiny-normals", "tiny-iid-lighting"),
}
SHIPPED = {"normals": "marigold-tiny-normals", "iid": "marigold-tiny-iid-lighting"}
# Seeds of the scenes: trained on, watched during training, and seen by nobody until the end.
SEEDS = {"train": 0, "val": 1, "test": 2}
# Of the scenes that are added once the autoencoder is there: twice the noise, in less than half the time.
SAMPLES_OF_MORE = 4


class Work:
    """The folder of one run of this script."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.folder: Path = args.work.resolve()
        self.args = args
        (self.folder / "runs").mkdir(parents=True, exist_ok=True)
        self._seconds = self.folder / "seconds.json"

    def marigold(self, *words: str | Path) -> None:
        command = [sys.executable, "-m", "marigold_c", *map(str, words)]
        print("+ marigold", *command[3:], flush=True)
        path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part)
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def threads(self) -> list[str]:
        return ["--threads", str(self.args.threads)] if self.args.threads else []

    def seconds(self) -> dict[str, float]:
        found: dict[str, float] = json.loads(self._seconds.read_text()) if self._seconds.exists() else {}
        return found

    def stage(self, name: str, make: Callable[[], None]) -> None:
        """Does a stage that is not marked as done. Times of interrupted attempts are not known, and so not counted."""
        done = self.folder / "done" / name
        if done.exists():
            return
        began = time.monotonic()
        make()
        seconds = self.seconds()
        seconds[name] = seconds.get(name, 0.0) + time.monotonic() - began
        self._seconds.write_text(json.dumps(seconds, indent=1) + "\n")
        done.parent.mkdir(exist_ok=True)
        done.touch()
        print(f"= {name}: {seconds[name] / 60:.1f} min", flush=True)

    # ---- the stages ----

    def scenes(self, part: str) -> None:
        counts = {"train": self.args.scenes, "val": self.args.held_out // 2, "test": self.args.held_out}
        self.render(part, counts[part], SEEDS[part])

    def more_scenes(self) -> None:
        """The scenes that follow upon those of "train"."""
        first, few = ["--start", str(self.args.scenes)], ["--samples-per-pixel", str(SAMPLES_OF_MORE)]
        self.render("more", self.args.more_scenes, SEEDS["train"], *first, *few)

    def render(self, part: str, count: int, seed: int, *options: str) -> None:
        # A kill leaves no half scenes; those that cannot be made (a few in a thousand) are replaced by nothing.
        workers = ["--workers", str(self.args.workers)] if self.args.workers else []
        places = ["-o", self.folder / "scenes" / part, "--count", str(count), "--seed", str(seed), "--quiet"]
        try:
            self.marigold("prepare", "scenes", *places, *options, *workers)
        except subprocess.CalledProcessError:
            made = len(list((self.folder / "scenes" / part / "rgb").glob("*.png")))
            if made < 0.95 * count:
                raise

    def start(self, name: str, like: str, *more: str | Path) -> None:
        if not (self.runs / name).exists():
            self.marigold("prepare", "model", "-o", self.runs / name, "--like", like, *more)

    def recipe(self, name: str) -> Path:
        """The recipe, or its shorter copy for trying this script out."""
        if self.args.iterations is None:
            return RECIPES / f"{name}.yaml"
        few = self.args.iterations
        values = {
            "base_config": [str(RECIPES / f"{name}.yaml")],
            "trainer": {"validation_period": max(few // 2, 1), "visualization_period": few},
            "lr_scheduler": {
                "name": "IterExponential",
                "kwargs": {"total_iter": few, "final_ratio": 0.1, "warmup_steps": 0},
            },
            "max_iter": few,
            "validation": {"max_samples": 2},
        }
        folder = self.folder / "short"
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def train(self, name: str) -> None:
        places: list[str | Path] = [
            "-o",
            self.runs,
            "--base-ckpt-dir",
            self.runs,
            "--base-data-dir",
            self.folder,
            "--resume",
        ]
        self.marigold("train", self.recipe(name), *places, *self.threads)
        run = self.runs / name
        iteration = json.loads((run / "checkpoint" / "latest" / "training_state.json").read_text())["iteration"]
        if iteration < yaml.safe_load((run / "config.yaml").read_text())["max_iter"]:
            sys.exit(f"{run}: stopped at iteration {iteration}; the same command goes on from there")

    def export(self) -> None:
        target = self.folder / "checkpoints"
        shutil.rmtree(target, ignore_errors=True)
        for task, name in SHIPPED.items():
            best = self.runs / RUNS[task][-1] / "checkpoint" / "best"
            model_cards.export(best, target / name, variant=False)

    def cards(self) -> None:
        for task, name in SHIPPED.items():
            checkpoint = self.folder / "checkpoints" / name
            scores = model_cards.evaluate(self.folder, task, checkpoint, self.marigold)
            facts = model_cards.facts_of(self.folder, [self.runs / run for run in RUNS[task]])
            model_cards.write_card(checkpoint, task, scores, facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--scenes", type=int, default=500, help="to train everything on; default: 500")
    parser.add_argument("--more-scenes", type=int, default=2600, help="for all but the autoencoder; default: 1500")
    parser.add_argument("--held-out", type=int, default=128, help="to judge by, half as many to watch; default: 128")
    parser.add_argument("--threads", type=int, help="default: all processors")
    parser.add_argument("--workers", type=int, help="processes that render; default: all processors")
    parser.add_argument("--iterations", type=int, help="of each training, instead of the recipes': to try this out")
    parser.add_argument("--install", action="store_true", help="copy the results into marigold_c/checkpoints")
    args = parser.parse_args()
    work = Work(args)
    for part in SEEDS:
        work.stage(f"scenes-{part}", lambda part=part: work.scenes(part))  # type: ignore[misc]
    work.stage("start", lambda: work.start("tiny-start", SHIPPED["normals"]))
    work.stage("tiny-autoencoder", lambda: work.train("tiny-autoencoder"))
    work.stage("scenes-more", work.more_scenes)
    work.stage("tiny-depth-start", lambda: work.train("tiny-depth-start"))
    work.stage("tiny-normals", lambda: work.train("tiny-normals"))
    source = work.runs / "tiny-normals" / "checkpoint" / "best"
    work.stage("iid-start", lambda: work.start("tiny-iid-start", SHIPPED["iid"], "--weights-from", source))
    work.stage("tiny-iid-lighting", lambda: work.train("tiny-iid-lighting"))
    work.stage("export", work.export)
    work.stage("cards", work.cards)
    if args.install:
        for name in SHIPPED.values():
            shutil.rmtree(ROOT / "marigold_c" / "checkpoints" / name, ignore_errors=True)
            shutil.copytree(work.folder / "checkpoints" / name, ROOT / "marigold_c" / "checkpoints" / name)
    print(f"{work.folder / 'checkpoints'}: done in {sum(work.seconds().values()) / 60:.0f} min")


if __name__ == "__main__":
    main()
