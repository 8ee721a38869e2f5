"""Checks of a pipeline's arguments, with the conditions of diffusers' check_inputs, before anything is computed."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _C
from ..images.arrays import is_torch_tensor
from ..images.locations import pixels_of
from .schedulers import as_generators

RESAMPLE_METHODS = ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
LARGEST_ENSEMBLE = 256  # members that the engine merges (MG_MAX_MEMBERS)
_LARGEST_COUNT = 2**31 - 1


PRESETS = ("diffusers", "paper")
SOLVERS = ("closed-form", "reference")


@dataclass(frozen=True)
class Task:
    """What the checks need to know of a checkpoint."""

    vae_scale: int
    latent_channels: int  # of all targets together
    reductions: tuple[str, ...]  # of an ensemble; the first is the default
    ensembling_options: tuple[str, ...]  # keys of `ensembling_kwargs`


@dataclass(frozen=True)
class RunArguments:
    """Checked arguments. `latents` and `generators` have an entry for each run: one if joined, else one an image."""

    images: list[NDArray[Any]]
    joined: bool
    num_inference_steps: int
    ensemble_size: int
    processing_resolution: int
    resample_method_input: str
    resample_method_output: str | None  # None: that of the checkpoint's family
    batch_size: int  # 0: chosen by the engine
    preset: str
    ensembling: dict[str, Any]
    latents: list[NDArray[Any] | None]
    generators: list[list[_C.Generator] | None]

    def all_generators(self) -> list[_C.Generator]:
        """In the order of the argument; one that serves all runs stands once for each."""
        return [one for generators in self.generators for one in generators or ()]


def checked_count(name: str, value: Any) -> int:
    """A positive integer."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"`{name}` must be an integer; got {value!r}.") from None
    if number < 1:
        raise ValueError(f"`{name}` must be positive.")
    if number > _LARGEST_COUNT:
        raise ValueError(f"`{name}` is {number}; the largest is {_LARGEST_COUNT}.")
    return number


def _batch_size(value: Any) -> int:
    """None and 0: the engine chooses."""
    return 0 if value is None or value == 0 else checked_count("batch_size", value)


def checked_resolution(value: Any, vae_scale: int, preset: str = "diffusers") -> int:
    """The longer side while it is computed, 0 for the image's own; ValueError: missing, negative, no multiple."""
    if value is None:
        raise ValueError("`processing_resolution` is not specified and could not be resolved from the model config.")
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"`processing_resolution` must be an integer; got {value!r}.") from None
    if number < 0:
        raise ValueError(
            "`processing_resolution` must be non-negative: 0 for the image's own resolution, or a positive value for "
            "downsampled processing."
        )
    if preset == "diffusers" and number % vae_scale:
        raise ValueError(f"`processing_resolution` must be a multiple of {vae_scale}.")
    return min(number, _LARGEST_COUNT)


def _check_ensemble(size: int, output_uncertainty: bool, options: Any, task: Task) -> None:
    if size == 2:
        warnings.warn(
            "`ensemble_size` == 2 gives results similar to no ensembling (1); consider 3 or more", stacklevel=4
        )
    if size == 1 and output_uncertainty:
        raise ValueError("`output_uncertainty=True` also requires `ensemble_size` greater than 1.")
    if options is None:
        return
    if not isinstance(options, dict):
        raise ValueError("`ensembling_kwargs` must be a dictionary.")
    if options.get("reduction", task.reductions[0]) not in task.reductions:
        allowed = " or ".join(f"`{name!r}`" for name in task.reductions)
        raise ValueError(f"`ensembling_kwargs['reduction']` can be either {allowed}.")
    unknown = [str(key) for key in options if key not in task.ensembling_options]
    if unknown:
        raise TypeError(
            f"`ensembling_kwargs` has unknown keys {', '.join(unknown)}; known: {', '.join(task.ensembling_options)}"
        )


def ensembling_options(
    reduction: Any,
    solver: Any = "closed-form",
    regularizer_strength: Any = 0.02,
    max_iter: Any = 2,
    tol: Any = 1e-3,
    max_res: Any = 1024,
) -> dict[str, Any]:
    """Checked options of ensembling as the engine takes them; max_res None is the members' own resolution (0)."""
    if solver not in SOLVERS:
        raise ValueError(f"`solver` must be one of {', '.join(SOLVERS)}; got {solver!r}.")
    strength, tolerance = float(regularizer_strength), float(tol)
    if not (0 <= strength < math.inf and 0 <= tolerance < math.inf):
        raise ValueError(
            f"`regularizer_strength` ({strength}) and `tol` ({tolerance}) must be finite and not negative."
        )
    return {
        "reduction": reduction,
        "solver": solver,
        "regularizer_strength": strength,
        "max_iter": checked_count("max_iter", max_iter),
        "tol": tolerance,
        "max_res": 0 if max_res is None else checked_count("max_res", max_res),
    }


def _ensembling(options: Mapping[str, Any] | None, task: Task, preset: str) -> dict[str, Any]:
    """The paper's code gives its solver more iterations than diffusers does."""
    iterations = {"max_iter": 50, "tol": 1e-6} if preset == "paper" else {}
    return ensembling_options(**{"reduction": task.reductions[0], **iterations, **(options or {})})


