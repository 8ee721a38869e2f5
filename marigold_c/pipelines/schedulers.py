"""DDIM, LCM, Euler and DPM-Solver++ with diffusers' interface, on NumPy arrays. The numbers are the engine's."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _C
from ..loading.config import Config, read_config
from ..loading.packed import Configurations, is_packed

Array = NDArray[np.float32]
_CONFIG = "scheduler/scheduler_config.json"

_LEVELS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "steps_offset": 0,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
}
_THRESHOLDING: dict[str, Any] = {
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}
_SHARED_DEFAULTS: dict[str, Any] = {
    **_LEVELS,
    **_THRESHOLDING,
    "set_alpha_to_one": True,
    "clip_sample_range": 1.0,
    "timestep_spacing": "leading",
}
_SIGMAS: dict[str, Any] = {
    **_LEVELS,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "final_sigmas_type": "zero",
    "timestep_spacing": "linspace",
}


@dataclass
class SchedulerOutput:
    """What one step gives: the sample of the next time step and the estimate of the clean one."""

    prev_sample: NDArray[np.float32]
    pred_original_sample: NDArray[np.float32]

    @property
    def denoised(self) -> NDArray[np.float32]:
        """The LCM scheduler's name for the estimate of the clean sample."""
        return self.pred_original_sample


