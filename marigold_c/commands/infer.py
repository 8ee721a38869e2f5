"""`marigold infer`: predictions for a whole data set, as files or evaluated at once. Listed in cli.py.

A folder of predictions has a record of how they are made. A run that is repeated there keeps what is finished and
refuses other settings: a folder never holds predictions of two kinds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._cuda import is_cuda
from ..datasets import Dataset
from ..evaluation.completion import CompletionJob
from ..evaluation.engine_choice import run_engine
from ..evaluation.inference import InferenceJob, Outcome
from ..evaluation.prediction_files import WHOLE, prediction_files
from ..evaluation.record import RECORD_FILE, Record
from ..evaluation.results import Results
from ..loading.folders import resolve_folder
from ..loading.packed import Configurations
from ..pipelines.arguments import LARGEST_ENSEMBLE, RESAMPLE_METHODS, SOLVERS
from ..progress import CommandProgress
from . import depth, iid, normals
from .completion_flags import EXAMPLE, add_method, check_resolution, method_of, recompute_of
from .evaluation_flags import (
    add_data,
    add_engine,
    add_evaluation,
    apply_preset,
    check_engine,
    check_evaluation,
    check_preset,
)
from .evaluation_results import evaluation_settings, finish_evaluation, follow, opened_dataset
from .flag_types import SEED, add_model, check_output, check_variant, choose_checkpoint, integer, kind_options

_LARGE_ENSEMBLE = 15


@dataclass(frozen=True)
class _Kind:
    """What is predicted. task: of the shipped checkpoint; example: a better one's hub id."""

    title: str
    task: str
    example: str


_KINDS = {
    **{task.name: _Kind(task.title, task.name, task.checkpoint) for task in (depth.TASK, normals.TASK, iid.TASK)},
    "completion": _Kind("Completion", "depth", EXAMPLE),
}
# What depth completion has no choice of: the flag, and its value where it is not given.
_NOT_OF_COMPLETION = {
    "output_processing_res": False,
    "resample_method": "bilinear",
    "noise": None,
    "batch_size": 0,
}


