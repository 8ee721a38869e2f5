"""`marigold prepare scenes`: endless labelled rooms, streets and landscapes.

A scene follows from the seed and its number alone, so any number of processes, and any later run, make the same ones. A
scene is whole or absent (layout.py); a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...atomic_files import write_atomically
from ...extras import check_module
from ...messages import explain
from ..tone import picture
from ..workers import end_with_parent
from . import layout, rendering
from .description import Scene
from .houses import make_street
from .landscapes import make_landscape
from .rooms import make_room

GENERATOR = 1  # grows whenever the same seed makes other scenes
SETTINGS = "scenes.json"
_ATTEMPTS = 12
_KINDS: tuple[tuple[Callable[[np.random.Generator], Scene], float], ...] = (
    (make_room, 0.6),
    (make_street, 0.18),
    (make_landscape, 0.22),
)


class SceneError(RuntimeError):
    """A scene could not be made; the message names it."""


@dataclass(frozen=True)
class Settings:
    """What the scenes of a folder have in common. size: (height, width) of the pictures."""

    seed: int
    size: tuple[int, int]
    samples_per_pixel: int = 16

    def __post_init__(self) -> None:
        height, width = self.size
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be 0 or more")
        if min(height, width) < 16 or max(height, width) > 4096:
            raise ValueError(f"size={height}x{width}: both sides must be between 16 and 4096 pixels")
        if not 1 <= self.samples_per_pixel <= 65536:
            raise ValueError(f"samples_per_pixel={self.samples_per_pixel}: must be between 1 and 65536")


def describe_scene(seed: int, index: int, attempt: int = 0) -> tuple[Scene, int]:
    """The scene before it is rendered, and the seed of its rendering."""
    rng = np.random.default_rng([seed, index, attempt])
    makers, shares = [maker for maker, _ in _KINDS], [share for _, share in _KINDS]
    # The kind does not depend on the attempt: useless views must not change the mixture.
    kind = int(np.random.default_rng([seed, index]).choice(len(makers), p=shares))
    return makers[kind](rng), int(rng.integers(2**18))


def render_scene(settings: Settings, index: int) -> tuple[rendering.Labels, dict[str, Any]]:
    """Scene number `index`: its labels and its metadata. SceneError, which names it; MissingExtra."""
    reason = ""
    for attempt in range(_ATTEMPTS):
        try:
            scene, seed = describe_scene(settings.seed, index, attempt)
            labels = rendering.render(scene, settings.size, settings.samples_per_pixel, seed)
        except rendering.UselessScene as useless:
            reason = str(useless)
            continue
        except (ImportError, MemoryError):
            raise
        except Exception as error:
            raise SceneError(f"scene {index} of seed {settings.seed}, attempt {attempt}: {explain(error)}") from error
        metadata = {
            "format": "marigold scene 1",
            "generator": GENERATOR,
            "kind": scene.kind,
            "index": index,
            "attempt": attempt,
            **_plain(settings),
            "field_of_view": scene.camera.field_of_view,
        }
        return labels, metadata
    raise SceneError(f"scene {index} of seed {settings.seed}: {_ATTEMPTS} attempts gave no useful view; {reason}")


def _plain(settings: Settings) -> dict[str, Any]:
    return {**asdict(settings), "size": list(settings.size)}


def _label(labels: rendering.Labels, name: str) -> NDArray[np.float32]:
    if name == "material":
        return np.stack([labels.roughness, labels.metallicity, np.zeros_like(labels.roughness)], axis=-1)
    values: NDArray[np.float32] = getattr(labels, "rgb" if name == "linear" else name)
    return values


def _write(root: Path, settings: Settings, index: int, names: tuple[str, ...]) -> None:
    labels, metadata = render_scene(settings, index)
    values = {name: _label(labels, name) for name in names}
    layout.write_sample(root, layout.sample_name(index), picture(labels.rgb), values, metadata)


def _in_worker() -> None:
    """Workers share the processors; each renders with one thread."""
    end_with_parent()
    rendering.use_one_thread()


def _open(root: Path, settings: Settings, labels: tuple[str, ...]) -> None:
    """The folder, with the settings of its scenes. ValueError if it has scenes of other settings."""
    wanted = {"format": "marigold scenes 1", "generator": GENERATOR, **_plain(settings), "labels": list(labels)}
    root.mkdir(parents=True, exist_ok=True)
    path = root / SETTINGS
    if not path.exists():
        content = (json.dumps(wanted, indent=1) + "\n").encode()
        write_atomically(path, lambda file: file.write(content))
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    different = [f"{key}={found.get(key)!r}" for key in wanted if found.get(key) != wanted[key]]
    if different:
        raise ValueError(
            f"{root} has scenes made with {', '.join(different)}; take another folder or the same settings"
        )


def make_scenes(
    root: Path,
    count: int,
    settings: Settings,
    labels: tuple[str, ...] = layout.DEFAULT_LABELS,
    workers: int = 1,
    start: int = 0,
) -> Iterator[tuple[int, str | None]]:
    """Writes scenes `start` to `start + count - 1` into `root`; those that are there are kept.

    Yields the number of each finished scene, in the order in which they finish, with None or what went wrong.
    ValueError: `root` has scenes of other settings. MissingExtra: Mitsuba is not installed.
    """
    check_module("mitsuba", "rendering scenes")
    _open(root, settings, labels)
    missing = [i for i in range(start, start + count) if not layout.is_complete(root, layout.sample_name(i))]
    if workers == 1:
        for index in missing:
            yield index, _attempt(root, settings, index, labels)
        return
    context = multiprocessing.get_context("spawn")  # forking a process that has threads may hang
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_in_worker) as pool:
        tasks = {pool.submit(_attempt, root, settings, index, labels): index for index in missing}
        try:
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _attempt(root: Path, settings: Settings, index: int, labels: tuple[str, ...]) -> str | None:
    try:
        _write(root, settings, index, labels)
    except SceneError as error:
        return explain(error)
    except OSError as error:
        return f"scene {index} of seed {settings.seed}: {explain(error)}"
    return None
