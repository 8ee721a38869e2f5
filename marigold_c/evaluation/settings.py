"""How predictions are compared with the truth. Made by commands and by the validation of a training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationSettings:
    """What the flags of `marigold eval` say. alignment: a name of presets.ALIGNMENTS. target_names: None for all of the
    truth."""

    alignment: str = "none"
    alignment_max_res: int | None = None
    target_names: tuple[str, ...] | None = None
    linear_targets: tuple[str, ...] = ()
    use_mask: bool = False
    pooling: str = "image"
