"""The trainer on the small checkpoint: what is the same to the bit, files, and what it refuses. Gradients and steps are
compared with torch in tests/oracle/test_trainer.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import marigold_c as mc
from marigold_c.errors import CheckpointError

Array = NDArray[np.float32]


def open_trainer(folder: Path | None = None, **options: Any) -> mc.Trainer:
    return mc.Trainer.from_pretrained(
        folder or mc.default_checkpoint(), **{"task": "depth", "num_threads": 2, "learning_rate": 1e-3, **options}
    )


def random_batch(seed: int, samples: int = 2, h: int = 7, w: int = 10) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    image, target, noise = (rng.standard_normal((samples, 4, h, w)).astype(np.float32) for _ in range(3))
    return image, target, noise, rng.integers(0, 1000, samples), rng.random((samples, 1, h, w)) > 0.2


def assert_same(a: dict[str, Array], b: dict[str, Array]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_recomputation_changes_memory_only() -> None:
    batch = random_batch(0, h=24, w=32)
    losses, gradients, activations = [], [], []
    for checkpointing in (False, True):
        trainer = open_trainer(gradient_checkpointing=checkpointing)
        losses.append(trainer.forward_backward(*batch))
        gradients.append(trainer.gradients())
        activations.append(trainer.memory_stats()["activations"])
    assert losses[0] == losses[1]
    assert_same(*gradients)
    assert activations[1] < 0.6 * activations[0]


def train(threads: int, steps: int, **options: Any) -> tuple[list[float], dict[str, Array]]:
    trainer = open_trainer(num_threads=threads, **options)
    losses = []
    for step in range(steps):
        losses.append(trainer.forward_backward(*random_batch(step)))
        trainer.optimizer_step()
    return losses, trainer.parameters()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_threads_do_not_change_a_bit(dtype: str) -> None:
    one, many = (train(threads, 3, max_gradient_norm=1.0, dtype=dtype) for threads in (1, 3))
    assert one[0] == many[0]
    assert_same(one[1], many[1])


# ---- weights that move as their gradients pass ----


def steps_of(steps: int, **options: Any) -> tuple[list[float], list[float], mc.Trainer]:
    trainer = open_trainer(**options)
    pairs = [trainer.train_step(*random_batch(step, h=8, w=12)) for step in range(steps)]
    return [loss for loss, _ in pairs], [norm for _, norm in pairs], trainer


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_that_are_not_kept_change_memory_only(dtype: str, optimizer: str, checkpointing: bool) -> None:
    options: dict[str, Any] = {"dtype": dtype, "optimizer": optimizer, "gradient_checkpointing": checkpointing}
    apart = open_trainer(**options)
    losses, norms = [], []
    for step in range(3):
        losses.append(apart.forward_backward(*random_batch(step, h=8, w=12)))
        norms.append(apart.optimizer_step())
    kept, fused = steps_of(3, **options), steps_of(3, keep_gradients=False, **options)
    assert losses == kept[0] == fused[0]
    assert norms == kept[1]
    np.testing.assert_allclose(fused[1], norms, rtol=1e-6)
    for trainer in (kept[2], fused[2]):
        assert trainer.steps == 3
        assert_same(trainer.parameters(), apart.parameters())
        for i, name in enumerate(trainer._names):
            for part in ("m", "v"):
                expected = apart._engine.read(i, part)
                np.testing.assert_array_equal(trainer._engine.read(i, part), expected, err_msg=name)
    parameters = sum(value.nbytes for value in apart.parameters().values())
    memory = [one.memory_stats() for one in (apart, fused[2])]
    assert memory[0]["training"] - memory[1]["training"] >= parameters
    assert memory[0]["peak"] - memory[1]["peak"] > 0.9 * parameters


def test_a_state_goes_on_with_gradients_kept_or_not(tmp_path: Path) -> None:
    expected = steps_of(4)[2].parameters()
    begun = steps_of(2, keep_gradients=False)[2]
    begun.save_pretrained(tmp_path)
    begun.save_state(tmp_path / "state.safetensors")
    for part in mc.default_checkpoint().iterdir():
        if not (tmp_path / part.name).exists():
            (tmp_path / part.name).symlink_to(part)
    for keep in (False, True):
        trainer = open_trainer(tmp_path, keep_gradients=keep)
        trainer.load_state(tmp_path / "state.safetensors")
        for step in (2, 3):
            trainer.train_step(*random_batch(step, h=8, w=12))
        assert_same(trainer.parameters(), expected)


def test_a_loss_that_is_no_number_moves_nothing() -> None:
    image, target, noise, steps, mask = random_batch(0)
    image[0, 0, 3, 3] = np.nan
    for keep in (False, True):
        trainer = open_trainer(keep_gradients=keep)
        before = trainer.parameters()
        with pytest.raises(mc.NotFiniteError, match="the loss is no number: no step was taken"):
            trainer.train_step(image, target, noise, steps, mask)
        assert trainer.steps == 0
        assert_same(trainer.parameters(), before)
        trainer.train_step(*random_batch(0))
        assert trainer.steps == 1


def test_a_step_that_ended_half_way_is_not_gone_on_from(tmp_path: Path) -> None:
    """The gradient overflows in the second layer from the end, when the last one has moved."""
    trainer = open_trainer(keep_gradients=False)
    last = trainer._names.index("conv_out.weight")
    trainer._engine.write(last, "value", 1e3 * trainer._engine.read(last, "value"))
    image, target, noise, _, mask = random_batch(0)
    with pytest.raises(mc.NotFiniteError, match=r"when \d+ of 442 weights have moved: go on from a saved state"):
        trainer.train_step(image, np.sign(target) * np.float32(1e38), noise, np.array([999, 999]), mask)
    assert trainer.steps == 0
    for use in (
        lambda: trainer.train_step(*random_batch(0)),
        trainer.parameters,
        lambda: trainer.save_state(tmp_path / "state.safetensors"),
        lambda: trainer.save_pretrained(tmp_path / "saved"),
    ):
        with pytest.raises(mc.NotFiniteError, match="go on from a saved state"):
            use()
    assert not list(tmp_path.rglob("*.safetensors*"))


def test_what_needs_gradients_refuses_trainers_without() -> None:
    trainer = open_trainer(keep_gradients=False)
    for use in (
        lambda: trainer.forward_backward(*random_batch(0)),
        trainer.optimizer_step,
        trainer.gradients,
        trainer.clear_gradients,
        trainer._engine.gradient_block,
        trainer._engine.follow_gradients,
    ):
        with pytest.raises(ValueError, match="gradients are not kept by this trainer: it learns by train_step"):
            use()
    with pytest.raises(ValueError, match=r"`max_gradient_norm` is 1, but the norm of all gradients is known only"):
        open_trainer(keep_gradients=False, max_gradient_norm=1.0)
    with pytest.raises(NotImplementedError, match='"autoencoder" needs gradients that are kept'):
        open_trainer(keep_gradients=False, objective="autoencoder")


def test_bfloat16_follows_float32() -> None:
    batch = random_batch(3, h=8, w=12)
    exact, rounded = open_trainer(), open_trainer(dtype="bfloat16")
    assert rounded.forward_backward(*batch) == pytest.approx(exact.forward_backward(*batch), rel=5e-3)
    gradients = rounded.gradients()
    squares = [
        (np.square(gradients[name] - one, dtype=np.float64).sum(), np.square(one, dtype=np.float64).sum())
        for name, one in exact.gradients().items()
    ]
    error, whole = np.sum(squares, axis=0)
    assert 0 < error < 0.03**2 * whole
    for trainer in (exact, rounded):
        trainer.clear_gradients()
    losses: list[list[float]] = [[], []]
    for _ in range(12):
        for trainer, curve in zip((exact, rounded), losses, strict=True):
            curve.append(trainer.forward_backward(*batch))
            trainer.optimizer_step()
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.03)


def test_small_steps_are_not_lost_in_bfloat16() -> None:
    """A thousandth of a bfloat16's last bit at a time: the master moves, and what operations read follows."""
    trainer = open_trainer(dtype="bfloat16", learning_rate=1e-6)
    before = trainer.parameters()
    batch = random_batch(2)
    first = trainer.forward_backward(*batch)
    for _ in range(2):
        trainer.optimizer_step()
        trainer.forward_backward(*batch)
    for name, value in trainer.parameters().items():
        assert 0 < np.abs(value - before[name]).max() < 3e-6, name
    trainer.clear_gradients()
    for _ in range(3):
        trainer.forward_backward(*batch)
        trainer.optimizer_step(1e-3)
    assert trainer.forward_backward(*batch) < 0.95 * first


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_learns(dtype: str) -> None:
    trainer = open_trainer(dtype=dtype)
    batch = random_batch(5)
    losses = []
    for _ in range(12):
        losses.append(trainer.forward_backward(*batch))
        trainer.optimizer_step()
    assert losses[-1] < 0.6 * losses[0]
    assert trainer.steps == 12