def _plain(value: Any) -> Any:
    """NumPy arrays and numbers as JSON can hold them (trained_betas)."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


class Scheduler:
    """What all schedulers share. `config` holds every option, defaults included."""

    _DEFAULTS: ClassVar[Mapping[str, Any]] = {}
    order = 1
    _step_index: int | None = None  # of a scheduler that counts its steps
    _last_estimate: NDArray[np.float32] | None = None

    def __init__(self, **options: Any) -> None:
        unknown = sorted(set(options) - set(self._DEFAULTS))
        if unknown:
            raise TypeError(f"{type(self).__name__} has no option {', '.join(unknown)}")
        values = {key: _plain(options.get(key, default)) for key, default in self._DEFAULTS.items()}
        values["_class_name"] = type(self).__name__
        self._handle = _C.Scheduler(json.dumps(values))
        # As in diffusers: what was not given may take another default in another class made from this.
        values["_use_default_values"] = [key for key in self._DEFAULTS if key not in options]
        self.config = Config(values)
        self.num_inference_steps: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | Scheduler, **overrides: Any) -> Self:
        """A scheduler with the options of `config` that this class knows, changed by `overrides`."""
        if isinstance(config, Scheduler):
            config = config.config
        if not isinstance(config, Mapping):
            raise ValueError(f"`config` must be a dictionary or a scheduler; got {type(config)}")
        defaulted = set(config.get("_use_default_values", ()))
        options = {key: config[key] for key in cls._DEFAULTS if key in config and key not in defaulted}
        return cls(**{**options, **overrides})

    @classmethod
    def from_pretrained(cls, folder: str | PathLike[str], subfolder: str | None = None, **overrides: Any) -> Self:
        """The scheduler of a checkpoint's folder: its scheduler_config.json, by default in `scheduler`; or of a packed
        file."""
        if is_packed(Path(folder)):
            return cls.from_config(Configurations(Path(folder))[_CONFIG], **overrides)
        path = Path(folder) / subfolder if subfolder else Path(folder)
        if not (path / "scheduler_config.json").is_file() and subfolder is None:
            path = path / "scheduler"
        return cls.from_config(read_config(path / "scheduler_config.json"), **overrides)

    @property
    def timesteps(self) -> NDArray[Any]:
        """The time steps in order of use, int64 or (Euler) float32; before set_timesteps all those of training."""
        steps = self._handle.timesteps
        if steps.size:
            return steps
        return np.arange(int(self.config["num_train_timesteps"]), dtype=steps.dtype)[::-1].copy()

    @property
    def alphas_cumprod(self) -> NDArray[np.float32]:
        return self._handle.alphas_cumprod

    @property
    def init_noise_sigma(self) -> float:
        return self._handle.init_noise_sigma

    def set_timesteps(self, num_inference_steps: int, device: object = None) -> None:
        """Spreads `num_inference_steps` over the time steps of training; `device` is accepted and has no meaning."""
        self._handle.set_timesteps(num_inference_steps)
        self.num_inference_steps = num_inference_steps
        self._step_index = self._last_estimate = None

    def scale_model_input(self, sample: NDArray[Any], timestep: float | None = None) -> NDArray[Any]:
        """What the network is to see: the sample itself, but for Euler, where it is divided by its deviation."""
        return sample

    def _index_of(self, timestep: float) -> int:
        """The place of a time step; the first that has not been taken, where schedules hold one twice."""
        found = self._handle.step_of(float(timestep))
        if self._step_index is not None and self._step_index < len(self.timesteps):
            at = self._step_index
            return at if self.timesteps[at] == timestep else found
        return found

    def _step(
        self,
        model_output: ArrayLike,
        timestep: float,
        sample: ArrayLike,
        eta: float,
        noise: NDArray[np.float32] | None,
    ) -> SchedulerOutput:
        model, start = np.asarray(model_output, np.float32), np.asarray(sample, np.float32)
        if model.shape != start.shape:
            raise ValueError(f"`model_output` has shape {model.shape} and `sample` {start.shape}")
        step, last = self._index_of(timestep), self._last_estimate
        follows = last is not None and step == self._step_index and last.shape == start.shape
        _, by_sample, by_model, by_noise, by_last, origin_by_sample, origin_by_model = map(
            np.float32, self._handle.step_coefficients(step, eta, follows)
        )
        previous = by_sample * start + by_model * model
        if noise is not None:
            previous = previous + by_noise * noise
        if last is not None and by_last:
            previous = previous + by_last * last
        estimate = origin_by_sample * start + origin_by_model * model
        self._step_index, self._last_estimate = step + 1, estimate
        return SchedulerOutput(previous, estimate)

    def _check_ready(self) -> None:
        if self.num_inference_steps is None:
            raise ValueError("the number of inference steps is not set: call set_timesteps first")

    def __repr__(self) -> str:
        options = {key: value for key, value in self.config.items() if not key.startswith("_")}
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in options.items())})"


def draw_noise(shape: Sequence[int], generator: Any) -> NDArray[np.float32]:
    """Normal random numbers as diffusers draws them: one generator for all, or a list with one for each sample."""
    generators = as_generators(generator)
    if generators is None:
        generators = [_C.Generator(int.from_bytes(np.random.default_rng().bytes(8), "little"))]
    if len(generators) == 1:
        noise = generators[0].randn(tuple(shape))
    elif len(generators) < shape[0]:
        raise ValueError(f"{len(generators)} generators for {shape[0]} samples")
    else:
        noise = np.concatenate([generators[i].randn((1, *shape[1:])) for i in range(shape[0])])
    advance_torch_generators(generator, generators)
    return noise


def _is_torch_generator(item: object) -> bool:
    """Whether `item` is a torch.Generator of the CPU; torch is never imported for the question."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(item, torch.Generator):
        return False
    if item.device.type != "cpu":
        raise ValueError(
            f"`generator` is on {item.device}; its numbers exist there only. Use one of the CPU, or a seed."
        )
    return True


def advance_torch_generators(generator: Any, used: Sequence[_C.Generator]) -> None:
    """Moves each torch.Generator among the argument `generator` to where its stand-in of as_generators has come."""
    items = generator if isinstance(generator, (list, tuple)) else [generator]
    for item, stand_in in zip(items, used, strict=False):
        if _is_torch_generator(item):
            torch = sys.modules["torch"]
            item.set_state(torch.frombuffer(bytearray(stand_in.get_state()), dtype=torch.uint8))


def as_generators(generator: Any) -> list[_C.Generator] | None:
    """Generators of a generator (ours or torch's), a seed, or a list of them; None for None."""
    if generator is None:
        return None
    found: list[_C.Generator] = []
    stand_ins: dict[int, _C.Generator] = {}
    for item in generator if isinstance(generator, (list, tuple)) else [generator]:
        if isinstance(item, _C.Generator):
            found.append(item)
        elif isinstance(item, (int, np.integer)) and not isinstance(item, bool):
            found.append(_C.Generator(int(item)))
        elif _is_torch_generator(item):
            # One stand-in for each, since a generator may stand in the list more than once.
            if id(item) not in stand_ins:
                stand_ins[id(item)] = _C.Generator(0).set_state(item.get_state().numpy().tobytes())
            found.append(stand_ins[id(item)])
        else:
            raise ValueError(f"Unsupported generator type: {type(item)}.")
    return found


