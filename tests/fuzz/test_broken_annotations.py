"""Broken annotation files of every format, through check and training: refused in one line, or
left out and told; never a traceback, a hang, or a silent loss."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.formats.test_fuzz import ALL, broken, data_set
from tests.fuzz.limits import within_seconds
from tests.fuzz.losses import untold
from torch import nn

import eyeline
from eyeline.data.checking import check
from eyeline.data.checking.usable import open_checked
from eyeline.data.datasets import DetectionDataset
from eyeline.data.formats import Format
from eyeline.errors import EyelineError

TINY = {"backbone": "resnet18", "fpn_channels": 8, "tower_depth": 1, "size": 64}
CLASSES = 9  # more than a broken file makes of two
TRAINED = 5  # every so manieth data set that opens is trained on


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return eyeline.create_model("retinanet", num_classes=CLASSES, **TINY)


def opened(folder: Path, tolerant: bool) -> tuple[DetectionDataset | None, str]:
    """The training split, or why it is refused."""
    try:
        return open_checked(folder, ["train"], tolerant)[0], ""
    except EyelineError as error:
        return None, str(error)


def objects(data: DetectionDataset) -> int:
    """All pictures read; every box can be learnt from."""
    count = 0
    for i in range(len(data)):
        _, target = data[i]
        boxes = target["boxes"]
        assert torch.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()
        count += len(boxes)
    return count


def train_step(model: nn.Module, data: DetectionDataset) -> None:
    images, targets = zip(*(data[i] for i in range(len(data))), strict=True)
    if max((int(t["labels"].max()) for t in targets if len(t["labels"])), default=0) >= CLASSES:
        return
    loss = sum(model(list(images), list(targets)).values())
    loss.backward()
    model.zero_grad()
    assert math.isfinite(loss.item())


def journeys(format: Format, folder: Path, model: nn.Module, count: int) -> None:
    whole = data_set(folder, format)
    [clean] = open_checked(whole, ["train"])
    own = {record.path for record in clean.annotations.records}
    files = sorted(path for path in whole.rglob("*") if path.is_file() and path not in own)
    refused = left_out = opening = trained = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        file = files[rng.integers(len(files))]
        content = file.read_bytes()
        file.write_bytes(broken(content, rng))
        with within_seconds(30, f"{file}, seed {seed}"):
            strict, why = opened(whole, tolerant=False)
            tolerant, why_too = opened(whole, tolerant=True)
            for text in (why, why_too):
                assert "\n" not in text, (seed, text)
                assert not text or str(folder) in text, (seed, text)
            try:
                errors = check(whole, ["train"], copies=False).count("error")
            except EyelineError:
                errors = 1
            if strict is not None:
                assert errors == 0, seed
                assert tolerant is not None and not tolerant.left_out, seed
                assert objects(strict) == objects(tolerant), seed
            else:
                refused += 1
                assert errors, (seed, why)
                assert tolerant is None or tolerant.left_out, (seed, why)
            if tolerant is not None:
                left_out += bool(tolerant.left_out)
                objects(tolerant)
                report = check(whole, pictures=False)
                assert untold(clean, tolerant, file, content, report) == 0, (seed, file)
                if opening % TRAINED == 0:
                    train_step(model, tolerant)
                    trained += 1
                opening += 1
        file.write_bytes(content)
    assert refused > count / 10 and trained >= count / 50
    assert left_out or format.NAME in ONE_FILE


ONE_FILE = ("coco",)


@ALL
def test_fifty_broken_files(format: Format, tmp_path: Path, model: nn.Module) -> None:
    journeys(format, tmp_path, model, 50)


@pytest.mark.slow
@ALL
def test_two_thousand_broken_files(format: Format, tmp_path: Path, model: nn.Module) -> None:
    journeys(format, tmp_path, model, 2000)
