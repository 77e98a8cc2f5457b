"""Runs on a disk that is full for a while: `full_disk.py FOLDER small|limit`.

"small": FOLDER is on a small file system, which is filled up. "limit": the process may not write
files of more than some bytes, which any user may ask the system for; the error is another.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.training import train

LIMIT = 600  # bytes


class Disk:
    def __init__(self, folder: Path, kind: str) -> None:
        self.ballast, self.kind = folder / "ballast", kind

    def fill(self) -> None:
        if self.kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
            return
        with self.ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        self.ballast.unlink(missing_ok=True)


class Acts(ToyDetector):
    """Calls functions at some training steps, counted from 1."""

    def __init__(self, acts: dict[int, Callable[[], None]]) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.acts, self.calls = acts, 0

    def forward(self, images, targets=None):
        self.calls += self.training
        if self.training:
            self.acts.get(self.calls, lambda: None)()
        return super().forward(images, targets)


def run(
    folder: Path,
    acts: dict[int, Callable[[], None]],
    resume: bool = False,
    tensorboard: bool | str = False,
) -> tuple[str, str]:
    """(what was printed, the error or nothing)"""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            train(
                Acts(acts), ToyData(), ToyData(3), epochs=3, batch_size=3, out=str(folder),
                optimizer={"lr": 1e-2}, data={"workers": 0}, eval={"metric": "loss"}, ema=0.9,
                save={"steps": 1}, log={"every": 1, "tensorboard": tensorboard}, resume=resume,
            )  # fmt: skip
        except (EyelineError, OSError) as error:
            return printed.getvalue(), str(error)
    return printed.getvalue(), ""


def ended(folder: Path) -> dict:
    """What a run has left."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    weights = [load_file(folder / f"{name}.safetensors") for name in ("best", "last")]
    return {
        "steps": [line["step"] for line in lines if line["event"] == "step"],
        "epochs": [line["epoch"] for line in lines if line["event"] == "epoch"],
        "losses": [line["losses"] for line in lines],
        "weights": [{name: value.tolist() for name, value in one.items()} for one in weights],
        "files": sorted({path.name for path in folder.iterdir()} - {"tensorboard"}),
    }


def main(root: Path, kind: str) -> dict:
    disk = Disk(root, kind)
    run(root / "straight", {})
    found = {"straight": ended(root / "straight")}
    # The best weights of the second epoch come while it is full.
    found["for a while"] = run(root / "a", {6: disk.fill, 10: disk.free}, tensorboard="auto")
    found["a"] = ended(root / "a")
    found["to the end"] = run(root / "b", {6: disk.fill})
    state = torch.load(root / "b" / "state.pt", weights_only=True)
    found["last good"] = state["position"]["step"]
    found["resumed while full"] = run(root / "b", {}, resume=True)
    disk.free()
    found["resumed"] = run(root / "b", {}, resume=True)
    found["b"] = ended(root / "b")
    found["from the start"] = run(root / "c", {1: disk.fill})
    disk.free()
    found["c left"] = (root / "c").exists()
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