def test_mask_and_weight() -> None:
    image, target, noise, steps, mask = random_batch(1)
    trainer = open_trainer()
    loss = trainer.forward_backward(image, target, noise, steps, mask, weight=0.5)
    half = trainer.gradients()
    trainer.clear_gradients()
    assert not any(gradient.any() for gradient in trainer.gradients().values())
    # A mask for each channel is the same as one for all.
    trainer.forward_backward(image, target, noise, steps, np.repeat(mask, 4, axis=1))
    for name, gradient in trainer.gradients().items():
        np.testing.assert_allclose(gradient, 2 * half[name], rtol=1e-5, atol=1e-7)
    everything = trainer.forward_backward(image, target, noise, steps)
    assert everything != loss


def test_a_pipeline_opens_what_was_saved(tmp_path: Path) -> None:
    trainer = open_trainer()
    trainer.forward_backward(*random_batch(0))
    trainer.optimizer_step()
    trainer.save_pretrained(tmp_path)
    for part in mc.default_checkpoint().iterdir():
        if not (tmp_path / part.name).exists():
            (tmp_path / part.name).symlink_to(part)
    again = open_trainer(tmp_path)
    assert_same(again.parameters(), trainer.parameters())
    pipe = mc.MarigoldDepthPipeline.from_pretrained(tmp_path, num_threads=2)
    pipe.set_progress_bar_config(disable=True)
    image = np.random.default_rng(0).random((40, 48, 3), np.float32)
    before = mc.MarigoldDepthPipeline.from_pretrained(mc.default_checkpoint(), num_threads=2)
    before.set_progress_bar_config(disable=True)
    assert not np.array_equal(pipe(image, generator=0).prediction, before(image, generator=0).prediction)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_resuming_repeats_the_uninterrupted_run(dtype: str, tmp_path: Path) -> None:
    whole = open_trainer(dtype=dtype)
    for step in range(4):
        whole.forward_backward(*random_batch(step))
        whole.optimizer_step()
        if step == 1:
            whole.save_pretrained(tmp_path)
            whole.save_state(tmp_path / "state.safetensors")
    for part in mc.default_checkpoint().iterdir():
        if not (tmp_path / part.name).exists():
            (tmp_path / part.name).symlink_to(part)
    resumed = open_trainer(tmp_path, dtype=dtype)
    resumed.load_state(tmp_path / "state.safetensors")
    assert resumed.steps == 2
    for step in (2, 3):
        resumed.forward_backward(*random_batch(step))
        resumed.optimizer_step()
    assert_same(resumed.parameters(), whole.parameters())


