"""What the page is made of, without the page: limits, names, sessions, one run at a time, the words of the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marigold_c.app.engine import Cancelled, Engine, Models
from marigold_c.app.limits import Limits, Photograph, Refused, printable_name, read_photograph
from marigold_c.app.measuring import fit_metres, parse_points, sparse_metres
from marigold_c.app.results import answer
from marigold_c.app.sessions import Sessions, Workspace
from marigold_c.app.uploads import take_photograph
from marigold_c.app.wishes import Wish, make_wish
from marigold_c.commands import cli
from marigold_c.commands.app import commands

PHOTO = Path(__file__).resolve().parents[1] / "marigold_c/app/examples/cat.jpg"
COMMANDS = commands()
CHOSEN = {
    "checkpoint": "",
    "steps": 2,
    "members": 3,
    "resolution": 128,
    "dtype": "float32",
    "seed": 7,
    "color_map": "binary",
    "uncertainty": True,
}


def wish_for(task: str, formats: tuple[str, ...] = ("npy", "png16", "png"), **changed: object) -> Wish:
    flags = changed.pop("flags", {})
    return make_wish(COMMANDS, [], task=task, formats=formats, flags=flags, **{**CHOSEN, **changed})  # type: ignore[arg-type]


def run(wish: Wish, folder: Path, photograph: Photograph | None = None) -> dict[str, bytes]:
    folder.mkdir()
    engine = Engine(Models(2))
    photograph = photograph or read_photograph(PHOTO, "cat.jpg", Limits())
    with engine.job("somebody") as job:
        found = answer(engine, job, wish, photograph, folder, Limits(), lambda *_: None, {})
    return {str(path.relative_to(folder)): path.read_bytes() for path in found.files}


@pytest.mark.parametrize("task", ["depth", "normals", "iid"])
def test_files_are_those_of_the_command_and_of_the_python_lines(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = {"glb", "ply"} & set(COMMANDS[task].shape_formats)
    flags = {"field_of_view": 50.0, "geometry": "points"} if shapes else {}
    wish = wish_for(task, ("npy", "png16", "png", *sorted(shapes)), flags=flags)
    ours = run(wish, tmp_path / "ours")
    monkeypatch.chdir(tmp_path)
    Path("cat.jpg").write_bytes(PHOTO.read_bytes())
    line = wish.command_line("cat.jpg")
    assert cli.main(line.split()[1:]) == 0
    theirs = {str(path.relative_to("out")): path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    assert ours == theirs and len(ours) >= 4

    known: dict[str, object] = {}
    exec(wish.python_lines("cat.jpg", wish.parsed(Path("out"))), known)  # they are shown to be run
    predicted = known["out"].prediction  # type: ignore[attr-defined]
    name = next(name for name in sorted(ours) if name.endswith(".npy") and "uncertainty" not in name)
    stored = np.load(tmp_path / "ours" / name)
    values = stored.transpose(1, 2, 0) if task == "normals" else stored
    assert any(np.array_equal(values.squeeze(), one.squeeze()) for one in predicted)


def test_only_files_and_pictures_are_made_again_where_the_prediction_is_the_same(tmp_path: Path) -> None:
    engine, kept = Engine(Models(1)), {}
    photograph = read_photograph(PHOTO, "cat.jpg", Limits())
    watched: list[tuple[int, int]] = []
    predictions = []
    for number, changed in enumerate([{}, {"color_map": "Spectral"}, {"seed": 8}]):
        (tmp_path / str(number)).mkdir()
        with engine.job("somebody") as job:
            found = answer(
                engine,
                job,
                wish_for("depth", members=1, uncertainty=False, **changed),
                photograph,
                tmp_path / str(number),
                Limits(),
                lambda done, total, _left: watched.append((done, total)),
                kept,
            )
        predictions.append(found.output.prediction)
    assert watched == [(1, 2), (2, 2)] * 2
    assert predictions[0] is predictions[1] and not np.array_equal(predictions[0], predictions[2])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 51}, "--denoise-steps 51: this page takes at most 50"),
        ({"members": 21}, "--ensemble-size 21"),
        ({"resolution": 4096}, "--processing-res 4096"),
        ({"members": 1}, "uncertainty needs an ensemble"),
        ({"dtype": "--help"}, 'dtype "--help"'),
        ({"color_map": "x --old-names"}, "x --old-names"),
        ({"task": "/etc"}, "not among depth, normals, iid"),
        ({"checkpoint": "/etc"}, "this page offers small"),
    ],
)
def test_what_is_not_offered_is_refused(changed: dict[str, object], message: str, tmp_path: Path) -> None:
    task = str(changed.pop("task", "depth"))
    with pytest.raises((ValueError, NotImplementedError), match=message):
        run(wish_for(task, **changed), tmp_path / "out")


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\a.png", "a.png"),
        ("-rf.png", "rf.png"),
        ("..", "image"),
        ("", "image"),
        ("\x1b[31mred\n.png", "_[31mred_.png"),
        ("<img src=x onerror=alert(1)>.png", "_img src=x onerror=alert(1)_.png"),
        ("a" * 300 + ".jpeg", "a" * 100 + ".jpeg"),
    ],
)
def test_names_that_are_sent_become_harmless(sent: str, shown: str) -> None:
    assert printable_name(sent) == shown


def test_uploads_are_read_as_the_command_reads_them_and_deleted(tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    place = uploads / "0123" / "blob"
    place.parent.mkdir(parents=True)
    deep = np.arange(6 * 8 * 3, dtype=np.uint16).reshape(6, 8, 3) * 400
    Image.fromarray((deep >> 8).astype(np.uint8)).save(place, "PNG")
    taken = take_photograph({"path": str(place), "orig_name": "a.png"}, uploads, Limits())
    assert taken.name == "a" and taken.file == "a.png" and np.array_equal(taken.pixels, deep >> 8)
    assert not list(uploads.iterdir())

    for content, limits, message in (
        (b"no image", Limits(), "a.png: cannot be read as an image: no format that is known"),
        (b"", Limits(), "a.png: .*empty"),
        (PHOTO.read_bytes(), Limits(bytes=1000), "a.png: 30985 bytes; this page takes files of up to 1000"),
        (PHOTO.read_bytes(), Limits(pixels=1000), "451 x 300 are 135300 pixels, the limit is 1000$"),
    ):
        place.parent.mkdir(parents=True)
        place.write_bytes(content)
        with pytest.raises(Refused, match=message):
            take_photograph({"path": str(place), "orig_name": "a.png"}, uploads, limits)
        assert not list(uploads.iterdir())

    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    (uploads / "link").symlink_to(secret)
    for path in (secret, uploads / "link", uploads / ".." / "secret.png", "http://127.0.0.1/a.png", None, 7):
        with pytest.raises(Refused):
            take_photograph({"path": path if isinstance(path, int) or path is None else str(path)}, uploads, Limits())
    assert secret.exists()


def test_it_is_for_this_machine_and_has_no_public_link(capsys: pytest.CaptureFixture[str]) -> None:
    args = cli.parse(["app"])
    assert args.host == "127.0.0.1" and not args.no_browser
    with pytest.raises(SystemExit):
        cli.parse(["app", "--share"])
    assert "--share" in capsys.readouterr().err


def test_the_model_used_least_recently_goes() -> None:
    models = Models(2)
    first, second = models.get("depth", None, None), models.get("normals", None, None)
    assert models.get("depth", None, None) is first
    assert models.get("depth", None, "bfloat16").dtype == "bfloat16"
    assert len(models) == 2
    assert models.get("depth", None, None) is first and models.get("normals", None, None) is not second


def test_runs_follow_one_another_and_can_be_ended_by_their_owner() -> None:
    engine = Engine(Models(1))
    args = wish_for("depth", steps=900, members=100, uncertainty=False).parsed(Path("out"))
    pixels = np.zeros((96, 128, 3), np.uint8)
    log: list[str] = []
    started = threading.Event()

    def endless() -> None:
        try:
            with engine.job("first") as job:
                engine.predict(job, COMMANDS["depth"], args, pixels, lambda *_: started.set())
        except Cancelled:
            log.append("first cancelled")

    def waiting() -> None:
        with engine.job("second"):
            log.append("second")

    threads = [threading.Thread(target=endless), threading.Thread(target=waiting)]
    threads[0].start()
    assert started.wait(60)
    threads[1].start()
    time.sleep(0.2)
    assert engine.busy and log == [] and not engine.cancel("third")
    assert engine.cancel("first")
    for thread in threads:
        thread.join(60)
    assert log == ["first cancelled", "second"] and not engine.busy
    short = wish_for("depth", steps=1, members=1, uncertainty=False).parsed(Path("out"))
    with engine.job("first") as job:
        engine.predict(job, COMMANDS["depth"], short, pixels, lambda *_: None)


def test_folders_of_killed_servers_go_and_those_of_others_stay(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from marigold_c.app.sessions import Workspace\n"
        "w = Workspace(pathlib.Path(sys.argv[1])); (w.path / 'photo').write_text('x'); print(w.path, flush=True)\n"
        "time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    Workspace(tmp_path).close()
    assert (folder / "photo").exists() and folder.stat().st_mode & 0o077 == 0
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    Workspace(tmp_path).close()
    assert not list(tmp_path.iterdir())


def test_sessions_end_with_their_files(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    sessions = Sessions(workspace.path, most=2)
    folders = [sessions.get(name).new_folder("image") for name in "abc"]
    assert [folder.exists() for folder in folders] == [False, True, True] and len(sessions) == 2
    (folders[1] / "file").write_text("x")
    assert sessions.get("b").new_folder("image") == folders[1] and not list(folders[1].iterdir())
    sessions.close("b")
    sessions.close("unknown")
    assert not folders[1].exists()
    old = workspace.path / "upload"
    old.mkdir()
    os.utime(old, (0, 0))
    os.utime(folders[2].parent, (0, 0))
    workspace.sweep()
    assert not old.exists() and folders[2].exists()
    workspace.close()
    assert not list(tmp_path.iterdir())


def test_measured_points_guide_the_depth(tmp_path: Path) -> None:
    """Nearer to them than scale and shift alone; steps are told, and one of them may end it."""
    photograph = read_photograph(PHOTO, "cat.jpg", Limits())
    size = photograph.pixels.shape[:2]
    wish, engine, steps = wish_for("depth", members=1, uncertainty=False, steps=6, resolution=64), Engine(Models(1)), []

    def watch(done: int, total: int, _left: float) -> None:
        steps.append((done, total))

    with engine.job("somebody") as job:
        args = wish.parsed(tmp_path)
        _, plain = engine.predict(job, wish.command, args, photograph.pixels, lambda *_: None)
        depth = plain.prediction[0, :, :, 0]
        bends = {(100, 40): 0.3, (200, 150): -0.2, (30, 200): 0.1, (250, 60): -0.2}
        lines = [f"{x}, {y}, {1 + 2 * depth[y, x] + bend:.3f}" for (x, y), bend in bends.items()]
        points = parse_points("\n".join(lines), *size)
        sparse = sparse_metres(points, *size)
        metres = engine.complete(job, wish.command, args, photograph.pixels, sparse, watch)
        assert steps == [(done, 6) for done in range(1, 7)]
        fitted = fit_metres(depth, points, False)
        guided, plainly = (
            sum(abs(one[p.row, p.column] - sparse[p.row, p.column]) for p in points) for one in (metres, fitted)
        )
        assert guided < plainly
        with pytest.raises(Cancelled):
            engine.complete(job, wish.command, args, photograph.pixels, sparse, lambda *_: job.cancelled.set())
