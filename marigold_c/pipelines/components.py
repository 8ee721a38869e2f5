"""The parts of a pipeline for work stage by stage: VAE and UNet, on NCHW float32 arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _C
from ..loading.config import Config, read_config
from ..loading.folders import resolve_vae_folder
from ..loading.options import VAE_TILE
from ..loading.packed import is_packed
from .compatibility import NetworkSettings, no_effect


def _described(part: object, config: Config, *names: str) -> str:
    """Class and facts of a configuration in one line, as far as it states them."""
    facts = ", ".join(f"{name}={config[name]!r}" for name in names if name in config)
    return f"{type(part).__name__}({facts})"


class AutoencoderTiny(NetworkSettings):
    """The place of a tiny autoencoder (TAESD): pipe.vae = AutoencoderTiny.from_pretrained("madebyollin/taesd")."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: Config = read_config(folder / "config.json")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        dtype: Any = None,
        torch_dtype: Any = None,
        cache_dir: str | PathLike[str] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Self:
        """A folder with config.json and weights, or a hub id that is downloaded first. It is computed in the precision
        of the pipeline that takes it, so dtype and torch_dtype are accepted and have no effect."""
        del dtype, torch_dtype
        return cls(resolve_vae_folder(pretrained_model_name_or_path, cache_dir, local_files_only, token, revision))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

    def enable_tiling(self, use_tiling: bool = True) -> None:
        """Accepted; has no effect here: the pipeline that takes it has enable_vae_tiling."""
        no_effect("enable_tiling", "it is said to the pipeline (enable_vae_tiling)")

    def disable_tiling(self) -> None:
        """Accepted; has no effect here: as enable_tiling."""
        no_effect("disable_tiling", "it is said to the pipeline (disable_vae_tiling)")


@dataclass(frozen=True)
class TextEncoder(NetworkSettings):
    """What a checkpoint's text encoder is. It cannot be called: a pipeline keeps its embedding of the empty prompt, the
    only one that is used (pipe.empty_text_embedding)."""

    config: Config
    dtype: str

    def __repr__(self) -> str:
        return _described(self, self.config, "hidden_size", "num_hidden_layers", "max_position_embeddings")


@dataclass(frozen=True)
class Tokenizer:
    """What a checkpoint's tokenizer is; no prompt but the empty one is used, so that nothing is tokenized."""

    config: Config

    def __repr__(self) -> str:
        return _described(self, self.config, "tokenizer_class", "model_max_length")


@dataclass
class Tiling:
    """Whether a pipeline's autoencoder works in tiles ("auto", "on", "off"), and their pixels. The pipeline and its VAE
    have one, so that a pipeline that is opened again goes on as its VAE was told."""

    choice: str = "auto"
    size: int = VAE_TILE

    def set(self, engine: _C.Pipeline, choice: str, size: int) -> None:
        engine.set_vae_tiling(choice, size)
        self.choice, self.size = choice, size


class VAE(NetworkSettings):
    """A pipeline's autoencoder: `encode` gives the posterior's mean, unscaled, and `decode` takes unscaled latents."""

    def __init__(self, engine: _C.Pipeline, folder: Path, config: Config, tiling: Tiling) -> None:
        """folder: where it lies, or the packed file that it is in. tiling: its pipeline's."""
        self._engine = engine
        self._tiling = tiling
        self.folder = folder
        self.config = config

    def encode(self, x: ArrayLike) -> NDArray[np.float32]:
        """(N, 3, H, W) in [-1, 1] to (N, channels, H/8, W/8) for a VAE of four levels."""
        return self._engine.vae_encode(x)

    def decode(self, z: ArrayLike) -> NDArray[np.float32]:
        """(N, channels, h, w) to (N, 3, 8h, 8w) for a VAE of four levels."""
        return self._engine.vae_decode(z)

    def enable_tiling(self, use_tiling: bool = True, tile_size: int = VAE_TILE) -> None:
        """Of the whole pipeline: its enable_vae_tiling, or where use_tiling is False its disable_vae_tiling."""
        self._tiling.set(self._engine, "on" if use_tiling else "off", tile_size)

    def disable_tiling(self) -> None:
        """Of the whole pipeline: its disable_vae_tiling."""
        self._tiling.set(self._engine, "off", VAE_TILE)

    def __call__(self, sample: ArrayLike) -> NDArray[np.float32]:
        """decode(encode(sample)): the reconstruction of (N, 3, H, W)."""
        return self.decode(self.encode(sample))

    def __repr__(self) -> str:
        return _described(self, self.config, "_class_name", "latent_channels", "block_out_channels", "scaling_factor")


@dataclass(frozen=True)
class Opened:
    """What a pipeline was opened from: the checkpoint's folder or packed file, options of the engine, what depth is."""

    folder: Path
    options: Mapping[str, Any]
    prediction_type: str | None

    def own_vae(self) -> Path:
        """Where the checkpoint's autoencoder lies."""
        return self.folder if is_packed(self.folder) else self.folder / "vae"


class UNet(NetworkSettings):
    """The denoiser: unet(sample, timestep, encoder_hidden_states)."""

    def __init__(self, engine: _C.Pipeline, config: Config, opened: Opened) -> None:
        self._engine = engine
        self.config = config
        self.opened = opened

    def __call__(self, sample: ArrayLike, timestep: ArrayLike, encoder_hidden_states: ArrayLike) -> NDArray[np.float32]:
        """(N, in_channels, h, w), one time step for all or N of them, one text for all or N of them."""
        array = np.asarray(sample)
        if array.ndim != 4:
            raise ValueError(f"`sample` has shape {array.shape}; expected (N, C, h, w)")
        steps: NDArray[Any] = np.asarray(timestep, dtype=np.float32)
        if steps.size == 1:
            steps = np.broadcast_to(steps.reshape(1), (array.shape[0],))
        return self._engine.unet(array, steps, encoder_hidden_states)

    def __repr__(self) -> str:
        return _described(self, self.config, "in_channels", "out_channels", "block_out_channels", "cross_attention_dim")
