"""The first hour on an NVIDIA GPU, unattended: what the CUDA backend was built without, everything that only a GPU can
tell, in one JSON and one Markdown file.

    tools/first_hour.sh [--output FOLDER] [--minutes 55] [--steps NAME ...] [--tiny] [--emulated]

A step is a process of its own with a time limit of its own. One that fails or takes too long is written down with the
end of what it printed, and the next one goes on; both files are written anew after each step. --tiny takes a small
network and small maps; --emulated takes the emulated device of tests/cuda_emu, to try the script without a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests"), str(ROOT / "tools")]
TAIL = 25  # lines of a step's output that the report keeps
EMULATED = 10  # times the limits of a GPU
Report = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    output: Path
    minutes: float
    tiny: bool
    emulated: bool

    @property
    def library(self) -> Path:
        if self.emulated:
            return BUILD / "cuda_emu" / "libmarigold_cuda_emu.so"
        return BUILD / "cuda" / "libmarigold_cuda.so"

    @property
    def checkpoint(self) -> Path:
        return self.output / ("tiny" if self.tiny else "sd2")

    @property
    def size(self) -> tuple[int, int]:
        return (16, 16) if self.tiny else (768, 768)

    def arguments(self) -> list[str]:
        """That make another process have the same settings."""
        chosen = [f"--{name}" for name in ("tiny", "emulated") if getattr(self, name)]
        return ["--output", str(self.output), *chosen]


@dataclass(frozen=True)
class Step:
    """`command` gives the arguments of a process, which writes what it finds into the file it is given, as JSON;
    `missing` says what is not there that the step needs."""

    name: str
    minutes: float
    command: Callable[[Settings, Path], list[str]]
    environment: dict[str, str] = field(default_factory=dict)
    missing: Callable[[Settings], str] = lambda _: ""


# ---- steps that are functions of this file ----

FUNCTIONS: dict[str, Callable[[Settings], Any]] = {}


def function(found: Callable[[Settings], Any]) -> Callable[[Settings], Any]:
    """Of a step: the figures that it returns go into the report."""
    FUNCTIONS[found.__name__] = found
    return found


def by_function(name: str) -> Callable[[Settings, Path], list[str]]:
    return lambda settings, figures: [
        *(sys.executable, str(Path(__file__)), "--function", name, "--figures", str(figures)),
        *settings.arguments(),
    ]


def first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"none ({error})"
    return done.stdout.strip().splitlines()[-1]


@function
def machine(settings: Settings) -> Report:
    query = "name,driver_version,memory.total,clocks.max.sm,power.limit,compute_cap"
    return {
        "GPU": first_line("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"),
        "nvcc": first_line("nvcc", "--version"),
        "processors": os.cpu_count(),
        "commit": first_line("git", "-C", str(ROOT), "rev-parse", "HEAD"),
        "emulated": settings.emulated,
    }


@function
def checkpoint(settings: Settings) -> Report:
    from make_sd2_checkpoint import write_checkpoint

    if (settings.checkpoint / "model_index.json").is_file():
        return {"parameters": "there already"}
    return {"parameters": write_checkpoint(settings.checkpoint, "tiny" if settings.tiny else "sd2")}


def open_pipeline(settings: Settings, scale: int = 1) -> tuple[Any, Callable[..., Any]]:
    """A pipeline in float16, and a call of it with a picture of noise."""
    import numpy as np

    import marigold_c as mc

    importlib.import_module("marigold_c._cuda").load_libraries()
    pipe: Any = mc.MarigoldDepthPipeline.from_pretrained(settings.checkpoint, dtype="float16", device="cuda")
    pipe.set_progress_bar_config(disable=True)
    height, width = (scale * side for side in settings.size)
    picture = np.random.default_rng(0).random((height, width, 3), dtype=np.float32)

    def predict(seed: int = 0, **options: Any) -> Any:
        given = {"num_inference_steps": 1, "processing_resolution": 0, "generator": seed, **options}
        return pipe(picture, **given).prediction

    return pipe, predict


@function
def operations(settings: Settings) -> list[Report]:
    """Of the second picture, in which cuBLASLt has chosen its kernels."""
    lines = settings.output / "operations.jsonl"
    lines.unlink(missing_ok=True)
    os.environ["MARIGOLD_CUDA_TIMES"] = str(lines)
    pipe, predict = open_pipeline(settings)
    predict()
    os.truncate(lines, 0)
    predict()
    del pipe  # whose file is then whole
    return list(by_group([json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]))


def group_of(timed: Report) -> str:
    """As in the estimate (tools/cuda_estimate.py)."""
    name, shapes = timed["operation"], timed["in"]
    if name == "conv2d":
        return "linear" if shapes[1][2:] == [1, 1] else "convolutions"
    if name == "attention":  # of Stable Diffusion's: the autoencoder's one head has all 512 channels
        return "attention, head 512" if shapes[0][3] == 512 else "attention, head 64"
    return {"linear": "linear", "groupnorm": "group norm"}.get(name, "rest")


def by_group(timed: list[Report]) -> Iterator[Report]:
    for group in ("convolutions", "linear", "attention, head 64", "attention, head 512", "group norm", "rest"):
        own = [one for one in timed if group_of(one) == group]
        slowest = sorted(own, key=lambda one: -one["ms"])[:5]
        yield {"group": group, "calls": len(own), "ms": sum(one["ms"] for one in own), "slowest": slowest}


@function
def kernels(settings: Settings) -> Report:
    """Each kernel with shared memory or inline assembly, on odd sizes: what the PTX interpreter runs, too."""
    from ptx.cases import all_runs

    chosen = all_runs()[:: 8 if settings.tiny else 1]
    for run in chosen:
        run()
    return {"runs": len(chosen)}


@function
def training(settings: Settings) -> Report:
    import numpy as np

    import marigold_c as mc

    importlib.import_module("marigold_c._cuda").load_libraries()
    trainer = mc.Trainer.from_pretrained(
        settings.checkpoint, task="depth", dtype="bfloat16", device="cuda", gradient_checkpointing=True
    )
    rng = np.random.default_rng(0)
    h, w = (side // 8 for side in settings.size)
    image, target, noise = (rng.standard_normal((1, 4, h, w)).astype(np.float32) for _ in range(3))
    seconds, losses = [], []
    for _ in range(2 if settings.tiny else 6):
        begin = time.perf_counter()
        losses.append(trainer.train_step(image, target, noise, [500])[0])
        seconds.append(time.perf_counter() - begin)
    return {"seconds of a step": min(seconds[1:]), "losses": losses, "memory": trainer.memory_stats()}


@function
def cancelling(settings: Settings) -> Report:
    """Ctrl-C in the midst of a long run ends it soon, and the pipeline goes on as before."""
    import numpy as np

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    _, predict = open_pipeline(settings)
    expected = predict()
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.5, press)
    timer.start()
    try:
        predict(num_inference_steps=1000)
    except KeyboardInterrupt:
        stopped = time.perf_counter() - pressed[0]
    else:
        raise RuntimeError("a run of 1000 steps was over before it was interrupted")
    return {"seconds until it stopped": stopped, "same result afterwards": bool(np.array_equal(predict(), expected))}


@function
def out_of_memory(settings: Settings) -> Report:
    """A batch that does not fit is told as such, and the pipeline goes on as before."""
    import numpy as np

    _, predict = open_pipeline(settings, 1 if settings.emulated else 2)
    expected = predict()
    if settings.emulated:  # whose memory has no end otherwise
        import ctypes

        emulated = ctypes.CDLL(str(settings.library))
        emulated.mg_emu_used_memory.restype = ctypes.c_ulonglong
        emulated.mg_emu_set_memory(ctypes.c_ulonglong(emulated.mg_emu_used_memory() + (1 << 20)), ctypes.c_ulonglong(0))
    try:
        predict(ensemble_size=256, batch_size=256)
    except MemoryError as error:
        message = str(error)
    else:
        raise RuntimeError("256 members fit into this GPU at once")
    return {"message": message, "same result afterwards": bool(np.array_equal(predict(), expected))}


@function
def two_threads(settings: Settings) -> Report:
    """Two pipelines on one GPU at once give what each gives alone."""
    import numpy as np

    predictions = [open_pipeline(settings)[1] for _ in range(2)]
    expected = [predict(seed) for seed, predict in enumerate(predictions)]
    same: list[bool] = []

    def repeat(seed: int) -> None:
        for _ in range(2 if settings.tiny else 10):
            same.append(bool(np.array_equal(predictions[seed](seed), expected[seed])))

    threads = [threading.Thread(target=repeat, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"runs": len(same), "same results": all(same)}


# ---- the steps ----


def build(settings: Settings, _: Path) -> list[str]:
    if settings.emulated:
        return [sys.executable, str(ROOT / "tests" / "cuda_emu" / "build.py"), str(settings.library)]
    return [sys.executable, str(ROOT / "tools" / "build_cuda.py"), str(settings.library.parent)]


def suite(settings: Settings, _: Path) -> list[str]:
    chosen = ["-k", "test_pieces or test_recordings_compute"] if settings.tiny else []
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/cuda", *chosen]


def speed(sides: tuple[str, ...] = (), operations: tuple[str, ...] = ()) -> Callable[[Settings, Path], list[str]]:
    def command(settings: Settings, figures: Path) -> list[str]:
        few = ["--tiny", "--repeats", "1", "--members", "2"] if settings.tiny else ["--repeats", "5"]
        return [
            *(sys.executable, str(ROOT / "benchmarks" / "cuda.py"), "--folder", str(settings.checkpoint), *few),
            *("--size", *map(str, settings.size), "--output", str(figures)),
            *("--sides", *sides, "--operations", *operations),
        ]

    return command


def torch_is_missing(settings: Settings) -> str:
    from cuda import has_torch  # benchmarks/cuda.py

    return "" if not settings.emulated and has_torch("cuda") else "torch and diffusers with this GPU"


def tool(name: str) -> str | None:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which(name) or shutil.which(name, path=f"{home}/bin:{home}/compute-sanitizer")


def sanitizer(check: str) -> Step:
    def command(settings: Settings, figures: Path) -> list[str]:
        guard = [tool("compute-sanitizer") or "", "--tool", check, "--error-exitcode", "9", "--print-limit", "20"]
        return [*guard, *by_function("kernels")(settings, figures)]

    def missing(_: Settings) -> str:
        return "" if tool("compute-sanitizer") else "compute-sanitizer"

    return Step(check, 2, command, missing=missing)


OURS = ("float16", "bfloat16", "TF32", "float32")
PEERS = (
    *("float16", "float16, channels last", "bfloat16, channels last", "bfloat16, channels last, compiled"),
    *("TF32", "float32"),
)
VARIANTS = {
    "narrow tiles": {"MARIGOLD_CUDA_CONV2D_TILE": "narrow"},
    "wide tiles": {"MARIGOLD_CUDA_CONV2D_TILE": "wide"},
    "tiled attention": {"MARIGOLD_CUDA_ATTENTION": "tiled"},
    "no recordings": {"MARIGOLD_CUDA_GRAPHS": "0"},
}
STEPS = [
    Step("machine", 0.5, by_function("machine")),
    Step("build", 6, build, {"MARIGOLD_CUDA_ARCHITECTURES": "native"}),
    Step("kernels", 1, by_function("kernels")),
    Step("checkpoint", 2, by_function("checkpoint")),
    *(Step(name, 2, speed((name,))) for name in OURS),
    *(Step(f"diffusers, {name}", 1.5, speed((f"diffusers, {name}",)), missing=torch_is_missing) for name in PEERS),
    Step("operations", 1, by_function("operations")),
    Step("single operations", 1.5, speed((), ("float16",))),
    *(Step(name, 1.5, speed(("float16",), ("float16",)), value) for name, value in VARIANTS.items()),
    Step("training", 2, by_function("training")),
    *(Step(name, 1, by_function(name)) for name in ("cancelling", "out_of_memory")),
    Step("two_threads", 1, by_function("two_threads"), missing=lambda given: "a GPU" if given.emulated else ""),
    Step("suite", 7, suite),
    *(sanitizer(check) for check in ("memcheck", "racecheck", "synccheck", "initcheck")),
]


# ---- running them ----


def run_step(step: Step, settings: Settings, seconds: float) -> Report:
    if seconds <= 0:
        return {"state": "left out", "why": "the time is over"}
    missing = step.missing(settings)
    if missing:
        return {"state": "left out", "why": f"not there: {missing}"}
    figures, log = (settings.output / "steps" / f"{step.name}{suffix}" for suffix in (".json", ".txt"))
    log.parent.mkdir(parents=True, exist_ok=True)
    figures.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "MARIGOLD_CUDA_LIBRARY": str(settings.library),
        "MARIGOLD_TEST_CUDA": "emulated" if settings.emulated else "real",
        **step.environment,
    }
    limit = min(60 * step.minutes * (EMULATED if settings.emulated else 1), seconds)
    begin = time.perf_counter()
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            step.command(settings, figures), cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(limit)
            state = "failed" if code else "done"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code, state = process.wait(), "too long"
    found: Report = {"state": state, "seconds": time.perf_counter() - begin, "limit": limit, "exit code": code}
    if state != "done":
        found["output"] = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
    if figures.is_file():  # of a step that took too long: what there was
        found["figures"] = json.loads(figures.read_text(encoding="utf-8"))
    return found


# ---- the report ----

# Milliseconds for 768x768, by tools/cuda_estimate.py: between what its two bounds are.
PAPER_GPUS = ("RTX 3090", "RTX 4090", "H100")
ON_PAPER = {
    "convolutions": ("137 to 330", "59 to 145", "31 to 112"),
    "linear": ("14 to 18", "6 to 10", "1.4 to 2.3"),
    "attention, head 64": ("10 to 19", "4 to 8", "1.7 to 5.9"),
    "attention, head 512": ("6.5 to 10", "3.3 to 6.1", "1.0 to 1.5"),
    "group norm": ("13", "12", "3.5"),
    "rest": ("1.6", "1.5", "0.5"),
    "total": ("182 to 392", "86 to 182", "39 to 126"),
}


def remark(found: Report) -> str:
    if "why" in found:
        return str(found["why"])
    if found["state"] == "done":
        return ""
    lines = [line.strip() for line in found["output"] if line.strip()] or [f"exit code {found['exit code']}"]
    return lines[-1].replace("|", "/")[:120]


def figures_of(steps: Report, name: str) -> Any:
    return steps.get(name, {}).get("figures") or {}


def speed_table(steps: Report) -> str:
    """A column for each side: the engine's, its variants', diffusers'."""
    from peer_tables import markdown

    sides = {
        name: next(iter(sides.values()))
        for name, found in steps.items()
        if isinstance(found.get("figures"), dict) and (sides := found["figures"].get("sides"))
    }
    if not sides:
        return ""
    names = list(dict.fromkeys(name for side in sides.values() for name in side))

    def cell(name: str, side: dict[str, float]) -> str:
        if name not in side:
            return ""
        return f"{side[name]:.2f}" if name.startswith("memory") else f"{1e3 * side[name]:.1f} ms"

    return markdown(["", *names], [[title, *(cell(name, side) for name in names)] for title, side in sides.items()])


