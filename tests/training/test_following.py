"""Following a run: how it stands, what the machine does, and its page."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from mmap import mmap
from pathlib import Path

import pytest
import torch
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.training import load_recipe, train
from eyeline.training.logs import Log
from eyeline.training.page import duration
from eyeline.training.position import Position
from eyeline.training.saving import RunFolder
from eyeline.training.status import Status, read_status, seconds_of
from eyeline.training.system import system_figures


def run(folder: Path, epochs: int = 2, data: ToyData | None = None, **fields) -> Path:
    log = {"tensorboard": False, "every": 1, **fields.pop("log", {})}
    train(
        ToyDetector(), data or ToyData(), ToyData(5), batch_size=3, epochs=epochs,
        data={"workers": 0}, log=log, out=str(folder), **fields,
    )  # fmt: skip
    return folder


def test_a_run_that_ends_says_how(tmp_path: Path) -> None:
    finished = read_status(run(tmp_path / "a"))
    assert finished["state"] == "finished" and finished["pid"] == os.getpid()
    assert 0 < seconds_of(finished) < 60
    with pytest.raises(KeyboardInterrupt), Status(tmp_path) as status:
        assert read_status(tmp_path)["state"] == "running"
        status.values["started"] -= 100  # so long ago it began
        raise KeyboardInterrupt
    assert read_status(tmp_path)["state"] == "interrupted"
    with pytest.raises(EyelineError), Status(tmp_path):
        raise EyelineError("no such\nluck")
    failed = read_status(tmp_path)
    assert failed["state"] == "failed" and failed["why"] == "no such luck"
    assert 100 <= seconds_of(failed) < 110  # both parts count


def test_a_process_that_is_gone_has_crashed(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from eyeline.training.status import Status
with Status(Path({str(tmp_path)!r})):
    print("here", flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"here\n"
        assert read_status(tmp_path)["state"] == "running"
        process.kill()
        process.wait()
    crashed = read_status(tmp_path)
    assert crashed["state"] == "crashed" and seconds_of(crashed) < 60
    path = tmp_path / "status.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"pid": os.getpid()}))  # the number belongs to another now
    assert read_status(tmp_path)["state"] == "crashed"
    path.write_text(json.dumps(values | {"host": "far away"}))  # where only the beat tells
    assert read_status(tmp_path)["state"] == "running"
    os.utime(path, (time.time() - 3600,) * 2)
    assert read_status(tmp_path)["state"] == "crashed"
    path.write_text("{")
    assert read_status(tmp_path) == {} and seconds_of({}) == 0


def test_the_file_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyeline.training.status.BEAT", 0.01)
    path = tmp_path / "status.json"
    with Status(tmp_path):
        os.utime(path, (1, 1))
        for _ in range(500):
            if path.stat().st_mtime > 1:
                break
            time.sleep(0.01)
        assert path.stat().st_mtime > time.time() - 60
    assert json.loads(path.read_text())["host"] == socket.gethostname()


def test_figures_of_the_machine(tmp_path: Path) -> None:
    before = system_figures(torch.device("cpu"), tmp_path)
    much = mmap(-1, 100_000_000)  # from the system, not of what was freed before
    much.write(b"1" * 100_000_000)
    after = system_figures(torch.device("cpu"), tmp_path)
    if sys.platform == "linux":
        assert after["process_mb"] - before["process_mb"] == pytest.approx(100, abs=20)
    assert after["disk_free_gb"] > 0 and after["cpu_load"] >= 0 and "gpu_mb" not in after
    much.close()


class SlowData(ToyData):
    def __getitem__(self, index):
        time.sleep(0.02)
        return super().__getitem__(index)


def test_waiting_for_pictures_is_measured(tmp_path: Path) -> None:
    shares = {}
    for name, data in (("slow", SlowData()), ("fast", ToyData())):
        folder = run(tmp_path / name, data=data)
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        steps = [line for line in lines if line["event"] == "step"]
        assert len(steps) == 8 and all(0 <= step["data_wait"] <= 1 for step in steps)
        assert all(step["system"]["disk_free_gb"] > 0 for step in steps)
        waited = sum(step["data_wait"] * step["seconds"] for step in steps)
        shares[name] = waited / sum(step["seconds"] for step in steps)
        if name == "slow":
            assert waited == pytest.approx(2 * 11 * 0.02, rel=0.5)
    assert shares["slow"] > 0.5 > shares["fast"] or shares["slow"] > 2 * shares["fast"]


def test_the_page_of_a_finished_run(tmp_path: Path) -> None:
    folder = run(tmp_path / "r<u>n", epochs=3, optimizer={"lr": 2e-3})
    page = (folder / "report.html").read_text()
    assert "Finished, 3 of 3 epochs done, step 12 of 12" in page and "<script>" not in page
    assert "r&lt;u&gt;n" in page and "r<u>n" not in page
    assert "<dt>optimizer.lr</dt><dd>0.002</dd>" in page and "<dt>seed</dt>" not in page
    assert page.count("<img ") == 8  # four pictures, found and annotated
    assert "The last evaluation, after epoch 3" in page and "Nothing." in page
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"last {last['losses']['loss']:.3g}<" in page
    curve = re.search(r'<path class="curve"[^>]* d="M([^"]*)"><title>one batch<', page)
    assert curve and len(curve[1].split("L")) == 12


def test_the_page_grows_and_asks_for_itself_again(tmp_path: Path) -> None:
    recipe = load_recipe({"out": str(tmp_path / "r"), "epochs": 2, "log": {"tensorboard": False}})
    pages = []
    at = Position(batches=4)
    with (
        pytest.raises(EyelineError),
        RunFolder(recipe, "m", resume=False, writes=True) as folder,
        Log(folder, recipe, 8, at) as log,
    ):
        folder.save_state({}, at)
        for epoch in range(2):
            log.start_epoch()
            for _ in range(4):
                at.advance(1, 2, {"box": 1.0})
                log.step({"box": 1.0}, 1e-3, 1.0, torch.device("cpu"))
            log.epoch({"box": 0.5}, {"AP": 0.25, "loss": 0.5})
            pages.append((folder.path / "report.html").read_text())
            at.next_epoch()
            assert at.epoch == epoch + 1
        raise EyelineError("the end")
    pages.append((tmp_path / "r" / "report.html").read_text())
    assert ["location.reload()" in page for page in pages] == [True, True, False]
    written = [
        re.findall(r">Written (\d{4}-\d\d-\d\d \d\d:\d\d) UTC\.</p>", page) for page in pages
    ]
    assert list(map(len, written)) == [1, 1, 0]  # for who reads it after the process was killed
    age = datetime.now(UTC) - datetime.fromisoformat(f"{written[0][0]}+00:00")
    assert 0 <= age.total_seconds() < 120
    assert "Running, 1 of 2 epochs done, step 4 of 8" in pages[0]
    assert "Running, 2 of 2 epochs done, step 8 of 8" in pages[1]
    assert "Failed, 2 of 2 epochs done" in pages[2] and "the end" in pages[2]
    assert "about" in pages[0] and "of steps left" in pages[0]


def test_within_an_epoch_the_page_comes_by_the_clock(tmp_path: Path, monkeypatch) -> None:
    written = []
    monkeypatch.setattr("eyeline.training.page.RunPage.write", lambda page: written.append(page))
    run(tmp_path / "a", epochs=1)
    assert len(written) == 2  # after the epoch, and at the end
    run(tmp_path / "b", epochs=1, log={"report": 1e-9})
    assert len(written) == 2 + 4 + 2


def test_no_page_where_none_is_wanted_or_can_be_made(tmp_path: Path, monkeypatch, capsys) -> None:
    assert not (run(tmp_path / "a", log={"report": None}) / "report.html").exists()

    def broken(*_: object) -> str:
        raise ZeroDivisionError("no pen")

    monkeypatch.setattr("eyeline.training.page.gallery", broken)
    assert read_status(run(tmp_path / "b"))["state"] == "finished"
    assert capsys.readouterr().out.count("no more of its page (no pen)") == 1


def test_what_was_left_out_stands_on_the_page(tmp_path: Path) -> None:
    class Poisoned(ToyDetector):
        def forward(self, images, targets=None):
            found = super().forward(images, targets)
            if targets is not None and any(int(t["image_id"]) == 103 for t in targets):
                return {name: value * float("nan") for name, value in found.items()}
            return found

    train(
        Poisoned(), ToyData(), batch_size=3, epochs=2, data={"workers": 0}, on_nan="skip",
        log={"tensorboard": False, "every": 1}, out=str(tmp_path / "r"),
    )  # fmt: skip
    page = (tmp_path / "r" / "report.html").read_text()
    assert "2 steps without a finite loss, or finite gradients" in page
    assert page.count("step-") == 2 and "bad_batches" in page


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(8.4, "8 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (3 * 86400 + 3600, "3 d 1 h")],
)
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told
