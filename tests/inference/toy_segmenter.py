"""A segmenter and pictures small enough for tests: it sees red, green and blue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from eyeline import registry
from eyeline.checkpoints import save_weights
from eyeline.cli import main
from eyeline.nn.detector import make_config
from eyeline.nn.fused import fused
from eyeline.nn.segmenter import Segmenter, SegmenterConfig
from eyeline.note import note
from eyeline.registry import describe

CLASSES = ["red", "green", "blue"]
NAME = "toy_segmenter"


@dataclass(frozen=True, kw_only=True)
class Config(SegmenterConfig):
    stride: int = 2


class ToySegmenter(Segmenter):
    """One convolution of 3x3 and a classifier, at half the size."""

    def __init__(self, config: Config) -> None:
        self.set_up(config)
        c = config
        self.conv = nn.Conv2d(c.in_channels, 8, 3, c.stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.classifier = nn.Conv2d(8, c.num_classes, 1)

    fusable = (("conv", "norm"),)

    def maps(self, images: Tensor) -> Tensor:
        x = note("features", fused(images, self.conv, self.norm, relu=True))
        return fused(x, self.classifier)


def build(num_classes: int = 3, **options) -> ToySegmenter:
    return ToySegmenter(make_config(Config, {"paper": {}}, {"num_classes": num_classes} | options))


@contextmanager
def registered() -> Iterator[None]:
    """Within, `create_model` knows it."""
    registry.entries()
    entry = registry.Entry(NAME, "segmentation", "Nobody, “A toy”", build)
    registry._entries[NAME] = entry
    try:
        yield
    finally:
        del registry._entries[NAME]


def toy(seeing: bool = True, classes: list[str] | None = None, **options) -> ToySegmenter:
    """Seeing, it gives a pixel the class of its largest channel; else it is as initialised."""
    classes = classes or CLASSES
    torch.manual_seed(0)
    model = build(len(classes), **options)
    describe(model, registry.Entry(NAME, "segmentation", "", build), classes, len(classes))
    if seeing:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            model.norm.weight.fill_(1)
            model.norm.bias.fill_(3)  # so that the ReLU takes nothing away
            for k in range(3):
                model.conv.weight[k, k, 1, 1] = model.preprocess.std[k]
                model.classifier.weight[k, k] = 10.0
                model.classifier.bias[k] = 10 * model.preprocess.mean[k]
    return model.eval()


def bands(height: int = 24, width: int = 36, shift: int = 0) -> tuple[Tensor, Tensor]:
    """A picture (3, H, W) uint8 of upright bands in the three colours, and its map (H, W)."""
    truth = ((torch.arange(width) + shift) * 3 // width % 3).expand(height, width).contiguous()
    image = torch.full((3, height, width), 30, dtype=torch.uint8)
    image.scatter_(0, truth[None], 220)
    return image, truth


def save_toy(path, **options) -> None:
    save_weights(toy(**options), path)


def write_data(folder: Path, count: int = 4, size: tuple[int, int] = (24, 36)) -> None:
    """`count` pictures, splits val and test, with masks whose values are the classes, as CamVid's;
    in each some pixels are ignored, and some are of another class than they look."""
    for split in ("val", "test"):
        for name in (split, f"{split}annot"):
            (folder / name).mkdir(parents=True)
        for i in range(count):
            image, truth = bands(*size, shift=3 * i)
            truth[:2] = 255
            truth[10 : 10 + 2 * i, 5:15] = 2
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / split / f"{i}.png")
            mask = Image.fromarray(truth.to(torch.uint8).numpy())
            mask.save(folder / f"{split}annot" / f"{i}.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")


def command_line(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command that knows the toy: its status, what it printed, and its errors."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        with registered():
            status = main.run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run
