"""A process that loads from the hub for tests/test_hub.py: huggingface_hub reads its environment when it is imported,
so it must not be the tests' own. Requests and answers are lines of JSON."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from huggingface_hub import constants, file_download, utils

import marigold_c as mc
from marigold_c.loading import folders as loading
from marigold_c.loading.inspection import inspect_checkpoint
from marigold_c.loading.stored_weights import stored_of


def predict(image: list[list[list[int]]], name: str, by_class: bool = True, **options: Any) -> list[float]:
    pipe: Any = (mc.MarigoldDepthPipeline.from_pretrained if by_class else mc.load)(name, num_threads=1, **options)
    pipe.set_progress_bar_config(disable=True)
    return [float(value) for value in pipe(np.array(image, np.uint8), generator=0).prediction.ravel()]


def load_and_predict(path_or_id: str, image: list[list[list[int]]], run: dict[str, Any], **options: Any) -> list[float]:
    pipe = mc.load(path_or_id, num_threads=1, **options)
    pipe.set_progress_bar_config(disable=True)
    return [float(value) for value in pipe(np.array(image, np.uint8), **run).prediction.ravel()]


def open_explained(folder: str) -> None:
    """Opens a snapshot's folder as from_pretrained does."""
    path = loading.resolve_folder(folder)
    with loading.explaining_damage(path):
        mc.load(path, num_threads=1)


def inspect(name: str) -> list[Any]:
    """What `marigold info` finds."""
    return [inspect_checkpoint(*stored_of(name))]


def mark() -> None:
    """A line on standard error between what two calls show there."""
    print("-- mark --", file=sys.stderr, flush=True)


def lack(internal: str) -> None:
    """From here on huggingface_hub is as if it were a version without one of its internals; it works itself."""
    if internal == "http_get's arguments":
        known = file_download.http_get

        def of_another_version(*args: Any, **options: Any) -> None:
            if sys._getframe(1).f_globals["__name__"].startswith("marigold_c"):
                raise TypeError("http_get() got an unexpected keyword argument")
            known(*args, **options)

        file_download.http_get = of_another_version
        return

    class Lacking(type(utils)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            if name == internal:
                raise AttributeError(f"module 'huggingface_hub.utils' has no attribute {name!r}")
            return super().__getattribute__(name)

    utils.__class__ = Lacking


FUNCTIONS = {
    "inspect": inspect,
    "lack": lack,
    "load_and_predict": load_and_predict,
    "mark": mark,
    "resolve_folder": loading.resolve_folder,
    "resolve_vae_folder": loading.resolve_vae_folder,
    "predict": predict,
    "open_explained": open_explained,
}


def main() -> None:
    # So that small files come in many pieces, and nobody waits for the retries.
    constants.DOWNLOAD_CHUNK_SIZE = 16 * 1024
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 0.01))
    for line in sys.stdin:
        call = json.loads(line)
        try:
            value = FUNCTIONS[call["function"]](**call["arguments"])
            answer = {"value": value if isinstance(value, list | None) else str(value)}
        except Exception as error:
            answer = {"classes": [one.__name__ for one in type(error).__mro__], "message": str(error)}
        print(json.dumps(answer), flush=True)


main()
