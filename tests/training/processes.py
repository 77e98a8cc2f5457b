"""What every process of the torchrun tests does: `torchrun processes.py NAME FOLDER`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from toys import ToyData, ToyDetector, known

from eyeline import together
from eyeline.errors import EyelineError
from eyeline.evaluation import evaluate
from eyeline.registry import create_model, list_models
from eyeline.training import train

RANK = int(os.environ.get("RANK", 0))
TWO = int(os.environ.get("WORLD_SIZE", 1)) == 2


class Discs(ToyData):
    """Pictures of one size with none to four objects and their masks; the same for an index."""

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, target = super().__getitem__(index)
        image = image.repeat_interleave(2, 1).repeat_interleave(2, 2)  # 64 pixels
        generator = torch.Generator().manual_seed(index)
        count = index % 5
        corner = torch.rand(count, 2, generator=generator) * 30
        boxes = torch.cat([corner, corner + 10 + 20 * torch.rand(count, 2, generator=generator)], 1)
        y, x = torch.arange(64)[:, None], torch.arange(64)
        x1, y1, x2, y2 = boxes[..., None, None].unbind(1)
        masks = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
        labels = torch.arange(count) % 2
        return image, {**target, "boxes": boxes, "labels": labels, "masks": masks}


def tiny(name: str) -> nn.Module:
    """A detector in which everything that counts is another number in each picture."""
    torch.manual_seed(0)
    options = {"backbone": "resnet18", "size": 64, "norm": "frozen"}
    options["score_threshold"] = 0.0  # what has learnt for four steps is sure of nothing
    options |= known(
        name,
        {
            "fpn_channels": 16, "tower_depth": 1, "head_width": 32, "proposals": [60, 60],
            "rpn_samples": 4000, "dropout": 0.0,
        },
    )  # fmt: skip
    return create_model(name, classes=["a", "b"], **options)


def train_tiny(name: str, folder: str) -> nn.Module:
    """11 pictures in batches of 4: the last has 3, so that two processes have 2 and 1."""
    model = tiny(name)
    train(
        model, Discs(11), Discs(3), epochs=2, batch_size=2 if TWO else 4, accumulate=2,
        optimizer={"name": "sgd", "lr": 0.02, "weight_decay": 0.0}, data={"workers": 0},
        eval={"metric": "loss", "batch_size": 2}, log={"every": 1, "tensorboard": False},
        out=folder,
    )  # fmt: skip
    return model


def train_and_evaluate(folder: str) -> None:
    """All detectors; each process leaves its weights and what it measured."""
    for name in list_models("detection"):
        model = train_tiny(name, f"{folder}/{name}")
        report = evaluate(model, Discs(7), batch_size=2, progress=False)
        found = {"coco": report.coco, "voc": report.voc, "predictions": report.predictions}
        torch.save({"weights": model.state_dict(), **found}, f"{folder}/{name}-{RANK}.pt")


class Dying(ToyDetector):
    """One of its processes dies at its 8th step, the second of an epoch, as `how` says."""

    def __init__(self, how: str, folder: Path) -> None:
        torch.manual_seed(0)
        super().__init__(nn.LayerNorm, dropout=0.0)
        self.how, self.folder, self.calls = how, folder, 0

    def forward(self, images, targets=None):
        self.calls += self.training
        if RANK == 1 and self.training and self.calls == 8:
            self.folder.with_name("died").write_text(f"{time.time()} {os.getpid()}")
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "raise":
                raise EyelineError("street.jpg: cannot be read")
            if self.how == "stop":  # as if behind a cable that was pulled
                os.kill(os.getpid(), signal.SIGSTOP)
        return super().forward(images, targets)


def train_dying(how: str, folder: Path) -> None:
    """Like `eyeline train`, with a line for an error. Where the run is there, it is resumed."""
    try:
        train(
            Dying(how, folder), ToyData(12), epochs=4, batch_size=2, data={"workers": 0},
            optimizer={"name": "sgd", "lr": 0.1}, log={"tensorboard": False}, out=str(folder),
            resume=(folder / "state.pt").exists(),
        )  # fmt: skip
    except EyelineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    what, folder = sys.argv[1:]
    if what == "detectors":
        train_and_evaluate(folder)
    else:
        together.LOST = 4.0
        train_dying(what, Path(folder))
