"""Very many pictures: every one exactly once, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import many
import pytest

from eyeline.cli import main

pytest.importorskip("pyarrow", reason="PyArrow, of the extra `ray`, is not installed")
pytest.importorskip("ray", reason="Ray, the extra `ray`, is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    many.make_model(folder / "model.safetensors")
    many.make_pictures(folder / "pictures")
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict:
    expected = many.plain(folder)
    assert len(expected) == many.COUNT
    assert sum(map(len, expected.values())) > many.COUNT
    return expected


@pytest.fixture(autouse=True)
def fresh(folder: Path) -> None:
    subprocess.run(["rm", "-rf", str(folder / "found")], check=True)


def check(folder: Path, expected: dict) -> None:
    """Every picture exactly once, with the detections of a run without Ray."""
    rows = many.rows(folder)
    assert [row["path"] for row in rows] == sorted(expected)
    for row in rows:
        assert many.detections(row) == expected[row["path"]]
        assert (row["width"], row["height"], row["error"]) == (64, 48, None)
    assert not [*(folder / "found").glob(".*")] and not [*(folder / "found").rglob("*.tries")]


def test_a_killed_worker(folder: Path, expected: dict, monkeypatch, capfd) -> None:
    """Ray's driver is this process, which has torch already."""
    monkeypatch.chdir(folder)
    killed, over = [], threading.Event()

    def kill_one() -> None:
        while not over.wait(0.02):
            workers = many.workers_of(os.getpid())
            if len(workers) == 2 and many.parts(folder):
                os.kill(workers[0], signal.SIGKILL)
                killed.append(len(many.parts(folder)))
                return

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        status = main.run([*many.arguments(), "--workers", "2"])
    finally:
        over.set()
        killer.join()
    assert killed and killed[0] < many.COUNT // many.PART, "it was over before the kill"
    count = sum(map(len, expected.values()))
    assert (status, *capfd.readouterr()) == (
        0, f"{count} detections on {many.COUNT} pictures: found\n", "",
    )  # fmt: skip
    check(folder, expected)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on(folder: Path, expected: dict, number: signal.Signals) -> None:
    run = many.start(folder)
    many.wait_for(lambda: many.parts(folder), run)
    if number is signal.SIGINT:
        os.killpg(run.pid, number)  # as a terminal does
    else:
        os.kill(run.pid, number)
    out, err = run.communicate(timeout=300)
    done = many.parts(folder)
    held = len(done) * many.PART
    assert 0 < held < many.COUNT
    if number is signal.SIGINT:
        assert (run.returncode, out) == (130, "")
        assert err.startswith("stopped: ") and err.count("\n") == 1 and "found" in err
    else:
        assert run.returncode == -signal.SIGKILL
    before = {part: part.stat().st_mtime_ns for part in done}
    run = many.start(folder)
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert err == f"found: {held} of {many.COUNT} pictures are done\n"
    assert {part: part.stat().st_mtime_ns for part in done} == before
    check(folder, expected)
