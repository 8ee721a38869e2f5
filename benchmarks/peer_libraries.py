"""The libraries that peers.py compares: how each opens a checkpoint and runs one stage. Called in worker processes.

A row of PEERS gives the packages that must be installed, how far a result may lie from ours in float32 (largest
difference over the root mean square), and the function that opens a checkpoint: it returns `prepare(stage, input)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

OURS = "marigold_c"
TIMESTEP = 999

Array = NDArray[np.float32]
Stage = Callable[[], Array]
Prepare = Callable[[str, dict[str, Array]], Stage]


def open_ours(checkpoint: Path, threads: int) -> Prepare:
    import marigold_c

    pipe = marigold_c.load(checkpoint, num_threads=threads)

    def prepare(stage: str, given: dict[str, Array]) -> Stage:
        if stage == "encode":
            return lambda: pipe.vae.encode(given["x"])
        if stage == "decode":
            return lambda: pipe.vae.decode(given["z"])
        return lambda: pipe.unet(given["sample"], TIMESTEP, given["text"])

    return prepare


# ---- PyTorch, through diffusers ----


def _modules(checkpoint: Path, dtype: Any) -> dict[str, Any]:
    """The stages as modules of tensors, in diffusers' own implementation."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    class Encode(torch.nn.Module):
        def __init__(self, vae: Any) -> None:
            super().__init__()
            self.vae = vae

        def forward(self, x: Any) -> Any:
            return self.vae.quant_conv(self.vae.encoder(x)).chunk(2, dim=1)[0]

    class Decode(Encode):
        def forward(self, z: Any) -> Any:
            return self.vae.decoder(self.vae.post_quant_conv(z))

    class Denoise(torch.nn.Module):
        def __init__(self, unet: Any) -> None:
            super().__init__()
            self.unet = unet

        def forward(self, sample: Any, text: Any) -> Any:
            return self.unet(sample, torch.tensor(TIMESTEP), text, return_dict=False)[0]

    vae = AutoencoderKL.from_pretrained(checkpoint, subfolder="vae", torch_dtype=dtype).eval()
    unet = UNet2DConditionModel.from_pretrained(checkpoint, subfolder="unet", torch_dtype=dtype).eval()
    return {"encode": Encode(vae), "unet": Denoise(unet), "decode": Decode(vae)}


def open_torch(checkpoint: Path, threads: int, dtype_name: str, channels_last: bool) -> Prepare:
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    dtype = getattr(torch, dtype_name)
    modules = _modules(checkpoint, dtype)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if channels_last:
        modules = {name: module.to(memory_format=layout) for name, module in modules.items()}

    def prepare(stage: str, given: dict[str, Array]) -> Stage:
        tensors = [torch.from_numpy(array).to(dtype) for array in given.values()]
        tensors = [one.contiguous(memory_format=layout) if one.ndim == 4 else one for one in tensors]
        return lambda: modules[stage](*tensors).float().contiguous().numpy()

    return prepare


# ---- OpenVINO ----


def open_openvino(checkpoint: Path, threads: int, precision: str) -> Prepare:
    """Converted from diffusers' modules for the size of the input, then compiled for the CPU."""
    import openvino
    import torch

    torch.set_grad_enabled(False)
    modules = _modules(checkpoint, torch.float32)
    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}

    def prepare(stage: str, given: dict[str, Array]) -> Stage:
        examples = [torch.from_numpy(array) for array in given.values()]
        converted = openvino.convert_model(modules[stage], example_input=tuple(examples))
        converted.reshape(
            {port: list(array.shape) for port, array in zip(converted.inputs, given.values(), strict=True)}
        )
        compiled = openvino.compile_model(converted, "CPU", options)
        inputs = list(given.values())
        return lambda: np.asarray(compiled(inputs)[0])

    return prepare


@dataclass(frozen=True)
class Peer:
    """modules: packages it imports. agreement: largest difference to our float32 result over its root mean square."""

    modules: tuple[str, ...]
    agreement: float
    open: Callable[[Path, int], Prepare]


# Float32 sums in another order, many layers deep; OpenVINO also fuses and re-orders. bfloat16 keeps 8 bits: random
# networks of this depth lose a tenth of the signal and more, so only nonsense is refused.
PEERS = {
    OURS: Peer(("marigold_c",), 0.0, open_ours),
    "PyTorch float32": Peer(
        ("torch", "diffusers"), 1e-4, partial(open_torch, dtype_name="float32", channels_last=False)
    ),
    "PyTorch bfloat16": Peer(
        ("torch", "diffusers"), 0.5, partial(open_torch, dtype_name="bfloat16", channels_last=True)
    ),
    "OpenVINO float32": Peer(("openvino", "torch", "diffusers"), 1e-3, partial(open_openvino, precision="f32")),
    "OpenVINO bfloat16": Peer(("openvino", "torch", "diffusers"), 0.5, partial(open_openvino, precision="bf16")),
}
