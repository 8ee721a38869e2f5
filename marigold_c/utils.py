"""`marigold_c.utils`: what scripts take from diffusers.utils (images/locations.py)."""

from __future__ import annotations

from .images.locations import export_to_gif, load_image

__all__ = ["export_to_gif", "load_image"]
