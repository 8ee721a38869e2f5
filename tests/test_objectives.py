"""End-to-end fine-tuning and consistency distillation on the small checkpoints: what is the same to the bit, what is
saved, and what is refused. Losses, gradients and steps are compared with torch in tests/oracle/test_objectives.py."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import marigold_c as mc

Array = NDArray[np.float32]
Inputs = dict[str, Any]
OBJECTIVES = ("e2e", "lcm")
H, W = 3, 4  # of latents


def open_trainer(objective: str, folder: Path | None = None, **options: Any) -> mc.Trainer:
    defaults = {"task": "depth", "num_threads": 1, "learning_rate": 1e-3, "optimizer": "adamw"}
    return mc.Trainer.from_pretrained(
        folder or mc.default_checkpoint(), objective=objective, **{**defaults, "max_gradient_norm": 1.0, **options}
    )


def batch(objective: str, seed: int, samples: int = 2, channels: int = 1) -> Inputs:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return rng.standard_normal((samples, *shape)).astype(np.float32)

    inputs: Inputs = {"image_latent": normal(4, H, W)}
    if objective == "e2e":
        mask = rng.random((samples, 1, 8 * H, 8 * W)) > 0.2
        return {**inputs, "pixel_target": normal(channels, 8 * H, 8 * W), "pixel_mask": mask}
    inputs |= {"target_latent": normal(4, H, W), "noise": normal(4, H, W)}
    inputs["timesteps"] = (rng.integers(0, 5, samples) + 1) * 200 - 1
    return {**inputs, "mask": rng.random((samples, 1, H, W)) > 0.2}


def part_of(inputs: Inputs, samples: slice) -> Inputs:
    return {name: values[samples] for name, values in inputs.items()}


def average(trainer: mc.Trainer) -> dict[str, Array]:
    return {name: trainer._engine.read(i, "average") for i, name in enumerate(trainer._engine.names())}


def assert_same(a: dict[str, Array], b: dict[str, Array]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def differ(a: dict[str, Array], b: dict[str, Array]) -> bool:
    return any(not np.array_equal(a[name], b[name]) for name in a)


def train(objective: str, steps: range, trainer: mc.Trainer) -> list[float]:
    losses = []
    for step in steps:
        losses.append(trainer.forward_backward(**batch(objective, step)))
        trainer.optimizer_step()
    return losses


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_threads_do_not_change_a_bit(objective: str) -> None:
    results = []
    for threads in (1, 3):
        trainer = open_trainer(objective, num_threads=threads)
        results.append((train(objective, range(3), trainer), trainer.parameters(), average(trainer)))
    assert results[0][0] == results[1][0]
    assert_same(results[0][1], results[1][1])
    assert_same(results[0][2], results[1][2])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_micro_batches_do_not_change_a_bit(objective: str) -> None:
    """Two batches of one sample, of half the weight each, are one of two, where as much of both counts."""
    inputs = batch(objective, 1)
    name = "pixel_mask" if objective == "e2e" else "mask"
    inputs[name][1] = inputs[name][0]
    trainer = open_trainer(objective)
    loss = trainer.forward_backward(**inputs)
    together = trainer.gradients()
    trainer.clear_gradients()
    losses = [trainer.forward_backward(**part_of(inputs, slice(i, i + 1)), weight=0.5) for i in (0, 1)]
    apart = trainer.gradients()
    # Keys and values of the text are the same for all images, whose gradients are added before the weights'.
    shared = [name for name in together if ".attn2.to_k" in name or ".attn2.to_v" in name]
    for name in shared:
        np.testing.assert_allclose(apart.pop(name), together[name], atol=1e-5 * np.abs(together.pop(name)).max())
    assert shared
    assert_same(apart, together)
    assert np.mean(losses) == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_recomputation_changes_memory_only(objective: str) -> None:
    losses, gradients = [], []
    for checkpointing in (False, True):
        trainer = open_trainer(objective, gradient_checkpointing=checkpointing)
        losses.append(trainer.forward_backward(**batch(objective, 2)))
        gradients.append(trainer.gradients())
    assert losses[0] == losses[1]
    assert_same(*gradients)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_that_are_not_kept_change_memory_only(objective: str) -> None:
    options: dict[str, Any] = {"max_gradient_norm": None}
    kept, passing = (open_trainer(objective, keep_gradients=keep, **options) for keep in (True, False))
    losses = train(objective, range(2), kept)
    assert losses == [passing.train_step(**batch(objective, step))[0] for step in range(2)]
    assert_same(passing.parameters(), kept.parameters())
    if objective == "lcm":
        assert_same(average(passing), average(kept))


@pytest.mark.parametrize("task", ["depth", "normals", "iid"])
def test_it_learns_in_pixels(task: str) -> None:
    folder = mc.default_checkpoint("intrinsics" if task == "iid" else task)
    trainer = open_trainer("e2e", folder, task=task)
    rng = np.random.default_rng(3)
    maps = trainer._shape("conv_out.weight")[0] // 4
    smooth = np.mgrid[0 : 8 * H, 0 : 8 * W].sum(axis=0) / 50 + 0.2
    target = np.stack([np.roll(smooth, 5 * c, axis=1) for c in range({"depth": 1, "normals": 3}.get(task, 3 * maps))])
    inputs = {"image_latent": rng.standard_normal((1, 4, H, W)), "pixel_target": target[None] - 0.6 * (task != "depth")}
    losses = []
    for _ in range(15):
        losses.append(trainer.forward_backward(**inputs))
        trainer.optimizer_step()
    assert min(losses[-3:]) < 0.7 * losses[0]


def test_truths_of_another_length_or_unit() -> None:
    """Normals are compared as directions; of depth in another unit, the loss has that unit."""
    inputs = batch("e2e", 1, channels=3)
    trainer = open_trainer("e2e", mc.default_checkpoint("normals"), task="normals")
    loss = trainer.forward_backward(**inputs)
    assert trainer.forward_backward(**{**inputs, "pixel_target": 7 * inputs["pixel_target"]}) == pytest.approx(loss)
    assert 0 < loss < np.pi
    inputs = batch("e2e", 1)
    trainer = open_trainer("e2e")
    loss = trainer.forward_backward(**inputs)
    other = trainer.forward_backward(**{**inputs, "pixel_target": 1000 * inputs["pixel_target"] + 5})
    assert other == pytest.approx(1000 * loss, rel=1e-4)


def test_a_constant_prediction_teaches_nothing() -> None:
    """One pixel has no scale: it is 0, and so is the shift."""
    inputs = batch("e2e", 1, samples=1)
    inputs["pixel_mask"][:] = False
    inputs["pixel_mask"][0, 0, 5, 6] = True
    inputs["pixel_target"][0, 0, 5, 6] = -2.5
    trainer = open_trainer("e2e")
    assert trainer.forward_backward(**inputs) == 2.5
    assert not any(gradient.any() for gradient in trainer.gradients().values())


def test_masked_pixels_may_be_anything() -> None:
    inputs = batch("e2e", 4)
    trainer = open_trainer("e2e")
    loss = trainer.forward_backward(**inputs)
    gradients = trainer.gradients()
    trainer.clear_gradients()
    inputs["pixel_target"][~inputs["pixel_mask"]] = np.nan
    assert trainer.forward_backward(**inputs) == loss
    assert_same(trainer.gradients(), gradients)
    inputs["pixel_target"][np.nonzero(inputs["pixel_mask"])[0][0], 0] = np.nan
    assert np.isnan(trainer.forward_backward(**inputs))
    with pytest.raises(mc.NotFiniteError, match="no step was taken"):
        trainer.optimizer_step()


def test_the_average_follows() -> None:
    trainer = open_trainer("lcm", ema_decay=0.75)
    before = trainer.parameters()
    assert_same(average(trainer), before)
    train("lcm", range(1), trainer)
    after = trainer.parameters()
    assert differ(before, after)
    for name, values in average(trainer).items():
        np.testing.assert_allclose(values, 0.75 * before[name] + 0.25 * after[name], rtol=1e-6, atol=1e-9)
    still = open_trainer("latent")
    with pytest.raises(ValueError, match="keeps no average"):
        still._engine.write(0, "average", before[still._engine.names()[0]])


def complete(folder: Path, base: Path) -> None:
    for part in base.iterdir():
        if not (folder / part.name).exists():
            (folder / part.name).symlink_to(part)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bfloat16_is_near(objective: str) -> None:
    losses = [train(objective, range(4), open_trainer(objective, dtype=dtype)) for dtype in ("float32", "bfloat16")]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_resuming_repeats_the_uninterrupted_run(objective: str, dtype: str, tmp_path: Path) -> None:
    base = mc.default_checkpoint()
    whole = open_trainer(objective, dtype=dtype)
    train(objective, range(2), whole)
    whole.save_pretrained(tmp_path)
    whole.save_state(tmp_path / "state.safetensors")
    complete(tmp_path, base)
    resumed = open_trainer(objective, tmp_path, teacher=base, dtype=dtype)
    resumed.load_state(tmp_path / "state.safetensors")
    assert train(objective, range(2, 5), resumed) == train(objective, range(2, 5), whole)
    assert_same(resumed.parameters(), whole.parameters())
    assert_same(average(resumed), average(whole))


def test_the_teacher_and_the_average_matter(tmp_path: Path) -> None:
    """A run that lost one of them would go on, but not as it had."""
    whole = open_trainer("lcm")
    train("lcm", range(2), whole)
    whole.save_pretrained(tmp_path)
    complete(tmp_path, mc.default_checkpoint())
    expected = whole.forward_backward(**batch("lcm", 9))
    wrong = [
        open_trainer("lcm", tmp_path).forward_backward(**batch("lcm", 9)),
        open_trainer("lcm", tmp_path, teacher=mc.default_checkpoint()).forward_backward(**batch("lcm", 9)),
    ]
    assert len({expected, *wrong}) == 3


def test_states_of_other_objectives_are_refused(tmp_path: Path) -> None:
    trainers = {name: open_trainer(name) for name in OBJECTIVES}
    for name, trainer in trainers.items():
        train(name, range(1), trainer)
        trainer.save_state(tmp_path / name)
    for name, other in zip(OBJECTIVES, reversed(OBJECTIVES), strict=True):
        with pytest.raises(mc.CheckpointError, match="are missing and"):
            trainers[name].load_state(tmp_path / other)


@pytest.mark.parametrize(
    ("objective", "change", "message"),
    [
        ("e2e", {"pixel_target": None, "pixel_mask": None}, 'objective "e2e" needs `pixel_target`'),
        ("e2e", {"pixel_target": None}, "`pixel_mask` is given without `pixel_target`"),
        ("e2e", {"pixel_target": np.zeros((2, 3, 24, 32))}, "3 channels of 24 x 32; .* expected are 1 of 24 x 32"),
        ("e2e", {"pixel_target": np.zeros((2, 1, 24, 31)), "pixel_mask": None}, "of 24 x 31; .* 1 of 24 x 32"),
        ("e2e", {"pixel_target": np.zeros((1, 1, 24, 32))}, "has 1 samples; expected 2"),
        ("e2e", {"pixel_target": np.zeros((2, 24, 32))}, "pixel_target"),
        ("e2e", {"pixel_mask": np.ones((2, 1, 24, 31), bool)}, r"`pixel_mask` must be \(2, 1, 24, 32\)"),
        ("e2e", {"pixel_mask": np.ones((2, 3, 24, 32), bool)}, "pixel_mask"),
        ("e2e", {"pixel_mask": np.zeros((2, 1, 24, 32), bool)}, "no pixel that counts"),
        ("e2e", {"noise": np.zeros((2, 4, H, W + 1))}, "`noise` has shape .*; expected"),
        ("e2e", {"timesteps": np.array([999, 999])}, "`timesteps`.* must be None"),
        ("e2e", {"mask": np.ones((2, 1, H, W), bool)}, "`mask` must be None"),
        ("lcm", {"noise": None}, 'objective "lcm" needs `target_latent`, `noise` and `timesteps`'),
        ("lcm", {"timesteps": None}, "needs .*`timesteps`"),
        (
            "lcm",
            {"timesteps": np.array([199, 998])},
            r"`timesteps\[1\]` is 998; a distillation in 5 steps has 199, 399,",
        ),
        ("lcm", {"timesteps": np.array([0, 199])}, r"`timesteps\[0\]` is 0"),
        ("lcm", {"mask": np.zeros((2, 1, H, W), bool)}, "no cell that counts"),
        ("lcm", {"pixel_target": np.zeros((2, 1, 24, 32))}, "compares latents"),
        ("latent", {"pixel_target": np.zeros((2, 1, 24, 32))}, "compares latents"),
        ("latent", {"target_latent": None}, 'objective "latent" needs'),
    ],
    ids=str,
)
def test_bad_batches_are_refused(objective: str, change: Inputs, message: str) -> None:
    trainer = open_trainer(objective)
    inputs = batch("e2e" if objective == "e2e" else "lcm", 0)
    with pytest.raises(ValueError, match=message):
        trainer.forward_backward(**{**inputs, **change})
    assert not any(gradient.any() for gradient in trainer.gradients().values())
    trainer.forward_backward(**inputs)


def test_normals_without_any_direction_are_refused() -> None:
    trainer = open_trainer("e2e", mc.default_checkpoint("normals"), task="normals")
    with pytest.raises(ValueError, match="no pixel that counts"):
        trainer.forward_backward(np.zeros((1, 4, H, W)), pixel_target=np.zeros((1, 3, 8 * H, 8 * W)))


def with_scheduler(folder: Path, **changes: Any) -> Path:
    """The small checkpoint with another scheduler_config.json; None takes a key away."""
    base = mc.default_checkpoint()
    shutil.copytree(base / "scheduler", folder / "scheduler")
    complete(folder, base)
    path = folder / "scheduler" / "scheduler_config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ema_decay": 1.5}, ValueError, "`ema_decay` is 1.5"),
        ({"ema_decay": float("nan")}, ValueError, "`ema_decay`"),
        ({"num_ddim_timesteps": 0}, ValueError, "`num_ddim_timesteps` is 0; expected 1 to 1000"),
        ({"num_ddim_timesteps": 1001}, ValueError, "num_ddim_timesteps"),
        ({"teacher": mc.default_checkpoint("intrinsics")}, mc.CheckpointError, "teacher: .* misshapen"),
    ],
    ids=str,
)
def test_bad_options_of_a_distillation(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_trainer("lcm", **options)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_network_that_predicts_noise_is_refused(objective: str, tmp_path: Path) -> None:
    """At zero terminal signal it says nothing about the clean latent."""
    folder = with_scheduler(tmp_path, prediction_type="epsilon", rescale_betas_zero_snr=False)
    with pytest.raises((ValueError, NotImplementedError), match="signal"):
        open_trainer(objective, folder)
    if objective == "e2e":
        trainer = open_trainer(objective, folder, zero_terminal_snr=False)
        assert np.isfinite(trainer.forward_backward(**batch(objective, 0)))


CLASSES = {
    "PNDMScheduler": {"skip_prk_steps": True, "timestep_spacing": "leading"},
    "EulerDiscreteScheduler": {"interpolation_type": "linear", "timestep_spacing": "linspace"},
    "DDPMScheduler": {"variance_type": "fixed_small", "clip_sample": True, "thresholding": True},
    "DPMSolverMultistepScheduler": {"solver_order": 2},
    "LCMScheduler": {"original_inference_steps": 50},
}


@pytest.mark.parametrize("name", CLASSES)
def test_any_schedule_to_start_from(name: str, tmp_path: Path) -> None:
    """Only betas and the prediction type matter; what is saved is a pipeline's."""
    base, saved = tmp_path / "base", tmp_path / "saved"
    base.mkdir()
    with_scheduler(base, _class_name=name, rescale_betas_zero_snr=None, **CLASSES[name])
    trainer, usual = open_trainer("latent", base), open_trainer("latent")
    inputs = batch("lcm", 0)
    assert trainer.forward_backward(**inputs) == pytest.approx(usual.forward_backward(**inputs), rel=1e-6)
    trainer.save_pretrained(saved)
    config = json.loads((saved / "scheduler" / "scheduler_config.json").read_text())
    expected = json.loads((mc.default_checkpoint() / "scheduler" / "scheduler_config.json").read_text())
    assert config == expected
    complete(saved, base)
    pipe = mc.load(saved)
    assert isinstance(pipe.scheduler, mc.DDIMScheduler)


