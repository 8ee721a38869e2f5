"""Memory of the engine: aligned, grown but never shrunk, and refused politely when there is too little."""

from __future__ import annotations

import os

import pytest

from marigold_c import _C, _testing


def test_context_memory_grows_and_is_aligned() -> None:
    sizes = [(1, 1), (1000, 1), (100, 5000), (9 << 20, 65), (1, 17 << 20)]
    rows = _testing.reserve(sizes)
    activations = workspace = 0
    for (wanted_activations, wanted_workspace), row in zip(sizes, rows, strict=True):
        activations, workspace = max(activations, wanted_activations), max(workspace, wanted_workspace)
        assert row == (activations, workspace, activations + workspace, True)


@pytest.mark.parametrize("wanted", [(2**62, 1), (1, 2**62), (2**63 - 1, 1)])
def test_too_much_memory_is_refused_with_numbers(wanted: tuple[int, int]) -> None:
    with pytest.raises(MemoryError, match=str(max(wanted))):
        _testing.reserve([wanted])


@pytest.mark.parametrize("sizes", [[], [0, 0, 1, 16, 17], [65536, 1, 65535, 2], [1 << 20, 3, 1 << 17], [5000] * 64])
def test_arena_pieces_are_zeroed_aligned_and_apart(sizes: list[int]) -> None:
    assert _testing.arena(sizes)


def test_available_threads_follow_the_affinity_of_the_process() -> None:
    quota = _testing.quota_processors("")
    allowed = len(os.sched_getaffinity(0))
    assert _C.available_threads() == (min(quota, allowed) if quota else allowed)
