"""What the tests of training share: a tiny data set of own data, configurations, and a stand-in for the engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from family_checkpoints import make_thin
from numpy.typing import NDArray
from PIL import Image
from safetensors_files import write

from marigold_c.loading.folders import default_checkpoint
from marigold_c.pipelines.schedulers import trained_schedule
from marigold_c.training.config import load_config
from marigold_c.training.gradient_sums import GradientSums
from marigold_c.training.settings import TrainingConfig

HEIGHT, WIDTH = 48, 64
LIGHTING = {
    "target_names": ["albedo", "shading", "residual"],
    "albedo": {"prediction_space": "linear", "up_to_scale": False},
    "shading": {"prediction_space": "linear", "up_to_scale": True},
    "residual": {"prediction_space": "linear", "up_to_scale": True},
}
_PIPELINES = {"depth": "MarigoldDepthPipeline", "normals": "MarigoldNormalsPipeline", "iid": "MarigoldIIDPipeline"}


def make_scenes(root: Path, count: int, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """`count` slanted planes with everything that there is to know of them, in the generic layout."""
    generator = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    for index in range(count):
        slope = generator.uniform(-0.5, 0.5, 2)
        depth = 3 + slope[0] * x / width + slope[1] * y / height + 0.3 * np.sin(x / generator.uniform(3, 9))
        normal = np.stack([np.full_like(depth, 0.6), np.zeros_like(depth), np.full_like(depth, 0.8)], axis=2)
        albedo = generator.uniform(0.1, 0.9, 3) * (0.7 + 0.3 * np.sin(y / 4))[:, :, None]
        shading = (2.5 * np.abs(np.cos(x / 11)) + 0.2)[:, :, None] * np.ones(3)
        residual = 0.1 * np.abs(np.sin(x * y / 500))[:, :, None] * np.ones(3)
        picture = np.clip((albedo * shading + residual) / 3, 0, 1) ** (1 / 2.2)
        maps = {"depth": depth, "normals": normal, "albedo": albedo, "shading": shading, "residual": residual}
        for name, values in maps.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            np.save(root / name / f"{index:04d}.npy", values.astype(np.float32))
        (root / "rgb").mkdir(exist_ok=True)
        Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(root / "rgb" / f"{index:04d}.png")
    return root


def data_entry(task: str, folder: str = "train", **options: Any) -> dict[str, Any]:
    truth: Any = {name: name for name in LIGHTING["target_names"]} if task == "iid" else task
    entry = {"name": f"folder_{task}", "disp_name": folder, "dir": folder, "images": "rgb", "truth": truth}
    return {**entry, **options}


def settings(task: str = "depth", **changes: Any) -> dict[str, Any]:
    """The smallest configuration of a task; `changes` are merged key by key, dots in keys as __."""
    pipeline: dict[str, Any] = {"name": _PIPELINES[task], "kwargs": {"default_processing_resolution": 0}}
    if task == "iid":
        pipeline["kwargs"]["target_properties"] = LIGHTING
    values: dict[str, Any] = {
        "pipeline": pipeline,
        "trainer": {"init_seed": 7, "save_period": 2, "backup_period": 0, "validation_period": 0},
        "model": {"pretrained_path": str(default_checkpoint(task))},
        "dataset": {"train": data_entry(task)},
        "dataloader": {"num_workers": 2, "effective_batch_size": 4, "max_train_batch_size": 2, "seed": 11},
        "augmentation": {"lr_flip_p": 0.5},
        "multi_res_noise": {"strength": 0.9, "annealed": True},
        "lr": 0.001,
        "lr_scheduler": {"name": "IterExponential", "kwargs": {"total_iter": 8, "final_ratio": 0.1, "warmup_steps": 2}},
        "max_iter": 6,
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        place = values
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return values


def write_config(path: Path, values: Mapping[str, Any]) -> Path:
    """JSON is YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1))
    return path


def make_config(folder: Path, task: str = "depth", **changes: Any) -> TrainingConfig:
    """For the stand-in: pictures go through a thin autoencoder, the same for all runs in the folder."""
    thin = folder / "thin" / task
    if not thin.exists():
        thin.parent.mkdir(exist_ok=True)
        make_thin(task, thin)
    return load_config(
        write_config(folder / "run.yaml", settings(task, **{"model__pretrained_path": str(thin), **changes}))
    )


