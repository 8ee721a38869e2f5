"""Where a run is, as its checkpoints keep it, and whether a configuration goes on with it. Called by run.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..configurations.yaml_tree import ConfigError, load_tree, plain
from ..errors import CheckpointError
from .checkpoints import STATE_FILE, read_state
from .settings import TrainingConfig

_STATE_VERSION = 1
# Keys that may change between the parts of a run; any other would make it another run.
_FREE_KEYS = (
    *("logging", "wandb", "validation", "eval", "dataset.val", "dataset.vis"),
    *("dataloader.num_workers", "dataloader.latent_cache", "trainer.keep_backups"),
    *(f"trainer.{one}_period" for one in ("save", "backup", "validation", "visualization")),
)


@dataclass
class State:
    """Where a run is. batches: how many were used. in_validation: the validation of this iteration is not done."""

    seed: int
    loader_seed: int
    seed_count: int
    iteration: int = 0
    batches: int = 0
    best_metric: float | None = None
    best_iteration: int | None = None
    in_validation: bool = False
    version: int = _STATE_VERSION


def state_from(folder: Path) -> State:
    values = read_state(folder)
    if values.get("version") != _STATE_VERSION or set(values) != set(State.__dataclass_fields__):
        raise CheckpointError(f"{folder / STATE_FILE}: not the state of a run that this version can go on from")
    return State(**values)


def _flattened(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        parts = [_flattened(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()]
        return {key: item for part in parts for key, item in part.items()}
    return {path: value}


def check_same(config: TrainingConfig, saved: Path) -> None:
    """ConfigError if the configuration differs from the one that the run began with in what decides the weights."""
    before, now = _flattened(plain(load_tree(saved))), _flattened(config.plain)
    for key in sorted({*before, *now}):
        free = any(key == one or key.startswith((f"{one}.", f"{one}[")) for one in _FREE_KEYS)
        if not free and before.get(key) != now.get(key):
            raise ConfigError(
                f"{config.file}: {key} is {now.get(key)!r}, but the run in {saved.parent} began with "
                f"{before.get(key)!r}; go on with that, or choose another folder"
            )
