"""`marigold train`: its flags, signals, several processes, and what is said meanwhile. Listed in cli.py."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

from ..errors import DatasetNotFoundError
from ..messages import explain
from ..progress import CommandProgress
from ..training.processes import Processes, started_processes, threads_for, together
from .flag_types import POSITIVE, THREADS

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Fine-tunes a checkpoint as a configuration says (docs/training.md; examples/recipes). The run's "
        "folder gets checkpoints, curves and pictures."
    )
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="what is trained and how: a YAML file")
    parser.add_argument("--config", dest="config_flag", type=Path, metavar="CONFIG", help="the same, as a flag")
    parser.add_argument(
        "--resume-run",
        type=Path,
        metavar="PATH",
        help="go on with the run of this checkpoint (RUN/checkpoint/latest) by the configuration in its folder",
    )
    parser.add_argument(
        "-o",
        "--output-dir",
        type=Path,
        default=Path("output"),
        metavar="DIR",
        help="the run's folder is made in it, named as CONFIG is; default: output",
    )
    parser.add_argument(
        "--base-data-dir",
        type=Path,
        metavar="DIR",
        help="where the data sets are; default: the environment's BASE_DATA_DIR, else where the command runs",
    )
    parser.add_argument(
        "--base-ckpt-dir",
        type=Path,
        metavar="DIR",
        help="where the checkpoint to start from is looked for first; default: the environment's BASE_CKPT_DIR",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the latest checkpoint, if there is one")
    parser.add_argument(
        "--exit-after", type=POSITIVE, metavar="MIN", help="save and leave after so many minutes; --resume goes on"
    )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="what computes; default: cpu")
    parser.add_argument(
        "--threads", type=THREADS, metavar="N", help="how many compute; default: all processors of this process"
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    for flag in ("--no-cuda", "--no-wandb", "--do-not-copy-data"):
        parser.add_argument(flag, action="store_true", help="accepted for prs-eth's scripts; has no effect")


@contextmanager
def _stop_on_signals(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Whether to stop after the iteration: the first Ctrl-C, SIGTERM or SIGUSR1 (which launchers of several
    processes pass on) asks for it, the second Ctrl-C stops at once."""
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)
        say("marigold: stopping after this iteration; again to stop at once")

    before = {number: signal.signal(number, ask) for number in _STOPPING}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _naming_the_flag(base_data_dir: str | Path | None) -> Iterator[None]:
    """A data set that is not where the command runs, which nobody said it is, is missed for want of a flag."""
    try:
        yield
    except DatasetNotFoundError as error:
        if base_data_dir is not None:
            raise
        raise DatasetNotFoundError(
            f"{error}, looked for where the command runs; give --base-data-dir DIR (or set BASE_DATA_DIR), the folder "
            "that data sets lie in"
        ) from error


@contextmanager
def _ending_all(processes: Processes) -> Iterator[None]:
    """What only this process knows to go wrong ends the others, too, which would wait for it."""
    try:
        yield
    except BaseException as error:
        alone = processes.size == 1 or isinstance(error, SystemExit)
        if not alone and (not processes.parted or isinstance(error, KeyboardInterrupt)):
            text = "interrupted" if isinstance(error, KeyboardInterrupt) else f"error: {explain(error)}"
            print(f"marigold: {text} (process {processes.rank} of {processes.size})", file=sys.stderr, flush=True)
            processes.abort()
        raise


def run(args: argparse.Namespace) -> bool:
    """Trains, with the processes that were started together; what goes wrong is raised."""
    given = [one for one in (args.config, args.config_flag, args.resume_run) if one is not None]
    if len(given) != 1:
        args.parser.error("give CONFIG, --config or --resume-run, one of them")
    processes = started_processes()
    with _ending_all(processes):
        _train(args, processes)
    return True


def _train(args: argparse.Namespace, processes: Processes) -> None:
    from ..training.config import load_config  # not for --help: the extra `training` may be missing
    from ..training.run import RunOptions, train

    file, folder = args.config or args.config_flag, None
    if file is None:  # RUN/checkpoint/latest
        folder = args.resume_run.parent.parent
        file = folder / "config.yaml"
    config = together(processes, lambda: load_config(file))
    threads = threads_for(processes) if processes.size > 1 and args.threads is None else args.threads
    data = args.base_data_dir or os.environ.get("BASE_DATA_DIR") or None
    checkpoints = args.base_ckpt_dir or os.environ.get("BASE_CKPT_DIR")
    progress = CommandProgress("training", config.max_iterations, args.quiet or processes.rank > 0, "iteration")
    with (
        closing(progress),
        progress.warnings_as_lines(),
        _naming_the_flag(data),
        _stop_on_signals(progress.say) as should_stop,
    ):
        if processes.size > 1:
            progress.say(f"marigold: {processes.size} processes, threads each: {threads}")
        train(
            config,
            RunOptions(
                folder=folder or args.output_dir / config.name,
                base_data_dir=Path(data or "."),
                base_checkpoint_dir=Path(checkpoints) if checkpoints else None,
                resume=args.resume or folder is not None,
                exit_after=args.exit_after,
                device=args.device,
                threads=threads,
                say=progress.say,
                show=progress.move if progress.on_terminal else None,
                should_stop=should_stop,
                processes=processes,
            ),
        )
