"""A web server in a thread that serves files by URL, resumes them, and misbehaves as told."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer:
    """Files by path.

    Attributes:
        url: Where it listens.
        files: Content by path, with a leading slash.
        asked: Path and range of every request.
        cut: Bytes after which the next connections end, one entry for each.
        answer: Answers a request instead, if it returns True.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.cut: list[int] = []
        self.answer: Callable[[Any], bool] = lambda handler: False
        self.etags, self.lengths = True, True
        self.url = ""

    @contextmanager
    def serving(self) -> Iterator[FileServer]:
        """Serve while the context is open."""
        server_of_files = self

        class Handler(_Handler):
            server_of = server_of_files

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
    server_of: FileServer

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        served = self.server_of
        asked = self.headers.get("Range", "")
        served.asked.append((self.path, asked))
        if served.answer(self):
            return
        content = served.files.get(self.path)
        if content is None:
            self.reply(404, b"no such file", {"Content-Type": "text/plain"})
            return
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        headers = {"Content-Type": "application/octet-stream"} | ({"ETag": etag} if served.etags else {})
        start = int(found[1]) if (found := re.fullmatch(r"bytes=(\d+)-", asked)) else 0
        if start and self.headers.get("If-Range", etag) == etag:
            if start >= len(content):
                self.reply(416, b"", headers)
                return
            self.reply(206, content[start:], headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"})
        else:
            self.reply(200, content, headers)

    def reply(self, code: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send an answer, or its first bytes."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.server_of.lengths:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        end = self.server_of.cut.pop(0) if code in (200, 206) and self.server_of.cut else len(body)
        self.wfile.write(body[:end])
        self.close_connection = True
