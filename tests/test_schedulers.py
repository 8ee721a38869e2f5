"""Schedulers: stored results of diffusers, float64 formulations, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numeric import schedule
from numeric_cases import SCHEDULER_CASES, references
from numpy.typing import NDArray

import marigold_c as mc
from marigold_c import _testing as engine
from marigold_c.errors import CheckpointError

REFERENCES = references()
DDIM: dict[str, Any] = {"_class_name": "DDIMScheduler", "clip_sample": False}
LCM: dict[str, Any] = {"_class_name": "LCMScheduler"}
ZERO_SNR = {**DDIM, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("index", range(len(SCHEDULER_CASES)))
def test_equals_stored_diffusers(index: int) -> None:
    config, steps, eta = SCHEDULER_CASES[index]
    stored = {key: REFERENCES[f"scheduler/{index}/{key}"] for key in ("config", "timesteps", "alphas", "factors")}
    assert json.loads(str(stored["config"])) == [config, steps, eta], "run tools/make_reference_numeric.py"
    ours = schedule(config, steps, eta)
    assert ours.timesteps == stored["timesteps"].tolist()
    np.testing.assert_allclose(
        ours.alphas_cumprod[:: len(ours.alphas_cumprod) // 20], stored["alphas"], rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(ours.factors, stored["factors"], rtol=1e-6, atol=1e-6)


def betas64(name: str, count: int, begin: float, end: float) -> NDArray[np.float64]:
    if name == "linear":
        return np.linspace(begin, end, count)
    if name == "scaled_linear":
        return np.asarray(np.linspace(begin**0.5, end**0.5, count) ** 2)
    levels = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.asarray(np.minimum(1 - levels[1:] / levels[:-1], 0.999))


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("count", [1000, 77])
def test_noise_levels_equal_float64(name: str, zero_snr: bool, count: int) -> None:
    config = {**DDIM, "beta_schedule": name, "beta_start": 0.001, "beta_end": 0.02, "num_train_timesteps": count}
    expected = np.cumprod(1 - betas64(name, count, 0.001, 0.02))
    if zero_snr:
        root = np.sqrt(expected)
        expected = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    config |= {"rescale_betas_zero_snr": zero_snr, "prediction_type": "v_prediction"}
    # beta = 1 - alpha loses digits where beta is small; a thousand such factors.
    np.testing.assert_allclose(schedule(config, 1).alphas_cumprod, expected, rtol=0, atol=count * 2.0**-26)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"timestep_spacing": "trailing"}, [999, 749, 499, 249]),
        ({"timestep_spacing": "leading", "steps_offset": 1}, [751, 501, 251, 1]),
        ({"timestep_spacing": "leading"}, [750, 500, 250, 0]),
        ({"timestep_spacing": "linspace"}, [999, 666, 333, 0]),
    ],
    ids=str,
)
def test_ddim_spacings(options: dict[str, Any], expected: list[int]) -> None:
    assert schedule({**DDIM, **options}, 4).timesteps == expected


def test_lcm_timesteps() -> None:
    assert schedule(LCM, 1).timesteps == [999]
    assert schedule(LCM, 4).timesteps == [999, 759, 499, 259]
    assert schedule({**LCM, "original_inference_steps": 5}, 5).timesteps == [999, 799, 599, 399, 199]


def test_trailing_has_as_many_steps_as_asked() -> None:
    """1000/61 is rounded down, and a 62nd step would be -1."""
    timesteps = schedule({**DDIM, "timestep_spacing": "trailing"}, 61).timesteps
    assert len(timesteps) == 61
    assert min(timesteps) == 15


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_step_moves_along_a_known_path(prediction: str, eta: float) -> None:
    """From x_t = sqrt(a) x0 + sqrt(1-a) e and a perfect model, equation 12 must give x0 and e their new shares."""
    ours = schedule({**DDIM, "prediction_type": prediction, "timestep_spacing": "trailing"}, 8, eta)
    for t, (by_sample, by_model, by_noise, x0_sample, x0_model) in zip(ours.timesteps, ours.factors, strict=True):
        a = float(ours.alphas_cumprod[t])
        before = float(ours.alphas_cumprod[t - 125]) if t >= 125 else 1.0
        sample = np.array([a**0.5, (1 - a) ** 0.5])  # shares of (x0, e)
        model = {"epsilon": [0, 1], "sample": [1, 0], "v_prediction": [-((1 - a) ** 0.5), a**0.5]}[prediction]
        sigma = eta * ((1 - before) / (1 - a) * (1 - a / before)) ** 0.5
        expected = [before**0.5, (1 - before - sigma**2) ** 0.5]
        np.testing.assert_allclose(by_sample * sample + by_model * np.array(model), expected, atol=2e-5)
        np.testing.assert_allclose(x0_sample * sample + x0_model * np.array(model), [1, 0], atol=2e-5)
        np.testing.assert_allclose(by_noise, sigma, atol=1e-5)


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_pure_noise_is_left_by_one_finite_step(prediction: str, eta: float) -> None:
    ours = schedule({**ZERO_SNR, "prediction_type": prediction}, 1, eta)
    assert ours.alphas_cumprod[-1] == 0
    sign = 1 if prediction == "sample" else -1
    np.testing.assert_array_equal(ours.factors[0], [0, sign, 0, 0, sign])


def test_pure_noise_has_no_epsilon_step() -> None:
    with pytest.raises(ValueError, match="at time step 999 the sample has no signal"):
        schedule(ZERO_SNR, 1)


def test_last_lcm_step_adds_no_noise() -> None:
    factors = schedule(LCM, 3).factors
    assert np.all(factors[:-1, 2] > 0)
    assert factors[-1, 2] == 0
    np.testing.assert_array_equal(factors[-1, :2], factors[-1, 3:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_sample": True}, '"clip_sample": true is not supported'),
        ({"thresholding": True}, '"thresholding": true is not supported'),
        ({"prediction_type": "flow"}, '"prediction_type": "flow" is not supported; supported: epsilon'),
        ({"beta_schedule": "laplace"}, '"beta_schedule": "laplace" is not supported; supported: linear'),
        ({"timestep_spacing": "even"}, '"timestep_spacing": "even" is not supported; supported: leading'),
        ({"_class_name": "PNDMScheduler"}, '"_class_name": "PNDMScheduler" is not supported; supported: DDIM'),
    ],
    ids=lambda value: str(value)[:30],
)
def test_unsupported_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(NotImplementedError, match=message):
        schedule({**DDIM, **options}, 1)


def test_ddim_clips_unless_told_otherwise() -> None:
    with pytest.raises(NotImplementedError, match='"clip_sample"'):
        schedule({"_class_name": "DDIMScheduler"}, 1)
    assert schedule({"_class_name": "LCMScheduler"}, 1).class_name == "LCMScheduler"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trained_betas": [0.1, 0.2]}, "not a list of 1000 numbers"),
        ({"num_train_timesteps": 2, "trained_betas": [0.1, "b"]}, r'"trained_betas"\[1\] is "b"'),
        ({"num_train_timesteps": 2, "trained_betas": [0.1, 1.5]}, r'"trained_betas"\[1\] is 1.5'),
        ({"num_train_timesteps": "many"}, "num_train_timesteps"),
        ({"num_train_timesteps": 1}, "num_train_timesteps"),
        ({"beta_end": 1.5}, "beta_end 1.5"),
        ({"beta_start": 0, "beta_end": 0, "rescale_betas_zero_snr": True}, "cumulative alpha of time step"),
        ({"steps_offset": -1}, "steps_offset"),
        ({"set_alpha_to_one": "yes"}, "set_alpha_to_one"),
    ],
    ids=str,
)
def test_broken_configurations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        schedule({**DDIM, **options}, 1)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"_class_name": 3}'])
def test_broken_files_are_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"scheduler_config\.json"):
        engine.scheduler(text, 1, 0.0)


@pytest.mark.parametrize(
    ("config", "steps", "eta", "message"),
    [
        (DDIM, 0, 0.0, "num_inference_steps is 0"),
        (DDIM, -3, 0.0, "num_inference_steps is -3"),
        (DDIM, 1001, 0.0, "num_inference_steps is 1001; the model was trained with 1000"),
        (LCM, 51, 0.0, "num_inference_steps is 51; the LCM was distilled with 50"),
        ({**LCM, "num_train_timesteps": 20}, 1, 0.0, "original_inference_steps is 50; the model was trained with 20"),
        ({**DDIM, "steps_offset": 1}, 1000, 0.0, "time step 1000 of 1000 steps lies outside 0 to 999"),
        (DDIM, 2, -1.0, "eta is -1"),
        (DDIM, 2, float("nan"), "eta is -?nan"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_arguments_are_refused(config: dict[str, Any], steps: int, eta: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule(config, steps, eta)


def test_time_steps_are_checked() -> None:
    text = json.dumps({**DDIM, "steps_offset": 1})
    assert len(engine.step_factors(text, [4], 751)) == 7
    with pytest.raises(ValueError, match="call set_timesteps first"):
        engine.step_factors(text, [], 751)
    with pytest.raises(ValueError, match="time step 750 is none of"):
        engine.step_factors(text, [4], 750)
    # set_timesteps(1000) fails as its first step would be 1000: that step must not be usable afterwards.
    with pytest.raises(ValueError, match="time step 1000 is none of"):
        engine.step_factors(text, [4, 1000], 1000)


def test_time_steps_that_are_refused_leave_those_before() -> None:
    scheduler = mc.DDIMScheduler(steps_offset=500, clip_sample=False)
    scheduler.set_timesteps(1)
    for bad, message in ((2, "lies outside"), (0, "must be positive"), (1001, "was trained with")):
        with pytest.raises(ValueError, match=message):
            scheduler.set_timesteps(bad)
        assert (scheduler.num_inference_steps, list(scheduler.timesteps)) == (1, [500])
        scheduler.step(np.zeros((1, 4, 2, 2), np.float32), 500, np.zeros((1, 4, 2, 2), np.float32))


# ---- Euler and DPM-Solver++: what diffusers does not decide (tests/oracle/test_schedulers.py has the rest) ----
EULER, DPM = {"_class_name": "EulerDiscreteScheduler"}, {"_class_name": "DPMSolverMultistepScheduler"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**EULER, "use_beta_sigmas": True}, '"use_beta_sigmas": true is not supported'),
        ({**EULER, "timestep_type": "continuous"}, '"timestep_type": "continuous" is not supported'),
        ({**EULER, "interpolation_type": "cubic"}, '"interpolation_type": "cubic"'),
        ({**EULER, "final_sigmas_type": "one"}, '"final_sigmas_type": "one" is not supported; supported: zero'),
        ({**EULER, "sigma_min": -1.0}, '"sigma_min": -1 is not supported'),
        ({**EULER, "prediction_type": "flow_prediction"}, '"prediction_type": "flow_prediction"'),
        ({**DPM, "use_beta_sigmas": True}, '"use_beta_sigmas": true'),
        ({**DPM, "use_flow_sigmas": True}, '"use_flow_sigmas": true'),
        ({**DPM, "use_dynamic_shifting": True}, '"use_dynamic_shifting": true'),
        ({**DPM, "variance_type": "learned_range"}, '"variance_type": "learned_range"'),
        ({**DPM, "algorithm_type": "dpmsolver"}, '"algorithm_type": "dpmsolver" is not supported; supported: dpm'),
        ({**DPM, "algorithm_type": "deis"}, '"algorithm_type": "deis"'),
        ({**DPM, "solver_type": "bh2"}, '"solver_type": "bh2" is not supported; supported: midpoint, heun'),
        ({**DPM, "solver_order": 3}, '"solver_order": 3 is not supported; supported: 1, 2'),
        ({**DPM, "thresholding": True}, '"thresholding": true'),
    ],
    ids=lambda value: str(value)[-60:],
)
def test_what_the_new_schedulers_do_not_do_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(NotImplementedError, match=message):
        schedule(options, 2)


def test_two_spreads_of_sigmas_are_refused() -> None:
    with pytest.raises(CheckpointError, match="both use_karras_sigmas and use_exponential_sigmas"):
        schedule({**EULER, "use_karras_sigmas": True, "use_exponential_sigmas": True}, 2)
    with pytest.raises(CheckpointError, match="needs all of them between 0 and 1"):
        schedule({**EULER, "num_train_timesteps": 2, "trained_betas": [0.0, 0.1]}, 1)


@pytest.mark.parametrize("config", [EULER, DPM], ids=["euler", "dpm-solver"])
@pytest.mark.parametrize("steps", [1, 7, 999, 1000])
def test_every_number_is_finite(config: dict[str, Any], steps: int) -> None:
    """Of 1001 whole steps over 1000 two are the same: DPM-Solver's slope between them is left out."""
    for spacing in ("leading", "trailing", "linspace"):
        for last in ("zero", "sigma_min"):
            ours = schedule({**config, "timestep_spacing": spacing, "final_sigmas_type": last}, steps)
            assert np.isfinite(ours.factors).all()
            assert np.isfinite(ours.last_estimate).all()
            assert np.isfinite(ours.inputs).all()


