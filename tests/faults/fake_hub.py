"""A Hub in a thread, as far as its client needs one to download, and a cache as that client leaves it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.warm_process import run_warm

ROOT = Path(__file__).resolve().parents[2]


class FakeHub:
    """Repositories by name, each with its files by commit and its branches.

    Attributes:
        url: Where it listens.
        asked: Method and path of every request.
        lies: Content served in place of a file's own, by file name.
        refused: Status and ``X-Error-Code`` of every request for a repository, by name.
        failing: File names that are answered with an error of the server.
    """

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.branches: dict[tuple[str, str], str] = {}
        self.cards: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.lies: dict[str, bytes] = {}
        self.refused: dict[str, tuple[int, str]] = {}
        self.failing: set[str] = set()
        self.url = ""

    def push(self, repo: str, files: Mapping[str, bytes], *, branch: str = "main", card: Mapping[str, Any] | None = None) -> str:
        """Add a commit with these files, move the branch to it, and return it."""
        commit = hashlib.sha1(f"{repo}{len(self.files)}".encode()).hexdigest()
        self.files[repo, commit] = dict(files)
        self.branches[repo, branch] = commit
        self.cards.setdefault(repo, dict(card or {}))
        return commit

    @contextmanager
    def serving(self) -> Iterator[FakeHub]:
        hub = self

        class Handler(_Handler):
            fake = hub

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.fake.asked.append(f"{self.command} {path}")
        if told := re.fullmatch(r"/api/models/(.+?)/revision/(.+)", path):
            self._card(told[1], told[2])
        elif told := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            self._file(told[1], told[2], told[3])
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _commit(self, repo: str, revision: str) -> str | None:
        if repo in self.fake.refused:
            status, code = self.fake.refused[repo]
            self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": "Access is restricted"})
            return None
        commit = self.fake.branches.get((repo, revision), revision)
        if (repo, commit) in self.fake.files:
            return commit
        code = "RevisionNotFound" if any(name == repo for name, _ in self.fake.files) else "RepoNotFound"
        self._send(404, b"", {"X-Error-Code": code})
        return None

    def _card(self, repo: str, revision: str) -> None:
        if commit := self._commit(repo, revision):
            told = {"id": repo, "modelId": repo, "sha": commit, "cardData": self.fake.cards[repo], "tags": [], "siblings": []}
            self._send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _file(self, repo: str, revision: str, name: str) -> None:
        commit = self._commit(repo, revision)
        if commit is None:
            return
        if name in self.fake.failing:
            self._send(500, b"", {})
            return
        content = self.fake.files[repo, commit].get(name)
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        large = name.endswith((".safetensors", ".bin"))
        etag = hashlib.sha256(content).hexdigest() if large else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))} if large else {}
        body = self.fake.lies.get(name, content)
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(asked[1])
            self._send(206, body[start:], headers | {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"})
        else:
            self._send(200, body, headers)

    def _send(self, code: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def fill_cache(cache: Path, repo: str, files: Mapping[str, bytes], *, commit: str = "a" * 40, branch: str = "main") -> Path:
    """Lay files into a cache as the client does, and return the folder of the snapshot."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / branch).write_text(commit)
    for name, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def in_child(code: str, *arguments: object, cache: Path, warm: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own that has this cache; a ``warm`` one has imported torch."""
    around = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "ZOO_"))}
    around |= {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_CACHE": str(cache),
        "HF_HOME": str(cache.parent),
        "ZOO_CACHE": str(cache.parent / "zoo-cache"),
        **environment,
    }
    code, words = textwrap.dedent(code), [*map(str, arguments)]
    if warm:
        return run_warm(code, words, env=around, cwd=ROOT)
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, env=around, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
