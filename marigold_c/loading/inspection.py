"""What a checkpoint holds, read from its configurations and safetensors headers; no weight is loaded or downloaded."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .families import TASKS, class_name_of, family_of, kind_of, refines
from .folders import STEMS
from .packed import Configurations, is_packed, packed_texts
from .safetensors_header import read_header, tensors_of
from .stored_weights import StoredWeights, stored_in


def _weights(stored: StoredWeights, component: str, variant: str | None) -> dict[str, Any]:
    """Parameters and stored types of one component under one variant."""
    parameters, types, size = 0, Counter[str](), 0
    for file in (name for name in stored.files(component, variant) if name.endswith(".safetensors")):
        size += stored.sizes[file]
        for name, entry in stored.read(file).items():
            try:
                count = math.prod(int(extent) for extent in entry["shape"])
                types[str(entry["dtype"])] += count
            except (KeyError, TypeError, ValueError) as error:
                raise CheckpointError(f"{stored.place}/{file}: tensor {name!r} has no valid dtype and shape") from error
            parameters += count
    return {"parameters": parameters, "stored": [name for name, _ in types.most_common()], "bytes": size}


def _variants(stored: StoredWeights) -> list[str | None]:
    """None and the named variants that some component is stored in."""
    named: set[str] = set()
    for component, stem in STEMS.items():
        pattern = re.compile(rf"{component}/{stem}\.(\w+?)(-\d{{5}}-of-\d{{5}})?\.safetensors")
        named |= {match[1] for name in stored.sizes if (match := pattern.fullmatch(name))}
    plain: list[str | None] = [None] if any(stored.files(part, None) for part in STEMS) else []
    return [*plain, *sorted(named)]


def licence_of(checkpoint: Path) -> str | None:
    """The licence that README.md states in its front matter, or the first line of a LICENSE file, or what a packed file
    has kept of them."""
    if is_packed(checkpoint):
        return packed_texts(checkpoint).get("licence")
    return _licence(checkpoint)


def _licence(folder: Path) -> str | None:
    readme = folder / "README.md"
    if readme.is_file():
        text = readme.read_text(encoding="utf-8", errors="replace")
        front = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
        fields = dict(re.findall(r"^(license\w*):\s*(\S.*?)\s*$", front[1], re.MULTILINE)) if front else {}
        if fields:
            return str(fields.get("license_name", fields.get("license")))
    for path in sorted(folder.glob("LICENSE*")):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        if first := next((line.strip() for line in lines if line.strip()), None):
            return first
    return None


def _sum_of(weights: dict[str, dict[str, Any]], key: str) -> int:
    return sum(int(part[key]) for part in weights.values())


def _all_weights(stored: StoredWeights) -> dict[str, Any]:
    """What there is, by variant."""
    variants = {}
    for variant in _variants(stored):
        parts = [part for part in STEMS if stored.files(part, variant)]
        weights = {part: _weights(stored, part, variant) for part in parts}
        variants[variant or "default"] = {
            "components": weights,
            "parameters": _sum_of(weights, "parameters"),
            "bytes": _sum_of(weights, "bytes"),
        }
    return variants


def _packed_weights(path: Path) -> dict[str, Any]:
    """Parameters by component, layouts and bytes of a packed file."""
    header = read_header(path)
    texts = packed_texts(path)
    components, layouts, size = Counter[str](), Counter[str](), 0
    for name, entry in tensors_of(header).items():
        try:
            _checksum, layout, shape = texts[name].split(" ")
            count = math.prod(int(extent) for extent in shape.split(","))
            size += int(entry["data_offsets"][1]) - int(entry["data_offsets"][0])
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: tensor {name!r} has no valid note in __metadata__") from error
        components[name.split(".")[0]] += count
        layouts[layout] += count
    return {
        "dtype": texts.get("dtype"),
        "isa": texts.get("isa"),
        "version": texts.get("version"),
        "components": {name: {"parameters": count} for name, count in components.items()},
        "parameters": components.total(),
        "layouts": dict(layouts.most_common()),
        "bytes": size,
    }


def _boosting(configurations: Configurations) -> dict[str, Any]:
    unet = configurations["boosting_unet/config.json"]
    return {key: unet.get(key) for key in ("in_channels", "out_channels", "block_out_channels")}


def inspect_checkpoint(folder: Path, stored: StoredWeights | None = None) -> dict[str, Any]:
    """Everything `marigold info` shows, as values that JSON can hold. stored: the weights, where they are not in the
    folder."""
    configurations = Configurations(folder)
    index, unet, vae, scheduler = (
        configurations[name]
        for name in ("model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")
    )
    class_name = class_name_of(index)
    kind = kind_of(folder)
    family = kind.family or family_of(folder)
    return {
        "folder": str(folder),
        "class_name": class_name,
        "family": family,
        "task": kind.task or "unknown",
        "supported": family is not None or class_name in TASKS,
        "prediction_type": kind.prediction_type,
        "default_denoising_steps": index.get("default_denoising_steps"),
        "default_processing_resolution": index.get("default_processing_resolution"),
        "scale_invariant": index.get("scale_invariant"),
        "shift_invariant": index.get("shift_invariant"),
        "unet": {key: unet.get(key) for key in ("in_channels", "out_channels", "block_out_channels")}
        | {"cross_attention_dim": unet.get("cross_attention_dim"), "heads": unet.get("attention_head_dim")},
        "boosting_unet": _boosting(configurations) if refines(folder) else None,
        "vae": {key: vae.get(key) for key in ("latent_channels", "block_out_channels", "scaling_factor")},
        "scheduler": {
            "class_name": scheduler.get("_class_name"),
            **{key: scheduler.get(key) for key in ("prediction_type", "timestep_spacing", "beta_schedule")},
            "rescale_betas_zero_snr": scheduler.get("rescale_betas_zero_snr", False),
        },
        "variants": {} if is_packed(folder) else _all_weights(stored or stored_in(folder)),
        "packed": _packed_weights(folder) if is_packed(folder) else None,
        "licence": licence_of(folder),
    }


def describe(facts: dict[str, Any]) -> str:
    """The facts as lines for people."""
    unet, vae, scheduler = facts["unet"], facts["vae"], facts["scheduler"]
    channels = f"{unet['in_channels']} -> {unet['out_channels']} channels"
    steps, resolution = facts["default_denoising_steps"], facts["default_processing_resolution"]
    support = "" if facts["supported"] else "  (this version of marigold_c cannot run it)"
    zero_snr = ", zero terminal SNR" if scheduler["rescale_betas_zero_snr"] else ""
    lines = [
        f"checkpoint   {facts['folder']}",
        f"task         {facts['task']} ({facts['class_name']}){support}",
        f"family       {facts['family'] or 'unknown'}",
        f"defaults     {steps or 'no number of'} step{'' if steps == 1 else 's'}, processing resolution {resolution}",
        f"UNet         {channels}, blocks {unet['block_out_channels']}, text width {unet['cross_attention_dim']}",
        f"VAE          {vae['latent_channels']} latent channels, blocks {vae['block_out_channels']}, "
        f"scaling factor {vae['scaling_factor']}",
        f"scheduler    {scheduler['class_name']}, {scheduler['prediction_type']}, "
        f"{scheduler['timestep_spacing']}{zero_snr}",
    ]
    if boosting := facts["boosting_unet"]:
        channels = f"{boosting['in_channels']} -> {boosting['out_channels']} channels"
        lines.append(f"boosting     {channels}, blocks {boosting['block_out_channels']}")
    for name, variant in facts["variants"].items():
        stored = sorted({one for part in variant["components"].values() for one in part["stored"]})
        parts = ", ".join(f"{key} {part['parameters'] / 1e6:.2f} M" for key, part in variant["components"].items())
        lines.append(
            f"weights      {name}: {variant['parameters'] / 1e6:.2f} M parameters ({parts}), stored as "
            f"{'/'.join(stored)}, {variant['bytes'] / 1e6:.1f} MB"
        )
    if packed := facts["packed"]:
        parts = ", ".join(f"{key} {part['parameters'] / 1e6:.2f} M" for key, part in packed["components"].items())
        lines.append(
            f"weights      packed as {packed['dtype']} for {packed['isa']}: {packed['parameters'] / 1e6:.2f} M "
            f"parameters ({parts}), {packed['bytes'] / 1e6:.1f} MB"
        )
    elif not facts["variants"]:
        lines.append("weights      none")
    if "verified" in facts:
        lines.append("checksums    all right")
    lines.append(f"licence      {facts['licence'] or 'not stated in the folder'}")
    return "\n".join(lines)