class DDIMScheduler(Scheduler):
    """diffusers' DDIMScheduler. Clipping and thresholding, which no Marigold checkpoint uses, are refused."""

    _DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **_SHARED_DEFAULTS,
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "clip_sample": True,
    }

    @overload
    def step(self, *args: Any, return_dict: Literal[False], **kwargs: Any) -> tuple[Array, Array]: ...
    @overload
    def step(
        self,
        model_output: ArrayLike,
        timestep: int,
        sample: ArrayLike,
        eta: float = 0.0,
        generator: Any = None,
        return_dict: Literal[True] = True,
    ) -> SchedulerOutput: ...
    def step(  # type: ignore[misc]  # the first overload shortens its arguments
        self,
        model_output: ArrayLike,
        timestep: int,
        sample: ArrayLike,
        eta: float = 0.0,
        generator: Any = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Array, Array]:
        """One step towards the clean sample; noise is added only with eta > 0."""
        self._check_ready()
        noise = draw_noise(np.shape(model_output), generator) if eta > 0 else None
        out = self._step(model_output, timestep, sample, eta, noise)
        return out if return_dict else (out.prev_sample, out.pred_original_sample)


class LCMScheduler(Scheduler):
    """diffusers' LCMScheduler."""

    _DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **_SHARED_DEFAULTS,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "original_inference_steps": 50,
        "timestep_scaling": 10.0,
    }

    @overload
    def step(self, *args: Any, return_dict: Literal[False], **kwargs: Any) -> tuple[Array, Array]: ...
    @overload
    def step(
        self,
        model_output: ArrayLike,
        timestep: int,
        sample: ArrayLike,
        generator: Any = None,
        return_dict: Literal[True] = True,
    ) -> SchedulerOutput: ...
    def step(  # type: ignore[misc]  # the first overload shortens its arguments
        self,
        model_output: ArrayLike,
        timestep: int,
        sample: ArrayLike,
        generator: Any = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Array, Array]:
        """One step towards the clean sample; all but the last add noise."""
        self._check_ready()
        last = int(timestep) == int(self.timesteps[-1])
        noise = None if last else draw_noise(np.shape(model_output), generator)
        out = self._step(model_output, timestep, sample, 0.0, noise)
        return out if return_dict else (out.prev_sample, out.pred_original_sample)


class EulerDiscreteScheduler(Scheduler):
    """diffusers' EulerDiscreteScheduler, which steps along noise levels (sigmas) without adding noise. Beta sigmas and
    continuous time steps are refused. Pipelines use its steps as diffusers' Marigold pipelines do: they begin with unit
    noise and show the network the sample, without `init_noise_sigma` and `scale_model_input`."""

    _DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **_SIGMAS,
        "interpolation_type": "linear",
        "sigma_min": None,
        "sigma_max": None,
        "timestep_type": "discrete",
    }

    def scale_model_input(self, sample: NDArray[Any], timestep: float | None = None) -> NDArray[Any]:
        """The sample divided by sqrt(sigma^2 + 1) of the time step."""
        if timestep is None:
            raise ValueError("`timestep` is needed: the scale of the network's input depends on it")
        self._check_ready()
        factor = self._handle.step_coefficients(self._index_of(timestep), 0.0, False)[0]
        scaled: NDArray[Any] = sample * np.float32(factor)
        return scaled

    @overload
    def step(self, *args: Any, return_dict: Literal[False], **kwargs: Any) -> tuple[Array, Array]: ...
    @overload
    def step(
        self,
        model_output: ArrayLike,
        timestep: float,
        sample: ArrayLike,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = float("inf"),
        s_noise: float = 1.0,
        generator: Any = None,
        return_dict: Literal[True] = True,
    ) -> SchedulerOutput: ...
    def step(  # type: ignore[misc]  # the first overload shortens its arguments
        self,
        model_output: ArrayLike,
        timestep: float,
        sample: ArrayLike,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = float("inf"),
        s_noise: float = 1.0,
        generator: Any = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Array, Array]:
        """One step towards the clean sample. s_churn, by which noise is added, must be 0."""
        self._check_ready()
        if s_churn:
            raise NotImplementedError(f"`s_churn` is {s_churn}: Euler steps that add noise are not supported")
        out = self._step(model_output, timestep, sample, 0.0, None)
        return out if return_dict else (out.prev_sample, out.pred_original_sample)


