"""`marigold infer`: predictions for a whole data set, as files or evaluated at once. Called by flags.py.

A folder of predictions has a record of how they are made. A run that is repeated there keeps what is finished and
refuses other settings: a folder never holds predictions of two kinds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from .. import __version__
from .._cuda import is_cuda
from ..datasets import Dataset
from ..evaluation.engine_choice import run_engine
from ..evaluation.inference import InferenceJob, Outcome
from ..evaluation.prediction_files import WHOLE, prediction_files
from ..evaluation.results import Results
from ..images.files import write_atomically
from ..loading.folders import resolve_folder
from ..loading.packed import Configurations
from ..progress import CommandProgress
from .evaluation_flags import apply_preset
from .evaluation_results import evaluation_settings, finish_evaluation, follow, opened_dataset
from .predict import check_output, choose_checkpoint
from .tasks import TASKS

RECORD_FILE = "marigold_infer.json"
_FORMAT = 1
_LARGE_ENSEMBLE = 15


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
    }


class _Record:
    """marigold_infer.json of a folder of predictions."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORD_FILE
        self.settings: dict[str, Any] | None = None
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            self.settings = dict(stored["settings"])
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path}: not a record of predictions ({error}): --overwrite, or another folder"
            ) from error

    def seed(self) -> int | None:
        seed = (self.settings or {}).get("seed")
        return seed if isinstance(seed, int) else None

    def check(self, settings: dict[str, Any]) -> None:
        """ValueError unless the folder's predictions were made with the same settings."""
        if self.settings is None:
            return
        names = sorted({*settings, *self.settings})
        changes = [
            f"{name} {self.settings.get(name)} (now {settings.get(name)})"
            for name in names
            if self.settings.get(name) != settings.get(name)
        ]
        if changes:
            raise ValueError(
                f"{self.path.parent} holds predictions with {', '.join(changes)}: --overwrite, or another folder"
            )

    def write(self, settings: dict[str, Any], preset: str | None) -> None:
        record = {"format": _FORMAT, "version": __version__, "preset": preset, "settings": settings}
        text = json.dumps(record, indent=2) + "\n"
        write_atomically(self.path, lambda file: file.write(text.encode()))


def recorded_settings(folder: Path) -> dict[str, Any]:
    """How the predictions of a folder were made; empty where that is not known."""
    try:
        return _Record(folder).settings or {}
    except (OSError, ValueError):
        return {}


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
    record = _Record(folder)
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


def _job(args: argparse.Namespace, dataset: Dataset, checkpoint: str, settings: dict[str, Any]) -> InferenceJob:
    call = {
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
    noise = {"latents": "zeros"} if args.noise == "zeros" else {"generator": settings["seed"]}
    return InferenceJob(
        task=args.task,
        dataset=dataset,
        checkpoint=checkpoint,
        model={"variant": settings["variant"], "dtype": args.dtype, "device": args.device, "vae": args.vae},
        call=call,
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


def run_inference(args: argparse.Namespace) -> bool:
    """Whether every sample was done; those that were not are named on stderr."""
    check_output(args.output_dir)
    dataset, notes = opened_dataset(args)
    apply_preset(args, dataset)
    progress = CommandProgress(
        f"{TASKS[args.task].title} of {dataset.display_name}", len(dataset), args.quiet, "sample"
    )
    with closing(progress), progress.warnings_as_lines():
        for note in [*notes, *_doubts(args)]:
            progress.say(f"marigold: warning: {note}")
        chosen, variant = choose_checkpoint(TASKS[args.task], args, progress.say)
        folder = resolve_folder(chosen, variant)
        settings = _settings(args, dataset, _checkpoint_name(args), variant)
        targets = _targets(args.task, folder)
        if args.evaluate:
            if settings["seed"] is None and args.noise == "gaussian":
                settings["seed"] = int(time.time())
            return _evaluate(args, _job(args, dataset, str(folder.absolute()), settings), settings, progress)
        job = _job(args, dataset, str(folder.absolute()), settings)
        return _write_predictions(args, job, targets, settings, progress)
