"""A folder in which the documentation's examples run: photographs, a data set, and a hub on the loopback address that
has checkpoints under the authors' names: built as those of the package, but thinner, with random weights.

PYTEST_DONT_REWRITE: the tests import it before pytest takes the fixture from it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import family_checkpoints
import hr_checkpoints
import numpy as np
import pytest
from documents import ROOT, Block
from hub_server import Files, Hub
from PIL import Image

from marigold_c.images.videos import VideoWriter

sys.path.insert(0, str(ROOT / "tools"))

SECONDS = 600
# Repositories, and the task of the checkpoint in each.
_REPOSITORIES = {
    "prs-eth/marigold-depth-v1-1": "depth",
    "prs-eth/marigold-normals-v1-1": "normals",
    "prs-eth/marigold-iid-lighting-v1-1": "iid",
}
# Layouts of other families' checkpoints (family_checkpoints.py) in each, and those of UNets alone.
_FAMILIES = {
    "jingheya/lotus-depth-d-v1-0": "lotus-d",
    "jingheya/lotus-depth-g-v2-1-disparity": "lotus-g",
    "GonzaloMG/stable-diffusion-e2e-ft-normals": "e2e-ft, normals",
    "stabilityai/stable-diffusion-2-1": "genpercept",
    "prs-eth/rollingdepth-v1-0": "rollingdepth",
}
_HIGH_RESOLUTION = "prs-eth/marigold-depth-hr-v1-1"
_UNETS = "guangkaixu/genpercept-models"
# Of the checkpoints whose layout states none: 768 as published, of photographs that are enlarged to it.
_RESOLUTION = 128
_TINY_VAE = {
    "_class_name": "AutoencoderTiny",
    "act_fn": "relu",
    "decoder_block_out_channels": [8, 8, 8, 8],
    "encoder_block_out_channels": [8, 8, 8, 8],
    "in_channels": 3,
    "latent_channels": 4,
    "latent_magnitude": 3,
    "latent_shift": 0.5,
    "num_decoder_blocks": [1, 1, 1, 1],
    "num_encoder_blocks": [1, 1, 1, 1],
    "out_channels": 3,
    "scaling_factor": 1.0,
    "upsampling_scaling_factor": 2,
}


def _add_families(hub: Hub, folder: Path) -> None:
    for repository, name in _FAMILIES.items():
        path, needed = family_checkpoints.make(name, folder, family_checkpoints.THIN)
        hr_checkpoints.change(path / "model_index.json", {"default_processing_resolution": _RESOLUTION})
        hub.add(repository, _with_both_names(path))
        for unet in needed.values():
            hub.add(_UNETS, {f"{unet.name}/{file}": data for file, data in _with_both_names(unet).items()})


def _add_high_resolution(hub: Hub, folder: Path) -> None:
    path = hr_checkpoints.make(folder / "hr")
    hub.add(_HIGH_RESOLUTION, _with_both_names(path))


def _with_both_names(folder: Path) -> Files:
    """Weights under the names of both variants."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    plain = {name.replace(".fp16.", "."): data for name, data in found.items()}
    halves = {f"{name[:-12]}.fp16.safetensors": data for name, data in plain.items() if name.endswith(".safetensors")}
    return plain | halves


def _tiny_vae(folder: Path) -> Files:
    from safetensors_files import write

    from marigold_c import _C

    config = json.dumps(_TINY_VAE)
    shapes = _C.declared_weights("vae", config, "config.json")
    random = np.random.default_rng(5)
    arrays = {name: ("F32", 0.1 * random.standard_normal(shape)) for name, shape in shapes.items()}
    write(folder / "vae.safetensors", arrays)
    weights = (folder / "vae.safetensors").read_bytes()
    return {"config.json": config.encode(), "diffusion_pytorch_model.safetensors": weights}


