"""`marigold convert`: a checkpoint as one packed file (csrc/pipeline/save.c writes it)."""

from __future__ import annotations

import errno
import os
from os import PathLike
from pathlib import Path
from typing import Any

from .. import _C
from .families import kind_of, refines, warn_of_restriction
from .folders import explaining_damage, resolve_folder, resolve_unet_folder, resolve_vae_folder
from .inspection import licence_of
from .options import checked_threads, dtype_name
from .packed import Configurations, is_packed


def convert(
    src: str | PathLike[str],
    dst: str | PathLike[str],
    dtype: Any = None,
    variant: str | None = None,
    force: bool = False,
    num_threads: int | None = None,
    vae: str | PathLike[str] | None = None,
    cache_dir: str | PathLike[str] | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    family: str | None = None,
    task: str | None = None,
    prediction_type: str | None = None,
    unet: str | PathLike[str] | None = None,
    text_tokens: int | None = None,
) -> Path:
    """Packs a checkpoint into one file, which opens without reading or re-ordering a weight.

    It is made for the instruction set of this processor; others re-order the weights when they open it. The file
    appears whole or not at all.

    Args:
        src: A folder, a hub id or a packed file.
        dst: The file to write.
        dtype: "float32", "bfloat16" or "int8"; None: that of a packed file, else float32.
        variant: Which weight files, as for from_pretrained.
        force: Replace `dst` if it exists.
        num_threads: None: all processors that this process may use.
        vae: Of from_pretrained; it is packed in the place of the checkpoint's own.
        cache_dir: Where downloads are kept.
        revision: Branch, tag or commit of the repository.
        local_files_only: Take what was downloaded before, and ask no network.
        token: For gated repositories; True: the one that was stored.
        family, task, prediction_type, unet, text_tokens: Of `load`; the file says them to whoever opens it.

    Returns:
        `dst`.

    Raises:
        FileExistsError: `dst` exists, and force is not set. Otherwise as from_pretrained.
    """
    target = Path(dst).expanduser()
    if not force and target.exists():  # before anything is downloaded; the engine asks again
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source = resolve_folder(src, variant, cache_dir, revision, local_files_only, token)
    other_unet = None if unet is None else resolve_unet_folder(unet, cache_dir, local_files_only, token)
    kind = kind_of(source, family, task, prediction_type, other_unet, text_tokens)
    options: dict[str, Any] = kind.options()
    options["boosting"] = refines(source)
    if vae is not None:
        options["vae"] = resolve_vae_folder(vae, cache_dir, local_files_only, token)
    with explaining_damage(source):
        engine = _C.Pipeline(
            source,
            variant=variant,
            dtype=dtype_name(source, dtype),
            num_threads=checked_threads(num_threads),
            isa=os.environ.get("MARIGOLD_ISA") or None,
            task=kind.task,
            **options,
        )
    info = engine.info()
    warn_of_restriction(info["family"], info["restriction"])
    configurations = Configurations(source)
    index, noted = configurations["model_index.json"], "prediction_type" in configurations.notes
    written = None if noted else index.get("prediction_type")
    engine.save(
        target,
        licence=licence_of(source),
        replace=force,
        prediction_type=None if kind.prediction_type == written else kind.prediction_type,
    )
    return target


def verify(checkpoint: Path) -> None:
    """Reads a packed file whole and compares every weight with its checksum, which opening does not: CheckpointError if
    one differs."""
    if not is_packed(checkpoint):
        raise ValueError(f"{checkpoint} is a folder; only packed files have checksums")
    _C.verify_packed(checkpoint)
