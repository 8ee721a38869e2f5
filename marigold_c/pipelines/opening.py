"""Opens the pipeline that a checkpoint names; and for a task, as commands and data sets call it."""

from __future__ import annotations

from os import PathLike
from typing import Any, Literal, overload

from ..loading.families import FAMILIES, TASKS, family_of, kind_of, refines
from ..loading.folders import OPTIONAL_STEMS, resolve_folder, resolve_unet_folder
from ..loading.packed import Configurations
from .high_resolution import MarigoldDepthHRPipeline
from .outputs import MarigoldOutput
from .pipeline import MarigoldPipeline
from .tasks import MarigoldDepthPipeline, MarigoldIntrinsicsPipeline, MarigoldNormalsPipeline

_CLASSES: dict[str, type[MarigoldDepthPipeline | MarigoldNormalsPipeline | MarigoldIntrinsicsPipeline]] = {
    "depth": MarigoldDepthPipeline,
    "normals": MarigoldNormalsPipeline,
    "intrinsics": MarigoldIntrinsicsPipeline,
}


@overload
def load(path_or_id: str | PathLike[str], task: Literal["depth"], **options: Any) -> MarigoldDepthPipeline: ...
@overload
def load(path_or_id: str | PathLike[str], task: Literal["normals"], **options: Any) -> MarigoldNormalsPipeline: ...
@overload
def load(
    path_or_id: str | PathLike[str], task: Literal["intrinsics"], **options: Any
) -> MarigoldIntrinsicsPipeline: ...
@overload
def load(path_or_id: str | PathLike[str], task: None = None, **options: Any) -> MarigoldPipeline[MarigoldOutput]: ...
def load(path_or_id: str | PathLike[str], task: str | None = None, **options: Any) -> MarigoldPipeline[MarigoldOutput]:
    """Opens a checkpoint of Marigold, or of a family that shares its networks, as the pipeline for its task.

    Args:
        path_or_id: A folder, a packed file or a hub id.
        task: "depth", "normals" or "intrinsics" makes the class known to editors and type checkers, and says what is
            predicted where the checkpoint does not: Lotus, GenPercept, and E2E-FT in Stable Diffusion's layout, unless
            their folders have the published names.
        options: Those of from_pretrained.

    Returns:
        A MarigoldDepthPipeline, MarigoldDepthHRPipeline (of a checkpoint with a boosting_unet), MarigoldNormalsPipeline
        or MarigoldIntrinsicsPipeline.

    Raises:
        ValueError: The checkpoint is for another task.
        NotImplementedError: model_index.json names another class. Otherwise as from_pretrained.
    """
    return open_as(path_or_id, task, task, options)


def open_as(
    path_or_id: str | PathLike[str],
    task: str | None,
    assumed: str | None,
    options: dict[str, Any],
    high_resolution: bool | None = None,
) -> MarigoldPipeline[MarigoldOutput]:
    """load(). assumed: the task of a checkpoint that does not say its own. high_resolution: whether a second UNet is
    opened; None: if there is one."""
    if task is not None and task not in _CLASSES:
        raise ValueError(f"task={task!r}: choose from {', '.join(_CLASSES)}")
    hub = {key: options[key] for key in ("cache_dir", "revision", "local_files_only", "token") if key in options}
    without = [*(() if options.get("vae") is None else ("vae",)), *(OPTIONAL_STEMS if high_resolution is False else ())]
    folder = resolve_folder(path_or_id, options.get("variant"), **hub, without=without)
    hub.pop("revision", None)
    if (unet := options.get("unet")) is not None:
        options = {**options, "unet": resolve_unet_folder(unet, **hub)}
    kind = kind_of(folder, options.get("family"), unet=options.get("unet"))
    found = kind.task or assumed
    name = Configurations(folder)["model_index.json"].get("_class_name")
    if kind.family is None and family_of(folder, kind.unet) is None:
        raise NotImplementedError(
            f"{folder / 'model_index.json'}: _class_name {name!r} is not supported, or not with this UNet; supported: "
            f"{', '.join(TASKS)}, and those of the families {', '.join(FAMILIES[1:])} (family=)"
        )
    if found is None:
        raise ValueError(
            f"{folder / 'model_index.json'}: _class_name {name!r} does not say what is predicted; give "
            f"task={' or '.join(map(repr, _CLASSES))}"
        )
    if found not in _CLASSES:
        raise ValueError(f"{folder / 'model_index.json'}: task {found!r} is unknown; known: {', '.join(_CLASSES)}")
    if task not in (None, found):
        raise ValueError(f"{path_or_id} is a checkpoint for {found}, not for {task}")
    if found == "depth" and (refines(folder) if high_resolution is None else high_resolution):
        return MarigoldDepthHRPipeline.from_pretrained(folder, **options)
    return _CLASSES[found].from_pretrained(folder, **options)


def open_pipeline(
    task: str, checkpoint: str | PathLike[str], high_resolution: bool = False, **options: Any
) -> MarigoldPipeline[Any]:
    """load() with its options; ValueError if the checkpoint is for another task: depth, normals or iid.
    high_resolution: of depth, a MarigoldDepthHRPipeline; else the base model alone is opened."""
    pipe = open_as(checkpoint, None, "intrinsics" if task == "iid" else task, options, high_resolution)
    name = "iid" if pipe.task == "intrinsics" else pipe.task
    if name != task:
        raise ValueError(f"{checkpoint} is a checkpoint for {pipe.task}: use marigold {name}")
    return pipe