class DPMSolverMultistepScheduler(Scheduler):
    """diffusers' DPMSolverMultistepScheduler: DPM-Solver++ of order 1 or 2, deterministic or (sde-dpmsolver++) not.
    Refused by name: the first DPM-Solver, order 3, beta and flow sigmas, learned variances."""

    _DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **_SIGMAS,
        **_THRESHOLDING,
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
        "use_lu_lambdas": False,
        "use_flow_sigmas": False,
        "flow_shift": 1.0,
        "lambda_min_clipped": -float("inf"),
        "variance_type": None,
        "use_dynamic_shifting": False,
        "time_shift_type": "exponential",
    }

    @overload
    def step(self, *args: Any, return_dict: Literal[False], **kwargs: Any) -> tuple[Array]: ...
    @overload
    def step(
        self,
        model_output: ArrayLike,
        timestep: int,
        sample: ArrayLike,
        generator: Any = None,
        variance_noise: NDArray[np.float32] | None = None,
        return_dict: Literal[True] = True,
    ) -> SchedulerOutput: ...
    def step(  # type: ignore[misc]  # the first overload shortens its arguments
        self,
        model_output: ArrayLike,
        timestep: int,
        sample: ArrayLike,
        generator: Any = None,
        variance_noise: NDArray[np.float32] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Array]:
        """One step towards the clean sample, which goes by the estimate of the step before: take them in order."""
        self._check_ready()
        noise = variance_noise if self.config["algorithm_type"] == "sde-dpmsolver++" else None
        if noise is None and self.config["algorithm_type"] == "sde-dpmsolver++":
            noise = draw_noise(np.shape(model_output), generator)
        out = self._step(model_output, timestep, sample, 0.0, noise)
        return out if return_dict else (out.prev_sample,)


SCHEDULERS: dict[str, type[Scheduler]] = {
    "DDIMScheduler": DDIMScheduler,
    "LCMScheduler": LCMScheduler,
    "EulerDiscreteScheduler": EulerDiscreteScheduler,
    "DPMSolverMultistepScheduler": DPMSolverMultistepScheduler,
}


def scheduler_of(configurations: Configurations, by_ddim: bool = False) -> Scheduler:
    """The scheduler of a checkpoint, of the class that its configuration names; by_ddim: DDIM with its noise levels and
    trailing time steps, whatever class that is."""
    config = configurations[_CONFIG]
    if by_ddim:
        return DDIMScheduler.from_config(trained_schedule(config, "latent", False))
    name = config.get("_class_name")
    if name not in SCHEDULERS:
        raise NotImplementedError(
            f"{configurations.checkpoint / _CONFIG}: _class_name {name!r} is not supported; "
            f"supported: {', '.join(SCHEDULERS)}"
        )
    return SCHEDULERS[name].from_config(config)


def trained_schedule(base: Mapping[str, Any], objective: str, zero_terminal_snr: bool = True) -> dict[str, Any]:
    """What a network predicts with that was trained from a checkpoint with the scheduler `base`, of any class: the
    base's betas, rescaled as for training, and trailing time steps."""
    kind: type[Scheduler] = LCMScheduler if objective == "lcm" else DDIMScheduler
    # Where betas are not written, they are the defaults of the base's class; all others that train have DDIM's.
    defaults = SCHEDULERS.get(str(base.get("_class_name")), DDIMScheduler)._DEFAULTS
    options = {key: defaults[key] for key in ("beta_start", "beta_end", "beta_schedule")}
    options |= {key: value for key, value in base.items() if key != "_use_default_values"}
    options |= {"clip_sample": False, "thresholding": False, "timestep_spacing": "trailing"}
    options["rescale_betas_zero_snr"] = zero_terminal_snr or bool(options.get("rescale_betas_zero_snr", False))
    written = {key: value for key, value in kind.from_config(options).config.items() if key != "_use_default_values"}
    return written | {key: base[key] for key in ("_diffusers_version",) if key in base}
