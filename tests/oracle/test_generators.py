"""torch's own generators as the argument `generator`, and the state of ours in torch's bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import marigold_c as mc

torch = pytest.importorskip("torch")
pipelines = pytest.importorskip("oracle_pipelines")


@pytest.mark.parametrize("drawn", [[], [3], [16], [1000], [7, 20, 5], [624, 1]])
def test_state(drawn: list[int]) -> None:
    ours, theirs = mc.Generator(11), torch.Generator().manual_seed(11)
    for count in drawn:
        ours.randn(count)
        torch.randn(count, generator=theirs)
    copy = mc.Generator(0).set_state(theirs.get_state().numpy().tobytes())
    assert copy.initial_seed() == 11
    back = torch.Generator()
    back.set_state(torch.frombuffer(bytearray(ours.get_state()), dtype=torch.uint8))
    for count in (5, 40, 3, 700):
        wanted = torch.randn(count, generator=theirs).numpy()
        assert np.abs(copy.randn(count) - wanted).max() <= 2e-6
        assert np.abs(torch.randn(count, generator=back).numpy() - wanted).max() <= 2e-6


def test_damaged_state() -> None:
    generator = mc.Generator(1)
    state = generator.get_state()
    for bad in (state[:-1], b"", state[:8] + b"\xff" * 16 + state[24:]):
        with pytest.raises(ValueError, match="state"):
            generator.set_state(bad)
    with pytest.raises(TypeError):
        generator.set_state("state")  # type: ignore[arg-type]
    assert generator.get_state() == state


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "LCMScheduler"])
def test_a_generator_goes_on_where_a_run_left_it(scheduler: str) -> None:
    ours, theirs = pipelines.open_ours("depth"), pipelines.open_theirs("depth")
    before = ours.scheduler, theirs.scheduler
    diffusers = pytest.importorskip("diffusers")
    image = torch.from_numpy(pipelines.photo(40, 56)).permute(2, 0, 1)
    try:
        ours.scheduler = getattr(mc, scheduler).from_config(ours.scheduler.config)
        theirs.scheduler = getattr(diffusers, scheduler).from_config(theirs.scheduler.config)
        one, other = torch.Generator().manual_seed(4), torch.Generator().manual_seed(4)
        for _ in range(2):
            got = ours(image, 2, generator=one).prediction
            assert np.abs(got - theirs(image, 2, generator=other).prediction).max() <= 1e-3
        assert np.array_equal(one.get_state().numpy(), other.get_state().numpy())
        shared = [one, one, torch.Generator().manual_seed(9)]
        theirs_shared: list[Any] = [other, other, torch.Generator().manual_seed(9)]
        got = ours([image] * 3, 1, generator=shared).prediction
        assert np.abs(got - theirs([image] * 3, 1, generator=theirs_shared).prediction).max() <= 1e-3
        assert np.array_equal(one.get_state().numpy(), other.get_state().numpy())
    finally:
        ours.scheduler, theirs.scheduler = before
