"""The nodes of integrations/comfyui by ComfyUI's contract, without ComfyUI: what its loader and its executor look at
(docs.comfy.org, "Custom nodes": properties, datatypes, images), and results equal to the pipelines'."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import marigold_c as mc

PLACE = Path(__file__).resolve().parents[1] / "integrations/comfyui/__init__.py"
# Types of ComfyUI's own that have a widget, and the options that each may have; then those that only connect.
_COMMON = {"default", "tooltip", "forceInput", "lazy", "rawLink"}
WIDGETS = {
    "INT": _COMMON | {"min", "max", "step", "control_after_generate", "display"},
    "FLOAT": _COMMON | {"min", "max", "step", "round", "display"},
    "STRING": _COMMON | {"multiline", "placeholder", "dynamicPrompts"},
    "BOOLEAN": _COMMON | {"label_on", "label_off"},
}
CONNECTIONS = {"IMAGE", "MASK"}
OURS = {"MARIGOLD_PIPE", "MARIGOLD_MAPS"}


def load_nodes() -> Any:
    """As ComfyUI imports a folder of custom_nodes: by its path, under a name of its own."""
    spec = importlib.util.spec_from_file_location("custom_nodes_marigold", PLACE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


NODES = load_nodes()


@pytest.mark.parametrize("name", sorted(NODES.NODE_CLASS_MAPPINGS))
def test_a_node_keeps_the_contract(name: str) -> None:
    node = NODES.NODE_CLASS_MAPPINGS[name]
    inputs = node.INPUT_TYPES()
    assert set(inputs) <= {"required", "optional", "hidden"}
    named = {**inputs["required"], **inputs.get("optional", {})}
    parameters = list(inspect.signature(getattr(node, node.FUNCTION)).parameters.values())[1:]
    assert [one.name for one in parameters] == list(named)
    for one in parameters:
        assert (one.default is inspect.Parameter.empty) == (one.name in inputs["required"])
    for kind, *options in named.values():
        assert len(options) <= 1 and all(isinstance(one, dict) for one in options)
        if isinstance(kind, list):  # a choice
            assert kind and all(isinstance(one, str) for one in kind)
        else:
            assert kind in WIDGETS or kind in CONNECTIONS | OURS
            given = options[0] if options else {}
            assert set(given) <= WIDGETS.get(kind, _COMMON)
            if "min" in given:
                assert given["min"] <= given["default"] <= given["max"]
    assert isinstance(node.RETURN_TYPES, tuple) and set(node.RETURN_TYPES) <= CONNECTIONS | OURS | set(WIDGETS)
    assert len(node.RETURN_NAMES) == len(node.RETURN_TYPES)
    assert len(getattr(node, "OUTPUT_IS_LIST", node.RETURN_TYPES)) == len(node.RETURN_TYPES)
    assert isinstance(node.CATEGORY, str) and name in NODES.NODE_DISPLAY_NAME_MAPPINGS


def test_what_a_node_takes_some_node_gives() -> None:
    nodes = NODES.NODE_CLASS_MAPPINGS.values()
    given = {kind for node in nodes for kind in node.RETURN_TYPES}
    taken = {
        kind
        for node in nodes
        for group in node.INPUT_TYPES().values()
        for kind, *_ in group.values()
        if isinstance(kind, str)
    }
    assert given >= OURS and taken >= OURS


def run(node_name: str, /, **inputs: Any) -> Any:
    """As the executor does: a new object, its function by name, with the defaults of widgets that are not set."""
    node = NODES.NODE_CLASS_MAPPINGS[node_name]
    defaults = {}
    for key, (kind, *options) in node.INPUT_TYPES()["required"].items():
        if isinstance(kind, list):
            defaults[key] = kind[0]
        elif options and "default" in options[0]:
            defaults[key] = options[0]["default"]
    result = getattr(node(), node.FUNCTION)(**{**defaults, **inputs})
    assert isinstance(result, tuple) and len(result) == len(node.RETURN_TYPES)
    return result


IMAGE = np.random.default_rng(0).random((2, 48, 64, 3), np.float32)


@pytest.mark.parametrize(("small", "task"), NODES.SMALL.items())
def test_maps_are_those_of_the_pipeline(small: str, task: str) -> None:
    (pipe,) = run("MarigoldLoad", small=small)
    (maps,) = run("MarigoldPredict", pipe=pipe, image=IMAGE, steps=2, seed=3)
    expected = mc.load(mc.default_checkpoint(task))(IMAGE, num_inference_steps=2, generator=3).prediction
    assert np.array_equal(maps.output.prediction, expected)


def test_meshes_are_written_and_stay_in_their_folder(tmp_path: Path) -> None:
    (pipe,) = run("MarigoldLoad")
    (maps,) = run("MarigoldPredict", pipe=pipe, image=IMAGE, steps=1)
    folder = tmp_path / "output"
    folder.mkdir()
    (paths,) = run("MarigoldMesh", maps=maps, image=IMAGE, name="../../m", folder=str(folder), edge_threshold=10.0)
    assert [Path(path) for path in paths] == [folder / "m_00000.glb", folder / "m_00001.glb"]
    expected = tmp_path / "expected.glb"
    mc.write_geometry(
        expected, mc.depth_to_mesh(maps.output.prediction[1], IMAGE[1], field_of_view=60, edge_threshold=10)
    )
    assert Path(paths[1]).read_bytes() == expected.read_bytes()
    (normals,) = run("MarigoldLoad", small=list(NODES.SMALL)[1])
    (of_normals,) = run("MarigoldPredict", pipe=normals, image=IMAGE, steps=1)
    with pytest.raises(ValueError, match="of normals"):
        run("MarigoldMesh", maps=of_normals, image=IMAGE, folder=str(folder))


def test_progress_is_told_and_cancel_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []

    class InterruptProcessingException(Exception):
        pass

    def check() -> None:
        if len(told) == 2:
            raise InterruptProcessingException

    class ProgressBar:
        def __init__(self, total: int) -> None:
            self.total = total

        def update_absolute(self, done: int, total: int) -> None:
            told.append((done, total))

    comfy = types.ModuleType("comfy")
    management, utils = types.ModuleType("comfy.model_management"), types.ModuleType("comfy.utils")
    management.throw_exception_if_processing_interrupted = check  # type: ignore[attr-defined]
    utils.ProgressBar = ProgressBar  # type: ignore[attr-defined]
    for module in (comfy, management, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    (pipe,) = run("MarigoldLoad")
    with pytest.raises(InterruptProcessingException):
        run("MarigoldPredict", pipe=pipe, image=IMAGE[:1], steps=9)
    assert told == [(1, 9), (2, 9)]


def test_images_are_tensors_as_comfyui_has_them() -> None:
    torch = pytest.importorskip("torch")
    image = torch.from_numpy(IMAGE)
    for small, count in zip(NODES.SMALL, (2, 2, 6), strict=True):
        (pipe,) = run("MarigoldLoad", small=small)
        maps, uncertainty = run("MarigoldEnsemble", pipe=pipe, image=image, steps=1, members=3)
        (shown,) = run("MarigoldColour", maps=maps)
        for picture in (shown, uncertainty):
            assert picture.dtype == torch.float32 and tuple(picture.shape) == (count, 48, 64, 3)
            assert float(picture.min()) >= 0 and float(picture.max()) <= 1
        expected = pipe(IMAGE, num_inference_steps=1, ensemble_size=3, batch_size=0, generator=0).prediction
        assert np.array_equal(maps.output.prediction, expected)
