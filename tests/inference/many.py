"""Runs of `eyeline predict --engine ray` to be watched, killed and compared."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import eyeline
from eyeline.checkpoints import save_weights
from eyeline.cli import main

COUNT, PART = 48, 4


def make_model(path: Path) -> None:
    torch.manual_seed(0)
    model = eyeline.create_model(
        "retinanet", num_classes=2, backbone="resnet18", fpn_channels=16, tower_depth=1, size=64
    )
    save_weights(model, path)


def make_pictures(folder: Path, count: int = COUNT) -> None:
    """Noise, in two folders."""
    torch.manual_seed(1)
    for i in range(count):
        file = folder / f"{i % 2}" / f"{i:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8).numpy()).save(file)


def arguments() -> list[str]:
    """The command line in a folder with model.safetensors and the pictures."""
    return [
        "predict", "model.safetensors", "pictures", "--engine", "ray", "--threshold", "0",
        "--part-size", str(PART), "--out", "found",
    ]  # fmt: skip


def start(folder: Path) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "eyeline", *arguments()]
    return subprocess.Popen(command, cwd=folder, start_new_session=True, **pipes)


def parts(folder: Path) -> list[Path]:
    return sorted((folder / "found").glob("part-*.parquet"))


def wait_for(what: Callable[[], Any], run: subprocess.Popen[str], seconds: float = 300) -> Any:
    """What it gives, once it gives anything, while the run goes on."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)
    return found


def workers_of(pid: int) -> list[int]:
    """The processes below `pid` in which Ray has a worker of ours."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rpartition(")")[2].split()[1]
                )
                names[int(entry.name)] = (entry / "cmdline").read_text()
            except OSError:  # it has ended
                continue
    return [
        one for one, name in names.items() if "MapWorker" in name and pid in _above(one, parents)
    ]


def _above(pid: int, parents: dict[int, int]) -> set[int]:
    above = set()
    while pid := parents.get(pid, 0):
        above.add(pid)
    return above


def rows(folder: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    return [row for part in parts(folder) for row in parquet.read_table(part).to_pylist()]


def plain(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The detections of the same pictures without Ray, by path."""
    names = sorted(str(p.relative_to(folder)) for p in (folder / "pictures").rglob("*.png"))
    (folder / "list.txt").write_text("\n".join(names))
    told = io.StringIO()
    with chdir(folder), redirect_stdout(told):
        status = main.run([
            "predict", "model.safetensors", "list.txt", "--threshold", "0", "--no-draw",
            "--json-lines", "--out", "plain",
        ])  # fmt: skip
    assert status == 0
    lines = [json.loads(line) for line in told.getvalue().splitlines()]
    return {line["source"]: line["detections"] for line in lines}


def detections(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A row's, as JSON lines have them."""
    columns = (row[key] for key in ("classes", "labels", "scores", "boxes"))
    return [
        {"class": name, "label": label, "score": score, "box": box}
        for name, label, score, box in zip(*columns, strict=True)
    ]
