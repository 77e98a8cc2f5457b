"""Runs that are killed, and go on as if they never had been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLING = Path(__file__).with_name("killing.py")


def killed(folder: Path, times: int) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, str(KILLING), str(folder), str(times)],
        capture_output=True,
        text=True,
        timeout=1500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes as Linux lists them")
@pytest.mark.parametrize("times", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_runs_end_as_if_they_had_not_been(tmp_path, times):
    happened = killed(tmp_path, times)
    kinds = [happened[how] for how in ("at random", "while writing", "asked to stop")]
    assert sum(kinds) == times and min(kinds) > 0
    assert happened["ended"] > 0
    assert happened["workers"] > 0 and happened["orphans"] == 0
