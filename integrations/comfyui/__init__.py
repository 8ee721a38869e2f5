"""marigold_c as nodes of ComfyUI: load, predict, ensemble, colour, mesh.

Copy or link this folder into ComfyUI/custom_nodes and install marigold_c into ComfyUI's Python. Images are ComfyUI's:
float tensors (B, H, W, 3) in [0, 1]. Maps (MARIGOLD_MAPS) are what a pipeline returned, with the pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import marigold_c as mc

CATEGORY = "marigold"
SMALL = {f"small {task} (in the package)": task for task in ("depth", "normals", "iid")}
LARGEST_SEED = 2**64 - 1
COUNT = {"default": 0, "min": 0, "max": 1000, "tooltip": "0: the checkpoint's own"}
SEED = {"default": 0, "min": 0, "max": LARGEST_SEED, "control_after_generate": True}
RESOLUTION = {"default": 0, "min": 0, "max": 4096, "step": 8, "tooltip": "longer side; 0: the checkpoint's own"}


@dataclass(frozen=True)
class Maps:
    """The output of `pipe` for the images of a batch."""

    pipe: Any
    output: Any


def _tensor(pixels: Any) -> Any:
    """uint8 (B, H, W, 3) as an image of ComfyUI."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32) / np.float32(255))


def _watch(pipe: Any) -> None:
    """ComfyUI's progress bar and its button to cancel, where there is ComfyUI."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
        from comfy.utils import ProgressBar
    except ImportError:
        pipe.set_progress_callback(None)
        return
    bars: list[Any] = []

    def progress(done: int, total: int) -> None:
        throw_exception_if_processing_interrupted()
        if not bars:
            bars.append(ProgressBar(total))
        bars[0].update_absolute(done, total)

    pipe.set_progress_callback(progress)


def _run(pipe: Any, image: Any, steps: int, resolution: int, seed: int, **options: Any) -> Maps:
    _watch(pipe)
    pixels = np.asarray(image, dtype=np.float32)[..., :3]
    output = pipe(
        np.clip(pixels, 0, 1),
        num_inference_steps=steps or None,
        processing_resolution=resolution or None,
        generator=seed,
        batch_size=0,
        **options,
    )
    return Maps(pipe, output)


class MarigoldLoad:
    """Opens a checkpoint: a small one of the package, or the folder, packed file or hub id that `checkpoint` names."""

    CATEGORY = CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = ("MARIGOLD_PIPE",)
    RETURN_NAMES = ("pipe",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "small": (list(SMALL),),
                "checkpoint": (
                    "STRING",
                    {"default": "", "tooltip": "folder, packed file or hub id; empty: a small one"},
                ),
                "precision": (["float32", "bfloat16", "int8", "auto"],),
                "device": ("STRING", {"default": "cpu"}),
            }
        }

    def load(self, small: str, checkpoint: str, precision: str, device: str) -> tuple[Any]:
        place = checkpoint.strip() or mc.default_checkpoint(SMALL[small])
        pipe = mc.load(place, dtype=precision, device=device.strip() or "cpu")
        pipe.set_progress_bar_config(disable=True)
        return (pipe,)


class MarigoldPredict:
    """One prediction of each image."""

    CATEGORY = CATEGORY
    FUNCTION = "predict"
    RETURN_TYPES = ("MARIGOLD_MAPS",)
    RETURN_NAMES = ("maps",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "pipe": ("MARIGOLD_PIPE",),
                "image": ("IMAGE",),
                "steps": ("INT", COUNT),
                "resolution": ("INT", RESOLUTION),
                "seed": ("INT", SEED),
            }
        }

    def predict(self, pipe: Any, image: Any, steps: int, resolution: int, seed: int) -> tuple[Maps]:
        return (_run(pipe, image, steps, resolution, seed),)


class MarigoldEnsemble:
    """Several predictions of each image, merged, and a picture of how much they disagree."""

    CATEGORY = CATEGORY
    FUNCTION = "merge"
    RETURN_TYPES = ("MARIGOLD_MAPS", "IMAGE")
    RETURN_NAMES = ("maps", "uncertainty")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        required = MarigoldPredict.INPUT_TYPES()["required"]
        return {"required": {**required, "members": ("INT", {"default": 10, "min": 3, "max": 256})}}

    def merge(self, pipe: Any, image: Any, steps: int, resolution: int, seed: int, members: int) -> tuple[Maps, Any]:
        maps = _run(pipe, image, steps, resolution, seed, ensemble_size=members, output_uncertainty=True)
        shown = pipe.image_processor.visualize_uncertainty(maps.output.uncertainty)
        return maps, _tensor([np.asarray(one.convert("RGB")) for one in shown])


class MarigoldColour:
    """Maps as pictures: depth in the colours of a colour map, normals, the targets of intrinsic images in turn."""

    CATEGORY = CATEGORY
    FUNCTION = "colour"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "maps": ("MARIGOLD_MAPS",),
                "colour_map": (["Spectral", "binary", "Spectral_r", "binary_r"], {"tooltip": "of depth"}),
            }
        }

    def colour(self, maps: Maps, colour_map: str) -> tuple[Any]:
        processor, prediction = maps.pipe.image_processor, maps.output.prediction
        if maps.pipe.task == "depth":
            shown = processor.visualize_depth(prediction, color_map=colour_map)
        elif maps.pipe.task == "normals":
            shown = processor.visualize_normals(prediction)
        else:
            by_name = processor.visualize_intrinsics(prediction, maps.pipe.target_properties)
            shown = [picture for one in by_name for picture in one.values()]
        return (_tensor([np.asarray(one.convert("RGB")) for one in shown]),)


class MarigoldMesh:
    """Depth as a mesh in the colours of the images: a .glb for each in ComfyUI's output folder, or in `folder`."""

    CATEGORY = CATEGORY
    FUNCTION = "write"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("path",)
    OUTPUT_IS_LIST = (True,)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "maps": ("MARIGOLD_MAPS",),
                "image": ("IMAGE",),
                "name": ("STRING", {"default": "marigold"}),
                "field_of_view": ("FLOAT", {"default": 60.0, "min": 1.0, "max": 179.0}),
                "edge_threshold": ("FLOAT", {"default": 0.05, "min": 0.001, "max": 10.0, "step": 0.001}),
            },
            "optional": {"folder": ("STRING", {"default": ""})},
        }

    def write(
        self, maps: Maps, image: Any, name: str, field_of_view: float, edge_threshold: float, folder: str = ""
    ) -> tuple[list[str]]:
        if maps.pipe.task != "depth":
            raise ValueError(f"a mesh is made of depth; these are maps of {maps.pipe.task}")
        place = Path(folder) if folder else self._output_folder()
        stem = Path(name).name or "marigold"  # no way out of the folder
        paths = []
        for index, (depth, pixels) in enumerate(zip(maps.output.prediction, np.asarray(image), strict=True)):
            mesh = mc.depth_to_mesh(
                depth,
                np.clip(pixels[..., :3], 0, 1),
                field_of_view=field_of_view,
                edge_threshold=edge_threshold,
                prediction_type=maps.pipe.prediction_type or "depth",
            )
            paths.append(place / f"{stem}_{index:05d}.glb")
            mc.write_geometry(paths[-1], mesh)
        return ([str(path) for path in paths],)

    @staticmethod
    def _output_folder() -> Path:
        import folder_paths  # ComfyUI's

        return Path(folder_paths.get_output_directory())


NODE_CLASS_MAPPINGS: dict[str, type] = {
    node.__name__: node for node in (MarigoldLoad, MarigoldPredict, MarigoldEnsemble, MarigoldColour, MarigoldMesh)
}
NODE_DISPLAY_NAME_MAPPINGS = {name: name.replace("Marigold", "Marigold: ").lower() for name in NODE_CLASS_MAPPINGS}
