"""What every tab does when a button is pressed: find who asks, compute in turn, tell steps and time left, and say what
went wrong in words. Called by the tabs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import DeviceError
from ..images.sliders import slider_html
from ..messages import explain
from .engine import Cancelled, Engine, Job, Watch
from .limits import Limits, Photograph, Refused
from .results import Answer, answer
from .sessions import Session, Sessions
from .wishes import Wish, check_wish

# What a visitor can do something about; all else is a fault of ours and shows in the server's log.
_TOLD = (ValueError, NotImplementedError, ImportError, OSError, MemoryError, DeviceError)

PROGRESS = gr.Progress()
# One event of all these at a time; the others wait in line.
ENGINE_CONCURRENCY: dict[str, Any] = {"concurrency_id": "engine", "concurrency_limit": 1}
ENGINE_EVENT: dict[str, Any] = {**ENGINE_CONCURRENCY, "api_visibility": "private"}


def seconds_in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def watching(progress: Callable[..., object], part: str = "") -> Watch:
    """What tells steps and time left. part: said before them."""

    def watch(done: int, total: int, left: float) -> None:
        progress((done, total), desc=f"{part}step {done} of {total}, about {seconds_in_words(left)} left")

    progress((0, None), desc=f"{part}encoding the photograph")
    return watch


@contextmanager
def told() -> Iterator[None]:
    """Errors as the page shows them."""
    try:
        yield
    except Cancelled:
        raise gr.Error("Cancelled.", title="Cancelled", print_exception=False) from None
    except _TOLD as error:
        raise gr.Error(explain(error), title="Not possible", print_exception=False) from error


@dataclass(frozen=True)
class House:
    """What the tabs and the interface share."""

    engine: Engine
    sessions: Sessions
    limits: Limits
    uploads: Path

    def session(self, request: gr.Request) -> Session:
        return self.sessions.get(str(request.session_hash))

    def photograph(self, request: gr.Request) -> Photograph:
        found = self.session(request).photograph
        if found is None:
            raise Refused("Choose a photograph first.")
        return found

    @contextmanager
    def job(self, request: gr.Request) -> Iterator[Job]:
        with told(), self.engine.job(str(request.session_hash)) as job:
            yield job

    def answer(
        self, job: Job, wish: Wish, request: gr.Request, folder: str, progress: Callable[..., object], part: str = ""
    ) -> Answer:
        """Of the photograph of who asks. folder: the name of the tab's own. part: said before the steps."""
        session = self.session(request)
        photograph = self.photograph(request)
        watch = watching(progress, part)
        return answer(self.engine, job, wish, photograph, session.new_folder(folder), self.limits, watch, session.kept)

    def complete(
        self, job: Job, wish: Wish, request: gr.Request, folder: Path, sparse: Any, progress: Callable[..., object]
    ) -> Any:
        """Metres (H, W) of the photograph of who asks, guided by measured points (H, W)."""
        check_wish(wish, self.limits)
        pixels, args = self.photograph(request).pixels, wish.parsed(folder)
        return self.engine.complete(job, wish.command, args, pixels, sparse, watching(progress))

    def sliders(self, found: Answer, photograph: Photograph) -> str:
        """A slider for each map; the first is open."""
        return "".join(
            f"<details{' open' if index == 0 else ''}><summary>{name}</summary>"
            f"{slider_html(photograph.pixels, one, name)}</details>"
            for index, (name, one) in enumerate(found.maps.items())
        )

    def cancels(self, button: Any, event: Any) -> None:
        """The button takes the event of who presses it out of the line, or ends its run."""

        def cancel(request: gr.Request) -> None:
            self.engine.cancel(str(request.session_hash))

        button.click(cancel, cancels=[event], queue=False, api_visibility="private")

    def leave(self, request: gr.Request) -> None:
        """Who closes the page ends what runs for it, and leaves nothing."""
        self.engine.cancel(str(request.session_hash))
        self.sessions.close(str(request.session_hash))


def cancel_button(name: str) -> Any:
    """Given to House.cancels when the event is there. name: of the element."""
    return gr.Button("Cancel", variant="stop", elem_id=name)
