"""A server that does all that servers do wrong, and the command line over small sets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from layouts import small_sets

from eyeline.cli import main
from eyeline.data import download
from eyeline.data.public.sets import SETS

Run = Callable[..., tuple[int, str, str]]
SMALL, FILES = small_sets()


class Server(ThreadingHTTPServer):
    """Serves `files` as /WAY/NAME; WAY says how. `asked` lists (path, Range, bytes sent)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None, int]] = []
        self.delay = 0.0  # of the way "slow": seconds for each 1000 bytes

    def url(self, way: str, name: str = "") -> str:
        return f"http://127.0.0.1:{self.server_port}/{way}/{name}"

    def handle_error(self, *_: object) -> None:
        """A client that went away."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        _, way, name = self.path.split("/", 2)
        earlier = sum(path == self.path for path, _, _ in self.server.asked)
        asked = self.headers.get("Range")
        index = len(self.server.asked)
        self.server.asked.append((self.path, asked, 0))
        if way == "moved":
            self.send_response(302)
            self.send_header("Location", f"/ok/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        code = {"missing": 404, "failing": 500}.get(way, 200)
        if way == "busy" and earlier < 2:
            code = 503
        if code != 200 or name not in self.server.files:
            self.send_error(code if code != 200 else 404)
            return
        content = self.server.files[name]
        if way == "page":
            self.answer(200, b"<html>please log in</html>", {"Content-Type": "text/html"})
            return
        if way == "other":
            content = bytes(len(content))
        tag = {"changing": f'"{earlier}"', "weak": 'W/"1"'}.get(way, '"1"')
        headers = {} if way == "untagged" else {"ETag": tag}
        start = 0
        same = asked and way != "ranges-ignored" and self.headers.get("If-Range") == tag
        if same and asked:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            told = start + 1 if way == "elsewhere" else start
            headers["Content-Range"] = f"bytes {told}-{len(content) - 1}/{len(content)}"
        length = len(content) - start + {"longer": 500, "shorter": -500}.get(way, 0)
        body = content[start:]
        if way == "breaking":
            body = body[:4000]
        if way in ("ranges-ignored", "untagged", "changing", "weak", "elsewhere") and earlier == 0:
            body = body[:4000]
        if way == "hanging" and earlier == 0:
            body = body[:4000]
        headers["Content-Length"] = str(length)
        self.send_response(206 if "Content-Range" in headers else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        for i in range(0, len(body), 1000):
            block = body[i : i + 1000]
            self.server.asked[index] = (self.path, asked, i + len(block))
            self.wfile.write(block)
            self.wfile.flush()
            if way == "slow":
                time.sleep(self.server.delay)
        if way == "hanging" and earlier == 0:
            time.sleep(1.5)

    def answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(download, "DELAY", 0.001)
    serving = Server()
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield serving
    serving.shutdown()
    serving.server_close()
    thread.join()


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line; the sets are the small ones, and lie in the folder "all"."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EYELINE_DATA", str(tmp_path / "all"))
    for name, public in SMALL.items():
        monkeypatch.setitem(SETS, name, public)
        monkeypatch.delenv(public.variable, raising=False)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main.run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def files(server: Server) -> Server:
    server.files.update(FILES)
    return server
