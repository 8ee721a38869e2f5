"""The flags that `marigold infer` and `marigold eval` share, and what presets put in the place of those not given.

Reads no data and opens no checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..datasets.table import TASKS
from ..evaluation.engines import ENGINES
from ..evaluation.presets import ALIGNMENTS, DATA_SETS, POOLINGS, PRESETS, task_preset
from .flag_types import integer


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    group = parser.add_argument_group("data set")
    group.add_argument(
        "--dataset-config",
        required=True,
        type=Path,
        metavar="YAML",
        help="its description, as prs-eth's config/dataset_*",
    )
    group.add_argument(
        "--base-data-dir", required=True, type=Path, metavar="DIR", help="the folder that data sets lie in"
    )
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        metavar="NAME",
        help=f"settings of published numbers: {', '.join(PRESETS)}",
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def add_engine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workers")
    group.add_argument(
        "--engine",
        choices=ENGINES,
        default="serial",
        metavar="NAME",
        help=f"{', '.join(ENGINES)}; default: serial",
    )
    group.add_argument(
        "--workers",
        type=integer(1, 4096),
        metavar="N",
        help="how many; default: one for each GPU or 4 processors",
    )
    group.add_argument("--ray-address", metavar="ADDRESS", help="of a cluster; default: RAY_ADDRESS, else local")


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("evaluation")
    group.add_argument(
        "--alignment",
        choices=ALIGNMENTS,
        metavar="NAME",
        help=f"of depth: {', '.join(ALIGNMENTS)}; default: none",
    )
    group.add_argument(
        "--alignment-max-res",
        type=integer(1),
        metavar="N",
        help="align maps reduced to this side; default: all pixels",
    )
    group.add_argument(
        "--pooling",
        choices=POOLINGS,
        metavar="NAME",
        help=f"of normals: {', '.join(POOLINGS)}; default: image",
    )
    group.add_argument("--target-names", nargs="+", metavar="T", help="of intrinsic images; default: all")
    group.add_argument(
        "--targets-to-eval-in-linear-space", nargs="*", metavar="T", help="targets to raise to 2.2 first"
    )
    group.add_argument("--use-mask", action="store_true", default=None, help="of intrinsic images: valid pixels only")
    group.add_argument("--no-report", action="store_true", help="leave out the HTML report")
    group.add_argument("--no-cuda", action="store_true", help="accepted for prs-eth's scripts; has no effect")


# ---- what the flags mean ----


def check_evaluation(args: argparse.Namespace) -> None:
    for task, names in {
        "depth": ("alignment", "alignment_max_res"),
        "normals": ("pooling",),
        "iid": ("target_names", "targets_to_eval_in_linear_space"),
    }.items():
        for name in names:
            if args.task != task and getattr(args, name) is not None:
                args.parser.error(f"--{name.replace('_', '-')} is for {task}")
    targets, linear = args.target_names, args.targets_to_eval_in_linear_space or []
    if targets is not None and set(linear) - set(targets):
        others = ", ".join(sorted(set(linear) - set(targets)))
        args.parser.error(f"--targets-to-eval-in-linear-space names {others}, which --target-names does not")


def check_engine(args: argparse.Namespace) -> None:
    if args.engine == "serial" and args.workers is not None:
        args.parser.error("--workers needs --engine processes or ray")
    if args.engine != "ray" and args.ray_address is not None:
        args.parser.error("--ray-address needs --engine ray")


def check_preset(args: argparse.Namespace) -> None:
    if args.preset is not None:
        try:
            task_preset(args.preset, args.task)
        except ValueError as error:
            args.parser.error(str(error))


def apply_preset(args: argparse.Namespace, dataset: Any) -> None:
    """Fills in what was not given: from the preset, else defaults. dataset: for what differs between data sets."""
    chosen = None if args.preset is None else task_preset(args.preset, args.task)
    if chosen is not None:
        # Nothing is published for own data: they are processed at the checkpoint's resolution.
        resolution = None if dataset.settings.description.by_folders else dataset.protocol.processing_resolution
        known: dict[str, Any] = {
            "denoise_steps": chosen.steps,
            "ensemble_size": chosen.ensemble_size,
            "noise": chosen.noise,
            "solver": chosen.solver,
            "processing_res": resolution if chosen.resolution is None else chosen.resolution,
            "seed": dataset.protocol.seed if chosen.seed is None else chosen.seed,
            "alignment": chosen.alignment,
            "alignment_max_res": dataset.alignment_max_res if args.alignment in (None, chosen.alignment) else None,
            "pooling": chosen.pooling,
        }
        of_targets = DATA_SETS.get(dataset.name)
        if of_targets is not None:
            known["use_mask"] = of_targets.use_mask
            if args.target_names is None:
                known["target_names"] = of_targets.target_names
                known["targets_to_eval_in_linear_space"] = of_targets.linear_targets
        _fill(args, known)
    _fill(args, {"ensemble_size": 1, "noise": "gaussian", "alignment": "none", "pooling": "image", "use_mask": False})


def _fill(args: argparse.Namespace, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if hasattr(args, name) and getattr(args, name) is None:
            setattr(args, name, value)
