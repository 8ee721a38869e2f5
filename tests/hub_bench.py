"""Fixtures of the tests of loading from the hub: repositories, a process to load with, an empty cache.

PYTEST_DONT_REWRITE: the tests import it before pytest takes the fixtures from it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import Files, Hub

import marigold_c as mc

UNET = "unet/diffusion_pytorch_model.safetensors"
UNET_FP16 = "unet/diffusion_pytorch_model.fp16.safetensors"
ID = "prs-eth/marigold-depth"
PARTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


def content(name: str, size: int = 100_000) -> bytes:
    return np.random.default_rng(list(name.encode())).bytes(size)


def weights(variant: str = "", suffix: str = "safetensors", parts: tuple[str, ...] = tuple(PARTS)) -> Files:
    names = [f"{part}/{PARTS[part]}{variant}.{suffix}" for part in parts]
    return {name: content(name) for name in names}


SMALL: Files = {
    name: content(name, 200)
    for name in (
        *("model_index.json", "README.md", "LICENSE.txt", "scheduler/scheduler_config.json"),
        *("tokenizer/vocab.json", "tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json"),
        *(f"{part}/config.json" for part in PARTS),
    )
}
# What repositories have beside: pickled weights, other frameworks, other parts of Stable Diffusion, pictures.
OTHER: Files = {
    name: content(name, 200)
    for name in (
        *(
            ".gitattributes",
            "pipeline.py",
            "teaser.png",
            "marigold.ckpt",
            "tokenizer/merges.txt",
            "marigold.safetensors",
        ),
        *("feature_extractor/preprocessor_config.json", "safety_checker/model.safetensors", "unet/model.onnx"),
        *("unet/diffusion_pytorch_model.non_ema.safetensors", "text_encoder/flax_model.msgpack"),
    )
}


class Worker:
    """Calls functions of marigold_c.loading in a process with a clean environment."""

    def __init__(self, hub: Hub, home: Path, stderr: int = subprocess.PIPE, **environment: str) -> None:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and not name.lower().endswith("_proxy")
        }
        package = str(Path(mc.__file__).parents[1])
        clean |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HOME": str(home), "PYTHONPATH": package}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("hub_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=clean | {"HF_HUB_DISABLE_TELEMETRY": "1"} | environment,
        )

    def send(self, function: str, **arguments: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"function": function, "arguments": arguments}) + "\n")
        self.process.stdin.flush()

    def call(self, function: str, **arguments: Any) -> Any:
        self.send(function, **arguments)
        assert self.process.stdout
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else pytest.fail(f"the process ended: {self.close()}")
        if "value" not in answer:
            raise Failure(answer["classes"], answer["message"])
        return answer["value"]

    def close(self) -> str:
        """Ends the process; what it wrote on its standard error, which is no terminal."""
        return self.process.communicate(timeout=20)[1]


class Failure(Exception):
    """An exception in the worker."""

    def __init__(self, classes: list[str], message: str) -> None:
        super().__init__(message)
        self.classes = classes


@pytest.fixture(scope="session")
def server() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture(scope="session")
def shared_worker(server: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(server, tmp_path_factory.mktemp("home"))
    yield worker
    worker.close()


class Bench:
    """A hub with nothing in it, an empty cache, and a process to load with."""

    def __init__(self, hub: Hub, worker: Worker, cache: Path) -> None:
        self.hub, self.worker, self.cache = hub, worker, cache

    def load(self, name: str = ID, function: str = "resolve_folder", **options: Any) -> Path:
        return Path(self.worker.call(function, path_or_id=name, cache_dir=str(self.cache), **options))

    def fails(self, name: str = ID, **options: Any) -> Failure:
        with pytest.raises(Failure) as caught:
            self.load(name, **options)
        return caught.value

    def ranges(self, name: str) -> list[str | None]:
        """The ranges that were asked of the store for a file since the last look at the requests."""
        return [one.range for one in self.hub.take_requests() if (one.method, one.path) == ("GET", f"store:{name}")]

    def blobs(self) -> list[Path]:
        return sorted(self.cache.glob("models--*/blobs/*"))


@pytest.fixture
def bench(server: Hub, shared_worker: Worker, tmp_path: Path) -> Bench:
    server.repositories.clear()
    server.faults.clear()
    server.take_requests()
    return Bench(server, shared_worker, tmp_path / "cache")


def files_of(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
