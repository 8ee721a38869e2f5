"""The pipelines for depth, normals and intrinsic images, as diffusers' classes of these names; and opening the one
that a checkpoint names."""

from __future__ import annotations

from os import PathLike
from typing import Any, Literal, overload

from ..loading.folders import resolve_folder
from ..loading.packed import Configurations
from .ensembling import ensemble_depth, ensemble_intrinsics, ensemble_normals
from .outputs import MarigoldDepthOutput, MarigoldIntrinsicsOutput, MarigoldNormalsOutput, MarigoldOutput
from .pipeline import TASKS, MarigoldPipeline


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
    """Opens a checkpoint as the pipeline that its model_index.json names.

    Args:
        path_or_id: A folder, a packed file or a hub id.
        task: "depth", "normals" or "intrinsics" makes the class known to editors and type checkers.
        options: Those of from_pretrained.

    Returns:
        A MarigoldDepthPipeline, MarigoldNormalsPipeline or MarigoldIntrinsicsPipeline.

    Raises:
        ValueError: The checkpoint is for another task.
        NotImplementedError: model_index.json names another class. Otherwise as from_pretrained.
    """
    if task is not None and task not in _CLASSES:
        raise ValueError(f"task={task!r}: choose from {', '.join(_CLASSES)}")
    hub = {key: options[key] for key in ("cache_dir", "revision", "local_files_only", "token") if key in options}
    without = () if options.get("vae") is None else ("vae",)
    folder = resolve_folder(path_or_id, options.get("variant"), **hub, without=without)
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"{folder} is no checkpoint: it has no model_index.json")
    name = Configurations(folder)["model_index.json"].get("_class_name")
    if name not in TASKS:
        raise NotImplementedError(
            f"{folder / 'model_index.json'}: _class_name {name!r} is not supported; supported: {', '.join(TASKS)}"
        )
    if task not in (None, TASKS[name]):
        raise ValueError(f"{path_or_id} is a checkpoint for {TASKS[name]}, not for {task}")
    return _CLASSES[TASKS[name]].from_pretrained(folder, **options)
