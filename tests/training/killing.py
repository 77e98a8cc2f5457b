"""Runs that are killed at random moments and resumed: `killing.py FOLDER KILLS`.

Every run is a process of its own, forked from this one, which has imported torch already. What
happened is printed as JSON; the status is not 0 where a run failed, or did not end up as the one
that was left alone.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.training import train
from eyeline.training.saving import LOCK

ENDED, RANDOM, WRITING, ASKED = "ended", "at random", "while writing", "asked to stop"
KINDS = (RANDOM, WRITING, ASKED, WRITING)  # in turn
TIMINGS = (
    "seconds", "train_seconds", "pictures_per_second", "memory_mb", "data_wait", "system",
)  # fmt: skip


class Heavy(ToyDetector):
    """With weights enough that writing them takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(200_000))

    def forward(self, images, targets=None):
        found = super().forward(images, targets)
        return found if targets is None else {**found, "weight": self.weight.square().mean()}


class Shaken(ToyData):
    """Drawn from every generator, in the workers."""

    def __getitem__(self, index):
        image, target = super().__getitem__(index)
        noise = random.random() + np.random.random() + torch.rand(3, 1, 1)
        return image * (noise / 3), target


def run(folder: Path) -> int:
    """Begin or resume a run in a process; gives its id."""
    if child := os.fork():
        with suppress(PermissionError, ProcessLookupError):  # it was quicker
            os.setpgid(child, child)
        return child
    os.setpgid(0, 0)
    status = 1
    try:
        with Path(f"{folder}.log").open("a") as log:
            for descriptor in (1, 2):
                os.dup2(log.fileno(), descriptor)
        torch.manual_seed(0)
        train(
            Heavy(), Shaken(24), ToyData(3), epochs=3, batch_size=2, ema=0.9, out=str(folder),
            optimizer={"lr": 1e-2}, eval={"metric": "loss"}, save={"steps": 2}, data={"workers": 2},
            log={"every": 5, "tensorboard": False}, resume=(folder / "recipe.yaml").is_file(),
        )  # fmt: skip
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    except EyelineError as error:  # stopped when it had saved its end
        status = int("has finished its 3 epochs" not in str(error))
        print(error)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def parents() -> dict[int, int]:
    """Of every process that runs: its parent's id by its own."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):  # ended since
            continue
        if state != "Z":
            found[int(stat.parent.name)] = int(parent)
    return found


def wait_for_writing(folder: Path, child: int, times: int) -> bool:
    """Until a file is being written for the n-th time; False: the run ended before."""
    writes = False
    while times:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        before, writes = writes, any(folder.glob(".*.partial"))
        times -= writes and not before
    return True


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def lines(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key not in TIMINGS} for line in found]


def differences(a: Path, b: Path) -> list[str]:
    """Between two runs that have ended."""
    found = []
    # A kill after the last state leaves the lock, which locks nobody out.
    names = [sorted({*os.listdir(folder)} - {LOCK}) for folder in (a, b)]
    if names[0] != names[1]:
        found.append(f"files: {names[0]}, {names[1]}")
    for name in ("best.safetensors", "last.safetensors"):
        if (a / name).read_bytes() != (b / name).read_bytes():
            found.append(name)
    if not same(*(torch.load(folder / "state.pt", weights_only=True) for folder in (a, b))):
        found.append("state.pt")
    if lines(a) != lines(b):
        found.append("metrics.jsonl")
    return found


def stop(child: int, how: str, folder: Path, length: float, draw: random.Random) -> set[int]:
    """End a run, at random or while it writes a file, unless it has ended; gives its workers."""
    if how == WRITING:
        if not wait_for_writing(folder, child, times=draw.randint(1, 12)):
            return set()
        time.sleep(draw.choice((0, 0, draw.uniform(0, 0.01))))
    else:
        time.sleep(draw.uniform(0, 0.7 * length))
    workers = {pid for pid, parent in parents().items() if parent == child}
    if how == ASKED:  # as Slurm does: all processes of the job
        os.killpg(child, signal.SIGTERM)
    else:
        os.kill(child, signal.SIGKILL)
    return workers


def kill_and_resume(root: Path, kills: int) -> dict[str, int]:
    """Stop runs so often, and resume each until it has ended."""
    straight = root / "straight"
    began = time.monotonic()
    assert os.waitpid(run(straight), 0)[1] == 0, Path(f"{straight}.log").read_text()
    length = time.monotonic() - began
    draw = random.Random(kills)
    happened = {ENDED: 0, RANDOM: 0, WRITING: 0, ASKED: 0}
    workers: set[int] = set()
    folder = root / "run-0"
    while True:
        stopped = sum(happened.values()) - happened[ENDED]
        if stopped == kills and not folder.exists():
            break
        child, how = run(folder), KINDS[stopped % len(KINDS)]
        if stopped < kills:
            workers |= stop(child, how, folder, length, draw)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            assert not (found := differences(straight, folder)), (folder, found)
            happened[ENDED] += 1
            shutil.rmtree(folder)
            folder = root / f"run-{happened[ENDED]}"
            continue
        expected = (signal.SIGKILL, 143 << 8, signal.SIGTERM)  # the last: before it listened
        assert status in expected, (status, Path(f"{folder}.log").read_text()[-3000:])
        happened[how] += 1
    deadline = time.monotonic() + 20  # torch's workers look for their parent every 5 seconds
    while (orphans := workers & parents().keys()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return {**happened, "orphans": len(orphans), "workers": len(workers)}


if __name__ == "__main__":
    print(json.dumps(kill_and_resume(Path(sys.argv[1]), int(sys.argv[2]))))
