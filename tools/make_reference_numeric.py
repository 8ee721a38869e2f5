"""Writes tests/data/numeric.npz: what torch and diffusers compute, for the tests that run without them.

    python tools/make_reference_numeric.py

needs the packages of the extra "oracle". Arrays: randn/SEED/COUNTS, resize/MODE/ANTIALIAS/BEFORE/AFTER,
preprocess/PIXELS/SHAPE/RESOLUTION/MODE, scheduler/INDEX/{config,timesteps,alphas,factors}; tests/numeric_cases.py has
the cases and makes their inputs from seeds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, LCMScheduler
from diffusers.pipelines.marigold import MarigoldImageProcessor
from diffusers.schedulers import scheduling_lcm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from numeric_cases import (  # noqa: E402
    FILTERS,
    PREPROCESS_CASES,
    RANDN_CASES,
    RESIZE_SIZES,
    SCHEDULER_CASES,
    pixels,
    planes,
)


def references_of_randn() -> dict[str, Any]:
    found = {}
    for seed, counts in RANDN_CASES:
        generator = torch.Generator().manual_seed(seed)
        draws = [torch.randn(count, generator=generator).numpy() for count in counts]
        found[f"randn/{seed}/{'-'.join(map(str, counts))}"] = np.concatenate(draws)
    return found


def references_of_resize() -> dict[str, Any]:
    found = {}
    for mode, antialias in FILTERS:
        for before, after in RESIZE_SIZES:
            x = torch.from_numpy(planes(*before))
            if antialias and after[1] == 1:  # wrong on contiguous planes: see tests/oracle/test_resize.py
                x = x.contiguous(memory_format=torch.channels_last)
            y = torch.nn.functional.interpolate(x, after, mode=mode, antialias=antialias)
            found[f"resize/{mode}/{antialias}/{before}/{after}"] = y.numpy()
    return found


def references_of_preprocess() -> dict[str, Any]:
    processor = MarigoldImageProcessor(vae_scale_factor=8)
    return {
        f"preprocess/{kind}/{shape}/{resolution}/{mode}": processor.preprocess(pixels(kind, shape), resolution, mode)[0]
        for kind, shape, resolution, mode in PREPROCESS_CASES
    }


def one_step(scheduler: Any, t: Any, part: int, eta: float) -> tuple[float, float]:
    """The step of a sample, model output and noise of which only `part` is 1: its factors."""
    sample, model, noise = (torch.tensor([float(part == i)]) for i in range(3))
    if isinstance(scheduler, DDIMScheduler):
        out = scheduler.step(model, t, sample, eta=eta, variance_noise=noise if eta > 0 else None)
        return out.prev_sample.item(), out.pred_original_sample.item()
    scheduling_lcm.randn_tensor = lambda *args, **kwargs: noise
    scheduler._step_index = None
    out = scheduler.step(model, t, sample)
    return out.prev_sample.item(), out.denoised.item()


def references_of_schedulers() -> dict[str, Any]:
    found = {}
    for i, (config, steps, eta) in enumerate(SCHEDULER_CASES):
        kind = {"DDIMScheduler": DDIMScheduler, "LCMScheduler": LCMScheduler}[config["_class_name"]]
        scheduler = kind.from_config(config)
        scheduler.set_timesteps(steps)
        rows = []
        for t in scheduler.timesteps:
            parts = [one_step(scheduler, t, part, eta) for part in range(3)]
            rows.append([parts[0][0], parts[1][0], parts[2][0], parts[0][1], parts[1][1]])
        found[f"scheduler/{i}/config"] = np.array(json.dumps([config, steps, eta]))
        found[f"scheduler/{i}/timesteps"] = scheduler.timesteps.numpy()
        found[f"scheduler/{i}/alphas"] = scheduler.alphas_cumprod.numpy()[:: len(scheduler.alphas_cumprod) // 20]
        found[f"scheduler/{i}/factors"] = np.array(rows)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    references = {
        **references_of_randn(),
        **references_of_resize(),
        **references_of_preprocess(),
        **references_of_schedulers(),
    }
    target = ROOT / "tests" / "data" / "numeric.npz"
    target.parent.mkdir(exist_ok=True)
    np.savez_compressed(target, **{key: np.asarray(value) for key, value in references.items()})
    print(f"{target}: {len(references)} arrays, {target.stat().st_size} bytes")
