"""OpenVINO and ONNX Runtime: a checkpoint's stages converted once, and the pipeline's loop around them.

Conversion needs torch and diffusers and writes a folder for one image size; whoever runs the stages reads that folder
only. What a user would also compute once lies beside them: the embedding of the empty prompt, and for 1 and 4 steps
the schedule, whose steps are linear: next = a * sample + b * output.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Compiled = Callable[..., Array]

FACTS = "pipeline.json"
STEP_COUNTS = (1, 4)


# ---- conversion ----


def _modules(pipe: Any) -> dict[str, Any]:
    """The stages as modules of tensors, in diffusers' own implementation."""
    import torch

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

        def forward(self, sample: Any, timestep: Any, text: Any) -> Any:
            return self.unet(sample, timestep, text, return_dict=False)[0]

    return {
        "encode": Encode(pipe.vae).eval(),
        "unet": Denoise(pipe.unet).eval(),
        "decode": Decode(pipe.vae).eval(),
    }


def _examples(pipe: Any, size: tuple[int, int]) -> dict[str, tuple[Any, ...]]:
    import torch

    h, w = size[0] // 8, size[1] // 8
    text = torch.zeros(1, 2, pipe.unet.config["cross_attention_dim"])
    return {
        "encode": (torch.zeros(1, 3, *size),),
        "unet": (torch.zeros(1, 8, h, w), torch.tensor([999]), text),
        "decode": (torch.zeros(1, 4, h, w),),
    }


def _steps(scheduler: Any, count: int) -> list[tuple[int, float, float]]:
    """Time step and the factors of sample and output, found by feeding the scheduler ones and zeros."""
    import torch

    one, zero = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    scheduler.set_timesteps(count)
    return [
        (
            int(t),
            scheduler.step(zero, t, one, return_dict=False)[0].item(),
            scheduler.step(one, t, zero, return_dict=False)[0].item(),
        )
        for t in scheduler.timesteps
    ]


def _convert(checkpoint: Path, folder: Path, size: tuple[int, int], save: Callable[[Any, Any, Path], None]) -> None:
    import torch
    from diffusers import MarigoldDepthPipeline

    torch.set_grad_enabled(False)
    pipe: Any = MarigoldDepthPipeline.from_pretrained(checkpoint, dtype=torch.float32)
    folder.mkdir(parents=True, exist_ok=True)
    examples = _examples(pipe, size)
    for name, module in _modules(pipe).items():
        save(module, examples[name], folder / name)
    tokens = torch.tensor([[pipe.tokenizer.bos_token_id, pipe.tokenizer.eos_token_id]])
    facts = {
        "scale": pipe.vae.config["scaling_factor"],
        "text": pipe.text_encoder(tokens)[0].tolist(),
        "steps": {count: _steps(pipe.scheduler, count) for count in STEP_COUNTS},
    }
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def convert_for_openvino(checkpoint: Path, folder: Path, size: tuple[int, int]) -> None:
    import openvino

    def save(module: Any, example: tuple[Any, ...], path: Path) -> None:
        model = openvino.convert_model(module, example_input=example)
        model.reshape({port: list(one.shape) for port, one in zip(model.inputs, example, strict=True)})
        openvino.save_model(model, path.with_suffix(".xml"), compress_to_fp16=False)

    _convert(checkpoint, folder, size, save)


def convert_for_onnx(checkpoint: Path, folder: Path, size: tuple[int, int]) -> None:
    import torch

    def save(module: Any, example: tuple[Any, ...], path: Path) -> None:
        torch.onnx.export(
            module, example, path.with_suffix(".onnx"), dynamo=True, external_data=True, verbose=False, optimize=True
        )

    _convert(checkpoint, folder, size, save)


# ---- running ----


class Stages:
    """The converted stages of one folder, compiled when first used, and the pipeline made of them."""

    def __init__(self, folder: Path, compile_stage: Callable[[Path], Compiled]) -> None:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        self._folder, self._compile = folder, compile_stage
        self._compiled: dict[str, Compiled] = {}
        self._scale: float = facts["scale"]
        self._steps: dict[str, list[tuple[int, float, float]]] = facts["steps"]
        self._text = np.asarray(facts["text"], np.float32)

    def compile(self, name: str) -> Compiled:
        if name not in self._compiled:
            self._compiled[name] = self._compile(self._folder / name)
        return self._compiled[name]

    def run(self, name: str, *inputs: Array) -> Array:
        return self.compile(name)(*inputs)

    def predict(self, image: Array, latents: Array, steps: int, members: int) -> Array:
        """The depth of one uint8 image (1, H, W, 3) as (1, H, W, 1); of several members, their latents."""
        x = np.ascontiguousarray(image.transpose(0, 3, 1, 2), np.float32) / 127.5 - 1
        encoded = self.run("encode", x) * self._scale
        samples, maps = [], []
        for member in range(members):
            sample = latents[member : member + 1]
            for timestep, a, b in self._steps[str(steps)]:
                both = np.concatenate([encoded, sample], axis=1, dtype=np.float32)
                output = self.run("unet", both, np.array([timestep]), self._text)
                sample = (a * sample + b * output).astype(np.float32)
            decoded = self.run("decode", sample / np.float32(self._scale))
            maps.append((decoded.mean(axis=1, keepdims=True).clip(-1, 1) + 1) / 2)
            samples.append(sample)
        if members == 1:
            return np.asarray(maps[0].transpose(0, 2, 3, 1))
        _ensemble(np.concatenate(maps))
        return np.concatenate(samples)


def _ensemble(maps: Array) -> Array:
    """As diffusers merges them, which is what a user of these libraries would call."""
    import torch
    from diffusers import MarigoldDepthPipeline

    return np.asarray(MarigoldDepthPipeline.ensemble_depth(torch.from_numpy(maps))[0].numpy())


def open_openvino(folder: Path, threads: int, precision: str) -> Stages:
    import openvino

    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    core = openvino.Core()

    def compile_stage(path: Path) -> Compiled:
        compiled = core.compile_model(path.with_suffix(".xml"), "CPU", options)
        return lambda *inputs: np.asarray(compiled(list(inputs))[0])

    return Stages(folder, compile_stage)


def open_onnx(folder: Path, threads: int) -> Stages:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1

    def compile_stage(path: Path) -> Compiled:
        session = onnxruntime.InferenceSession(path.with_suffix(".onnx"), options, providers=["CPUExecutionProvider"])
        names = [port.name for port in session.get_inputs()]
        return lambda *inputs: np.asarray(session.run(None, dict(zip(names, inputs, strict=True)))[0])

    return Stages(folder, compile_stage)
