from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from eyeline.checkpoints.source import _hub_url, begins, fetch, read_file, read_metadata, some
from eyeline.errors import EyelineError

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}
CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    requests = 0

    def do_GET(self) -> None:
        Server.requests += 1
        if "missing" in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        short = 1 if "broken" in self.path else 0
        self.send_header("Content-Length", str(len(CONTENT) + short))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EYELINE_HOME", str(tmp_path / "home"))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    return tmp_path / "home"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# -- fetch


def test_local_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"x")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch(path) == fetch(str(path)) == fetch("~/a.pth") == path


def test_download_is_kept(url: str, home: Path) -> None:
    source = f"{url}/models/net-{DIGEST[:8]}.pth"
    before = Server.requests
    path = fetch(source)
    assert path.read_bytes() == CONTENT and path.name == f"net-{DIGEST[:8]}.pth"
    assert fetch(source) == path and Server.requests == before + 1
    assert files(home) == [path]


def test_same_name_elsewhere_is_another_file(url: str) -> None:
    assert fetch(f"{url}/a/net.pth?download=true") != fetch(f"{url}/b/net.pth")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.pth", "404"),
        ("broken.pth", f"broke off at {len(CONTENT)} of {len(CONTENT) + 1} bytes"),
        ("net-0123abcd.pth", f"damaged: its SHA-256 begins {DIGEST[:8]}, its name says 0123abcd"),
        ("", "names no file"),
    ],
)
def test_failed_download_leaves_nothing(url: str, home: Path, name: str, message: str) -> None:
    with pytest.raises(EyelineError, match=message):
        fetch(f"{url}/{name}")
    assert files(home) == []


def test_no_server() -> None:
    with pytest.raises(EyelineError, match=r"cannot download http://127\.0\.0\.1:9/x\.pth: "):
        fetch("http://127.0.0.1:9/x.pth")


def test_hub_id() -> None:
    assert _hub_url("hf:timm/resnet18.a1_in1k/model.safetensors") == (
        "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors"
    )
    assert _hub_url("hf:a/b/sub/model.pth").endswith("/a/b/resolve/main/sub/model.pth")
    with pytest.raises(EyelineError, match="hf:owner/name/file"):
        fetch("hf:timm/model.pth")


def test_no_such_path(tmp_path: Path) -> None:
    with pytest.raises(EyelineError, match=r"no weights file at .*nothing\.pth"):
        fetch(tmp_path / "nothing.pth")
    with pytest.raises(EyelineError, match="is a folder"):
        fetch(tmp_path)


# -- read_file


def equal(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "optimizer": {"lr": 0.1}, "epoch": 3},
        lambda state: {"state_dict": state},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
    ],
)
def test_torch_files(tmp_path: Path, legacy: bool, wrap: object) -> None:
    path = tmp_path / "a.pth"
    torch.save(wrap(STATE), path, _use_new_zipfile_serialization=not legacy)
    assert equal(read_file(path))
    assert read_metadata(path) == {}


def test_safetensors_by_content_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save_file(STATE, path, metadata={"format": "pt"})
    assert equal(read_file(path))
    assert read_metadata(path) == {"format": "pt"}


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["torch", "legacy", "pickle"])
def test_code_is_refused_and_never_run(tmp_path: Path, how: str) -> None:
    path, marker = tmp_path / "bad.pth", tmp_path / "ran"
    found = {"conv.weight": torch.ones(1), "x": Hostile(marker)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(Hostile(marker)))
    else:
        torch.save(found, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(EyelineError, match=r"bad\.pth contains code \((\w+\.mkdir|a pickle)\)"):
        read_file(path)
    assert not marker.exists()


def test_of_a_whole_module_of_torchs_the_tensors_are_read(tmp_path: Path) -> None:
    path, layer = tmp_path / "module.pth", torch.nn.Linear(2, 2)
    torch.save(layer, path)
    found = read_file(path)
    assert found.keys() == {"weight", "bias"} and torch.equal(found["weight"], layer.weight)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(100), b"PK\x03\x04" + bytes(50),
     (100).to_bytes(8, "little") + b"{" + b"x" * 20],
)  # fmt: skip
def test_not_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(EyelineError, match=r"a\.pth is not a ") as caught:
        read_file(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "found", [{}, [1, 2], {"a": 1}, torch.ones(2), {"a": torch.ones(1), "b": "c"}]
)
def test_no_tensors_by_name(tmp_path: Path, found: object) -> None:
    path = tmp_path / "a.pth"
    torch.save(found, path)
    with pytest.raises(EyelineError, match="is not a checkpoint"):
        read_file(path)


# -- names


def test_prefixes_are_whole_words() -> None:
    assert begins("head.fc1.weight", ["head"]) and begins("head.fc1.weight", ["head."])
    assert begins("head.fc1.weight", ["x", "head.fc1.weight"])
    assert not begins("header.weight", ["head"]) and not begins("head", [])


def test_some_names_and_the_count() -> None:
    assert some(["b", "a"]) == "a, b (2)"
    assert some(list("gfedcba")) == "a, b, c, d, e, ... (7)"
