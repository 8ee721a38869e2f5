"""Trainer: gradients and steps for a checkpoint's UNet or autoencoder, in C. `marigold train` is built on it."""

from __future__ import annotations

import json
import os
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _C
from .._cuda import is_cuda, load_libraries
from ..atomic_files import write_atomically
from ..errors import CheckpointError
from ..loading.config import read_config, read_json_object
from ..loading.folders import explaining_damage, resolve_folder
from ..loading.options import checked_threads, dtype_name
from ..loading.parameter_files import read_arrays, write_arrays
from ..pipelines.schedulers import trained_schedule
from .gradient_sums import DeviceGradientSums, GradientSums, join_devices
from .processes import processes_of

Array = NDArray[np.float32]

_TASKS = {"depth": "depth", "normals": "normals", "iid": "intrinsics", "intrinsics": "intrinsics"}
_WEIGHT_DECAY = {"adam": 0.0, "adamw": 1e-2}  # torch's defaults
_WEIGHTS = "diffusion_pytorch_model.safetensors"


class Trainer:
    """A network of a checkpoint in training: forward_backward adds gradients up, optimizer_step applies them.

    Made by from_pretrained. Results do not depend on the number of threads.
    """

    def __init__(
        self,
        folder: Path,
        engine: _C.Trainer,
        learning_rate: float,
        objective: str,
        zero_terminal_snr: bool,
        device: str = "cpu",
    ) -> None:
        """Use from_pretrained."""
        self.folder = folder
        self.device = device
        self.learning_rate = learning_rate
        self._engine = engine
        self._names = engine.names()
        self._sums: GradientSums | DeviceGradientSums | None = None
        self._joined: Any = None  # the communicator whose processes' GPUs sum gradients
        self._objective, self._zero_terminal_snr = objective, zero_terminal_snr

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        task: str | None = None,
        objective: str = "latent",
        optimizer: str = "adam",
        learning_rate: float = 3e-5,
        dtype: Any = "float32",
        gradient_checkpointing: bool = False,
        device: str = "cpu",
        num_threads: int | None = None,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float | None = None,
        max_gradient_norm: float | None = None,
        keep_gradients: bool = True,
        zero_terminal_snr: bool = True,
        num_targets: int | None = None,
        teacher: str | PathLike[str] | None = None,
        ema_decay: float = 0.95,
        num_ddim_timesteps: int = 5,
        reconstruction: tuple[float, float, float, float] = (1.0, 0.0, 1.0, 1e-4),
        pixel_loss: str = "task",
        variant: str | None = None,
        cache_dir: str | PathLike[str] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Self:
        """Opens a checkpoint to train it.

        Args:
            pretrained_model_name_or_path: A folder in diffusers layout, or a hub id. Any of diffusers' schedulers for
                discrete time steps will do: its betas, number of time steps and prediction_type are used.
            task: "depth", "normals" or "iid" ("intrinsics"); None: the one that model_index.json names.
            objective: "latent", the mean square error of the UNet's output (arXiv 2312.02145); "e2e", one step whose
                result is decoded and compared in pixels (2409.11355); "lcm", distillation into a latent consistency
                model (2310.04378); "refine" trains the boosting_unet of a checkpoint of Marigold-HR (2505.09358);
                "autoencoder" trains the VAE instead of the UNet: see reconstruct.
            optimizer: "adam" or "adamw".
            learning_rate: Of optimizer_step and train_step, unless they are given another.
            dtype: "float32", or "bfloat16": of activations and their gradients; weights, their gradients and the
                optimiser stay in float32.
            gradient_checkpointing: Keep only what passes between the UNet's layers, and compute the rest twice.
            device: "cpu", or a GPU: "cuda", "cuda:1".
            num_threads: None: all processors that this process may use.
            betas: Of the optimiser.
            epsilon: Of the optimiser.
            weight_decay: None: 0 for "adam", 0.01 for "adamw", as in torch.
            max_gradient_norm: Clip the gradients of a step by the norm of all; None: do not.
            keep_gradients: False: each weight moves during the backward pass, as soon as its own gradient is whole, and
                the gradients are never in memory all together: a quarter less of what weights, gradients and moments
                take (3.5 GB for Stable Diffusion 2's UNet), for the same weights to the bit. Then train_step alone
                learns: no sums over batches or processes, no clipping.
            zero_terminal_snr: Rescale the noise schedule so that the last time step is pure noise.
            num_targets: Maps for one image, where a text-to-image UNet is widened for the first time: its first
                convolution is repeated for the image and each target and divided by their number, its last one
                repeated.
            teacher: Of "lcm": the checkpoint that the training began with; None: this one.
            ema_decay: Of "lcm": how much of the average of the weights stays in each step.
            num_ddim_timesteps: Of "lcm": parts of the schedule, whose last time steps are trained.
            reconstruction: Of "autoencoder": what the terms of the loss are multiplied by; see reconstruct.
            pixel_loss: Of "e2e": "task", or one for depth that compares map and truth in [-1, 1] and fits nothing:
                "absolute", the absolute error and the gradient matching of MegaDepth and MiDaS (arXiv 1907.01341,
                eq. 11; 4 scales, weight 0.5); "sink", Marigold V2's SinkLoss, in blocks of 5 x 5 pixels the cost of
                transporting the predicted depths to the true ones.
            variant: Which weight files, for example "fp16".
            cache_dir: Where downloads are kept.
            revision: Branch, tag or commit of the repository.
            local_files_only: Take what was downloaded before, and ask no network.
            token: For gated repositories; True: the one that was stored.

        Raises:
            ValueError: Bad arguments. Otherwise as for the pipelines' from_pretrained.
        """
        if task is not None and task not in _TASKS:
            raise ValueError(f"`task` is {task!r}; known: {', '.join(map(repr, _TASKS))}")
        if not learning_rate >= 0:
            raise ValueError(f"`learning_rate` is {learning_rate}; it must be 0 or more")
        threads = checked_threads(num_threads)
        folder = resolve_folder(pretrained_model_name_or_path, variant, cache_dir, revision, local_files_only, token)
        if is_cuda(str(device)):
            load_libraries()
        others: dict[str, Any] = {}
        if teacher is not None:
            others["teacher"] = resolve_folder(teacher, variant, cache_dir, revision, local_files_only, token)
        with explaining_damage(folder):
            engine = _C.Trainer(
                folder,
                variant=variant,
                dtype=dtype_name(folder, dtype),
                device=str(device),
                isa=os.environ.get("MARIGOLD_ISA") or None,
                num_threads=threads,
                task=None if task is None else _TASKS[task],
                objective=objective,
                optimizer=optimizer,
                betas=betas,
                epsilon=epsilon,
                weight_decay=_WEIGHT_DECAY.get(optimizer, 0.0) if weight_decay is None else weight_decay,
                max_gradient_norm=max_gradient_norm or 0.0,
                zero_terminal_snr=zero_terminal_snr,
                recompute=gradient_checkpointing,
                keep_gradients=keep_gradients,
                num_targets=num_targets or -1,
                ema_decay=ema_decay,
                num_ddim_timesteps=num_ddim_timesteps,
                reconstruction=reconstruction,
                pixel_loss=pixel_loss,
                **others,
            )
        return cls(folder, engine, learning_rate, objective, zero_terminal_snr, str(device))

    # ---- training ----

    def forward_backward(
        self,
        image_latent: ArrayLike,
        target_latent: ArrayLike | None = None,
        noise: ArrayLike | None = None,
        timesteps: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        weight: float = 1.0,
        *,
        pixel_target: ArrayLike | None = None,
        pixel_mask: ArrayLike | None = None,
        coarse_latent: ArrayLike | None = None,
    ) -> float:
        """Computes the loss of a batch, and adds its gradients to those of earlier calls.

        Args:
            image_latent: (N, C, h, w), scaled as the UNet takes it.
            target_latent: (N, C, h, w), scaled alike; not for "e2e".
            noise: (N, C, h, w). Of "e2e": what the step begins with; None: zeros.
            timesteps: N whole numbers; of "lcm" those of the distillation (199, 399, ... 999); not for "e2e".
            mask: (N, 1 or C, h, w), true where a cell counts: the loss is the mean over these; None: all.
            weight: What the gradients are multiplied by; 1 / batches where several make a step.
            pixel_target: Of "e2e": (N, C, H, W), H and W the latent's times 8 (the autoencoder's scale). C is 1 for
                depth, in any unit; 3 for normals (x right, y up, z to the viewer; 0 where there is none); 3 for each
                intrinsic image, in [-1, 1].
            pixel_mask: Of "e2e": (N, 1, H, W), true where a pixel counts; what it leaves out may be anything, NaN
                included.
            coarse_latent: Of "refine": (N, C, h, w), of a coarse prediction, scaled as the image's; see
                training.refinement.

        Returns:
            The loss, without the weight.

        Raises:
            ValueError: What the objective needs is missing, does not fit, or nothing counts.
            NotFiniteError: The loss is no finite number.
        """
        if self._sums is not None:
            self._sums.note_batch()
        return self._engine.forward_backward(
            image_latent, target_latent, noise, timesteps, mask, float(weight), pixel_target, pixel_mask, coarse_latent
        )

    def train_step(
        self,
        image_latent: ArrayLike,
        target_latent: ArrayLike | None = None,
        noise: ArrayLike | None = None,
        timesteps: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        learning_rate: float | None = None,
        *,
        pixel_target: ArrayLike | None = None,
        pixel_mask: ArrayLike | None = None,
        coarse_latent: ArrayLike | None = None,
    ) -> tuple[float, float]:
        """forward_backward and optimizer_step of one batch. With keep_gradients=False the only way to learn; once
        weights
        move, it cannot be interrupted.

        Args:
            image_latent: This and the following as in forward_backward.
            target_latent: As there.
            noise: As there.
            timesteps: As there.
            mask: As there.
            learning_rate: None: that of from_pretrained.
            pixel_target: As there.
            pixel_mask: As there.
            coarse_latent: As there.

        Returns:
            The loss, and the norm of the gradients.

        Raises:
            ValueError: As forward_backward.
            NotFiniteError: The loss is not finite, and nothing moves; or the gradients. Where these are not kept, some
                weights have moved then, and the trainer refuses everything else.
        """
        rate = self.learning_rate if learning_rate is None else learning_rate
        return self._engine.train_step(
            image_latent, target_latent, noise, timesteps, mask, pixel_target, pixel_mask, coarse_latent, rate
        )

    def reconstruct(self, images: ArrayLike, noise: ArrayLike | None = None, weight: float = 1.0) -> dict[str, float]:
        """For objective "autoencoder": encodes images, decodes a sample of the posterior, and compares both. The
        gradients
        are added to those of earlier calls.

        Args:
            images: (N, 3, H, W) in [-1, 1].
            noise: Normal, as large as the latents; None: the posterior's mean is decoded instead of a sample.
            weight: What the gradients are multiplied by.

        Returns:
            The loss ("total") and its terms before they are weighted, all means: "absolute" and "square" errors;
                "edges", the absolute errors of differences between neighbours in the image, halved and quartered;
                "divergence" of the posterior from the normal distribution, in nats for each number of the latent.
        """
        if self._sums is not None:
            self._sums.note_batch()
        return self._engine.reconstruct(images, noise, float(weight))

    def summed_over(self, communicator: Any) -> GradientSums | DeviceGradientSums:
        """Sums gradients over processes: to be put around the last forward_backward of a step, as in ``with
        trainer.summed_over(MPI.COMM_WORLD):``. The gradients of that call and of earlier ones are summed while its
        backward pass still runs.

        All processes then take the same step, to the bit: each adds its batches one by one, and MPI adds the processes'
        sums in float32, in an order that depends on their number and on the MPI library alone. On GPUs, one for each
        process, NCCL sums them when the backward pass is done (extra `nccl`).

        Args:
            communicator: Of mpi4py.

        Raises:
            ProcessFailed: Another process failed; the gradients are worthless.
            DeviceError: NCCL is missing, or failed.
        """
        processes = processes_of(communicator)
        if not is_cuda(self.device):
            self._sums = GradientSums(self._engine, processes)
            return self._sums
        if self._joined is not communicator:
            join_devices(self._engine, processes)
            self._joined = communicator
        self._sums = DeviceGradientSums(self._engine, processes)
        return self._sums

    def optimizer_step(self, learning_rate: float | None = None) -> float:
        """Moves the weights along the gradients, which become 0.

        Args:
            learning_rate: None: that of from_pretrained.

        Returns:
            The norm of the gradients, before they were clipped.

        Raises:
            NotFiniteError: The gradients are not finite; nothing moves.
        """
        return self._engine.step(self.learning_rate if learning_rate is None else learning_rate)

    def clear_gradients(self) -> None:
        """Forgets the gradients: after a call that was interrupted, or whose loss is no number."""
        self._engine.clear_gradients()

    @property
    def steps(self) -> int:
        """Steps of the optimiser so far."""
        return self._engine.steps

    def parameters(self) -> dict[str, Array]:
        """Copies of the weights by the names that diffusers gives them."""
        return self._read("value")

    def gradients(self) -> dict[str, Array]:
        """Copies of the gradients, for inspection."""
        return self._read("gradient")

    def _read(self, part: str) -> dict[str, Array]:
        return {name: self._engine.read(i, part) for i, name in enumerate(self._names)}

    def memory_stats(self) -> dict[str, int]:
        """Bytes: weights, activations, workspace, training (gradients and the optimiser), the largest sum (peak)."""
        stats = self._engine.memory()
        return {"weights": stats["weights_mapped"] + stats["weights_packed"], **stats}

    # ---- files ----

    def save_pretrained(self, save_directory: str | PathLike[str]) -> None:
        """Writes unet/ and scheduler/ in diffusers layout. Each file appears whole or not at all.

        The UNet is the one that is trained, not its average; the schedule is DDIM (of "lcm" LCM) with the betas of the
        checkpoint, rescaled as for training, and trailing time steps, for which Marigold's pipelines are made.
        With objective "autoencoder" it is vae/ in the place of unet/, with the scaling factor as it was; with "refine"
        boosting_unet/.
        """
        target = Path(save_directory)
        trained = {"autoencoder": "vae", "refine": "boosting_unet"}.get(self._objective, "unet")
        for name in (trained, "scheduler"):
            (target / name).mkdir(parents=True, exist_ok=True)
        config = dict(read_json_object(self.folder / trained / "config.json"))
        if trained != "vae":
            inputs, outputs = self._shape("conv_in.weight")[1], self._shape("conv_out.weight")[0]
            config |= {"in_channels": inputs, "out_channels": outputs}
        _write_json(target / trained / "config.json", config)
        base = read_config(self.folder / "scheduler" / "scheduler_config.json")
        scheduler = trained_schedule(base, self._objective, self._zero_terminal_snr)
        _write_json(target / "scheduler" / "scheduler_config.json", scheduler)
        self._write_weights(target / trained)

    def _write_weights(self, folder: Path) -> None:
        index = {name: i for i, name in enumerate(self._names)}
        shapes = {name: self._shape(name) for name in self._names}
        write_arrays(folder / _WEIGHTS, shapes, lambda name: self._engine.read(index[name], "value"), {"format": "pt"})

    def save_state(self, path: str | PathLike[str]) -> None:
        """Writes the state of optimiser and objective, between steps: with the weights of save_pretrained (and of "lcm"
        the same teacher), training goes on from it as if it had not stopped."""
        index = {name: i for i, name in enumerate(self._names)}

        def make(name: str) -> Array:
            part, _, key = name.partition(".")
            return self._engine.read(index[key], part)

        write_arrays(
            path, self._state_shapes(), make, {"format": "marigold_c.training.trainer", "steps": str(self.steps)}
        )

    def load_state(self, path: str | PathLike[str]) -> None:
        """Reads what save_state wrote. CheckpointError: it is damaged, or of another network."""
        arrays, metadata = read_arrays(path, self._state_shapes())
        steps = metadata.get("steps", "")
        if not (isinstance(steps, str) and steps.isdecimal() and len(steps) < 16):
            raise CheckpointError(f"{path}: no state of a trainer: its number of steps is {steps!r}")
        for i, name in enumerate(self._names):
            for part in self._state_parts():
                self._engine.write(i, part, arrays[f"{part}.{name}"])
        self._engine.steps = int(steps)

    def _shape(self, name: str) -> tuple[int, ...]:
        return self._engine.shape(self._names.index(name))

    def _state_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = {name: self._engine.shape(i) for i, name in enumerate(self._names)}
        return {f"{part}.{name}": shape for part in self._state_parts() for name, shape in shapes.items()}

    def _state_parts(self) -> tuple[str, ...]:
        return ("m", "v", "average") if self._objective == "lcm" else ("m", "v")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomically(path, lambda file: file.write(json.dumps(value, indent=2).encode() + b"\n"))
