"""Methods of diffusers that change how torch computes, not what: here they have no effect and say so.

Inherited by pipelines and their networks, so that scripts written for diffusers run as they are.
"""

from __future__ import annotations

import inspect
import warnings
from typing import Any, Self

_ATTENTION = "the engine's attention never stores the matrix of scores"
_MEMORY = "the engine plans the memory of each network, and frees one before the next is run"


def no_effect(method: str, reason: str) -> None:
    """Warns the caller of a method that does nothing."""
    warnings.warn(f"{method} has no effect: {reason}", stacklevel=3)


def uncompiled(value: Any) -> Any:
    """What torch.compile was given; the value itself where it was not."""
    return inspect.unwrap(value) if callable(value) else value


class NetworkSettings:
    """Of networks (pipe.unet, pipe.vae)."""

    def set_attn_processor(self, processor: Any = None) -> None:
        """Accepted; has no effect."""
        no_effect("set_attn_processor", _ATTENTION)

    def set_default_attn_processor(self) -> None:
        """Accepted; has no effect."""
        no_effect("set_default_attn_processor", _ATTENTION)

    def enable_xformers_memory_efficient_attention(self, attention_op: Any = None) -> None:
        """Accepted; has no effect."""
        no_effect("enable_xformers_memory_efficient_attention", _ATTENTION)

    def disable_xformers_memory_efficient_attention(self) -> None:
        """Accepted; has no effect."""
        no_effect("disable_xformers_memory_efficient_attention", _ATTENTION)

    def enable_slicing(self) -> None:
        """Accepted; has no effect."""
        no_effect("enable_slicing", _MEMORY)

    def disable_slicing(self) -> None:
        """Accepted; has no effect."""
        no_effect("disable_slicing", _MEMORY)

    def eval(self) -> Self:
        """Itself: a pipeline's networks are not trained."""
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Itself: a pipeline's networks have no gradients. ValueError if they are asked for."""
        if requires_grad:
            raise ValueError("a pipeline's networks have no gradients; Trainer has them")
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Itself: the pipeline decides where it is computed, and in what precision (pipe.to)."""
        return self

    def cuda(self, device: Any = None) -> Self:
        """Itself: as `to`."""
        return self

    def cpu(self) -> Self:
        """Itself: as `to`."""
        return self


class PipelineSettings:
    """Of pipelines."""

    def enable_xformers_memory_efficient_attention(self, attention_op: Any = None) -> None:
        """Accepted; has no effect."""
        no_effect("enable_xformers_memory_efficient_attention", _ATTENTION)

    def disable_xformers_memory_efficient_attention(self) -> None:
        """Accepted; has no effect."""
        no_effect("disable_xformers_memory_efficient_attention", _ATTENTION)

    def enable_attention_slicing(self, slice_size: Any = "auto") -> None:
        """Accepted; has no effect."""
        no_effect("enable_attention_slicing", _ATTENTION)

    def disable_attention_slicing(self) -> None:
        """Accepted; has no effect."""
        no_effect("disable_attention_slicing", _ATTENTION)

    def enable_vae_slicing(self) -> None:
        """Accepted; has no effect."""
        no_effect("enable_vae_slicing", _MEMORY)

    def disable_vae_slicing(self) -> None:
        """Accepted; has no effect."""
        no_effect("disable_vae_slicing", _MEMORY)

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: Any = None) -> None:
        """Accepted; has no effect: pipe.to("cuda") moves a pipeline to a GPU."""
        no_effect("enable_model_cpu_offload", _MEMORY)

    def enable_sequential_cpu_offload(self, gpu_id: int | None = None, device: Any = None) -> None:
        """Accepted; has no effect: pipe.to("cuda") moves a pipeline to a GPU."""
        no_effect("enable_sequential_cpu_offload", _MEMORY)

    def maybe_free_model_hooks(self) -> None:
        """Accepted; has no effect."""

    def remove_all_hooks(self) -> None:
        """Accepted; has no effect."""
