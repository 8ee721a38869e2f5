"""Loading from the hub, against a small hub on the loopback address: what is asked for, the cache, errors."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import termios
from pathlib import Path

import numpy as np
import pytest
from hub_bench import ID, OTHER, PARTS, SMALL, UNET, UNET_FP16, Bench, Failure, Worker, content, files_of, weights
from hub_server import Files, Hub

import marigold_c as mc
from marigold_c.loading.inspection import inspect_checkpoint

pytest.importorskip("huggingface_hub", reason="loading from the hub needs huggingface_hub: pip install marigold-c[hub]")

pytest_plugins = ("hub_bench",)

# ---- what is downloaded ----


def shards(variant: str, index: str, count: int = 2) -> Files:
    names = [f"unet/diffusion_pytorch_model{variant.format(f'-{i + 1:05d}-of-{count:05d}')}" for i in range(count)]
    return {name: content(name) for name in names} | {f"unet/diffusion_pytorch_model.safetensors.index{index}": b"{}"}


OTHERS = ("vae", "text_encoder")
REPLACED = weights(parts=("unet",)) | weights(".fp16", parts=OTHERS)
VAE_PLAIN = weights(parts=("vae",)) | weights(".fp16", parts=("unet", "text_encoder"))
SHARDS = shards("{}.safetensors", ".json") | weights(parts=OTHERS)
SHARDS_FP16 = shards(".fp16{}.safetensors", ".fp16.json") | weights(".fp16", parts=OTHERS)
SHARDS_EARLIER = shards("{}.fp16.safetensors", ".fp16.json", 3) | weights(".fp16", parts=OTHERS)
LAYOUTS: dict[str, tuple[Files, str | None, Files]] = {
    # name: (weight files of the repository, variant asked for, weight files wanted)
    "both": (weights() | weights(".fp16"), None, weights()),
    "both, fp16": (weights() | weights(".fp16"), "fp16", weights(".fp16")),
    "with pickles": (weights() | weights(suffix="bin") | weights(".fp16", "bin"), None, weights()),
    "fp32 only": (weights(), None, weights()),
    "fp16 only": (weights(".fp16"), None, weights(".fp16")),
    "UNet replaced after training": (REPLACED | weights(".fp16"), None, REPLACED),
    "VAE without fp16": (weights() | VAE_PLAIN, "fp16", VAE_PLAIN),
    "shards": (SHARDS | SHARDS_FP16, None, SHARDS),
    "fp16 shards": (SHARDS | SHARDS_FP16, "fp16", SHARDS_FP16),
    "fp16 shards with earlier names": (SHARDS | SHARDS_EARLIER, "fp16", SHARDS_EARLIER),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_needed_files(bench: Bench, layout: str) -> None:
    stored, variant, wanted = LAYOUTS[layout]
    bench.hub.add(ID, SMALL | OTHER | stored)
    folder = bench.load(variant=variant)
    assert files_of(folder) == SMALL | wanted
    requests = bench.hub.take_requests()
    asked = {one.path for one in requests if not one.path.startswith(("api:", "store:"))}
    assert asked == set(SMALL | wanted)
    taken = sorted(one.path for one in requests if one.method == "GET" and one.path.startswith("store:"))
    assert taken == sorted(f"store:{name}" for name in wanted if name.endswith(".safetensors"))
    assert all(one.authorization is None for one in requests)

    # Once more: only what the branch points to now is asked, and with a network cut off, nothing.
    assert bench.load(variant=variant) == folder
    requests = bench.hub.take_requests()
    assert all(one.path.startswith("api:") for one in requests)
    assert len(requests) == 1 or "both" not in layout  # otherwise the hub might have the variant preferred
    assert bench.load(variant=variant, local_files_only=True) == folder
    assert bench.hub.take_requests() == []


def test_another_variant_later(bench: Bench) -> None:
    bench.hub.add(ID, SMALL | weights() | weights(".fp16"))
    folder = bench.load(variant="fp16")
    assert bench.load(variant="fp16", local_files_only=True) == folder
    assert set(files_of(bench.load())) == set(SMALL | weights() | weights(".fp16"))
    bench.hub.take_requests()
    assert bench.load(local_files_only=True) == folder


def test_a_pipeline_from_the_hub(bench: Bench) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    bench.hub.add(ID, files_of(mc.default_checkpoint()))
    values = bench.worker.call("predict", name=ID, cache_dir=str(bench.cache), image=image.tolist())
    pipe = mc.load(mc.default_checkpoint(), num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    assert np.array_equal(np.array(values, np.float32), pipe(image, generator=0).prediction.ravel())


@pytest.mark.parametrize("by_class", [True, False], ids=["from_pretrained", "load"])
def test_a_vae_that_is_replaced_is_not_downloaded(bench: Bench, by_class: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    bench.hub.add(ID, files_of(mc.default_checkpoint()))
    options = {"name": ID, "by_class": by_class, "cache_dir": str(bench.cache), "image": image.tolist()}
    replaced = bench.worker.call("predict", **options, vae=str(mc.default_checkpoint() / "vae"))
    fetched = {one.path for one in bench.hub.take_requests() if one.method == "GET" and one.path.startswith("store:")}
    assert any("unet/" in path for path in fetched) and not any("vae/" in path for path in fetched)
    assert replaced == bench.worker.call("predict", **options)  # the same weights; now the repository's own
    fetched = {one.path for one in bench.hub.take_requests() if one.method == "GET" and one.path.startswith("store:")}
    assert fetched and all("vae/" in path for path in fetched)


def test_info_fetches_headers_alone(bench: Bench) -> None:
    shipped = files_of(mc.default_checkpoint())
    stored = sorted(name for name in shipped if name.endswith(".safetensors"))
    bench.hub.add("someone/depth", shipped)
    (facts,) = bench.worker.call("inspect", name="someone/depth")
    here = json.loads(json.dumps(inspect_checkpoint(mc.default_checkpoint())))
    assert facts == here | {"folder": facts["folder"]}
    folder = Path(facts["folder"])
    requests = [one for one in bench.hub.take_requests() if one.method == "GET"]
    fetched = sorted((one.path, one.range) for one in requests if one.path.startswith("store:"))
    assert fetched == [(f"store:{name}", "bytes=0-100000") for name in stored]
    assert not any(name.endswith(".safetensors") for name in files_of(folder))


def test_info_of_long_and_damaged_headers(bench: Bench) -> None:
    shipped = files_of(mc.default_checkpoint())
    name = next(name for name in shipped if name.startswith("unet/") and name.endswith(".safetensors"))
    entries = {f"{i:05d}" * 20: {"dtype": "F16", "shape": [3, i], "data_offsets": [0, 0]} for i in range(1, 1001)}
    header = json.dumps(entries).encode()
    assert len(header) > 100_000
    bench.hub.add("someone/long", shipped | {name: len(header).to_bytes(8, "little") + header})
    (facts,) = bench.worker.call("inspect", name="someone/long")
    assert facts["variants"]["fp16"]["components"]["unet"]["parameters"] == 3 * 500 * 1001
    assert bench.ranges(name) == ["bytes=0-100000", f"bytes=8-{len(header) + 7}"]
    for data in (b"", b"\xff" * 100, (2).to_bytes(8, "little") + b"[]", (40).to_bytes(8, "little") + b"{"):
        bench.hub.add("someone/damaged", shipped | {name: data})
        with pytest.raises(Failure, match=f"someone/damaged/{name}") as caught:
            bench.worker.call("inspect", name="someone/damaged")
        assert "CheckpointError" in caught.value.classes


# ---- revisions, offline, tokens ----


def test_revisions(bench: Bench) -> None:
    old = bench.hub.add(ID, SMALL | weights(), ("main", "v1", "refs/pr/2"))
    new = bench.hub.add(ID, SMALL | weights() | {UNET: content("new")}, ("main",))
    for revision, commit in ((None, new), ("main", new), ("v1", old), ("refs/pr/2", old), (old, old), (new, new)):
        folder = bench.load(revision=revision)
        assert (folder.name, (folder / UNET).read_bytes() == content("new")) == (commit, commit == new)
    assert bench.load(revision="v1", local_files_only=True).name == old
    # The files that both have are in the cache once.
    assert bench.ranges("vae/diffusion_pytorch_model.safetensors") == [None]
    # The branch moves on.
    newest = bench.hub.add(ID, SMALL | weights() | {UNET: content("newest")})
    assert bench.load(local_files_only=True).name == new
    assert bench.load().name == newest


def test_offline_without_the_files(bench: Bench) -> None:
    bench.hub.add(ID, SMALL | weights() | weights(".fp16"))
    error = bench.fails(local_files_only=True)
    assert "FileNotFoundError" in error.classes
    assert ID in str(error) and "offline" in str(error) and str(bench.cache) in str(error)
    folder = bench.load(variant="fp16")
    (folder / UNET_FP16).unlink()
    bench.hub.take_requests()
    for variant in ("fp16", None):
        error = bench.fails(variant=variant, local_files_only=True)
        assert "FileNotFoundError" in error.classes and "only in part in the cache" in str(error)
    assert bench.hub.take_requests() == []


def test_incomplete_shards_are_not_taken(bench: Bench) -> None:
    files = SMALL | shards("{}.safetensors", ".json", 3) | weights(parts=OTHERS)
    bench.hub.add(ID, files)
    folder = bench.load()
    shard = "unet/diffusion_pytorch_model-00002-of-00003.safetensors"
    (folder / shard).unlink()
    assert "only in part in the cache" in str(bench.fails(local_files_only=True))
    assert files_of(bench.load()) == files


def test_environment_offline_and_hub_down(bench: Bench, tmp_path: Path) -> None:
    bench.hub.add(ID, SMALL | weights())
    folder = bench.load()
    bench.hub.take_requests()
    with Hub() as gone:
        pass  # its address, where nobody answers any more
    for hub, environment in ((bench.hub, {"HF_HUB_OFFLINE": "1"}), (gone, {})):
        worker = Worker(hub, tmp_path, **environment)
        there = Bench(hub, worker, bench.cache)
        assert there.load() == folder
        assert "FileNotFoundError" in there.fails(variant="fp16").classes
        error = there.fails("prs-eth/never-seen")
        expected = "FileNotFoundError" if environment else "ConnectionError"
        assert expected in error.classes and "prs-eth/never-seen" in str(error)
        assert ("offline" if environment else hub.endpoint) in str(error)
        worker.close()
    assert bench.hub.take_requests() == []


def test_unknown(bench: Bench) -> None:
    bench.hub.add(ID, SMALL | weights())
    error = bench.fails("prs-eth/marigold-dpeth")
    assert "FileNotFoundError" in error.classes
    assert "'prs-eth/marigold-dpeth' is neither a folder here nor a repository" in str(error)
    for revision in ("v9", "0" * 40):
        error = bench.fails(revision=revision)
        assert "FileNotFoundError" in error.classes
        assert ID in str(error) and revision in str(error)
    bench.hub.add("someone/lora", {"README.md": b"-", "weights.safetensors": b"-"})
    error = bench.fails("someone/lora")
    assert "FileNotFoundError" in error.classes and "model_index.json" in str(error)
    assert "FileNotFoundError" in bench.fails("no/such/folder").classes


def test_tokens(bench: Bench) -> None:
    bench.hub.add(ID, SMALL | weights(), token="hf_secret")
    error = bench.fails()
    assert "PermissionError" in error.classes
    assert f"{bench.hub.endpoint}/{ID}" in str(error) and "token" in str(error)
    assert "PermissionError" in bench.fails(token="hf_other").classes
    bench.hub.take_requests()
    assert files_of(bench.load(token="hf_secret")) == SMALL | weights()
    for one in bench.hub.take_requests():
        # The store is another host: the token is none of its business.
        assert one.authorization == (None if one.path.startswith("store:") else "Bearer hf_secret")
    bench.hub.repositories[ID].private = True
    bench.hub.add("someone/private", SMALL | weights(), token="hf_secret", private=True)
    error = bench.fails("someone/private")
    assert "FileNotFoundError" in error.classes and "private" in str(error)
    assert "hf_secret" not in str(error)


def test_missing_weights(bench: Bench) -> None:
    bench.hub.add(ID, SMALL | weights() | weights(".fp16"))
    error = bench.fails(variant="fp8")
    assert "ValueError" in error.classes
    assert "'fp8'" in str(error) and "fp16, the default" in str(error)
    assert "plain name" in str(bench.fails(variant="../*"))
    bench.hub.add(ID, SMALL | weights(parts=("unet",)) | weights(suffix="bin"))
    error = bench.fails()
    assert "CheckpointError" in error.classes
    assert "vae and text_encoder" in str(error) and "pickled" in str(error)
    assert not [one for one in bench.hub.take_requests() if one.path.startswith("store:")]


# ---- the rest ----


def test_vae_of_its_own(bench: Bench, tmp_path: Path) -> None:
    taesd = {name: content(name) for name in ("config.json", "README.md", "diffusion_pytorch_model.safetensors")}
    bench.hub.add("madebyollin/taesd", taesd | {"diffusion_pytorch_model.bin": b"-", "taesd_decoder.safetensors": b"-"})
    folder = bench.load("madebyollin/taesd", "resolve_vae_folder")
    assert files_of(folder) == taesd
    assert bench.load("madebyollin/taesd", "resolve_vae_folder", local_files_only=True) == folder
    assert bench.load(str(folder), "resolve_vae_folder") == folder
    with pytest.raises(Failure, match=r"no config\.json") as caught:
        bench.load(str(tmp_path), "resolve_vae_folder")
    assert "FileNotFoundError" in caught.value.classes
    with pytest.raises(Failure, match="neither a folder here nor a repository"):
        bench.load("madebyollin/teasd", "resolve_vae_folder")


def test_progress_bar_on_a_terminal(bench: Bench, tmp_path: Path) -> None:
    bench.hub.add(ID, SMALL | weights())
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 120))
    worker = Worker(bench.hub, tmp_path, stderr=theirs)
    os.close(theirs)
    there = Bench(bench.hub, worker, bench.cache)
    there.load()
    worker.call("mark")
    there.load()  # all of it is there, nothing to show
    worker.close()
    shown = b""
    with contextlib.suppress(OSError):  # the end, once no process has the other side
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    first, second = shown.decode().split("-- mark --")
    assert all(part in first for part in PARTS) and "100%" in first
    assert second.strip() == ""


def test_quiet_where_there_is_no_terminal(bench: Bench, tmp_path: Path) -> None:
    bench.hub.add(ID, SMALL | weights())
    worker = Worker(bench.hub, tmp_path)
    Bench(bench.hub, worker, bench.cache).load()
    assert worker.close() == ""
