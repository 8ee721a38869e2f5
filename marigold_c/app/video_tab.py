"""The tab "Video": depth or normals of a clip, frame after frame."""

from __future__ import annotations

import html
import shlex
from pathlib import Path
from typing import Any

import gradio as gr

from .command import VideoCommand
from .limits import Refused, printable_name
from .settings_panel import SettingsPanel
from .uploads import take_upload
from .visit import ENGINE_EVENT, PROGRESS, House, cancel_button, seconds_in_words, told

# FFmpeg would open more, playlists among it, which name other files. What is at which place of a file that is a video.
_MAGICS = ((4, b"ftyp"), (0, b"\x1aE\xdf\xa3"), (8, b"AVI "), (0, b"OggS"))


def check_video(path: Path) -> None:
    """Refused: neither MP4 or MOV, nor Matroska or WebM, AVI or Ogg."""
    with path.open("rb") as file:
        head = file.read(16)
    if not any(head[place : place + len(magic)] == magic for place, magic in _MAGICS):
        raise Refused(f"{path.name}: not a video that is taken: MP4, MOV, MKV, WebM, AVI or Ogg")


def video_tab(house: House, command: VideoCommand, panel: SettingsPanel) -> None:
    """Adds the tab's elements."""
    gr.Markdown("Depth or normals, with the settings above; each frame starts from the one before, to flicker less.")
    chooser = gr.File(label="Video", elem_id="video", height=140)
    named = gr.HTML(elem_id="video-shown", min_height=24)
    with gr.Row():
        every = gr.Slider(1, 30, 1, step=1, label="Take every so many frames", min_width=200)
        most = gr.Slider(1, house.limits.frames, 50, step=1, label="Frames at most", min_width=200)
        blend = gr.Slider(0, 1, 0.1, step=0.05, label="Part of the frame before", min_width=200)
        beside = gr.Checkbox(True, label="Also side by side", min_width=160)
    with gr.Row():
        start = gr.Button("Convert", variant="primary", elem_id="convert")
        stop = cancel_button("cancel-convert")
    shown = gr.HTML(elem_id="converted", min_height=120)
    files = gr.File(label="Files", file_count="multiple", interactive=False, elem_id="video-files")
    command_line = gr.Textbox(label="The same on the command line", lines=2, interactive=False, buttons=["copy"])

    def choose(request: gr.Request, sent: Any) -> str:
        def keep(path: Path, name: str) -> Path:
            kept = house.session(request).new_folder("clip") / printable_name(name)
            path.replace(kept)
            check_video(kept)
            return kept

        with told():
            house.session(request).kept["clip"] = None
            clip = take_upload(sent, house.uploads, keep)
            house.session(request).kept["clip"] = clip
            return f"<p>{html.escape(clip.name)}</p>"

    def convert(
        request: gr.Request, every: int, most: int, blend: float, beside: bool, progress: Any = PROGRESS, *values: Any
    ) -> tuple[Any, ...]:
        def watch(done: int, total: int, left: float) -> None:
            of = f" of {total}, about {seconds_in_words(left)} left" if total else ""
            progress((done, total or None), desc=f"frame {done}{of}")

        with house.job(request) as job:
            session = house.session(request)
            clip = session.kept.get("clip")
            if clip is None:
                raise Refused("Choose a video first.")
            words = panel.video_words(values)
            words += [f"--every={int(every)}", f"--max-frames={min(int(most), house.limits.frames)}"]
            words += [f"--blend={float(blend)}", *(["--side-by-side"] if beside else [])]
            own = [f"--output-dir={session.new_folder('video')}", f"--max-pixels={house.limits.pixels}"]
            made = house.engine.convert(job, command, command.parse([str(clip), *own, *words]), watch)
            player = f'<video controls loop muted style="max-width:100%" src="gradio_api/file={made[-1]}"></video>'
            line = shlex.join(["marigold", "video", f"./{clip.name}", "-o", "out", *words])
            return player, [str(path) for path in made], line

    # preprocess=False: as of the photograph.
    chooser.upload(choose, chooser, named, preprocess=False, concurrency_limit=None, api_visibility="private")
    inputs = [every, most, blend, beside, *panel.elements]
    event = start.click(convert, inputs, [shown, files, command_line], show_progress_on=shown, **ENGINE_EVENT)
    house.cancels(stop, event)
