"""Checkpoints with random UNets, and gradients compared with torch's, for the live comparisons of the trainer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from numpy.typing import NDArray

import marigold_c as mc
from marigold_c import _testing as engine

Array = NDArray[np.float32]

# Relative error of a parameter's gradient, in the root of the sum of squares, against float64. Small gradients are sums
# of large terms that cancel: torch's own float32 has errors of the same size.
GRADIENT = 1e-4
DEVICES = ["ref", *engine.isas()]

CROSS_DOWN, DOWN, CROSS_UP, UP = "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"
UNETS: dict[str, dict[str, Any]] = {
    "sd2": {
        "block_out_channels": (32, 64, 64, 64),
        "down_block_types": (CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, DOWN),
        "up_block_types": (UP, CROSS_UP, CROSS_UP, CROSS_UP),
        "layers_per_block": 2,
        "attention_head_dim": (2, 4, 4, 4),
        "norm_num_groups": 16,
        "use_linear_projection": True,
    },
    "odd channels": {
        "block_out_channels": (24, 40),
        "down_block_types": (CROSS_DOWN, CROSS_DOWN),
        "up_block_types": (CROSS_UP, CROSS_UP),
        "layers_per_block": 1,
        "transformer_layers_per_block": 2,
        "attention_head_dim": (3, 5),
        "norm_num_groups": 8,
    },
}


def make_checkpoint(
    folder: Path,
    name: str,
    task: str = "depth",
    targets: int = 1,
    inputs: int | None = None,
    prediction: str = "v_prediction",
    seed: int = 7,
) -> Path:
    """A random UNet of this name and these channels, a random text encoder, and the rest of the small checkpoint of the
    task. What the package's text encoder makes of no text is not what tolerances should depend on."""
    base = mc.default_checkpoint(task)
    for part in base.iterdir():
        if part.name not in ("unet", "scheduler", "text_encoder"):
            (folder / part.name).symlink_to(part)
    shutil.copytree(base / "scheduler", folder / "scheduler")
    scheduler = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(scheduler.read_text()) | {"prediction_type": prediction}
    scheduler.write_text(json.dumps(config))
    torch.manual_seed(seed)
    text_config = transformers.CLIPTextConfig.from_pretrained(base / "text_encoder")
    transformers.CLIPTextModel(text_config).half().save_pretrained(folder / "text_encoder")
    torch.manual_seed(seed)
    unet = diffusers.UNet2DConditionModel(
        in_channels=inputs or 4 * (1 + targets),
        out_channels=inputs or 4 * targets,
        cross_attention_dim=64,
        sample_size=16,
        **UNETS[name],
    )
    unet.save_pretrained(folder / "unet")
    return folder


def open_ours(folder: Path, device: str = "cpu", monkeypatch: Any = None, **options: Any) -> mc.Trainer:
    """device: "cpu", "ref", or an instruction set."""
    if monkeypatch and device != "ref":
        monkeypatch.setenv("MARIGOLD_ISA", device)
        device = "cpu"
    return mc.Trainer.from_pretrained(folder, device=device, **{"task": "depth", "num_threads": 1, **options})


def check_gradients(found: dict[str, Array], unet: Any, weight: float = 1.0) -> None:
    """Against the gradients of diffusers' UNet, times `weight`."""
    parameters = dict(unet.named_parameters())
    assert found.keys() == parameters.keys()
    whole = np.sqrt(sum(float((p.grad**2).sum()) for p in parameters.values()))
    errors = {}
    for name, parameter in parameters.items():
        expected = parameter.grad.numpy() * weight
        assert found[name].shape == expected.shape
        # Keys' biases and the like have gradients of nothing but rounding.
        size = max(np.linalg.norm(expected), 1e-6 * whole)
        errors[name] = float(np.linalg.norm(found[name] - expected) / size)
    worst = max(errors, key=lambda name: errors[name])
    print(f"largest relative error {errors[worst]:.2g} ({worst})")
    assert errors[worst] <= GRADIENT, f"{worst}: {errors[worst]:.3g}"
