"""A small hub on the loopback address that answers what huggingface_hub asks, keeps a list of the requests, and can
misbehave. Weight files are answered as the real hub does for large files: their checksum and size are in the headers of
a redirect to a store on another port, which knows nothing of tokens."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE_SUFFIXES = (".safetensors", ".bin")
Files = dict[str, bytes]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Repository:
    """Commits with their files, and the branches and tags that name them. `token`: what a gated one asks for."""

    commits: dict[str, Files]
    references: dict[str, str]
    token: str | None = None
    private: bool = False


@dataclass
class Request:
    method: str
    path: str  # of a file within its repository, or of the address; the store's begin with "store:"
    range: str | None
    authorization: str | None


@dataclass
class Fault:
    """What the store does to a file, given by its name, until it is taken away."""

    body: bytes | None = None  # sent in place of the file's bytes
    drop_after: int | None = None  # bytes after which the connection is cut, in each answer
    end_at: int | None = None  # place in the file beyond which nothing is sent before the connection is cut
    reset: bool = False  # cut by a TCP reset rather than closed
    times: int | None = None  # how many answers have the fault
    whole_only: bool = False  # ranges are ignored
    stall: threading.Event | None = None  # waited for before cutting


@dataclass
class Hub:
    """Use as a context manager; `endpoint` is the value for HF_ENDPOINT."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Hub:
        self.servers = [_Server(("127.0.0.1", 0), handler) for handler in (_HubHandler, _StoreHandler)]
        for server in self.servers:
            server.hub = self
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.endpoint, self.store = (f"http://127.0.0.1:{server.server_address[1]}" for server in self.servers)
        return self

    def __exit__(self, *_: object) -> None:
        for fault in self.faults.values():
            if fault.stall:
                fault.stall.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def add(self, name: str, files: Files, references: tuple[str, ...] = ("main",), **options: Any) -> str:
        """A commit with these files, which the references name from now on; its hash."""
        commit = hashlib.sha1(
            repr((name, sorted((path, sha256(data)) for path, data in files.items()))).encode()
        ).hexdigest()
        repository = self.repositories.setdefault(name, Repository({}, {}, **options))
        repository.commits[commit] = files
        repository.references.update(dict.fromkeys(references, commit))
        return commit

    def take_requests(self) -> list[Request]:
        """The requests since the last call."""
        taken, self.requests[:] = list(self.requests), []
        return taken


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub

    def shutdown_request(self, request: Any) -> None:
        """Closes at once: an orderly shutdown first would make a reset impossible."""
        self.close_request(request)

    def handle_error(self, *_: object) -> None:
        """Clients that go away in the middle are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def note(self, path: str) -> None:
        headers = self.headers
        self.server.hub.requests.append(Request(self.command, path, headers["Range"], headers["Authorization"]))

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        raise NotImplementedError


class _HubHandler(_Handler):
    """/api/models/ID[/revision/REV], /api/models/ID/tree/REV, /ID/resolve/REV/PATH."""

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, {"X-Error-Code": code, "X-Error-Message": code})

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        api = parts[:2] == ["api", "models"]
        if parts[0] == "api" and not api:  # what huggingface_hub asks about itself
            self.refuse(404, "NotFound")
            return
        owner, name, *rest = [*parts[2 * api :], "", ""]
        rest = [part for part in rest if part]
        self.note(("api:" + "/".join(rest[:1] or ["info"])) if api else "/".join(rest[2:]))
        repository = self.server.hub.repositories.get(f"{owner}/{name}")
        authorization = self.headers["Authorization"]
        if repository is None or (repository.private and authorization != f"Bearer {repository.token}"):
            self.refuse(401, "RepoNotFound")
            return
        revision = rest[1] if len(rest) > 1 else "main"
        commit = repository.references.get(revision, revision)
        if commit not in repository.commits:
            self.refuse(404, "RevisionNotFound")
        elif api:
            self.describe(rest, f"{owner}/{name}", commit, repository.commits[commit])
        elif repository.token is not None and authorization != f"Bearer {repository.token}":
            self.refuse(403 if authorization else 401, "GatedRepo")
        else:
            self.resolve("/".join(rest[2:]), commit, repository.commits[commit])

    def describe(self, rest: list[str], name: str, commit: str, files: Files) -> None:
        if rest[:1] == ["tree"]:
            entries = []
            for path, data in sorted(files.items()):
                entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
                if path.endswith(LARGE_SUFFIXES):
                    entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
                entries.append(entry)
            body = json.dumps(entries)
        else:
            siblings = [{"rfilename": path} for path in sorted(files)]
            body = json.dumps({"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []})
        self.answer(200, {"Content-Type": "application/json"}, body.encode())

    def resolve(self, path: str, commit: str, files: Files) -> None:
        if path not in files:
            self.refuse(404, "EntryNotFound")
            return
        data, headers = files[path], {"X-Repo-Commit": commit}
        if path.endswith(LARGE_SUFFIXES):
            checksum = sha256(data)
            headers |= {"X-Linked-Etag": f'"{checksum}"', "X-Linked-Size": str(len(data))}
            self.answer(302, headers | {"Location": f"{self.server.hub.store}/{checksum}/{path}"})
        else:
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            self.answer(200, headers | {"ETag": f'"{git}"'}, data)


class _StoreHandler(_Handler):
    """/CHECKSUM/PATH, with ranges and faults."""

    def do_GET(self) -> None:
        checksum, path = unquote(urlsplit(self.path).path).lstrip("/").split("/", 1)
        self.note(f"store:{path}")
        repositories = self.server.hub.repositories.values()
        commits = [files for repository in repositories for files in repository.commits.values()]
        data = next(files[path] for files in commits if path in files and sha256(files[path]) == checksum)
        fault = self.server.hub.faults.get(path, Fault())
        if fault.times is not None:
            fault, fault.times = fault if fault.times > 0 else Fault(), fault.times - 1
        data = data if fault.body is None else fault.body
        asked = None if fault.whole_only else self.headers["Range"]
        first, _, last = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
        start, size = int(first), len(data)
        if start >= size:
            self.answer(416, {"Content-Range": f"bytes */{size}"})
            return
        data = data[: int(last) + 1] if last else data
        whole = {"Content-Length": str(len(data) - start), "ETag": f'"{checksum}"'}
        partial = start > 0 or len(data) < size
        if partial:
            whole["Content-Range"] = f"bytes {start}-{len(data) - 1}/{size}"
        sent = data[start : fault.end_at]
        self.answer(206 if partial else 200, whole, sent[: fault.drop_after])
        if fault.drop_after is None and fault.end_at is None:
            return
        self.wfile.flush()
        if fault.stall:
            fault.stall.wait()
        elif fault.reset:
            # Closing with this option set sends a reset, which is what a broken line looks like.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