def test_the_boundary_is_scaled_by_the_configuration(tmp_path: Path) -> None:
    """At a scale of 0 a consistency model's answer is the sample itself, whatever the network gives: no gradient."""
    folder = with_scheduler(tmp_path, _class_name="LCMScheduler", timestep_scaling=0.0)
    trainer = open_trainer("lcm", folder)
    assert trainer.forward_backward(**batch("lcm", 0)) > 0
    assert not any(values.any() for values in trainer.gradients().values())
    usual = open_trainer("lcm")
    usual.forward_backward(**batch("lcm", 0))
    assert any(values.any() for values in usual.gradients().values())


def test_defaults_of_betas_are_those_of_the_class(tmp_path: Path) -> None:
    for name, begin, end, kind in (
        ("DDPMScheduler", 0.0001, 0.02, "linear"),
        ("LCMScheduler", 0.00085, 0.012, "scaled_linear"),
    ):
        folder, saved = tmp_path / name, tmp_path / f"{name}_saved"
        folder.mkdir()
        bare = {"beta_start": None, "beta_end": None, "beta_schedule": None, "rescale_betas_zero_snr": None}
        with_scheduler(folder, _class_name=name, **bare)
        full = tmp_path / f"{name}_full"
        full.mkdir()
        same = {"beta_start": begin, "beta_end": end, "beta_schedule": kind}
        with_scheduler(full, **same, rescale_betas_zero_snr=None)
        inputs = batch("lcm", 0)
        trainer = open_trainer("latent", folder)
        assert trainer.forward_backward(**inputs) == open_trainer("latent", full).forward_backward(**inputs)
        trainer.save_pretrained(saved)
        config = json.loads((saved / "scheduler" / "scheduler_config.json").read_text())
        assert (config["beta_start"], config["beta_end"], config["beta_schedule"]) == (begin, end, kind)


