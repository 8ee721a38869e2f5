"""What is asked for, in the words of the command line. Called by the tabs and the interface."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .command import Command
from .limits import Limits, Refused

SMALL = "small, in the package"


@dataclass(frozen=True)
class Wish:
    """What is asked for: a command, the checkpoint (None: the small one in the package), and its flags by name."""

    command: Command
    checkpoint: str | None
    flags: Mapping[str, Any]

    def words(self) -> list[str]:
        """As --flag=value, so that no value is taken for a flag; True is the flag alone, None and False are left
        out."""
        given = {"checkpoint": self.checkpoint, **self.flags}
        shown = [(name.replace("_", "-"), value) for name, value in given.items() if value is not None]
        return [f"--{name}" if value is True else f"--{name}={value}" for name, value in shown if value is not False]

    def parsed(self, folder: Path) -> Namespace:
        return self.command.parse([f"--output-dir={folder}", *self.words()])

    def command_line(self, image: str) -> str:
        """What repeats the result in a shell, where the image lies under this name."""
        return shlex.join(["marigold", self.command.name, f"./{image}", "-o", "out", *self.words()])

    def python_lines(self, image: str, args: Namespace) -> str:
        """What repeats the result in Python. args: as parsed."""
        opened = f'mc.default_checkpoint("{self.command.name}")' if self.checkpoint is None else repr(self.checkpoint)
        dtype = f", dtype={args.dtype!r}" if args.dtype else ""
        defaults = self.command.options(self.command.parse(["--output-dir=out"]))
        changed = {name: value for name, value in self.command.options(args).items() if value != defaults[name]}
        options = "".join(f", {name}={value!r}" for name, value in {"batch_size": 0, **changed}.items())
        return (
            "import marigold_c as mc\n\n"
            f"pipe = mc.load({opened}{dtype})\n"
            f"out = pipe({image!r}{options})\n"
            "out.prediction  # float32 (1, H, W, C)\n"
        )


def make_wish(
    commands: Mapping[str, Command],
    checkpoints: Sequence[str],
    *,
    task: str,
    checkpoint: str,
    steps: int,
    members: int,
    resolution: int,
    dtype: str,
    seed: int,
    color_map: str,
    uncertainty: bool,
    formats: Sequence[str],
    flags: Mapping[str, Any],
) -> Wish:
    """Plain values as flags of a command; 0 and "" are the checkpoint's own. Refused: what is not offered."""
    if task not in commands:
        raise Refused(f"what to compute: {task!r} is not among {', '.join(commands)}")
    if checkpoint and checkpoint not in checkpoints:
        raise Refused(f"checkpoint: this page offers {', '.join([SMALL, *checkpoints])}")
    chosen: dict[str, Any] = {
        "denoise_steps": steps or None,
        "ensemble_size": members if members != 1 else None,
        "processing_res": resolution or None,
        "dtype": dtype if dtype not in ("", "float32") else None,
        "seed": seed,
        "output_uncertainty": uncertainty,
    }
    if task == "depth":
        chosen["color_map"] = color_map if color_map != "Spectral" else None
        chosen |= flags
    if formats:
        chosen["format"] = ",".join(formats)
    return Wish(commands[task], checkpoint or None, chosen)


def check_wish(wish: Wish, limits: Limits) -> None:
    """Refused: more than one visitor may ask for."""
    for flag, most in {
        "ensemble_size": limits.members,
        "denoise_steps": limits.steps,
        "processing_res": limits.resolution,
    }.items():
        value = wish.flags.get(flag)
        if value is not None and value > most:
            raise Refused(f"--{flag.replace('_', '-')} {value}: this page takes at most {most}")
    if wish.flags.get("processing_res") == 0:
        raise Refused(f"--processing-res 0: this page computes at no more than {limits.resolution} pixels")
