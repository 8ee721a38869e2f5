"""The learning rate of every iteration. Called by run.py."""

from __future__ import annotations

import math


def exponential_ratio(iteration: int, total_iter: int, final_ratio: float, warmup_steps: int = 0) -> float:
    """What the base learning rate is multiplied by in an iteration, counted from 0: the rule of prs-eth/Marigold's
    IterExponential.

    It rises linearly from 0 over `warmup_steps` iterations (so the first changes nothing), falls exponentially, and
    reaches `final_ratio` at `total_iter`, where it stays.
    """
    if iteration < warmup_steps:
        return iteration / warmup_steps
    if iteration >= total_iter:
        return final_ratio
    return math.exp((iteration - warmup_steps) / (total_iter - warmup_steps) * math.log(final_ratio))