def test_unknown_schedules_are_refused(tmp_path: Path) -> None:
    folder = with_scheduler(tmp_path, _class_name="FlowMatchEulerDiscreteScheduler")
    with pytest.raises(NotImplementedError, match="FlowMatchEulerDiscreteScheduler"):
        open_trainer("latent", folder)
    with pytest.raises(NotImplementedError, match="supported: DDIMScheduler, LCMScheduler"):
        mc.load(with_scheduler_of_pipelines(tmp_path))


def with_scheduler_of_pipelines(folder: Path) -> Path:
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("FlowMatchEulerDiscreteScheduler", "PNDMScheduler"))
    return folder


def test_what_a_distillation_saves(tmp_path: Path) -> None:
    """The weights that are trained, not their average, with the schedule of consistency models."""
    trainer = open_trainer("lcm")
    train("lcm", range(1), trainer)
    trainer.save_pretrained(tmp_path)
    complete(tmp_path, mc.default_checkpoint())
    assert_same(open_trainer("latent", tmp_path).parameters(), trainer.parameters())
    pipe = mc.load(tmp_path, num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    assert isinstance(pipe.scheduler, mc.LCMScheduler)
    assert pipe.scheduler.config["rescale_betas_zero_snr"] is True
    image = np.random.default_rng(0).random((24, 32, 3), np.float32)
    assert np.isfinite(pipe(image, num_inference_steps=2, generator=0).prediction).all()


LIMITED = """
import resource
import numpy as np
import marigold_c as mc

trainer = mc.Trainer.from_pretrained(mc.default_checkpoint(), task="depth", objective="e2e", num_threads=1)
small = {"image_latent": np.zeros((1, 4, 3, 4)), "pixel_target": np.arange(24 * 32.0).reshape(1, 1, 24, 32)}
loss = trainer.forward_backward(**small)
large = {"image_latent": np.zeros((1, 4, 96, 96)), "pixel_target": np.zeros((1, 1, 768, 768), np.float32)}
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), resource.RLIM_INFINITY))
try:
    trainer.forward_backward(**large)
except MemoryError as error:
    print("refused:", error)
trainer.clear_gradients()
assert trainer.forward_backward(**small) == loss
print("and on")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the address space")
def test_a_decoder_that_does_not_fit_in_memory() -> None:
    process = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert "refused: " in process.stdout and "activations" in process.stdout and "and on" in process.stdout