def operation_tables(steps: Report) -> Iterator[str]:
    from peer_tables import markdown

    groups = figures_of(steps, "operations")
    if groups:
        rows = [[one["group"], str(one["calls"]), f"{one['ms']:.2f}", *ON_PAPER[one["group"]]] for one in groups]
        total = [str(sum(one["calls"] for one in groups)), f"{sum(one['ms'] for one in groups):.2f}"]
        rows.append(["total", *total, *ON_PAPER["total"]])
        yield "A picture by operations, float16, each waited for (a few microseconds of each are its launch's)"
        yield markdown(["", "calls", "ms", *(f"{name} on paper" for name in PAPER_GPUS)], rows)
    single = {"as it chooses": "single operations"} | {name: name for name in VARIANTS}
    found = {title: figures_of(steps, name).get("operations", {}).get("float16") for title, name in single.items()}
    found = {title: listed for title, listed in found.items() if listed}
    if found:
        first = next(iter(found.values()))
        rows = [
            [one["operation"], *(f"{1e3 * listed[i]['seconds']:.3f}" for listed in found.values())]
            for i, one in enumerate(first)
        ]
        yield "Single operations, float16, ms"
        yield markdown(["", *found], rows)


def markdown_of(report: Report) -> str:
    from peer_tables import markdown

    steps = report["steps"]
    rows = [
        [name, found["state"], f"{found['seconds']:.0f}" if "seconds" in found else "", remark(found)]
        for name, found in steps.items()
    ]
    facts = [f"- {name}: {fact}" for name, fact in figures_of(steps, "machine").items()]
    others = [
        f"- {name}: {json.dumps(figures_of(steps, name))}"
        for name in ("training", "cancelling", "out_of_memory", "two_threads")
        if figures_of(steps, name)
    ]
    parts = [
        "# The first hour on a GPU",
        "\n".join(facts),
        markdown(["step", "state", "seconds", ""], rows),
        speed_table(steps),
        *operation_tables(steps),
        "\n".join(others),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def save(report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "first_hour.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    (folder / "first_hour.md").write_text(markdown_of(report), encoding="utf-8")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "first_hour")
    parser.add_argument("--minutes", type=float, default=55.0, help="of all steps together")
    parser.add_argument("--steps", nargs="*", choices=[step.name for step in STEPS], metavar="NAME")
    parser.add_argument("--tiny", action="store_true", help="a small network and small maps")
    parser.add_argument("--emulated", action="store_true", help="without a GPU")
    parser.add_argument("--function", choices=list(FUNCTIONS), help=argparse.SUPPRESS)
    parser.add_argument("--figures", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    settings = Settings(args.output.resolve(), args.minutes, args.tiny, args.emulated)
    if args.function:
        found = FUNCTIONS[args.function](settings)
        args.figures.write_text(json.dumps(found, indent=2), encoding="utf-8")
        return 0
    report: Report = {"steps": {}}
    end = time.perf_counter() + 60 * settings.minutes
    for step in STEPS:
        if args.steps is None or step.name in args.steps:
            found = run_step(step, settings, end - time.perf_counter())
            report["steps"][step.name] = found
            print(f"{step.name}: {found['state']} {remark(found)}", flush=True)
            save(report, settings.output)
    print(f"The report is in {settings.output}: first_hour.md, first_hour.json")
    return int(any(found["state"] in ("failed", "too long") for found in report["steps"].values()))


if __name__ == "__main__":
    sys.exit(main())
