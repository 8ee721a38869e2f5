"""What training does to samples, beside torch: quantiles, masks, resizing, blur, turned kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from training_cases import data_entry, make_config, make_scenes

from marigold_c.training import augmentations as aug
from marigold_c.training.examples import TrainingSet
from marigold_c.training.targets import depth_image, latent_mask, lighting_targets

Array = np.ndarray[Any, Any]


def test_depth_by_torchs_quantiles() -> None:
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand((1, 60, 71), generator=generator) * 50
    valid = torch.rand(depth.shape, generator=generator) > 0.4
    near, far = torch.quantile(depth[valid & (depth > 0)], torch.tensor([0.02, 0.98]))
    expected = torch.clip((depth - near) / (far - near) * 2 - 1, -1, 1).repeat(3, 1, 1)
    np.testing.assert_allclose(depth_image(depth.numpy(), valid.numpy()), expected.numpy(), atol=1e-6)


def test_lighting_by_torchs_quantiles() -> None:
    generator = torch.Generator().manual_seed(1)
    maps = [torch.rand((3, 30, 40), generator=generator) ** 3 * scale for scale in (9, 4)]
    scale = max(torch.quantile(one, 0.98) for one in maps)
    for found, one in zip(lighting_targets(*(one.numpy() for one in maps)), maps, strict=True):
        np.testing.assert_allclose(found, torch.clip(one, 0, scale) / scale, atol=1e-6)


def test_masks_by_torchs_pooling() -> None:
    valid = torch.rand((3, 1, 61, 90), generator=torch.Generator().manual_seed(2)) > 0.01
    expected = ~torch.max_pool2d((~valid).float(), 8, 8).bool()
    np.testing.assert_array_equal(latent_mask(valid.numpy()), expected.numpy())


@pytest.mark.parametrize("size", [(24, 40), (32, 56)])
def test_resizing_as_torch_does(tmp_path: Path, size: tuple[int, int]) -> None:
    make_scenes(tmp_path / "train", 1)
    for task, mode in (("depth", "nearest-exact"), ("normals", "bilinear")):
        whole, resized = (
            TrainingSet(config.train_sets[0], config, tmp_path).example(0, False, None)
            for config in (
                make_config(tmp_path, task),
                make_config(tmp_path, task, dataset__train=data_entry(task, resize_to_hw=list(size))),
            )
        )
        for found, given in ((resized.image, whole.image), (resized.target, whole.target)):
            tensor = torch.from_numpy(given)[None]
            expected = F.interpolate(tensor, size, mode=mode, antialias=mode == "bilinear")[0]
            np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("sigma", [0.5, 2.3, 4.0])
def test_gaussian_blur_by_torchs_convolution(sigma: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 75, 3)).astype(np.uint8)
    taps = torch.exp(-0.5 * (torch.linspace(-16, 16, 33) / sigma) ** 2)
    taps = taps / taps.sum()
    planes = F.pad(torch.from_numpy(image).permute(2, 0, 1)[None].float(), (16,) * 4, mode="reflect")
    kernel = (taps[:, None] * taps[None]).expand(3, 1, 33, 33)
    expected = torch.round(F.conv2d(planes, kernel, groups=3))[0].permute(1, 2, 0).numpy()
    assert np.abs(aug.gaussian_blur(image, sigma) - expected).max() <= 1
    assert np.mean(aug.gaussian_blur(image, sigma) != expected) < 1e-3


def test_kernels_turn_as_torch_turns_them() -> None:
    """The nearest neighbour of each turned position, by torch's sampling grid."""
    different = 0
    for size in (3, 5, 7, 9, 11):
        line = torch.zeros(1, 1, size, size)
        line[..., size // 2, :] = 1
        for angle in np.linspace(0.3, 359.1, 60):
            turn = np.deg2rad(angle)
            matrix = torch.tensor([[[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0]]]).float()
            grid = F.affine_grid(matrix, [1, 1, size, size], align_corners=False)
            expected = F.grid_sample(line, grid, mode="nearest", align_corners=False)[0, 0].numpy()
            different += int((expected > 0).astype(int).__ne__(aug.motion_kernel(size, float(angle)) > 0).sum())
    assert different <= 4  # ties
