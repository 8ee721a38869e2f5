"""The sides that peers.py compares: how each opens a checkpoint and runs a row. Called in worker processes.

A row is a stage (encode, unet, decode) or the whole pipeline. SIDES names for each side the packages that must be
installed, what it opens, and how far its results may lie from ours in float32.

OpenVINO and ONNX Runtime have no Marigold pipeline: peer_compiled.py has their stages and the loop around them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peer_compiled import convert_for_onnx, convert_for_openvino, open_onnx, open_openvino

Array = NDArray[Any]
Run = Callable[[], Array]
Prepare = Callable[[str, dict[str, Array]], Run]  # of a row's name and its input

TIMESTEP = 999


@dataclass(frozen=True)
class Schedule:
    """A row that runs the whole pipeline. Members are merged as each library does it by default, and the results are
    compared before that (latents): the solvers differ on purpose."""

    steps: int
    members: int = 1


STAGES = ("encode", "unet", "decode")
PIPELINES = {"1-step": Schedule(1), "4-steps": Schedule(4), "4-steps-10-members": Schedule(4, 10)}


def open_ours(checkpoint: Path, threads: int, converted: Path, dtype: str) -> Prepare:
    import marigold_c

    pipe = marigold_c.load(checkpoint, dtype=dtype, num_threads=threads)
    pipe.set_progress_bar_config(disable=True)

    def whole(schedule: Schedule, given: dict[str, Array]) -> Array:
        out = pipe(
            given["image"],
            num_inference_steps=schedule.steps,
            ensemble_size=schedule.members,
            processing_resolution=0,
            latents=given["latents"],
            output_latent=schedule.members > 1,
        )
        return np.asarray(out.prediction if schedule.members == 1 else out.latent)

    def prepare(row: str, given: dict[str, Array]) -> Run:
        if row in PIPELINES:
            return lambda: whole(PIPELINES[row], given)
        if row == "encode":
            return lambda: pipe.vae.encode(given["x"])
        if row == "decode":
            return lambda: pipe.vae.decode(given["z"])
        return lambda: pipe.unet(given["sample"], int(given["timestep"][0]), given["text"])

    return prepare


def open_torch(checkpoint: Path, threads: int, converted: Path, dtype_name: str, channels_last: bool) -> Prepare:
    """PyTorch through diffusers' pipeline; the stages are its components."""
    import torch
    from diffusers import MarigoldDepthPipeline
    from PIL import Image

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    dtype = getattr(torch, dtype_name)
    pipe: Any = MarigoldDepthPipeline.from_pretrained(checkpoint, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if channels_last:
        pipe.unet.to(memory_format=layout)
        pipe.vae.to(memory_format=layout)

    def tensor(array: Array) -> Any:
        made = torch.from_numpy(array)
        made = made.to(dtype) if made.is_floating_point() else made
        return made.contiguous(memory_format=layout) if made.ndim == 4 else made

    def whole(schedule: Schedule, given: dict[str, Array]) -> Array:
        out = pipe(
            Image.fromarray(given["image"][0]),  # of arrays it mistakes the size when latents are given
            num_inference_steps=schedule.steps,
            ensemble_size=schedule.members,
            processing_resolution=0,
            latents=torch.from_numpy(given["latents"]).to(dtype),
            output_latent=schedule.members > 1,
        )
        return np.asarray(out.prediction) if schedule.members == 1 else numbers(out.latent)

    def numbers(result: Any) -> Array:
        return np.asarray(result.float().contiguous().numpy())

    def prepare(row: str, given: dict[str, Array]) -> Run:
        if row in PIPELINES:
            return lambda: whole(PIPELINES[row], given)
        tensors = {name: tensor(array) for name, array in given.items()}
        if row == "encode":
            return lambda: numbers(pipe.vae.encode(tensors["x"]).latent_dist.mean)
        if row == "decode":
            return lambda: numbers(pipe.vae.decode(tensors["z"], return_dict=False)[0])
        step, text = tensors["timestep"], tensors["text"]
        return lambda: numbers(pipe.unet(tensors["sample"], step, text, return_dict=False)[0])

    return prepare


def open_compiled(open_stages: Any, checkpoint: Path, threads: int, converted: Path, **options: Any) -> Prepare:
    stages = open_stages(converted, threads, **options)

    def prepare(row: str, given: dict[str, Array]) -> Run:
        if row in PIPELINES:
            schedule = PIPELINES[row]
            return lambda: stages.predict(given["image"], given["latents"], schedule.steps, schedule.members)
        stages.compile(row)
        return lambda: stages.run(row, *given.values())

    return prepare


@dataclass(frozen=True)
class Side:
    """modules: packages it imports. open: of the checkpoint, the number of threads, and the folder of what `convert`
    wrote, the work of another process. largest, typical: limits of the disagreement with ours in float32 (largest
    difference and root mean square of the differences, over the root mean square of the result)."""

    modules: tuple[str, ...]
    open: Callable[[Path, int, Path], Prepare]
    largest: float = float("inf")
    typical: float = float("inf")
    convert: Callable[[Path, Path, tuple[int, int]], None] | None = None


# Float32 sums in another order, many layers deep; OpenVINO also fuses and re-orders. bfloat16 keeps 8 bits and int8
# fewer: random networks of this depth lose a tenth of the signal and more in places, so only nonsense is refused
# (unrelated results are 1.4 apart). What they lose on trained checkpoints is measured by the test suite.
_TORCH = ("torch", "diffusers", "transformers", "accelerate")
OURS = {
    "marigold_c float32": Side(("marigold_c",), partial(open_ours, dtype="float32"), largest=0.0),
    "marigold_c bfloat16": Side(("marigold_c",), partial(open_ours, dtype="bfloat16"), typical=0.5),
    "marigold_c int8": Side(("marigold_c",), partial(open_ours, dtype="int8"), typical=0.5),
}
PEERS = {
    "PyTorch float32": Side(_TORCH, partial(open_torch, dtype_name="float32", channels_last=False), largest=2e-4),
    "PyTorch bfloat16": Side(_TORCH, partial(open_torch, dtype_name="bfloat16", channels_last=True), typical=0.5),
    "OpenVINO float32": Side(
        ("openvino", *_TORCH),
        partial(open_compiled, open_openvino, precision="f32"),
        largest=1e-3,
        convert=convert_for_openvino,
    ),
    "OpenVINO bfloat16": Side(
        ("openvino", *_TORCH),
        partial(open_compiled, open_openvino, precision="bf16"),
        typical=0.5,
        convert=convert_for_openvino,
    ),
    "ONNX Runtime float32": Side(
        ("onnxruntime", "onnx", "onnxscript", *_TORCH),
        partial(open_compiled, open_onnx),
        largest=1e-3,
        convert=convert_for_onnx,
    ),
}
SIDES = {**OURS, **PEERS}
REFERENCE = "marigold_c float32"