class StandInEngine:
    """A model of a few numbers that learns something from every argument; its UNet's files are the checkpoint's.

    The loss is the mean square of (weights[channel] * noisy - target) where the mask is, so that a change of any input,
    of the order or of the rate shows in the weights.
    """

    def __init__(self, folder: Path, channels: int) -> None:
        self.folder = folder
        self.weights = np.linspace(0.5, 1.5, channels)
        self.moments = np.zeros((2, channels))
        self.gradient = np.zeros(channels, np.float32)
        self.steps = 0
        self.rates: list[float] = []

    def forward_backward(
        self,
        image_latent: NDArray[Any],
        target_latent: NDArray[Any],
        noise: NDArray[Any],
        timesteps: NDArray[Any],
        mask: NDArray[Any] | None = None,
        weight: float = 1.0,
    ) -> float:
        share = (timesteps / 1000).reshape(-1, 1, 1, 1)
        noisy = (1 - share) * target_latent.astype(np.float64) + share * noise + image_latent.mean()
        difference = self.weights[:, None, None] * noisy - target_latent
        counted = np.ones_like(difference) if mask is None else np.broadcast_to(mask, difference.shape)
        self.gradient += weight * 2 * (counted * difference * noisy).sum(axis=(0, 2, 3)) / counted.sum()
        return float((counted * difference**2).sum() / counted.sum())

    isa = "none"

    def summed_over(self, communicator: Any) -> GradientSums:
        return GradientSums(self, communicator)

    def gradient_block(self) -> NDArray[np.float32]:
        return self.gradient

    def follow_gradients(self) -> None:
        pass

    def gradients_done(self) -> int:
        return 0

    def optimizer_step(self, learning_rate: float | None = None) -> float:
        assert learning_rate is not None
        gradient = self.gradient.astype(np.float64)
        self.moments = np.stack([0.9 * self.moments[0] + 0.1 * gradient, 0.999 * self.moments[1] + 0.001 * gradient**2])
        self.steps += 1
        first = self.moments[0] / (1 - 0.9**self.steps)
        second = self.moments[1] / (1 - 0.999**self.steps)
        self.weights = self.weights - learning_rate * first / (np.sqrt(second) + 1e-8)
        self.gradient[:] = 0
        self.rates.append(learning_rate)
        return float(np.linalg.norm(gradient))

    def train_step(self, *, learning_rate: float, **inputs: Any) -> tuple[float, float]:
        loss = self.forward_backward(**inputs)
        return loss, self.optimizer_step(learning_rate)

    def save_pretrained(self, folder: Any) -> None:
        shutil.copytree(self.folder / "unet", Path(folder) / "unet", dirs_exist_ok=True)
        path = Path("scheduler") / "scheduler_config.json"
        (Path(folder) / path).parent.mkdir(exist_ok=True)
        schedule = trained_schedule(json.loads((self.folder / path).read_text()), "latent")
        (Path(folder) / path).write_text(json.dumps(schedule))

    def save_state(self, path: Any) -> None:
        with Path(path).open("wb") as file:
            np.savez(file, weights=self.weights, moments=self.moments, steps=self.steps)

    def load_state(self, path: Any) -> None:
        with np.load(path) as stored:
            self.weights, self.moments, self.steps = stored["weights"], stored["moments"], int(stored["steps"])


def open_stand_in(
    config: TrainingConfig, folder: Path, base: Path, device: str, threads: int | None, keep_gradients: bool
) -> StandInEngine:
    return StandInEngine(Path(folder), 4 * len(config.target_names))


def final_weights(run: Path) -> NDArray[np.float64]:
    with np.load(run / "checkpoint" / "latest" / "trainer_state.safetensors") as stored:
        weights: NDArray[np.float64] = stored["weights"]
        return weights


def read_float16(path: Path) -> dict[str, NDArray[np.float16]]:
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    return {
        name: np.frombuffer(data[start:][slice(*entry["data_offsets"])], np.float16).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def make_text_to_image(folder: Path) -> Path:
    """A checkpoint with a UNet of 4 channels in and out, as Stable Diffusion's, cut out of the small one for depth."""
    source = default_checkpoint("depth")
    shutil.copytree(source, folder)
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    tensors = read_float16(source / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    tensors["conv_in.weight"] = 2 * tensors["conv_in.weight"][:, :4]
    write(
        folder / "unet" / "diffusion_pytorch_model.safetensors",
        {name: ("F32", values.astype(np.float32)) for name, values in tensors.items()},
    )
    for name, changes in {
        "unet/config.json": {"in_channels": 4},
        "model_index.json": {"_class_name": "StableDiffusionPipeline"},
        "scheduler/scheduler_config.json": {
            "_class_name": "PNDMScheduler",
            "skip_prk_steps": True,
            "rescale_betas_zero_snr": False,
            "timestep_spacing": "leading",
        },
    }.items():
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder
