"""The arrows of ARCHITECTURE.md within the package: which wing may import which, and that no files need each other.

An import counts wherever it stands: at the top, within a function, under TYPE_CHECKING. The one exception is
commands/cli.py, which imports the subcommand that is asked for by its name; it may know them all.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from draw_imports import circles, read_arrows, room_of  # noqa: E402

ARROWS = read_arrows()

# What rooms of all floors may use; they know nobody.
GROUND = ("_C", "_cuda", "_openblas", "atomic_files", "errors", "extras", "messages", "progress")
# commands -> app -> pipelines;
# commands -> training -> evaluation -> pipelines, datasets -> loading, images -> ground. Nobody below knows commands.
ALLOWED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(GROUND, ()),
    "images": GROUND,
    "loading": GROUND,
    "configurations": GROUND,
    "datasets": ("images", "configurations", *GROUND),
    "pipelines": ("loading", "images", *GROUND),
    "preparation": ("loading", "images", *GROUND),
    "evaluation": ("pipelines", "datasets", "images", *GROUND),
    "training": ("evaluation", "pipelines", "datasets", "loading", "images", "configurations", *GROUND),
    "app": ("pipelines", "loading", "images", *GROUND),
    "commands": ("app", "training", "evaluation", "preparation", "pipelines", "datasets", "loading", "images", *GROUND),
    "metrics": ("evaluation",),
    "utils": ("images",),
    "__init__": ("metrics", "utils", "training", "evaluation", "pipelines", "loading", "images", *GROUND),
    "__main__": ("commands",),
}


def test_every_room_has_its_row() -> None:
    assert {room_of(module) for module in ARROWS} == set(ALLOWED)


@pytest.mark.parametrize("module", sorted(ARROWS), ids=lambda module: module or "__init__")
def test_imports_follow_the_arrows(module: str) -> None:
    room = room_of(module)
    against = sorted(target for target in ARROWS[module] if room_of(target) not in (room, *ALLOWED[room]))
    assert not against, f"{room} may import only {', '.join(ALLOWED[room])}"


def test_published_sets_and_the_renderer_do_not_know_each_other() -> None:
    scenes = "preparation.scenes"
    assert not [
        name
        for name in ARROWS
        if name.startswith("preparation") and not name.startswith(scenes)
        for target in ARROWS[name]
        if target.startswith(scenes)
    ]
    known = {target for name in ARROWS if name.startswith(scenes) for target in ARROWS[name]}
    assert {name for name in known if name.startswith("preparation") and not name.startswith(scenes)} <= {
        "preparation.tone",
        "preparation.workers",
    }


def test_no_files_need_each_other() -> None:
    assert circles(ARROWS) == []


def test_the_package_imports_only_what_every_use_needs() -> None:
    """Progress bars, downloads, readers of rare files and workers are imported when they are first wanted."""
    code = "import sys, marigold_c; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(run.stdout.split())
    assert {"numpy", "PIL"} <= imported
    # The first three, which a bar brings along, would be an eighth of the time; the others are extras or for commands.
    later = "tqdm asyncio email concurrent multiprocessing http ssl argparse huggingface_hub yaml h5py tifffile"
    later += (
        " OpenEXR imagecodecs pi_heif matplotlib trimesh moderngl mitsuba embreex tensorboardX ray mpi4py av scipy"
        " torch"
    )
    assert not imported & set(later.split())
