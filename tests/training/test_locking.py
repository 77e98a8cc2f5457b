"""One process at a time writes a run folder."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import toys
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.locking import FileLock
from eyeline.training import load_recipe, train
from eyeline.training.position import Position
from eyeline.training.saving import LOCK, RunFolder, folder_lock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the locks are those of Unix")

QUICK = {**toys.QUICK, "epochs": 3}
TRAINS = """
import sys
sys.path.insert(0, sys.argv[1])
from test_locking import Stays, run
run(sys.argv[2], Stays(6), data={"workers": 2})
"""
HOLDS = """
import sys
from pathlib import Path
from eyeline.training.saving import folder_lock
lock = folder_lock(Path(sys.argv[2]))
lock.acquire()
print("here", flush=True)
input()
lock.release()
"""


class Stays(ToyDetector):
    """Waits for a line at one of its training steps, counted from 1."""

    def __init__(self, step: int = 0) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.step, self.calls = step, 0

    def forward(self, images, targets=None):
        self.calls += self.training
        if self.training and self.calls == self.step:
            print("here", flush=True)
            sys.stdin.readline()
        return super().forward(images, targets)


def run(out: Path | str, model: ToyDetector, **fields) -> ToyDetector:
    train(model, ToyData(), out=str(out), **{**QUICK, **fields})
    return model


@contextmanager
def another_process(program: str, folder: Path) -> Iterator[subprocess.Popen]:
    """It has come to where it waits."""
    here = os.path.dirname(__file__)
    with subprocess.Popen(
        [sys.executable, "-c", program, here, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        try:
            while process.stdout.readline() != "here\n":
                assert process.poll() is None
            yield process
        finally:
            process.kill()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_run_that_goes_on_elsewhere_is_not_resumed(tmp_path):
    """Until its process has ended, by kill -9 and with workers that outlive it for a moment."""
    straight = run(tmp_path / "a", Stays())
    folder = tmp_path / "r"
    with another_process(TRAINS, folder) as process:
        before = files(folder)
        with pytest.raises(EyelineError) as caught:
            run(folder, Stays(), resume=True)
        message = str(caught.value)
        other = f"process {process.pid} on {socket.gethostname()}"
        assert message.startswith(f"{folder}: {other} is training in this folder; wait")
        assert "\n" not in message and files(folder) == before
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (folder / LOCK).exists()
        resumed = run(folder, Stays(), resume=True)
    assert not (folder / LOCK).exists()
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_two_new_runs_do_not_share_a_folder(tmp_path):
    """The second looked before the first had made it."""
    recipe = load_recipe({"out": str(tmp_path / "r")})
    late = RunFolder(recipe, "m", resume=False, writes=True)
    other = RunFolder(recipe, "m", resume=False, writes=False)
    (tmp_path / "r").mkdir()
    with (
        another_process(HOLDS, tmp_path / "r"),
        pytest.raises(EyelineError, match="is training in this folder"),
        late,
    ):
        raise AssertionError("must not come so far")
    with other:  # of the processes of a run only the first holds the lock
        assert other.lock.descriptor is None
    with RunFolder(recipe, "m", resume=False, writes=True) as first:
        first.save_state({}, Position())
    with pytest.raises(EyelineError, match="exists already: choose another out="), late:
        raise AssertionError("must not come so far")
    assert (tmp_path / "r" / "state.pt").exists() and not (tmp_path / "r" / LOCK).exists()


def test_a_state_that_has_been_replaced_meanwhile_is_not_resumed(tmp_path):
    run(tmp_path / "r", Stays(), epochs=1)
    recipe = load_recipe({"out": str(tmp_path / "r")})
    late = RunFolder(recipe, "m", resume=True, writes=True)
    run(tmp_path / "r", Stays(), epochs=2, resume=True)
    before = files(tmp_path / "r")
    with pytest.raises(EyelineError, match="another process has gone on with it"), late:
        raise AssertionError("must not come so far")
    assert files(tmp_path / "r") == before


def test_a_file_that_was_deleted_locks_nothing(tmp_path, monkeypatch):
    """Its holder lets go between another's opening of the file and its locking it."""
    first, second = folder_lock(tmp_path), folder_lock(tmp_path)
    first.acquire()
    lock, opened = FileLock._lock, []

    def slow(self, descriptor):
        opened.append(os.fstat(descriptor).st_ino)
        if len(opened) == 1:
            first.release()
        lock(self, descriptor)

    monkeypatch.setattr(FileLock, "_lock", slow)
    second.acquire()
    assert len(opened) == 2 and (tmp_path / LOCK).stat().st_ino == opened[1]
    assert os.fstat(second.descriptor).st_ino == opened[1]
    second.release()
    assert not list(tmp_path.iterdir())


def test_where_there_are_no_locks_it_is_said(tmp_path, monkeypatch, capsys):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    run(tmp_path / "r", Stays(), epochs=1)
    assert (
        f"{tmp_path / 'r'}: cannot be locked (No locks available); see" in capsys.readouterr().out
    )
    assert not (tmp_path / "r" / LOCK).exists()


def test_a_lock_alone_takes_no_folder(tmp_path):
    """A run that was killed before it wrote anything."""
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / LOCK).write_text("process 1 on elsewhere")
    run(tmp_path / "r", Stays(), epochs=1)
    assert (tmp_path / "r" / "state.pt").exists() and not (tmp_path / "r" / LOCK).exists()
