"""The pipelines for depth, normals and intrinsic images, as diffusers' classes of these names; and opening the one
that a checkpoint names."""

from __future__ import annotations

from os import PathLike
from typing import Any, Literal, overload

from ..loading.families import FAMILIES, TASKS, family_of, kind_of
from ..loading.folders import resolve_folder, resolve_unet_folder
from ..loading.packed import Configurations
from .ensembling import ensemble_depth, ensemble_intrinsics, ensemble_normals
from .outputs import MarigoldDepthOutput, MarigoldIntrinsicsOutput, MarigoldNormalsOutput, MarigoldOutput
from .pipeline import MarigoldPipeline


class MarigoldDepthPipeline(MarigoldPipeline[MarigoldDepthOutput]):
    """Monocular depth, as diffusers' class of this name."""

    task = "depth"
    supported_prediction_types = ("depth", "disparity")
    _output = MarigoldDepthOutput
    _reductions = ("median", "mean")
    _ensembling_options = ("reduction", "solver", "regularizer_strength", "max_iter", "tol", "max_res")
    ensemble_depth = staticmethod(ensemble_depth)

    @property
    def scale_invariant(self) -> bool:
        """Whether predictions are known up to a factor only."""
        return bool(self.config.get("scale_invariant", True))

    @property
    def shift_invariant(self) -> bool:
        """Whether predictions are known up to an offset only."""
        return bool(self.config.get("shift_invariant", True))

    def _invariances(self) -> dict[str, bool]:
        return {"scale_invariant": self.scale_invariant, "shift_invariant": self.shift_invariant}


class MarigoldNormalsPipeline(MarigoldPipeline[MarigoldNormalsOutput]):
    """Surface normals, as diffusers' class of this name."""

    task = "normals"
    supported_prediction_types = ("normals",)
    _output = MarigoldNormalsOutput
    _reductions = ("closest", "mean")
    ensemble_normals = staticmethod(ensemble_normals)

    @property
    def use_full_z_range(self) -> bool:
        """Whether z spans [-1, 1]; else all normals face the camera."""
        return bool(self.config.get("use_full_z_range", True))


class MarigoldIntrinsicsPipeline(MarigoldPipeline[MarigoldIntrinsicsOutput]):
    """Intrinsic image decomposition into any number of targets, as diffusers' class of this name."""

    task = "intrinsics"
    supported_prediction_types = ("intrinsics",)
    _output = MarigoldIntrinsicsOutput
    _reductions = ("median", "mean")
    ensemble_intrinsics = staticmethod(ensemble_intrinsics)

    @property
    def n_targets(self) -> int:
        """Maps predicted for one image."""
        return self._engine.info()["num_targets"]

    @property
    def target_properties(self) -> dict[str, Any] | None:
        """Names, colour spaces and more of the targets, as model_index.json tells them."""
        return self.config.get("target_properties")


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
        A MarigoldDepthPipeline, MarigoldNormalsPipeline or MarigoldIntrinsicsPipeline.

    Raises:
        ValueError: The checkpoint is for another task.
        NotImplementedError: model_index.json names another class. Otherwise as from_pretrained.
    """
    return open_as(path_or_id, task, task, options)


def open_as(
    path_or_id: str | PathLike[str], task: str | None, assumed: str | None, options: dict[str, Any]
) -> MarigoldPipeline[MarigoldOutput]:
    """load(). assumed: the task of a checkpoint that does not say its own."""
    if task is not None and task not in _CLASSES:
        raise ValueError(f"task={task!r}: choose from {', '.join(_CLASSES)}")
    hub = {key: options[key] for key in ("cache_dir", "revision", "local_files_only", "token") if key in options}
    without = () if options.get("vae") is None else ("vae",)
    folder = resolve_folder(path_or_id, options.get("variant"), **hub, without=without)
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"{folder} is no checkpoint: it has no model_index.json")
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
    return _CLASSES[found].from_pretrained(folder, **options)