def _write_photographs(folder: Path) -> None:
    photo = Image.open(ROOT / "examples" / "photo.jpg").resize((160, 112))
    for name in ("photo.jpg", "photos/first.jpg", "photos/second.png", "more/third.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        photo.save(folder / name)
    (folder / "points").mkdir()
    for name in ("first", "second"):
        (folder / "points" / f"{name}.csv").write_text("x,y,metres\n20,100,0.8\n80,60,2.1\n140,20,4.5\n")
    (folder / "frames").mkdir()
    for number in range(2):
        photo.save(folder / "frames" / f"{number}.jpg")
    with VideoWriter(folder / "clip.mp4", Fraction(25)) as clip:
        for number in range(3):
            clip.write(np.asarray(photo), Fraction(number, 25))
    with tarfile.open(folder / "set.tar", "w") as archive:
        archive.add(folder / "photo.jpg", "inside.jpg")


def _write_exr(path: Path, pixels: np.ndarray) -> None:
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGB": np.ascontiguousarray(pixels, np.float32)}).write(str(path))


def _write_data_sets(folder: Path) -> None:
    """NYUv2 and KITTI's depth completion as the documentation has them: `config/...`, with the data in `DATA`."""
    from make_dataset_fixtures import load_scenes, write_fixtures

    (fixture,) = write_fixtures(folder, ["nyu_depth"], load_scenes(None, 1)).values()
    (folder / "data").rename(folder / "DATA")
    shutil.copy(fixture.config, folder / "config" / "dataset_depth" / "data_nyu_test.yaml")
    (folder / "kitti.yaml").write_text("name: kitti_completion\ndisp_name: KITTI depth completion\ndir: kittidc\n")
    image, depth = np.asarray(Image.open(folder / "photo.jpg")), np.linspace(2, 40, 112 * 160).reshape(112, 160)
    for kind, values in {"gt": depth, "sparse": depth * (np.arange(160) % 16 == 0)}.items():
        (folder / "DATA" / "kittidc" / kind).mkdir(parents=True)
        np.save(folder / "DATA" / "kittidc" / kind / "0000.npy", values.astype(np.float32))
    (folder / "DATA" / "kittidc" / "rgb").mkdir()
    Image.fromarray(image).save(folder / "DATA" / "kittidc" / "rgb" / "0000.png")


class World:
    """Runs blocks of a page, each page in a folder of its own that looks the same to all."""

    def __init__(self, template: Path, hub: Hub, home: Path, programs: Path) -> None:
        self.template = template
        without = ("HF_", "HUGGING", "MARIGOLD_", "BASE_", "OMP_")
        clean = {name: value for name, value in os.environ.items() if not name.upper().startswith(without)}
        clean = {name: value for name, value in clean.items() if not name.lower().endswith("_proxy")}
        self.environment = clean | {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "XDG_CACHE_HOME": str(home),
            "OMP_WAIT_POLICY": "passive",
            "PATH": f"{programs}{os.pathsep}{clean['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    def folder(self, where: Path) -> Path:
        shutil.copytree(self.template, where)
        return where

    def run_shell(self, block: Block, folder: Path) -> None:
        self._run(["bash", "-euo", "pipefail", "-c", block.code], str(block), folder)

    def run_python(self, blocks: list[Block], folder: Path) -> None:
        """All of a page in one process, as one script whose lines have the numbers of the page's."""
        lines: list[str] = []
        for block in blocks:
            lines += [""] * (block.line - 1 - len(lines)) + block.code.splitlines()
        script = folder / (blocks[0].page.replace("/", "_") + ".py")
        script.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._run([sys.executable, str(script)], blocks[0].page, folder)

    def _run(self, command: list[str], where: str, folder: Path) -> None:
        done = subprocess.run(
            command, cwd=folder, env=self.environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert done.returncode == 0, (
            f"{where} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("documents")
    template, programs = folder / "template", folder / "programs"
    template.mkdir()
    _write_photographs(template)
    _write_exr(template / "photo.exr", np.asarray(Image.open(template / "photo.jpg"), np.float32) / 255)
    _write_data_sets(template)
    shutil.copytree(ROOT / "examples", template / "examples")
    programs.mkdir()
    for name, command in {"marigold": f"'{sys.executable}' -m marigold_c", "python": f"'{sys.executable}'"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    with Hub() as hub:
        for name, task in _REPOSITORIES.items():
            hub.add(name, _with_both_names(family_checkpoints.make_thin(task, folder / task)))
        hub.add("madebyollin/taesd", _tiny_vae(folder))
        _add_families(hub, folder / "families")
        _add_high_resolution(hub, folder / "families")
        yield World(template, hub, folder / "home", programs)
