"""Packed checkpoints, the single files that `marigold convert` makes; and configurations of checkpoints of either kind.

The engine opens and checks packed files (csrc/io/packed_file.h); here only their header is read, for what it tells.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

from ..errors import CheckpointError
from .config import Config, json_object, read_config
from .safetensors_header import parse_header, read_header_text

FORMAT = "marigold_c packed checkpoint"
# Texts of a packed file that say more than its model_index.json, and are read with it.
_NOTES = ("family", "task", "prediction_type", "boosting_inputs")
_BEGINNING = b'{"__metadata__":{"crc32":"'  # eight digits follow, zeros while they are computed


def is_packed(checkpoint: Path) -> bool:
    """Whether a checkpoint's path is that of a file, not of a folder."""
    return checkpoint.is_file()


def packed_texts(path: Path) -> Mapping[str, str]:
    """The texts in a packed file: configurations under their file names, dtype, isa, licence, notes of the tensors.

    CheckpointError for a file that is none, or whose header is not what its checksum says.
    """
    text = read_header_text(path)
    texts = parse_header(text, path).get("__metadata__")
    if not isinstance(texts, dict) or texts.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: a safetensors file, but not one that `marigold convert` made from a whole checkpoint"
        )
    end = len(_BEGINNING) + 8
    found = f"{zlib.crc32(text[end:], zlib.crc32(_BEGINNING + b'00000000')):08x}"
    if text[:end] != _BEGINNING + found.encode():
        raise CheckpointError(f"{path}: the header is damaged: its CRC-32 is {found}, it says {texts.get('crc32')}")
    return texts


class Configurations:
    """The configurations of a checkpoint under their file names in a folder, such as "unet/config.json"."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._texts = packed_texts(checkpoint) if is_packed(checkpoint) else None
        self.notes = {key: self._texts[key] for key in _NOTES if key in self._texts} if self._texts is not None else {}

    def __getitem__(self, name: str) -> Config:
        path = self.checkpoint / name
        if self._texts is None:
            if name == "model_index.json" and self.checkpoint.is_dir() and not path.is_file():
                raise FileNotFoundError(f"{self.checkpoint} is no checkpoint: it has no {name}")
            return read_config(path)
        if name not in self._texts:
            raise CheckpointError(f"{self.checkpoint}: __metadata__ has no {name!r}")
        config = json_object(self._texts[name], path)
        if name == "model_index.json":
            config = {**config, **self.notes}
        return Config(config)
