"""`marigold train`: signals, and what is said meanwhile. Called by flags.py with parsed arguments."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

from ..progress import CommandProgress
from .config import load_config
from .run import RunOptions, train


@contextmanager
def _stop_on_signals(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Whether to stop after the iteration: the first Ctrl-C or SIGTERM asks for it, the second Ctrl-C stops at once."""
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)
        say("marigold: stopping after this iteration; again to stop at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_train(args: argparse.Namespace) -> None:
    """Trains; what goes wrong is raised."""
    config = load_config(args.config)
    checkpoints = args.base_ckpt_dir or os.environ.get("BASE_CKPT_DIR")
    progress = CommandProgress("training", config.max_iterations, args.quiet, "iteration")
    with closing(progress), progress.warnings_as_lines(), _stop_on_signals(progress.say) as should_stop:
        train(
            config,
            RunOptions(
                folder=args.output_dir / config.name,
                base_data_dir=Path(args.base_data_dir or os.environ.get("BASE_DATA_DIR", ".")),
                base_checkpoint_dir=Path(checkpoints) if checkpoints else None,
                resume=args.resume,
                exit_after=args.exit_after,
                device=args.device,
                threads=args.threads,
                say=progress.say,
                show=progress.move if progress.on_terminal else None,
                should_stop=should_stop,
            ),
        )
