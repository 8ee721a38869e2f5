"""The engine (csrc/py)."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Self, SupportsIndex, TypeAlias, TypedDict, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

__version__: str

Geometry: TypeAlias = tuple[int, int, int, int, int, int]

class MachineSpeed(TypedDict):
    isa: str
    num_threads: int
    float32: float
    bfloat16: float
    int8: float
    copy: float

class PipelineInfo(TypedDict):
    task: str
    class_name: str
    family: str
    restriction: str | None
    samples_by_ddim: bool
    default_denoising_steps: int
    default_processing_resolution: int
    num_targets: int
    prediction_channels: int
    latent_channels: int
    vae_scale: int
    scaling_factor: float
    vae_tiled: bool
    unet_in_channels: int
    unet_out_channels: int
    text_tokens: int
    text_channels: int
    dtype: str
    isa: str
    num_threads: int
    unet_parameters: int
    boosting_unet_parameters: int
    vae_parameters: int
    text_encoder_parameters: int

def available_threads() -> int: ...
def best_isa() -> str: ...
def instruction_sets() -> list[str]: ...
def measure_machine(*, num_threads: int = 0, isa: str | None = None, seconds: float = 2.0) -> MachineSpeed: ...
def declared_weights(component: str, config: str, name: str, /) -> dict[str, tuple[int, ...]]: ...
def family_of_checkpoint(class_name: str, input_latents: int, replaced: bool, /) -> str | None: ...
def verify_packed(path: str | PathLike[str], /) -> None: ...
def resize(
    image: ArrayLike, size: tuple[int, int], mode: str = "bilinear", antialias: bool = False
) -> NDArray[np.float32]: ...
def preprocess(
    image: NDArray[Any], processing_resolution: int, mode: str, vae_scale: int, preset: str = "diffusers"
) -> tuple[NDArray[np.float32], Geometry]: ...
def geometry(h: int, w: int, processing_resolution: int, vae_scale: int, preset: str = "diffusers") -> Geometry: ...
def colormap_linear(values: ArrayLike, stops: ArrayLike) -> NDArray[np.uint8]: ...
def colormap_listed(values: ArrayLike, table: ArrayLike) -> NDArray[np.uint8]: ...
def ensemble_depth(
    depth: ArrayLike,
    *,
    output_uncertainty: bool = False,
    scale_invariant: bool = True,
    shift_invariant: bool = True,
    reduction: str = "median",
    solver: str = "closed-form",
    regularizer_strength: float = 0.02,
    max_iter: int = 2,
    tol: float = 1e-3,
    max_res: int = 1024,
    num_threads: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]: ...
def ensemble_normals(
    normals: ArrayLike, *, output_uncertainty: bool = False, reduction: str = "closest", num_threads: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]: ...
def ensemble_intrinsics(
    targets: ArrayLike, *, output_uncertainty: bool = False, reduction: str = "median", num_threads: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]: ...
def ensemble_snippets(
    maps: ArrayLike,
    frames: int,
    dilations: Sequence[int],
    *,
    iterations: int = 2000,
    rate: float = 1e-3,
    num_threads: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]: ...
def align_least_squares(
    prediction: ArrayLike,
    target: ArrayLike,
    mask: ArrayLike | None,
    space: str,
    max_resolution: int,
    num_threads: int = 0,
    /,
) -> tuple[NDArray[np.float32], float, float]: ...
def align_ransac(
    prediction: ArrayLike,
    target: ArrayLike,
    mask: ArrayLike | None,
    space: str,
    max_resolution: int,
    seed: int,
    num_threads: int = 0,
    /,
) -> tuple[NDArray[np.float32], float, float]: ...
def align_median(
    prediction: ArrayLike,
    target: ArrayLike,
    mask: ArrayLike | None,
    max_resolution: int,
    num_threads: int = 0,
    /,
) -> tuple[NDArray[np.float32], float]: ...
def depth_metrics(
    prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None, num_threads: int = 0, /
) -> dict[str, float]: ...
def angular_errors(
    prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None, num_threads: int = 0, /
) -> NDArray[np.float32]: ...
def angle_statistics(errors: ArrayLike, /) -> dict[str, float]: ...
def psnr(prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None, /) -> float: ...
def ssim(prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None, num_threads: int = 0, /) -> float: ...

class Generator:
    def __new__(cls, seed: SupportsIndex) -> Self: ...
    @overload
    def randn(self, shape: Sequence[int], /) -> NDArray[np.float32]: ...
    @overload
    def randn(self, /, *shape: int) -> NDArray[np.float32]: ...
    @overload
    def rand(self, shape: Sequence[int], /) -> NDArray[np.float32]: ...
    @overload
    def rand(self, /, *shape: int) -> NDArray[np.float32]: ...
    def randint(self, high: int, shape: Sequence[int], /) -> NDArray[np.int64]: ...
    def multi_resolution_noise(
        self, shape: tuple[int, int, int, int], strength: float | NDArray[np.floating], /
    ) -> NDArray[np.float32]: ...
    def manual_seed(self, seed: SupportsIndex, /) -> Generator: ...
    def initial_seed(self) -> int: ...
    def get_state(self) -> bytes: ...
    def set_state(self, state: bytes | bytearray | memoryview, /) -> Generator: ...

class Scheduler:
    def __new__(cls, config_json: str) -> Self: ...
    def set_timesteps(self, num_inference_steps: int, /) -> None: ...
    def step_of(self, timestep: float, /) -> int: ...
    def step_coefficients(
        self, step: int, eta: float, has_last_estimate: bool, /
    ) -> tuple[float, float, float, float, float, float, float]: ...
    @property
    def timesteps(self) -> NDArray[Any]: ...
    @property
    def alphas_cumprod(self) -> NDArray[np.float32]: ...
    @property
    def class_name(self) -> str: ...
    @property
    def init_noise_sigma(self) -> float: ...

class Pipeline:
    def __new__(
        cls,
        folder: str | PathLike[str],
        *,
        variant: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        isa: str | None = None,
        num_threads: int = 0,
        task: str | None = None,
        vae: str | PathLike[str] = ...,
        family: str | None = None,
        unet: str | PathLike[str] = ...,
        text_tokens: int = 0,
        boosting: bool = False,
        boosting_inputs: str | None = None,
    ) -> Self: ...
    def run(
        self,
        image: NDArray[Any],
        *,
        num_inference_steps: int = 0,
        ensemble_size: int = 1,
        processing_resolution: int = -1,
        match_input_resolution: bool = True,
        resample_method_input: str = "bilinear",
        resample_method_output: str | None = None,
        batch_size: int = 1,
        latents: NDArray[Any] | None = None,
        generators: Sequence[Generator] | None = None,
        scheduler: Scheduler | None = None,
        output_latent: bool = False,
        progress: Callable[[int, int], object] | None = None,
        preset: str = "diffusers",
        output_uncertainty: bool = False,
        reduction: str | None = None,
        solver: str = "closed-form",
        scale_invariant: bool = True,
        shift_invariant: bool = True,
        regularizer_strength: float = 0.02,
        max_iter: int = 2,
        tol: float = 1e-3,
        max_res: int = 1024,
        coarse: NDArray[np.floating] | None = None,
        tile_size: int = 768,
        tile_overlap: int = -1,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32] | None]: ...
    def encode(self, image: NDArray[Any], processing_resolution: int, /) -> NDArray[np.float32]: ...
    def predict_video(
        self,
        image_latents: NDArray[Any],
        noise: NDArray[Any],
        scheduler: Scheduler | None,
        height: int,
        width: int,
        dilations: Sequence[int],
        *,
        processing_resolution: int = -1,
        snippet_length: int = 3,
        num_inference_steps: int = 1,
        refinement_steps: int = 0,
        refinement_dilation: int = 6,
        alignment_iterations: int = 2000,
        progress: Callable[[int, int], object] | None = None,
    ) -> NDArray[np.float32]: ...
    def complete(
        self,
        image: NDArray[Any],
        sparse_depth: NDArray[Any],
        latents: NDArray[Any],
        scheduler: Scheduler,
        *,
        num_inference_steps: int = 50,
        ensemble_size: int = 1,
        processing_resolution: int = 768,
        latent_rate: float = 0.05,
        affine_rate: float = 0.005,
        recompute: str = "auto",
        progress: Callable[[int, int], object] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float64]]: ...
    def vae_encode(self, x: ArrayLike, /) -> NDArray[np.float32]: ...
    def vae_decode(self, z: ArrayLike, /) -> NDArray[np.float32]: ...
    def unet(
        self, sample: ArrayLike, timesteps: ArrayLike, encoder_hidden_states: ArrayLike, /
    ) -> NDArray[np.float32]: ...
    def empty_text_embedding(self) -> NDArray[np.float32]: ...
    def save(
        self,
        path: str | PathLike[str],
        *,
        licence: str | None = None,
        replace: bool = False,
        prediction_type: str | None = None,
    ) -> None: ...
    def weights(self, component: str, /) -> dict[str, tuple[int, ...]]: ...
    def read_weight(self, component: str, name: str, /) -> NDArray[np.float32]: ...
    def set_vae_tiling(self, tiling: str, tile_size: int, /) -> None: ...
    def info(self) -> PipelineInfo: ...
    def memory(self) -> dict[str, int]: ...
    def cancel(self) -> bool: ...

class Trainer:
    steps: int
    def __new__(
        cls,
        folder: str | PathLike[str],
        *,
        variant: str | None = None,
        dtype: str | None = None,
        device: str | None = "cpu",
        isa: str | None = None,
        num_threads: int = 0,
        task: str | None = None,
        objective: str = "latent",
        optimizer: str = "adam",
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        max_gradient_norm: float = 0.0,
        zero_terminal_snr: bool = True,
        recompute: bool = False,
        keep_gradients: bool = True,
        num_targets: int = -1,
        teacher: str | PathLike[str] = ...,
        ema_decay: float = 0.95,
        num_ddim_timesteps: int = 5,
        reconstruction: tuple[float, float, float, float] = ...,
        pixel_loss: str | None = None,
    ) -> Self: ...
    def reconstruct(self, images: ArrayLike, noise: ArrayLike | None, weight: float, /) -> dict[str, float]: ...
    def forward_backward(
        self,
        image_latent: ArrayLike,
        target_latent: ArrayLike | None,
        noise: ArrayLike | None,
        timesteps: ArrayLike | None,
        mask: ArrayLike | None,
        weight: float,
        pixel_target: ArrayLike | None,
        pixel_mask: ArrayLike | None,
        coarse_latent: ArrayLike | None,
        /,
    ) -> float: ...
    def train_step(
        self,
        image_latent: ArrayLike,
        target_latent: ArrayLike | None,
        noise: ArrayLike | None,
        timesteps: ArrayLike | None,
        mask: ArrayLike | None,
        pixel_target: ArrayLike | None,
        pixel_mask: ArrayLike | None,
        coarse_latent: ArrayLike | None,
        learning_rate: float,
        /,
    ) -> tuple[float, float]: ...
    def step(self, learning_rate: float, /) -> float: ...
    def clear_gradients(self) -> None: ...
    def gradient_block(self) -> NDArray[np.float32]: ...
    def follow_gradients(self) -> None: ...
    def gradients_done(self) -> int: ...
    def name_group(self) -> bytes: ...
    def join_group(self, name: bytes, rank: int, size: int, /) -> None: ...
    def sum_gradients(self) -> None: ...
    @property
    def isa(self) -> str: ...
    def names(self) -> list[str]: ...
    def shape(self, index: int, /) -> tuple[int, ...]: ...
    def read(self, index: int, part: str, /) -> NDArray[np.float32]: ...
    def write(self, index: int, part: str, data: ArrayLike, /) -> None: ...
    def memory(self) -> dict[str, int]: ...