@pytest.mark.parametrize("config", [EULER, DPM], ids=["euler", "dpm-solver"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_perfect_network_is_followed_to_the_end(config: dict[str, Any], prediction: str) -> None:
    """Whatever the steps, a network that knows the clean sample leads to it, and every estimate is it."""
    ours = schedule({**config, "prediction_type": prediction, "timestep_spacing": "trailing"}, 9)
    clean, noise, last = 0.7, -1.3, 0.0
    sample = noise * ours.init_noise_sigma
    for i, t in enumerate(ours.timesteps):
        alpha = float(ours.alphas_cumprod[t])
        sigma = ((1 - alpha) / alpha) ** 0.5
        seen = sample * ours.inputs[i]  # signal * (clean + sigma * noise of the sample)
        implied = (seen / alpha**0.5 - clean) / sigma
        signal, strength = alpha**0.5, (1 - alpha) ** 0.5
        model = {"epsilon": implied, "sample": clean, "v_prediction": signal * implied - strength * clean}[prediction]
        by_sample, by_model, _, x0_sample, x0_model = ours.factors[i]
        following = by_sample * sample + by_model * model + ours.last_estimate[i] * last
        last, sample = x0_sample * sample + x0_model * model, following
        assert last == pytest.approx(clean, abs=2e-4)
    assert sample == pytest.approx(clean, abs=2e-4)


def test_a_multistep_method_begins_anew() -> None:
    """The estimate of one schedule says nothing about the next, nor about a sample of another shape."""
    scheduler = mc.DPMSolverMultistepScheduler()
    rng = np.random.default_rng(0)
    outputs = [rng.standard_normal(3).astype(np.float32) for _ in range(4)]

    def run() -> list[NDArray[np.float32]]:
        scheduler.set_timesteps(4)
        sample, samples = outputs[0], []
        for t, output in zip(scheduler.timesteps, outputs, strict=True):
            sample = scheduler.step(output, t, sample).prev_sample
            samples.append(sample)
        return samples

    first = run()
    np.testing.assert_array_equal(run(), first)
    scheduler.set_timesteps(4)
    scheduler.step(outputs[0], scheduler.timesteps[0], outputs[0])
    alone = mc.DPMSolverMultistepScheduler(solver_order=1)
    alone.set_timesteps(4)
    pair = np.stack([outputs[1], outputs[2]])
    np.testing.assert_array_equal(
        scheduler.step(pair, scheduler.timesteps[1], pair).prev_sample,
        alone.step(pair, alone.timesteps[1], pair).prev_sample,
    )


def test_euler_needs_to_know_where_it_is() -> None:
    scheduler = mc.EulerDiscreteScheduler()
    assert scheduler.timesteps.dtype == np.float32
    assert scheduler.init_noise_sigma == pytest.approx(157.407, rel=1e-5)
    with pytest.raises(ValueError, match="call set_timesteps first"):
        scheduler.scale_model_input(np.ones(2, np.float32), 999.0)
    scheduler.set_timesteps(3)
    assert scheduler.timesteps.tolist() == [999.0, 499.5, 0.0]
    with pytest.raises(ValueError, match="`timestep` is needed"):
        scheduler.scale_model_input(np.ones(2, np.float32))
    with pytest.raises(ValueError, match=r"time step 500 is none of the scheduler's 3 time steps"):
        scheduler.scale_model_input(np.ones(2, np.float32), 500.0)
    with pytest.raises(NotImplementedError, match="`s_churn` is 1"):
        scheduler.step(np.ones(2), 999.0, np.ones(2), s_churn=1.0)
