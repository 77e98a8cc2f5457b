"""A detector and data small enough to train in milliseconds."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from eyeline.errors import EyelineError
from eyeline.registry import create_model, find
from eyeline.training import train

# Fields of a recipe for runs of a moment.
QUICK = {
    "batch_size": 3,
    "epochs": 2,
    "optimizer": {"lr": 1e-2},
    "data": {"workers": 0},
    "log": {"tensorboard": False},
}


class ToyDetector(nn.Module):
    """Guesses one box from the mean colour. With dropout it draws from every generator."""

    classes = ("a", "b")

    def __init__(self, norm: type[nn.Module] = nn.BatchNorm1d, dropout: float = 0.5) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 8)
        self.norm = norm(8)
        self.head = nn.Linear(8, 5)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None):
        features = torch.stack([image.float().div(255).mean((1, 2)) for image in images])
        if self.training and self.dropout.p:
            features = features * (1 + 0.1 * random.random() + 0.1 * np.random.rand())
        out = self.head(self.dropout(self.norm(self.backbone(features)).relu())).float()
        if targets is None:
            boxes = (out[:, :4] * 32).clamp(0, 32)
            boxes[:, 2:] = boxes[:, :2] + 5
            scores, labels = out[:, 4:].sigmoid(), (out[:, 4:] > 0).long()
            parts = zip(boxes[:, None], scores, labels, strict=True)
            return [{"boxes": b, "scores": s, "labels": k} for b, s, k in parts]
        boxes = torch.stack([t["boxes"][0] for t in targets]) / 32
        labels = torch.stack([t["labels"][0] for t in targets]).float()
        return {
            "box": (out[:, :4] - boxes).square().mean(),
            "label": nn.functional.binary_cross_entropy_with_logits(out[:, 4], labels),
        }


class ToyData(Dataset):
    """Squares of one colour, the same for the same index."""

    classes = ("a", "b")

    def __init__(self, count: int = 11) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8)
        image //= torch.randint(1, 9, (3, 1, 1), generator=generator, dtype=torch.uint8)
        corner = torch.rand(2, generator=generator) * 20
        target = {
            "boxes": torch.cat([corner, corner + 5])[None],
            "labels": torch.tensor([index % 2]),
            "image_id": torch.tensor(100 + index),
        }
        return image, target


def in_two_processes(name: str, folder: Path, script: str = __file__) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    subprocess.run(
        [*torchrun, "--nproc-per-node=2", script, name, str(folder)],
        check=True,
        capture_output=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


# What every process of the torchrun tests does: `torchrun toys.py NAME FOLDER`.


def train_toy(folder: str) -> None:
    torch.manual_seed(0)
    train(
        ToyDetector(nn.LayerNorm, dropout=0.0),
        ToyData(12),
        epochs=2,
        batch_size=3,
        optimizer={"name": "sgd", "lr": 0.1},
        data={"workers": 0},
        out=folder,
    )


def train_faster_rcnn(folder: str) -> None:
    """With workers that prepare the pictures; each process leaves its weights beside the folder."""
    torch.manual_seed(int(os.environ["RANK"]))  # the first process's weights count
    model = create_model(
        "faster_rcnn", classes=["a", "b"], backbone="resnet18", size=64, fpn_channels=16,
        norm="frozen", head_width=32, proposals=[50, 50],
    )  # fmt: skip
    torch.save(model.state_dict(), f"{folder}-before-{os.environ['RANK']}.pt")
    train(
        model,
        ToyData(7),  # one too few for two processes
        ToyData(2),
        epochs=2,
        batch_size=2,
        optimizer={"name": "sgd", "lr": 1e-3},
        data={"workers": 1},
        out=folder,
    )
    torch.save(model.state_dict(), f"{folder}-after-{os.environ['RANK']}.pt")


def train_bad(folder: str) -> None:
    """The second step of the second process has a loss that is no number; once it is skipped, and
    once the run stops. What each process saw before lies beside the folder."""
    rank = os.environ["RANK"]

    class Bad(ToyDetector):
        calls, seen = 0, ()

        def forward(self, images, targets=None):
            self.calls += 1
            bad = self.calls == 2 and rank == "1"
            if self.calls == 1:
                self.seen = [int(target["image_id"]) for target in targets]
            losses = super().forward(images, targets)
            return {name: value * math.nan if bad else value for name, value in losses.items()}

    fields = {
        "epochs": 2, "batch_size": 3, "optimizer": {"name": "sgd", "lr": 0.1},
        "data": {"workers": 0}, "save": {"steps": 1},
    }  # fmt: skip
    torch.manual_seed(0)
    model = Bad(nn.LayerNorm, dropout=0.0)
    train(model, ToyData(12), **fields, out=folder, on_nan="skip")
    torch.save(model.state_dict(), f"{folder}-{rank}.pt")
    model = Bad(nn.LayerNorm, dropout=0.0)
    try:
        train(model, ToyData(12), **fields, out=f"{folder}-stop")
    except EyelineError as error:
        Path(f"{folder}-{rank}.txt").write_text(str(error))
    Path(f"{folder}-{rank}.json").write_text(json.dumps(model.seen))


if __name__ == "__main__":
    kinds = {"toy": train_toy, "faster_rcnn": train_faster_rcnn, "bad": train_bad}
    kinds[sys.argv[1]](sys.argv[2])


def known(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Of `options` those that the detector has."""
    config = sys.modules[find(name).build.__module__].Config
    fields = {field.name for field in dataclasses.fields(config)}
    return {key: value for key, value in options.items() if key in fields}
