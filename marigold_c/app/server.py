"""The server of the page: where it listens, what it sends to nobody, what it leaves behind (nothing).

Gradio's own launch() looks for a public address, asks for newer versions, and answers to whatever name the browser
calls it by; so the page is mounted into an application of our own.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
import webbrowser
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from .._C import __version__
from .command import Command, VideoCommand
from .engine import Engine, Models
from .limits import Limits
from .sessions import Sessions, Workspace

_SWEEP_EVERY = 60  # seconds
_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
# The browser itself fetches nothing from anywhere else, whatever Gradio's scripts might ask for.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
_HEADERS = {
    b"content-security-policy": _POLICY.encode("ascii"),
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


@dataclass(frozen=True)
class Settings:
    """login: (name, password), or None. port 0: any."""

    host: str = "127.0.0.1"
    port: int = 7860
    opens_browser: bool = True
    checkpoints: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int | None = None
    login: tuple[str, str] | None = None
    limits: Limits = field(default_factory=Limits)


class Guard:
    """Puts our headers on every answer; where only this machine is meant, refuses requests under other names, as a page
    from elsewhere could make the browser send them (DNS rebinding)."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], local_only: bool) -> None:
        self._app, self._local_only = app, local_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Scope) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in _HEADERS]
                message["headers"] = [*kept, *_HEADERS.items()]
            await send(message)

        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if self._local_only and name not in _THIS_MACHINE:
            await send_with_headers({"type": "http.response.start", "status": 421, "headers": []})
            await send({"type": "http.response.body", "body": b"this page is for 127.0.0.1 only\n"})
            return
        await self._app(scope, receive, send_with_headers)


def prepare_gradio(workspace: Path) -> None:
    """Before Gradio is imported: no analytics, no look for newer versions, files in our own folder."""
    os.environ["GRADIO_TEMP_DIR"] = str(workspace)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_SHARE"] = "False"
    os.environ["GRADIO_SSR_MODE"] = "False"


async def _fetch_nothing(url: str, *_arguments: Any, **_options: Any) -> NoReturn:
    raise ValueError("files are taken from uploads alone; URLs are not fetched")


def _keep_uploads_apart() -> None:
    """A folder of its own for each upload. Gradio names folders by the content, so that the same photograph of two
    visitors would be one file, which goes when the first of them has been read."""
    from gradio import route_utils

    class Upload(route_utils.GradioUploadFile):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.sha.update(secrets.token_bytes(16))

    route_utils.GradioUploadFile = Upload


def application(commands: Mapping[str, Command], video: VideoCommand, settings: Settings, workspace: Path) -> Any:
    """The page and /health as an ASGI application. Call prepare_gradio first."""
    import fastapi
    import gradio as gr

    from .page import CSS, THEME, build_page
    from .visit import House

    _keep_uploads_apart()
    # Gradio would fetch the URL that a request names in the place of an upload.
    gr.processing_utils.async_ssrf_protected_download = _fetch_nothing
    limits = settings.limits
    engine = Engine(Models(limits.models, settings.device, settings.threads))
    house = House(engine, Sessions(workspace), limits, workspace)
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def health() -> dict[str, Any]:
        return {"status": "ok", "version": __version__, "busy": engine.busy, "models": len(engine.models)}

    app.add_api_route("/health", health)
    page = build_page(house, commands, video, settings.checkpoints)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=settings.host,
        server_port=settings.port,
        auth=settings.login,
        max_file_size=limits.bytes,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=["api"],
        show_error=True,
        theme=THEME,
        css=CSS,
    )
    page.has_launched = True  # a mounted page is not, and then Gradio copies whatever file of this machine is named
    return Guard(app, settings.host in _THIS_MACHINE)


def _listen(host: str, port: int) -> socket.socket:
    """OSError says what is in use and what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise OSError(f"cannot listen at {host}, port {port}: {error.strerror}; --port 0 takes any port") from error
    return listening


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def serve(commands: Mapping[str, Command], video: VideoCommand, settings: Settings) -> None:
    """Serves until it is interrupted, and removes what visitors left. OSError: the port is in use."""
    listening = _listen(settings.host, settings.port)
    workspace = Workspace()
    signal.signal(signal.SIGTERM, _leave)  # uvicorn hands the signal on when it has ended
    try:
        prepare_gradio(workspace.path)
        import uvicorn

        config = uvicorn.Config(
            application(commands, video, settings, workspace.path), log_level="warning", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"http://{host}:{listening.getsockname()[1]}"

        def say() -> None:
            while not server.started:
                time.sleep(0.05)
            print(f"marigold: the page is at {address} (Ctrl-C ends it)", flush=True)
            if settings.opens_browser:
                webbrowser.open(address)

        def sweep() -> None:
            while not server.should_exit:
                time.sleep(_SWEEP_EVERY)
                workspace.sweep()

        for work in (say, sweep):
            threading.Thread(target=work, daemon=True).start()
        server.run(sockets=[listening])
    finally:
        workspace.close()
        listening.close()