def _add_prediction(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("prediction")
    group.add_argument("--denoise-steps", type=integer(1), metavar="N", help="default: the checkpoint's")
    group.add_argument("--ensemble-size", type=integer(1, LARGEST_ENSEMBLE), metavar="N", help="default: 1")
    group.add_argument(
        "--processing-res",
        type=integer(0),
        metavar="N",
        help="longer side, 0: the image's; default: checkpoint's",
    )
    group.add_argument("--output-processing-res", action="store_true", help="leave predictions at that size")
    group.add_argument(
        "--resample-method",
        choices=RESAMPLE_METHODS,
        default="bilinear",
        metavar="METHOD",
        help=f"{', '.join(RESAMPLE_METHODS)}; default: bilinear",
    )
    group.add_argument("--seed", type=SEED, metavar="N", help="of each image's noise; default: chosen once and kept")
    group.add_argument("--noise", choices=("gaussian", "zeros"), metavar="NAME", help="gaussian, or zeros for E2E-FT")
    group.add_argument("--solver", choices=SOLVERS, metavar="NAME", help=f"of ensembles of depth: {', '.join(SOLVERS)}")
    group.add_argument(
        "--batch-size",
        type=integer(0),
        default=0,
        metavar="N",
        help="members of an ensemble at once; default: 0, what fits",
    )
    add_method(group)
    group.add_argument("--overwrite", action="store_true", help="remove the predictions that are there first")
    group.add_argument(
        "--eval",
        dest="evaluate",
        action="store_true",
        help="evaluate each prediction instead of writing it",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "marigold infer TASK --dataset-config YAML --base-data-dir DIR -o DIR [options]"
    parser.description = (
        "Predicts all images of a data set and writes .npy files as prs-eth's infer scripts do. What is there already "
        "is kept. Flags may also be written with underscores. More: docs/evaluation.md."
    )
    add_data(parser)
    parser.add_argument("-o", "--output-dir", required=True, type=Path, metavar="DIR", help="where the results go")
    _add_prediction(parser)
    add_model(parser, "prs-eth/marigold-depth-v1-1")
    add_engine(parser)
    add_evaluation(parser)


# ---- running ----


def _targets(task: str, checkpoint: Path) -> tuple[str, ...]:
    """The names of the maps that the checkpoint makes; () if that is not known before it is open."""
    if task != "iid":
        return (WHOLE,)
    properties = Configurations(checkpoint)["model_index.json"].get("target_properties")
    names = properties.get("target_names") if isinstance(properties, dict) else None
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _checkpoint_name(args: argparse.Namespace) -> str:
    if args.checkpoint is None:
        return "shipped"
    return str(Path(args.checkpoint).resolve()) if Path(args.checkpoint).exists() else str(args.checkpoint)


def _batch_size(args: argparse.Namespace) -> int:
    """0, the engine's choice, is 1 on a CPU."""
    return int(args.batch_size) or (0 if is_cuda(args.device) else 1)


def _settings(args: argparse.Namespace, dataset: Dataset, checkpoint: str, variant: str | None) -> dict[str, Any]:
    """What predictions depend on, by the names of flags."""
    return {
        "task": args.task,
        "dataset": dataset.name,
        "checkpoint": checkpoint,  # "shipped", an absolute path, or a hub id
        "variant": variant,
        "vae": args.vae,
        **kind_options(args),
        "dtype": args.dtype,
        "denoise_steps": args.denoise_steps,
        "ensemble_size": args.ensemble_size,
        "processing_res": args.processing_res,
        "output_processing_res": args.output_processing_res,
        "resample_method": args.resample_method,
        "solver": args.solver,
        "batch_size": _batch_size(args),
        "noise": args.noise,
        "seed": args.seed,
        **_completion_settings(args, dataset),
    }


def _completion_settings(args: argparse.Namespace, dataset: Dataset) -> dict[str, Any]:
    """recompute is none of them: it changes no bit."""
    if args.task != "completion":
        return {}
    drawn = None if dataset.settings.points is None else dataset.settings.points_seed
    return {"method": method_of(args), "points": dataset.settings.points, "points_seed": drawn}


def _finished(folder: Path, dataset: Dataset, targets: tuple[str, ...]) -> set[int]:
    """Samples whose files are all there; a file that is there is whole."""
    if not targets:
        return set()
    return {
        index
        for index in range(len(dataset))
        if all((folder / path).is_file() for path in prediction_files(dataset, index, targets))
    }


def _remove(folder: Path, dataset: Dataset, targets: tuple[str, ...]) -> None:
    for index in range(len(dataset)):
        for path in prediction_files(dataset, index, targets):
            (folder / path).unlink(missing_ok=True)
    (folder / RECORD_FILE).unlink(missing_ok=True)


def _prepare_folder(
    args: argparse.Namespace, dataset: Dataset, targets: tuple[str, ...], settings: dict[str, Any]
) -> set[int]:
    """Checks and writes the record; the samples that are finished."""
    folder: Path = args.output_dir
    if args.overwrite:
        _remove(folder, dataset, targets)
    record = Record(folder)
    if settings["seed"] is None and args.noise == "gaussian":
        settings["seed"] = int(time.time()) if record.seed() is None else record.seed()
    record.check(settings)
    finished = _finished(folder, dataset, targets)
    if finished and record.settings is None:
        raise ValueError(
            f"{folder} holds predictions, but no {RECORD_FILE} that tells how they were made: --overwrite, or another "
            "folder"
        )
    if record.settings is None:
        record.write(settings, args.preset)
    return finished


def _ordinary_call(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "num_inference_steps": args.denoise_steps,
        "ensemble_size": args.ensemble_size,
        "processing_resolution": args.processing_res,
        "match_input_resolution": not args.output_processing_res,
        "resample_method_input": args.resample_method,
        "resample_method_output": args.resample_method,
        "batch_size": _batch_size(args),
        "ensembling_kwargs": {"solver": args.solver} if args.solver and args.ensemble_size > 1 else None,
        "preset": "paper",
    }


def _completion_call(args: argparse.Namespace) -> dict[str, Any]:
    resolution = {} if args.processing_res is None else {"processing_resolution": args.processing_res}
    return {
        "num_inference_steps": args.denoise_steps,
        "ensemble_size": args.ensemble_size,
        "method": method_of(args),
        "recompute": recompute_of(args),
        **resolution,
    }


_JOBS: dict[str, tuple[type[InferenceJob], Callable[[argparse.Namespace], dict[str, Any]]]] = {
    "completion": (CompletionJob, _completion_call)
}


def _job(args: argparse.Namespace, dataset: Dataset, checkpoint: str, settings: dict[str, Any]) -> InferenceJob:
    kind, call_of = _JOBS.get(args.task, (InferenceJob, _ordinary_call))
    noise = {"latents": "zeros"} if args.noise == "zeros" else {"generator": settings["seed"]}
    return kind(
        task=args.task,
        dataset=dataset,
        checkpoint=checkpoint,
        model={
            "variant": settings["variant"],
            "dtype": args.dtype,
            "device": args.device,
            "vae": args.vae,
            **kind_options(args),
        },
        call=call_of(args),
        noise=noise,
        folder=None if args.evaluate else args.output_dir.absolute(),
        evaluation=evaluation_settings(args) if args.evaluate else None,
    )


def _doubts(args: argparse.Namespace) -> Iterator[str]:
    """What prs-eth's scripts warn of."""
    if args.ensemble_size > _LARGE_ENSEMBLE:
        yield f"an ensemble of {args.ensemble_size} takes long"
    if args.processing_res == 0 and args.output_processing_res:
        yield "without resizing, predictions lose what the VAE's factor of 8 leaves over"


def _outcomes(
    args: argparse.Namespace, job: InferenceJob, todo: list[int], progress: CommandProgress
) -> Iterator[Outcome]:
    results = run_engine(args, job, todo, progress.say)
    return follow(results, job.dataset, progress, len(job.dataset) - len(todo))


def _write_predictions(
    args: argparse.Namespace,
    job: InferenceJob,
    targets: tuple[str, ...],
    settings: dict[str, Any],
    progress: CommandProgress,
) -> bool:
    args.output_dir.mkdir(parents=True, exist_ok=True)
    finished = _prepare_folder(args, job.dataset, targets, settings)
    if finished:
        progress.say(f"marigold: {len(finished)} of {len(job.dataset)} are there already")
    # The seed of an earlier run may have come out of the folder's record.
    job = _job(args, job.dataset, job.checkpoint, settings)
    todo = [index for index in range(len(job.dataset)) if index not in finished]
    failed = sum(outcome.fault is not None for outcome in _outcomes(args, job, todo, progress))
    if failed:
        progress.complain(f"marigold: {failed} of {len(job.dataset)} samples failed")
    else:
        progress.say(f"marigold: {len(job.dataset)} done, predictions in {args.output_dir}")
    return not failed


def _evaluate(args: argparse.Namespace, job: InferenceJob, settings: dict[str, Any], progress: CommandProgress) -> bool:
    args.output_dir.mkdir(parents=True, exist_ok=True)
    assert job.evaluation is not None
    results = Results(job.dataset, job.evaluation)
    for outcome in _outcomes(args, job, list(range(len(job.dataset))), progress):
        results.add(outcome)
    about = {"inference": {**settings, "preset": args.preset}}
    return finish_evaluation(args, results, "not stored", about, None, progress)


def _check_completion(args: argparse.Namespace) -> None:
    if args.task != "completion":
        if args.method is not None or args.recompute:
            args.parser.error("--method and --recompute are for completion")
        return
    check_resolution(args)
    if args.recompute and method_of(args) == "align":
        args.parser.error("--recompute is of --method guided")
    for name, absent in _NOT_OF_COMPLETION.items():
        if getattr(args, name) != absent:
            args.parser.error(f"--{name.replace('_', '-')} is not for completion")


def run(args: argparse.Namespace) -> bool:
    """Whether every sample was done; those that were not are named on stderr."""
    check_variant(args)
    check_engine(args)
    check_preset(args)
    check_evaluation(args)
    _check_completion(args)
    if args.task != "depth" and args.solver is not None:
        args.parser.error("--solver is for depth")
    if args.evaluate and args.output_processing_res:
        args.parser.error("--eval needs predictions of the images' size, which --output-processing-res does not give")
    if args.evaluate and args.overwrite:
        args.parser.error("--eval writes no predictions: there is nothing to --overwrite")
    check_output(args.output_dir)
    dataset, notes = opened_dataset(args)
    apply_preset(args, dataset)
    kind = _KINDS[args.task]
    progress = CommandProgress(f"{kind.title} of {dataset.display_name}", len(dataset), args.quiet, "sample")
    with closing(progress), progress.warnings_as_lines():
        for note in [*notes, *_doubts(args)]:
            progress.say(f"marigold: warning: {note}")
        chosen, variant = choose_checkpoint(kind.task, kind.example, args, progress.say)
        folder = resolve_folder(chosen, variant)
        settings = _settings(args, dataset, _checkpoint_name(args), variant)
        targets = _targets(args.task, folder)
        if args.evaluate:
            if settings["seed"] is None and args.noise == "gaussian":
                settings["seed"] = int(time.time())
            return _evaluate(args, _job(args, dataset, str(folder.absolute()), settings), settings, progress)
        job = _job(args, dataset, str(folder.absolute()), settings)
        return _write_predictions(args, job, targets, settings, progress)
