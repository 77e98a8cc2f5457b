"""A disk that is full: the last good state stays, and the run goes on when there is room."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("full_disk.py")
# In namespaces of its own a process may mount what it likes, where the system lets users make them.
OWN_DISK = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
MOUNT = 'mount -t tmpfs -o size=1m none "$1"'


def on_full_disk(folder: Path, kind: str) -> dict:
    command = [sys.executable, str(SCRIPT), str(folder), kind]
    if kind == "small":
        command = [*OWN_DISK, f'{MOUNT} && shift && exec "$@"', "sh", str(folder), *command]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def may_mount(folder: Path) -> bool:
    if not shutil.which("unshare"):
        return False
    tried = subprocess.run([*OWN_DISK, MOUNT, "sh", str(folder)], capture_output=True)
    return tried.returncode == 0


@pytest.mark.parametrize(
    ("kind", "reason"), [("limit", "File too large"), ("small", "No space left on device")]
)
def test_a_full_disk(tmp_path, kind, reason):
    if kind == "small" and not may_mount(tmp_path):
        pytest.skip("small file systems cannot be mounted here; the limit of the process is tested")
    found = on_full_disk(tmp_path, kind)
    straight = found["straight"]
    assert straight["steps"] == list(range(1, 13)) and straight["epochs"] == [1, 2, 3]

    printed, error = found["for a while"]  # steps 6 to 9, the best weights of epoch 2 among them
    assert printed.count("could not save the state of step") == 5
    assert reason in printed and "; the last good state is of step 5; the run goes on" in printed
    assert printed.count("saved again: the state of step 10") == 1 and not error
    assert found["a"] == straight
    told = find_spec("tensorboard") is not None  # its writer gives up
    assert ("no more is written for TensorBoard (" in printed) is told

    printed, error = found["to the end"]
    assert "the run is done, and its end could not be saved" in error and reason in error
    assert "to go on from what is saved (step 5): eyeline train --resume" in printed
    assert found["last good"] == 5
    printed, error = found["resumed while full"]
    assert reason in error and not printed
    assert found["resumed"][1] == "" and found["b"] == straight

    printed, error = found["from the start"]
    assert "its first state cannot be saved" in error and reason in error
    assert "step 2/12" not in printed and not found["c left"]
