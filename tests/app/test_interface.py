"""The page for programs: what the named endpoints give is what the command writes, to the byte; what they refuse."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from documents import blocks
from page_server import PageServer

from marigold_c.commands import cli

pytest.importorskip("gradio")
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "marigold_c/app/examples/cat.jpg"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    running = PageServer(tmp_path_factory.mktemp("served"), "--max-upload-bytes=200000", "--max-pixels=200000")
    yield running
    running.stop()
    assert not list(running.temporary.iterdir())


@pytest.fixture(scope="module")
def client(server: PageServer, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(server.address, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("depth", {"seed": 5, "formats": "npy,png16,png,glb,ply", "field_of_view": 50.0, "edge_threshold": 0.2}),
        ("depth", {"members": 3, "steps": 1, "resolution": 128, "uncertainty": True, "color_map": "binary"}),
        ("depth", {"formats": "stl", "dtype": "int8"}),
        ("normals", {"seed": 2, "dtype": "bfloat16"}),
        ("iid", {"seed": 2, "formats": "npy,png"}),
    ],
)
def test_answers_are_the_files_of_the_command(
    task: str, options: dict[str, Any], client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = client.predict(photo=handle_file(PHOTO), **options, api_name=f"/v1_{task}")
    monkeypatch.chdir(tmp_path)
    Path("cat.jpg").write_bytes(PHOTO.read_bytes())
    assert cli.main([*answer["command"].split()[1:], "--quiet"]) == 0
    ours = {path.name: path.read_bytes() for path in map(Path, answer["files"])}
    theirs = {path.name: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    assert ours == theirs


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.png", b"no image", {}, "a.png: cannot be read as an image: no format that is known"),
        ("..%2Fa.tar", b"\0" * 10240, {}, "cannot be read as an image"),
        ("a.jpg", None, {"steps": 1000}, "--denoise-steps 1000: this page takes at most 50"),
        ("a.jpg", None, {"checkpoint": "/etc"}, "this page offers"),
        ("a.jpg", None, {"formats": "exe"}, "formats 'exe': choose from npy, npz, png16, png, ply, glb, stl"),
    ],
)
def test_what_is_not_possible_is_said(
    name: str, content: bytes | None, options: dict[str, Any], message: str, client: Client, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(PHOTO.read_bytes() if content is None else content)
    with pytest.raises(AppError) as caught:
        client.predict(photo=handle_file(file), **options, api_name="/v1_depth")
    assert message in str(caught.value)


def test_equal_photographs_of_two_visitors_are_two_uploads(server: PageServer) -> None:
    """Each is deleted as soon as it is read; they had one folder, named by the content."""
    import httpx

    interface = f"{server.address}/gradio_api"

    def upload() -> str:
        answer = httpx.post(f"{interface}/upload", files={"files": ("cat.jpg", PHOTO.read_bytes())})
        path: str = answer.raise_for_status().json()[0]
        return path

    for path in [upload(), upload()]:
        photo = {"path": path, "orig_name": "cat.jpg", "meta": {"_type": "gradio.FileData"}}
        asked = httpx.post(f"{interface}/call/v2/v1_depth", json={"photo": photo, "formats": "npy"})
        event = asked.raise_for_status().json()["event_id"]
        assert "event: complete" in httpx.get(f"{interface}/call/v2/v1_depth/{event}", timeout=60).text
        assert not Path(path).exists()


def test_files_of_this_machine_and_urls_are_not_read(server: PageServer, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(PHOTO.read_bytes())
    for place in (str(secret), str(PHOTO), f"{server.address}/health", "https://example.com/a.jpg"):
        said = _post(server, {"photo": {"path": place, "meta": {"_type": "gradio.FileData"}}})
        assert "event: error" in said and ("not uploaded" in said or "URLs are not fetched" in said), said
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{server.address}/gradio_api/file={secret}", timeout=60)
    assert caught.value.code == 403


def _post(server: PageServer, body: dict[str, Any]) -> str:
    """As curl would, docs/app.md."""
    place = f"{server.address}/gradio_api/call/v2/v1_depth"
    request = urllib.request.Request(place, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{place}/{event}", timeout=60) as answer:
        return str(answer.read().decode())


def test_the_examples_of_the_document_run(server: PageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(PHOTO.read_bytes())
    examples = [block for block in blocks("docs/app.md") if block.marker == "server"]
    codes = [block.code.replace("http://127.0.0.1:7860", server.address) for block in examples]
    known: dict[str, Any] = {}
    printed = ""
    for block, code in zip(examples, codes, strict=True):
        if block.language == "python":
            exec(code, known)
        else:
            done = subprocess.run(["sh", "-ec", code], capture_output=True, text=True, check=True)
            printed += done.stdout
    assert [Path(path).name for path in known["answer"]["files"]] == [
        "photo_depth.npy",
        "photo_depth.png",
        "photo_depth.glb",
    ]
    assert "event: complete" in printed and "photo_depth_colored.png" in printed and '"status":"ok"' in printed


def test_large_uploads_and_images_are_refused(server: PageServer, client: Client, tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(200_001))
    with pytest.raises(Exception, match=r"413|exceeds"):
        client.predict(photo=handle_file(large), api_name="/v1_depth")
    with pytest.raises(AppError, match=r"photo.jpg: the image is too large: 640 x 427 are 273280 pixels, .* 200000$"):
        client.predict(photo=handle_file(ROOT / "examples/photo.jpg"), api_name="/v1_depth")


def test_health_and_headers(server: PageServer) -> None:
    health = server.health()
    assert health["status"] == "ok" and health["busy"] is False and health["models"] <= 2
    with urllib.request.urlopen(f"{server.address}/", timeout=60) as answer:
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    request = urllib.request.Request(f"{server.address}/health", headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    assert caught.value.code == 421


def test_endpoints_and_their_types_are_described(client: Client) -> None:
    described = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(described) == {"/v1_depth", "/v1_normals", "/v1_iid"}
    types = {one["parameter_name"]: one["type"] for one in described["/v1_depth"]["parameters"]}
    assert types["steps"] == {"type": "integer"} and types["uncertainty"] == {"type": "boolean"}
    assert types["dtype"] == {"enum": ["float32", "bfloat16", "int8"]}


def test_a_password_is_asked_for(tmp_path: Path) -> None:
    running = PageServer(tmp_path, "--user=me", MARIGOLD_APP_PASSWORD="secret")
    try:
        assert running.health()["status"] == "ok"
        with pytest.raises(Exception, match=r"401|[Aa]uth|credentials"):
            Client(running.address, verbose=False)
        client = Client(running.address, auth=("me", "secret"), verbose=False, download_files=tmp_path / "got")
        answer = client.predict(photo=handle_file(PHOTO), steps=1, formats="npy", api_name="/v1_depth")
        assert Path(answer["files"][0]).stat().st_size > 1000
    finally:
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 130


def test_a_browser_is_opened_at_the_page(tmp_path: Path) -> None:
    asked, opener, served = tmp_path / "asked", tmp_path / "opener", tmp_path / "served"
    os.mkfifo(asked)
    opener.write_text(f'#!/bin/sh\necho "$1" > {asked}\n')
    opener.chmod(0o755)
    served.mkdir()
    reading = os.open(asked, os.O_RDONLY | os.O_NONBLOCK)
    running = PageServer(served, BROWSER=f"{opener} %s")
    try:
        assert select.select([reading], [], [], 120)[0], "no browser was opened"
        assert os.read(reading, 1000).decode() == running.address + "\n"
    finally:
        os.close(reading)
        running.stop()


def test_a_port_in_use_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["app", "--no-browser", f"--port={port}"]) == 1
    assert f"port {port}: Address already in use; --port 0 takes any port" in capsys.readouterr().err