def _check_choices(resample_input: str, resample_output: str | None, output_type: str) -> None:
    for name, value in (("input", resample_input), ("output", resample_output)):
        if value is not None and value not in RESAMPLE_METHODS:
            raise ValueError(f"`resample_method_{name}` must be one of {', '.join(RESAMPLE_METHODS)}; got {value!r}.")
    if output_type not in ("pt", "np"):
        raise ValueError("`output_type` must be one of `pt` or `np`.")
    if output_type == "pt" and find_spec("torch") is None:
        raise ImportError('`output_type="pt"` returns torch tensors, and torch is not installed')


def _read_images(image: Any) -> list[NDArray[Any]]:
    """Arrays (N, H, W, C) of the image or of each image of a list."""
    images = image if isinstance(image, list) else [image]
    if not images:
        raise ValueError("`image` is an empty list.")
    return [pixels_of(one, f"image[{i}]") for i, one in enumerate(images)]


def _latents_of(value: Any, shape: tuple[int, ...]) -> NDArray[Any] | None:
    if value is None:
        return None
    if isinstance(value, str):
        if value != "zeros":
            raise ValueError(f'`latents` must be an array or "zeros"; got {value!r}.')
        return np.zeros(shape, np.float32)
    if is_torch_tensor(value):
        value = value.detach().cpu().float().numpy()
    if not isinstance(value, np.ndarray):
        raise ValueError(f'`latents` must be an array or "zeros"; got {type(value)}.')
    if value.ndim != 4:
        raise ValueError(f"`latents` has unsupported dimensions or shape: {value.shape}.")
    if value.shape != shape:
        raise ValueError(f"`latents` has unexpected shape={value.shape} expected={shape}.")
    return value


def _check_latents(
    latents: Any, groups: list[tuple[int, int, int]], resolution: int, task: Task, preset: str
) -> list[NDArray[Any] | None]:
    """Latents for each run; `groups` has the (samples, height, width) of each run."""
    if len(groups) == 1:
        given = [latents]
    elif isinstance(latents, list):
        if len(latents) != len(groups):
            raise ValueError(f"`latents` is a list of {len(latents)} for {len(groups)} images of different sizes.")
        given = latents
    else:
        if latents is not None and not isinstance(latents, str):
            raise ValueError("`latents` must be a list with one array for each image when their sizes differ.")
        given = [latents] * len(groups)
    checked = []
    for value, (samples, h, w) in zip(given, groups, strict=True):
        # Also without latents: it refuses images of which nothing would be left.
        *_, padded_h, padded_w = _C.geometry(h, w, resolution, task.vae_scale, preset)
        shape = (samples, task.latent_channels, padded_h // task.vae_scale, padded_w // task.vae_scale)
        checked.append(_latents_of(value, shape))
    return checked


def _check_generators(generator: Any, groups: list[tuple[int, int, int]]) -> list[list[_C.Generator] | None]:
    """Generators for each run. One generator serves all runs in turn; a list has one for each sample."""
    generators = as_generators(generator)
    if generators is None:
        return [None] * len(groups)
    samples = [group[0] for group in groups]
    if not isinstance(generator, (list, tuple)):
        return [generators] * len(groups)
    if len(generators) != sum(samples):
        raise ValueError(
            "The number of generators must match the total number of ensemble members for all input images."
        )
    ends = np.cumsum(samples).tolist()
    return [generators[end - count : end] for end, count in zip(ends, samples, strict=True)]


def check_arguments(
    task: Task,
    image: Any,
    num_inference_steps: Any,
    ensemble_size: Any,
    processing_resolution: Any,
    resample_method_input: str,
    resample_method_output: str | None,
    batch_size: Any,
    ensembling_kwargs: Mapping[str, Any] | None,
    latents: Any,
    generator: Any,
    output_type: str,
    output_uncertainty: bool,
    preset: str,
) -> RunArguments:
    """Raises what diffusers raises, in its order; gives the images as arrays and the rest by run."""
    if num_inference_steps is None:
        raise ValueError("`num_inference_steps` is not specified and could not be resolved from the model config.")
    if preset not in PRESETS:
        raise ValueError(f'`preset` must be "diffusers" or "paper"; got {preset!r}.')
    steps = checked_count("num_inference_steps", num_inference_steps)
    members = checked_count("ensemble_size", ensemble_size)
    if members > LARGEST_ENSEMBLE:
        raise ValueError(f"`ensemble_size` is {members}; at most {LARGEST_ENSEMBLE} members are merged.")
    _check_ensemble(members, output_uncertainty, ensembling_kwargs, task)
    resolution = checked_resolution(processing_resolution, task.vae_scale, preset)
    _check_choices(resample_method_input, resample_method_output, output_type)
    batch = _batch_size(batch_size)
    if latents is not None and generator is not None:
        raise ValueError("`latents` and `generator` cannot be used together.")
    images = _read_images(image)
    joined = len({one.shape[1:3] for one in images}) == 1
    counts = [len(one) * members for one in images]
    sizes = [one.shape[1:3] for one in images]
    groups = [(sum(counts), *sizes[0])] if joined else [(n, *size) for n, size in zip(counts, sizes, strict=True)]
    return RunArguments(
        images=images,
        joined=joined,
        num_inference_steps=steps,
        ensemble_size=members,
        processing_resolution=resolution,
        resample_method_input=resample_method_input,
        resample_method_output=resample_method_output,
        batch_size=batch,
        preset=preset,
        ensembling=_ensembling(ensembling_kwargs, task, preset),
        latents=_check_latents(latents, groups, resolution, task, preset),
        generators=_check_generators(generator, groups),
    )