DAMAGE = {
    "cut short": lambda data: data[:-8],
    "no header": lambda data: b"",
    "another length": lambda data: (2**40).to_bytes(8, "little") + data[8:],
    "another shape": lambda data: data.replace(b'"shape":[64,8,3,3]', b'"shape":[8,64,3,3]'),
    "another type": lambda data: data.replace(b'"dtype":"F32"', b'"dtype":"I32"', 1),
    "another name": lambda data: data.replace(b'"m.conv_in.weight"', b'"m.conv_on.weight"'),
    "no steps": lambda data: data.replace(b'"steps":"1"', b'"steps":"x"'),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_states_are_refused(kind: str, tmp_path: Path) -> None:
    trainer = open_trainer()
    trainer.forward_backward(*random_batch(0))
    trainer.optimizer_step()
    path = tmp_path / "state.safetensors"
    trainer.save_state(path)
    data = path.read_bytes()
    changed = DAMAGE[kind](data)
    assert changed != data
    path.write_bytes(changed)
    before = trainer._engine.read(0, "m")
    with pytest.raises(mc.CheckpointError, match=r"state\.safetensors"):
        trainer.load_state(path)
    np.testing.assert_array_equal(trainer._engine.read(0, "m"), before)


def test_gradients_that_are_no_numbers_move_nothing() -> None:
    trainer = open_trainer()
    image, target, noise, steps, mask = random_batch(0)
    image[0, 0, 3, 3] = np.nan
    assert np.isnan(trainer.forward_backward(image, target, noise, steps, mask))
    before = trainer.parameters()
    with pytest.raises(mc.NotFiniteError, match="no step was taken"):
        trainer.optimizer_step()
    assert_same(trainer.parameters(), before)
    trainer.clear_gradients()
    trainer.forward_backward(*random_batch(0))
    assert trainer.optimizer_step() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: np.zeros((2, 3, 7, 10), np.float32)}, "image_latent"),
        ({1: np.zeros((2, 8, 7, 10), np.float32)}, "target_latent"),
        ({2: np.zeros((2, 4, 7, 11), np.float32)}, "noise"),
        ({3: np.array([1, 1000])}, r"timesteps\[1\].* is 1000; expected 0 to 999"),
        ({3: np.array([-1, 5])}, r"timesteps\[0\]"),
        ({3: np.array([1])}, "timesteps"),
        ({4: np.ones((2, 2, 7, 10), bool)}, "mask.* has 2 channels"),
        ({4: np.ones((2, 1, 7, 9), bool)}, "mask"),
        ({4: np.zeros((2, 1, 7, 10), bool)}, "mask.* no cell"),
    ],
    ids=str,
)
def test_bad_batches_are_refused(change: dict[int, Any], message: str) -> None:
    batch = list(random_batch(0))
    for position, value in change.items():
        batch[position] = value
    trainer = open_trainer()
    with pytest.raises(ValueError, match=message):
        trainer.forward_backward(*batch)
    assert not any(gradient.any() for gradient in trainer.gradients().values())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"task": "colour"}, ValueError, "`task` is 'colour'"),
        ({"objective": "guess"}, NotImplementedError, '"guess"'),
        ({"optimizer": "sgd"}, ValueError, '"sgd"'),
        ({"betas": (1.0, 0.9)}, ValueError, "betas"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay"),
        ({"max_gradient_norm": -1.0}, ValueError, "max_gradient_norm"),
        ({"learning_rate": -1.0}, ValueError, "learning_rate"),
        ({"dtype": "int8"}, NotImplementedError, "float32"),
        ({"num_threads": 0}, ValueError, "num_threads"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_trainer(**options)


def test_bad_learning_rates_are_refused() -> None:
    trainer = open_trainer()
    for rate in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="learning_rate"):
            trainer.optimizer_step(rate)
        with pytest.raises(ValueError, match="learning_rate"):
            trainer.train_step(*random_batch(0), learning_rate=rate)
    assert trainer.steps == 0


def test_the_saved_configuration_is_the_checkpoints(tmp_path: Path) -> None:
    open_trainer().save_pretrained(tmp_path)
    for name in ("unet/config.json", "scheduler/scheduler_config.json"):
        assert json.loads((tmp_path / name).read_text()) == json.loads((mc.default_checkpoint() / name).read_text())
    assert not list(tmp_path.rglob("*.part*"))


def test_a_schedule_without_noise_is_refused_not_rescaled(tmp_path: Path) -> None:
    for part in mc.default_checkpoint().iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "scheduler").unlink()
    (tmp_path / "scheduler").mkdir()
    config = json.loads((mc.default_checkpoint() / "scheduler/scheduler_config.json").read_text())
    config |= {"trained_betas": [0.0] * config.get("num_train_timesteps", 1000), "rescale_betas_zero_snr": False}
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="cannot be rescaled to end in pure noise"):
        open_trainer(tmp_path)
    assert np.isfinite(open_trainer(tmp_path, zero_terminal_snr=False).forward_backward(*random_batch(0)))
