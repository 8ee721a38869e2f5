"""Times marigold_c beside other libraries on one checkpoint: stages, whole pipelines, start, memory, threads, growth.

    python benchmarks/peers.py [--checkpoint FOLDER] [--peers LIST] [--ours LIST] [--rows LIST] [--sizes 576x768]
                               [--repeats 3] [--threads 2] [--parts LIST] [--scaling] [--growth]

Parts: "rows" runs the stages and whole pipelines (1 step, 4 steps, 4 steps with 10 members: the last takes long and
runs only if --rows names it). The peers (peer_libraries.py; those that are installed, --peers chooses) come one after
the other. Each is a process beside ours in every precision and all take turns (A B A B), because a machine's speed
drifts: only figures of one table may be compared. First each runs the row on the same input, and the results are
compared: a side that does not agree gets no timing. That first call is reported apart; the others are medians.

"memory": the peak resident set (VmHWM, mapped weights counted) of a process that runs the whole pipeline once, nothing
else. "start": from the start of a process to just before its first UNet step and to its end, files in the page cache;
the median of the repeats, one uncounted start before. Each library opens what its pipeline needs, except that OpenVINO
and ONNX Runtime read converted stages (the UNet only) and a stored embedding of the empty prompt.

--scaling: ours with one thread and with all, results the same bits. --growth: ours, one process for each size.

Without --checkpoint a random one of Stable Diffusion 2's size is written once (5.2 GB) into benchmarks/results, and
converted ones beside it. --tiny uses a small one and small images: for trying the script, not for figures.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

from make_sd2_checkpoint import write_checkpoint
from peer_libraries import OURS, PEERS, PIPELINES, REFERENCE, SIDES, STAGES
from peer_parts import Bench, Size, alone, compare, grow, scale
from peer_tables import alone_table, comparison_table, growth_table, scaling_table, worst_ratios
from peer_worker import Contestant, convert

from marigold_c.commands.bench import processor_name

RESULTS = Path(__file__).resolve().parent / "results"
DEFAULT_ROWS = [*STAGES, "1-step", "4-steps"]
PARTS = ["rows", "memory", "start"]
GROWTH = "384,768,1024,1536,2048"


# ---- what is compared ----


def versions(sides: list[str]) -> dict[str, str]:
    from importlib.metadata import version

    names = dict.fromkeys(module for side in sides for module in SIDES[side].modules if side not in OURS)
    return {name: version(name) for name in ("numpy", *names)}


def is_installed(side: str) -> bool:
    return all(importlib.util.find_spec(name) for name in SIDES[side].modules)


def checkpoint_of(args: argparse.Namespace) -> Path:
    if args.checkpoint:
        return Path(args.checkpoint)
    preset = "tiny" if args.tiny else "sd2"
    folder = RESULTS / f"{preset}-random"
    if not (folder / "model_index.json").is_file():
        print(f"writing a random checkpoint into {folder} (once)", file=sys.stderr)
        write_checkpoint(folder, preset)
    return folder


def converted_folder(checkpoint: Path, side: str, size: Size) -> Path:
    """Where the converted stages lie, or would lie; another checkpoint of the same name has another folder."""
    weights = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    written = weights.stat().st_mtime_ns if weights.is_file() else 0
    key = zlib.crc32(f"{checkpoint.resolve()} {written}".encode())
    library = side.rsplit(" ", 1)[0].replace(" ", "-")
    return RESULTS / "converted" / f"{checkpoint.name}-{key:08x}-{library}-{size[0]}x{size[1]}"


def contestant_of(side: str, checkpoint: Path, size: Size, args: argparse.Namespace) -> Contestant:
    opened = args.packed.get(side.split()[-1], checkpoint) if side in OURS else checkpoint
    return Contestant(side, opened, args.threads, converted_folder(checkpoint, side, size))


# ---- the command ----


def sizes(text: str) -> list[Size]:
    """HEIGHTxWIDTH, or the longer side of a 3:4 image."""
    found = []
    for part in text.split(","):
        try:
            numbers = [int(number) for number in part.split("x")]
            height, width = numbers if len(numbers) == 2 else (numbers[0] * 3 // 4 // 8 * 8, *numbers)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part!r} is not HEIGHTxWIDTH") from None
        if min(height, width) < 8 or height % 8 or width % 8:
            raise argparse.ArgumentTypeError(f"{part}: height and width must be multiples of 8")
        found.append((height, width))
    return found


def choice(known: list[str]) -> Any:
    """Parses a comma-separated list of known names, "all" or "none"."""

    def parse(text: str) -> list[str]:
        if text in ("all", "none"):
            return known if text == "all" else []
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}, all, none")
        return names

    return parse


def packed(text: str) -> tuple[str, Path]:
    dtype, equals, path = text.partition("=")
    if not equals or f"marigold_c {dtype}" not in OURS:
        raise argparse.ArgumentTypeError(f"{text!r} is not DTYPE=PATH")
    return dtype, Path(path)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    dtypes = [side.split()[-1] for side in OURS]
    parser.add_argument("--checkpoint", help="a depth checkpoint folder with float32 weights")
    parser.add_argument("--peers", type=choice(list(PEERS)), default=list(PEERS), help="comma-separated, all, or none")
    parser.add_argument("--ours", type=choice(dtypes), default=dtypes, help="precisions; float32 is always among them")
    parser.add_argument(
        "--packed",
        type=packed,
        action="append",
        default=[],
        metavar="DTYPE=PATH",
        help="what ours opens for a precision instead of the checkpoint: its weights as marigold convert wrote them",
    )
    rows = [*STAGES, *PIPELINES]
    parser.add_argument("--rows", type=choice(rows), default=DEFAULT_ROWS, help=f"of {', '.join(rows)}, or all")
    parser.add_argument("--sizes", type=sizes, help="HEIGHTxWIDTH of the image, comma-separated; default 576x768")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", type=choice(PARTS), default=PARTS, help=f"of {','.join(PARTS)}, or none")
    parser.add_argument("--scaling", action="store_true", help="also one thread against all")
    parser.add_argument(
        "--growth",
        type=sizes,
        nargs="?",
        const=True,
        default=[],
        metavar="SIZES",
        help=f"also time and memory over sizes: longer sides or HEIGHTxWIDTH; default {GROWTH}",
    )
    parser.add_argument("--ours-only", action="store_true", help="the same as --peers none")
    parser.add_argument("--tiny", action="store_true", help="a small checkpoint and image, to try the script")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "peers.json", help="JSON; the tables go beside it (.md)"
    )
    args = parser.parse_args(arguments)
    args.sizes = args.sizes or sizes("64x96" if args.tiny else "576x768")
    if args.growth is True:
        args.growth = sizes("64,96,128" if args.tiny else GROWTH)
    args.packed = dict(args.packed)
    return args


def gather(bench: Bench, checkpoint: Path, peers: list[str], args: argparse.Namespace, show: Any) -> dict[str, Any]:
    """Runs the parts; show(report, table) after each."""
    report: dict[str, Any] = {"comparisons": []}

    def contestants(sides: list[str], size: Size) -> list[Contestant]:
        found = [contestant_of(side, checkpoint, size, args) for side in sides]
        for one in found:
            convert(one, size)
        return found

    ours = [side for side in OURS if side == REFERENCE or side.split()[-1] in args.ours]
    size = args.sizes[0]
    turns: list[str | None] = [*peers] or [None]
    for peer in turns if "rows" in args.parts else ():
        sides = [*ours, peer] if peer else ours
        report["comparisons"].append(compare(bench, contestants(sides, size), peer, args))
        show(report, comparison_table(report["comparisons"][-1]))
    if report["comparisons"] and (ratios := worst_ratios(report["comparisons"])):
        show(report, ratios)
    if {"memory", "start"} & set(args.parts):
        report["alone"] = alone(bench, contestants([*ours, *peers], size), args)
        show(report, alone_table(report["alone"]))
    if args.scaling:
        report["scaling"] = scale(bench, contestants(ours, size), args)
        show(report, scaling_table(report["scaling"], args.threads))
    if args.growth:
        report["growth"] = grow(bench, contestants(ours, size), args)
        show(report, growth_table(report["growth"]))
    return report


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    wanted = [] if args.ours_only else args.peers
    peers = [peer for peer in wanted if is_installed(peer)]
    for peer in (name for name in wanted if name not in peers):
        print(f"{peer}: {', '.join(PEERS[peer].modules)} are not all installed; left out", file=sys.stderr)
    checkpoint = checkpoint_of(args)
    text_width = json.loads((checkpoint / "unet" / "config.json").read_text("utf-8"))["cross_attention_dim"]
    facts: dict[str, Any] = {
        "processor": processor_name(),
        "threads": args.threads,
        "repeats": args.repeats,
        "versions": versions(peers),
        "checkpoint": checkpoint.name,
        "sizes": args.sizes,
    }
    named = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    texts = [f"{facts['processor']}, {args.threads} threads, {args.repeats} repeats, {named}"]
    print(texts[0])

    def show(report: dict[str, Any], table: str) -> None:
        """Prints, and keeps what there is: a long run may be interrupted."""
        texts.append(table)
        print(f"\n{table}", flush=True)
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps({**facts, **report}, indent=2), encoding="utf-8")
        args.output.with_suffix(".md").write_text("\n\n".join(texts) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        gather(Bench(Path(folder), text_width, args.repeats), checkpoint, peers, args, show)
    return 0


if __name__ == "__main__":
    sys.exit(main())
