"""Where a checkpoint lies: a folder, a hub id that is downloaded, or the small one shipped in the package."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path
from typing import Any

WEIGHT_STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SMALL_FILES = (
    *("model_index.json", "README.md", "LICENSE*", "scheduler/scheduler_config.json", "tokenizer/*"),
    *(f"{component}/config.json" for component in WEIGHT_STEMS),
)


def default_checkpoint(task: str = "depth") -> Path:
    """The small checkpoint shipped in the package: a demonstration, far from the quality of the paper's."""
    folder = Path(__file__).parent / "checkpoints" / f"marigold-tiny-{task}"
    if not (folder / "model_index.json").is_file():
        raise ValueError(f"no checkpoint for {task!r} is shipped; shipped: {', '.join(shipped_tasks()) or 'none'}")
    return folder


def shipped_tasks() -> list[str]:
    folders = (Path(__file__).parent / "checkpoints").glob("marigold-tiny-*/model_index.json")
    return sorted(path.parent.name.removeprefix("marigold-tiny-") for path in folders)


def weight_patterns(component: str, variant: str | None) -> list[str]:
    """File names of a component's weights: one file, or shards with their index."""
    stem = WEIGHT_STEMS[component]
    if variant is None:
        names = [f"{stem}.safetensors", f"{stem}-?????-of-?????.safetensors", f"{stem}.safetensors.index.json"]
    else:
        names = [
            f"{stem}.{variant}.safetensors",
            f"{stem}.{variant}-?????-of-?????.safetensors",
            f"{stem}-?????-of-?????.{variant}.safetensors",
            f"{stem}.safetensors.index.{variant}.json",
        ]
    return [f"{component}/{name}" for name in names]


def has_weights(folder: Path, component: str, variant: str | None) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in weight_patterns(component, variant))


def resolve_variant(folder: Path, variant: str | None) -> str | None:
    """The variant asked for; "fp16" where none was asked for and a component has its weights under that name only."""
    if variant is not None:
        return variant
    lacking = [component for component in WEIGHT_STEMS if not has_weights(folder, component, None)]
    return "fp16" if lacking and all(has_weights(folder, component, "fp16") for component in lacking) else None


def _download(repository: str, variant: str | None, **hub: Any) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            f"{repository!r} is no folder here, and downloading it from the hub needs huggingface_hub: "
            "pip install 'marigold-c[hub]'"
        ) from error

    def fetch(which: str | None) -> Path:
        weights = [pattern for component in WEIGHT_STEMS for pattern in weight_patterns(component, which)]
        return Path(snapshot_download(repository, allow_patterns=[*_SMALL_FILES, *weights], **hub))

    folder = fetch(variant)
    if variant is None and not all(has_weights(folder, component, None) for component in WEIGHT_STEMS):
        folder = fetch("fp16")
    return folder


def resolve_folder(
    path_or_id: str | PathLike[str],
    variant: str | None = None,
    cache_dir: str | PathLike[str] | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The folder of a checkpoint, downloaded first if `path_or_id` is a hub id."""
    path = Path(path_or_id).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise NotImplementedError(f"{path} is a file; only folders in diffusers layout can be loaded so far")
    if isinstance(path_or_id, str) and _HUB_ID.fullmatch(path_or_id):
        return _download(
            path_or_id,
            variant,
            cache_dir=cache_dir,
            revision=revision,
            local_files_only=local_files_only,
            token=token,
        )
    raise FileNotFoundError(f"no checkpoint at {str(path_or_id)!r}: no such folder, and not a hub id (owner/name)")
