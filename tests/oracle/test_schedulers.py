"""Schedulers against diffusers: noise levels, time steps, and the factors of every step, read off unit vectors."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numeric import schedule
from numpy.typing import NDArray

import marigold_c as mc

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTIONS = ("epsilon", "sample", "v_prediction")
SPACINGS = ("leading", "trailing", "linspace")
CLASSES = ("DDIMScheduler", "LCMScheduler")


def make(config: dict[str, Any], steps: int) -> Any:
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    scheduler.set_timesteps(steps)
    return scheduler


def one_step(scheduler: Any, t: Any, part: int, eta: float, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """The step of a sample, model output and noise of which only `part` is 1: its factors."""
    sample, model, noise = (torch.tensor([float(part == i)]) for i in range(3))
    if isinstance(scheduler, diffusers.DDIMScheduler):
        out = scheduler.step(model, t, sample, eta=eta, variance_noise=noise if eta > 0 else None)
        return out.prev_sample.item(), out.pred_original_sample.item()
    monkeypatch.setattr("diffusers.schedulers.scheduling_lcm.randn_tensor", lambda *args, **kwargs: noise)
    scheduler._step_index = None
    out = scheduler.step(model, t, sample)
    return out.prev_sample.item(), out.denoised.item()


def factors(scheduler: Any, eta: float, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.float64]:
    rows = []
    for t in scheduler.timesteps:
        parts = [one_step(scheduler, t, part, eta, monkeypatch) for part in range(3)]
        rows.append([parts[0][0], parts[1][0], parts[2][0], parts[0][1], parts[1][1]])
    return np.array(rows)


def config_of(name: str, **options: Any) -> dict[str, Any]:
    return {"_class_name": name, "clip_sample": False, **options}


def sqrt_error(value: float, error: float) -> float:
    """The error of a square root of a number near zero whose own error is `error`."""
    return float(error / (2 * np.sqrt(value))) if value > error else float(np.sqrt(error))


def allowed(scheduler: Any, eta: float) -> NDArray[np.float64]:
    """Per step: 1e-6, and what float32 leaves of the direction sqrt(1 - a' - sigma^2) where that nearly cancels."""
    result = []
    for t in scheduler.timesteps:
        bound = 1e-6
        if eta > 0:
            previous = int(t) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
            alpha = float(scheduler.alphas_cumprod[t])
            before = float(scheduler.alphas_cumprod[previous] if previous >= 0 else scheduler.final_alpha_cumprod)
            rest = 1 - before - eta**2 * (1 - before) / (1 - alpha) * (1 - alpha / before)
            bound += sqrt_error(max(rest, 0.0), 2.0**-22)
        result.append(bound)
    return np.array(result)[:, None]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("beta_schedule", SCHEDULES)
@pytest.mark.parametrize("train", [1000, 333, 100])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_noise_levels(name: str, beta_schedule: str, train: int, zero_snr: bool) -> None:
    config = config_of(
        name,
        **{"beta_schedule": beta_schedule, "num_train_timesteps": train, "beta_end": 0.013},
        **{"rescale_betas_zero_snr": zero_snr, "prediction_type": "v_prediction"},
    )
    ours, theirs = schedule(config, 1), make(config, 1)
    # torch's float32 square root is not correctly rounded where it comes from MKL; the rescaling magnifies that.
    np.testing.assert_allclose(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=0, atol=1e-6 if zero_snr else 6e-8)
    assert ours.class_name == name
    assert ours.init_noise_sigma == theirs.init_noise_sigma
    if zero_snr:
        assert ours.alphas_cumprod[-1] == theirs.alphas_cumprod[-1] == 0


@pytest.mark.parametrize("train", [1000, 333, 50])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_ddim_timesteps(train: int, spacing: str) -> None:
    config = config_of("DDIMScheduler", num_train_timesteps=train, timestep_spacing=spacing)
    theirs = make(config, 1)
    for steps in range(1, train + 1):
        theirs.set_timesteps(steps)
        expected = theirs.timesteps.tolist()
        if spacing == "trailing" and expected[-1] == -1:
            expected.pop()  # arange's rounding: a step too many, at which there is no noise level
        assert schedule(config, steps).timesteps == expected, steps


@pytest.mark.parametrize(("train", "original"), [(1000, 50), (1000, 333), (100, 7), (20, 20)])
def test_lcm_timesteps(train: int, original: int) -> None:
    config = config_of("LCMScheduler", num_train_timesteps=train, original_inference_steps=original)
    theirs = make(config, 1)
    for steps in range(1, original + 1):
        theirs.set_timesteps(steps)
        assert schedule(config, steps).timesteps == theirs.timesteps.tolist(), steps
    with pytest.raises(ValueError, match=f"num_inference_steps is {original + 1}"):
        schedule(config, original + 1)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("beta_schedule", SCHEDULES)
def test_factors(name: str, prediction: str, beta_schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for spacing, to_one, eta, steps in itertools.product(SPACINGS, (False, True), (0.0, 0.4, 1.0), (1, 2, 4, 11)):
        config = config_of(
            name,
            **{"prediction_type": prediction, "beta_schedule": beta_schedule, "timestep_spacing": spacing},
            **{"set_alpha_to_one": to_one, "steps_offset": int(spacing == "leading")},
        )
        if name == "LCMScheduler" and (eta or spacing != "leading"):
            continue  # options of DDIM
        theirs, ours = make(config, steps), schedule(config, steps, eta)
        assert ours.timesteps == theirs.timesteps.tolist()
        expected = factors(theirs, eta, monkeypatch)
        # Relative to the largest factor of the step: dividing by a small signal makes all of them large.
        size = np.fmax(1.0, np.abs(expected).max(axis=1, keepdims=True))
        close = np.abs(ours.factors - expected) <= allowed(theirs, eta) * size
        # diffusers' direction is the root of a number that rounding can make negative; ours is then zero.
        undefined = np.isnan(expected).any(axis=1, keepdims=True)
        assert np.all(close | undefined), (config, steps, eta)
        assert np.isfinite(ours.factors).all()


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 2, 4, 10])
def test_zero_terminal_snr(prediction: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule of marigold-depth-v1-1: no signal at the first step, which must stay finite."""
    config = config_of(
        "DDIMScheduler",
        **{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": prediction},
        **{"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "set_alpha_to_one": False},
    )
    theirs, ours = make(config, steps), schedule(config, steps)
    expected = factors(theirs, 0.0, monkeypatch)
    assert np.isfinite(ours.factors).all()
    assert ours.timesteps[0] == 999
    np.testing.assert_allclose(ours.factors, expected, rtol=0, atol=1e-6)


def test_lcm_options(monkeypatch: pytest.MonkeyPatch) -> None:
    for scaling, original, offset, to_one in itertools.product((10.0, 1.0, 0.01), (20, 50), (0, 1), (False, True)):
        config = config_of(
            "LCMScheduler",
            **{"timestep_scaling": scaling, "original_inference_steps": original, "steps_offset": offset},
            set_alpha_to_one=to_one,
        )
        for steps in (1, 2, 4, 7):
            theirs, ours = make(config, steps), schedule(config, steps)
            expected = factors(theirs, 0.0, monkeypatch)
            size = np.maximum(1.0, np.abs(expected).max(axis=1, keepdims=True))
            assert np.all(np.abs(ours.factors - expected) <= 1e-6 * size), (config, steps)


@pytest.mark.parametrize("name", CLASSES)
def test_trained_betas(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    betas = (np.linspace(0.01, 0.12, 60) ** 2).tolist()
    config = config_of(name, num_train_timesteps=60, trained_betas=betas, original_inference_steps=20)
    theirs, ours = make(config, 5), schedule(config, 5)
    np.testing.assert_allclose(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=0, atol=6e-8)
    np.testing.assert_allclose(ours.factors, factors(theirs, 0.0, monkeypatch), rtol=0, atol=1e-6)


# ---- Euler and DPM-Solver++ ----
EULER: list[dict[str, Any]] = [
    {},
    {"steps_offset": 1},
    {"final_sigmas_type": "sigma_min"},
    {"interpolation_type": "log_linear"},
    {"use_karras_sigmas": True},
    {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0},
    {"use_exponential_sigmas": True},
]
DPM: list[dict[str, Any]] = [
    {},
    {"steps_offset": 1},
    {"solver_order": 1},
    {"solver_type": "heun", "final_sigmas_type": "sigma_min"},
    {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
    {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
    {"algorithm_type": "sde-dpmsolver++"},
    {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "final_sigmas_type": "sigma_min"},
    {"lambda_min_clipped": -5.1},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_lu_lambdas": True},
]
VARIANTS = [
    *(pytest.param("EulerDiscreteScheduler", options, id=f"euler {options}") for options in EULER),
    *(pytest.param("DPMSolverMultistepScheduler", options, id=f"dpm-solver {options}") for options in DPM),
]


def with_levels(config: dict[str, Any], levels: NDArray[np.float32]) -> Any:
    """diffusers' scheduler with our noise levels, which may differ from its own in the last digit: (1 - alpha) / alpha
    makes that digit the first where alpha is near 1."""
    theirs = getattr(diffusers, config["_class_name"]).from_config(config)
    np.testing.assert_allclose(theirs.alphas_cumprod, levels, rtol=0, atol=1e-6)
    alphas = theirs.alphas_cumprod = torch.tensor(levels)
    if hasattr(theirs, "lambda_t"):
        theirs.lambda_t = torch.log(alphas.sqrt()) - torch.log((1 - alphas).sqrt())
    return theirs


def close(ours: NDArray[Any], theirs: Any, *magnitudes: Any) -> None:
    """Within the rounding of sums whose terms are as large as `magnitudes`."""
    size = max([1.0, *(float(np.abs(magnitude).max()) for magnitude in magnitudes)])
    assert np.abs(ours - np.asarray(theirs)).max() <= 2e-6 * size


@pytest.mark.parametrize("beta_schedule", SCHEDULES)
@pytest.mark.parametrize("zero_snr", [False, True], ids=["", "zero snr"])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_steps_along_noise_levels(name: str, options: dict[str, Any], zero_snr: bool, beta_schedule: str) -> None:
    """Whole runs on random outputs: time steps, what the network sees, samples, estimates."""
    rng = np.random.default_rng(0)
    for prediction, spacing, steps in itertools.product(PREDICTIONS, SPACINGS, (1, 2, 4, 10, 50)):
        config = {
            **{"_class_name": name, "prediction_type": prediction, "timestep_spacing": spacing, **options},
            **{"beta_schedule": beta_schedule, "rescale_betas_zero_snr": zero_snr},
        }
        ours = getattr(mc, name).from_config(config)
        theirs = with_levels(config, ours.alphas_cumprod)
        ours.set_timesteps(steps)
        theirs.set_timesteps(steps)
        theirs.set_begin_index(0)
        np.testing.assert_allclose(ours.timesteps, theirs.timesteps, rtol=0, atol=2e-3)
        np.testing.assert_allclose(ours.init_noise_sigma, float(theirs.init_noise_sigma), rtol=1e-6)
        sample = (rng.standard_normal(64) * ours.init_noise_sigma).astype(np.float32)
        for t, ours_t in zip(theirs.timesteps, ours.timesteps, strict=True):
            output, noise = rng.standard_normal((2, 64)).astype(np.float32)
            seen = ours.scale_model_input(sample, ours_t)
            close(seen, theirs.scale_model_input(torch.tensor(sample), t), seen)
            given = {"variance_noise": noise} if "sde" in options.get("algorithm_type", "") else {}
            mine = ours.step(output, ours_t, sample, **given)
            torch_noise = {key: torch.tensor(value) for key, value in given.items()}
            reference = theirs.step(torch.tensor(output), t, torch.tensor(sample), **torch_noise)
            close(mine.prev_sample, reference.prev_sample, sample, mine.prev_sample, mine.pred_original_sample)
            if hasattr(reference, "pred_original_sample"):
                close(mine.pred_original_sample, reference.pred_original_sample, sample, mine.pred_original_sample)
            sample = reference.prev_sample.numpy()


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_configurations_that_diffusers_saves(name: str, tmp_path: Path) -> None:
    theirs = getattr(diffusers, name)(prediction_type="v_prediction", use_karras_sigmas=True)
    theirs.save_pretrained(tmp_path)
    ours = getattr(mc, name).from_pretrained(tmp_path)
    expected = {key: value for key, value in theirs.config.items() if not key.startswith("_")}
    assert {key: value for key, value in ours.config.items() if not key.startswith("_")} == expected
    text = (tmp_path / "scheduler_config.json").read_text()
    assert schedule(json.loads(text), 5).class_name == name
