"""Services that follow runs: their own libraries, offline or against a server in this process."""

from __future__ import annotations

import json
import shutil
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.training import train


def run(folder: Path, epochs: int = 2, resume: bool = False, lr: float = 1e-3, **log) -> Path:
    train(
        ToyDetector(), ToyData(), batch_size=3, epochs=epochs, data={"workers": 0},
        log={"tensorboard": False, "every": 2, **log}, out=str(folder), resume=resume,
        optimizer={"lr": lr},
    )  # fmt: skip
    return folder


def written(folder: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["losses"]["box"]) for line in lines if line["event"] == "step"]


def blocks_of(path: Path) -> list[bytes]:
    """The records of a file of W&B's: after a header of 7 bytes, blocks of 32 KB of chunks, each
    with its checksum, length and kind (1 whole, 2 first, 3 middle, 4 last)."""
    data, at, records, parts = path.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if not kind:
            break
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            records.append(parts)
            parts = b""
    return records


def wandb_points(folder: Path, name: str) -> list[tuple[int, float]]:
    """(step, value) of what all parts of a run, offline, sent."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for block in blocks_of(path):
            record = Record.FromString(block)
            items = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            if name in items:
                found.append((items["step"], items[name]))
    return found


def test_wandb_offline_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = run(tmp_path / "r", wandb="team/cells")
    assert wandb_points(folder, "step/losses/box") == written(folder)
    known = json.loads((folder / "tracking.json").read_text())["wandb"]
    assert known["project"] == "team/cells"
    run(folder, epochs=3, resume=True, wandb="team/cells")
    assert json.loads((folder / "tracking.json").read_text())["wandb"] == known
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    assert [path.name for path in files] == [f"run-{known['id']}.wandb"] * 2
    points = wandb_points(folder, "step/losses/box")
    assert points == written(folder) and [step for step, _ in points][-1] == 12


def test_wandb_that_cannot_be_reached(tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_RUN_ID", "given")  # as agents of a sweep do
    monkeypatch.setattr("wandb.login", lambda **_: False)
    folder = run(tmp_path / "r", wandb="cells")
    told = [line for line in capsys.readouterr().out.splitlines() if "W&B" in line]
    assert len(told) == 1 and "no API key" in told[0] and "wandb sync" in told[0]
    assert json.loads((folder / "tracking.json").read_text())["wandb"]["id"] == "given"
    assert wandb_points(folder, "step/losses/box") == written(folder)


@pytest.fixture
def file_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())


def test_mlflow_in_files_and_resumed(tmp_path: Path, file_store: None) -> None:
    from mlflow import MlflowClient

    folder = run(tmp_path / "r", mlflow="cells")
    known = json.loads((folder / "tracking.json").read_text())["mlflow"]
    client = MlflowClient()
    one = client.get_run(known["id"])
    assert one.info.status == "FINISHED" and one.info.run_name == "r"
    assert client.get_experiment(one.info.experiment_id).name == "cells"
    assert one.data.params["optimizer.lr"] == "0.001"
    run(folder, epochs=3, resume=True, lr=5e-4, mlflow="cells")
    assert len(client.search_runs([one.info.experiment_id])) == 1
    points = client.get_metric_history(known["id"], "step/losses/box")
    assert [(p.step, p.value) for p in points] == written(folder)
    assert len(client.get_metric_history(known["id"], "epoch/losses/loss")) == 3
    again = client.get_run(known["id"]).data
    assert again.params["optimizer.lr"] == "0.001"
    assert again.tags["changed.optimizer.lr"] == "0.0005"
    [path] = tmp_path.glob(f"mlruns/*/{known['id']}")
    shutil.rmtree(path)  # nobody there knows the run any more
    run(folder, epochs=4, resume=True, mlflow="cells")
    new = json.loads((folder / "tracking.json").read_text())["mlflow"]["id"]
    assert new != known["id"]
    points = MlflowClient().get_metric_history(new, "step/losses/box")
    assert [(p.step, p.value) for p in points] == written(folder)[-2:]


class Server(BaseHTTPRequestHandler):
    """As much of MLflow's REST interface as a run needs; the first calls fail."""

    failing = 0
    metrics: list[dict]
    ended: list[str]

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length) or b"{}")
        name = self.path.partition("?")[0].partition("/mlflow/")[2]
        kind = type(self)
        content: dict = {}
        status = 200
        info = {"run_id": "7", "run_uuid": "7", "experiment_id": "1", "status": "RUNNING"}
        if kind.failing > 0:
            kind.failing -= 1
            status = 400
        elif name == "experiments/get-by-name":
            content = {"experiment": {"experiment_id": "1", "name": "cells"}}
        elif name in ("runs/create", "runs/get"):
            content = {"run": {"info": info, "data": {}}}
        elif name == "runs/update":
            kind.ended.append(body["status"])
            content = {"run_info": info | {"status": body["status"]}}
        elif name == "runs/log-batch":
            kind.metrics += body.get("metrics", [])
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PATCH = _answer

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


def test_mlflow_server_that_fails_at_first(tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("mlflow")
    Server.failing, Server.metrics, Server.ended = 3, [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        folder = run(tmp_path / "r", mlflow="cells")
    finally:
        server.shutdown()
        server.server_close()
    out = capsys.readouterr().out
    assert out.count("MLflow does not take the run's numbers") == 1 and "did not reach" not in out
    boxes = [(m["step"], m["value"]) for m in Server.metrics if m["key"] == "step/losses/box"]
    assert [(int(step), value) for step, value in boxes] == written(folder)
    assert Server.ended[-1] == "FINISHED"


def test_mlflow_server_that_is_not_there(tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = run(tmp_path / "r", mlflow="cells")
    out = capsys.readouterr().out
    assert len(written(folder)) == 4 and "epoch 2/2 done" in out
    assert out.count("MLflow does not take") == 1 and "records did not reach MLflow" in out


def test_a_writer_that_fails_is_told_once_and_left(tmp_path: Path, monkeypatch, capsys) -> None:
    calls = []

    class Breaks:
        def __init__(self, *_: object, **__: object) -> None:
            calls.append("made")

        def add_text(self, *_: object) -> None:
            calls.append("text")

        def add_scalar(self, name: str, *_: object) -> None:
            calls.append(name)
            raise OSError("the disk\nis full")

        def close(self) -> None:
            calls.append("closed")

    monkeypatch.setattr("eyeline.training.writers._summary_writer", lambda _: Breaks)
    folder = run(tmp_path / "r", tensorboard=True)
    out = capsys.readouterr().out
    assert calls == ["made", "text", "step/epoch", "closed"] and len(written(folder)) == 4
    assert out.count("no more is written for TensorBoard (the disk is full)") == 1


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_packages_that_are_missing(tmp_path: Path, monkeypatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EyelineError, match=rf"there is no {package}: install eyeline\[{package}\]"):
        run(tmp_path / "r", **{package: "cells"})
    assert not (tmp_path / "r").exists()
