"""benchmarks/cuda.py compares like with like: both sides compute the same arrays from the same random numbers."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import marigold_c as mc

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[Any]:
    name = "benchmark_of_cuda"
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / "cuda.py")
    assert spec and spec.loader
    sys.path.insert(0, str(BENCHMARKS))
    try:
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
        yield sys.modules[name]
    finally:
        sys.path.remove(str(BENCHMARKS))
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def checkpoint(benchmark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    benchmark.write_checkpoint(folder, "tiny")
    return folder


def test_inputs_are_random_numbers(benchmark: Any) -> None:
    given = benchmark.Inputs.of_size(64, 48)
    for array in (given.image, given.x, given.latent, given.sample):
        assert array.dtype == np.float32
        assert len(np.unique(array)) > 0.9 * array.size
    assert -1 <= given.x.min() < -0.9 and 0.9 < given.x.max() <= 1
    assert given.x.shape == (1, 3, 64, 48) and given.sample.shape == (1, 8, 8, 6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_both_sides_compute_the_same(benchmark: Any, checkpoint: Path, channels_last: bool) -> None:
    given = benchmark.Inputs.of_size(64, 48)
    peer = benchmark.Peer("float32", channels_last=channels_last)
    theirs_pipe = benchmark.open_peer(checkpoint, peer, "cpu")
    theirs_pipe(given.image, num_inference_steps=1, processing_resolution=0, generator=torch.Generator())
    ours_pipe = mc.MarigoldDepthPipeline.from_pretrained(checkpoint)
    ours = benchmark.engine_stages(ours_pipe, given)
    theirs = benchmark.peer_stages(theirs_pipe, peer, given)
    assert list(ours) == list(theirs)
    for name in ours:
        found, expected = theirs[name](), np.asarray(ours[name]())
        assert isinstance(found, np.ndarray) and found.dtype == np.float32, name
        scale = np.abs(expected).max()
        assert scale > 0
        np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-4 * scale, err_msg=name)
    weight = theirs_pipe.unet.down_blocks[0].resnets[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_peers_are_in_both_layouts(benchmark: Any) -> None:
    """In halves; in float32, which is there to compare numbers, in diffusers' own."""
    halves = {(dtype, last) for dtype in ("float16", "bfloat16") for last in (False, True)}
    assert {(peer.dtype, peer.channels_last) for peer in benchmark.PEERS.values()} == {("float32", False), *halves}
