"""Writes yhenon/pytorch-retinanet's side of test_yhenon_parity.py: shapes and figures of one .npz.

Needs a checkout of yhenon/pytorch-retinanet (commit 0348a9d made the file that is here) and
torchvision, and the folder of real pictures:

    python tests/parity/make_yhenon.py path/to/pytorch-retinanet path/to/shared/data

Pictures are cut to multiples of 32, so that nothing has to be resized or padded, and passed one by
one, as that model asks for. Every figure is the same in float64.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fill import fill
from make_torchvision import HERE, IMAGENET, PICTURES, load, read_picture, same, shapes_of
from torch import Tensor, nn

SIZES = ((320, 256), (224, 320))
BOXES = ((20.0, 30, 150, 140), (100, 20, 180, 200), (60, 150, 200, 220))  # objects of both pictures
LABELS = (3, 0, 17)
# Layers in the order they run, and the spread of what comes out of each.
LAYERS = (
    {f"fpn.P{level}_{i}": 1.0 for i in (1, 2) for level in (5, 4, 3)}
    | {"fpn.P6": 1.0, "fpn.P7_2": 1.0}
    | {
        f"{kind}Model.conv{i}": 1.0
        for kind in ("classification", "regression")
        for i in (1, 2, 3, 4)
    }
    | {"classificationModel.output": 2.0, "regressionModel.output": 1.0}
)
BACKGROUND = -13.0  # is added to the bias of the classes


def prepared(picture: Tensor, dtype: torch.dtype) -> Tensor:
    mean, std = (torch.tensor(v, dtype=dtype)[:, None, None] for v in IMAGENET)
    return ((picture.to(dtype) / 255 - mean) / std)[None]


@torch.no_grad()
def calibrate(model: nn.Module, pictures: list[Tensor]) -> dict[str, np.ndarray]:
    """One layer after another: its outputs' channels get mean 0 and, together, the spread."""
    found: dict[str, np.ndarray] = {}
    modules: dict[str, Any] = dict(model.named_modules())
    model.classificationModel.output.bias.fill_(-30)  # else NMS takes all anchors until the end
    for name, spread in LAYERS.items():
        layer, outputs = modules[name], []
        hook = layer.register_forward_hook(
            lambda _, __, out, outputs=outputs: outputs.append(
                out.transpose(0, 1).flatten(1).clone()
            )
        )
        for picture in pictures:
            model(prepared(picture, torch.float32))
        hook.remove()
        out = torch.cat(outputs, 1) - layer.bias[:, None]
        factor = spread / out.std(1).mean()
        bias = -out.mean(1) * factor
        layer.bias.copy_(bias + BACKGROUND if name.startswith("classificationModel.o") else bias)
        layer.weight *= factor
        found |= {f"{name}.weight": factor.numpy(), f"{name}.bias": layer.bias.numpy().copy()}
    return found


def figures(model: Any, picture: Tensor, dtype: torch.dtype) -> tuple[dict[str, Tensor], Tensor]:
    """What it finds on a picture, and its two losses of the same."""
    model.to(dtype).eval()
    model.regressBoxes.std = model.regressBoxes.std.to(dtype)
    image = prepared(picture, dtype)
    with torch.no_grad():
        scores, labels, boxes = model(image)
        model.train()
        model.freeze_bn()
        rows = torch.tensor([[*b, k] for b, k in zip(BOXES, LABELS, strict=True)], dtype=dtype)
        losses = torch.cat(model([image, rows[None]]))
    return {"boxes": boxes, "scores": scores, "labels": labels}, losses


def main(source: Path, data: Path) -> None:
    sys.path.insert(0, str(source))
    from retinanet.model import resnet18

    pictures = [
        read_picture(data, name)[:, :h, :w] for name, (h, w) in zip(PICTURES, SIZES, strict=True)
    ]
    model = resnet18(80).eval()
    shapes = shapes_of(model)
    load(model, fill(shapes))
    calibration = calibrate(model, pictures)
    out = {f"calibration.{key}": value for key, value in calibration.items()}
    load(model, fill(shapes, calibration))
    for i, picture in enumerate(pictures):
        (found, losses), (exact, twins) = (
            figures(model, picture, dtype) for dtype in (torch.float32, torch.float64)
        )
        scores = found["scores"]
        print(f"{len(scores)} scores {scores.min():.3f} .. {scores.max():.3f}, {losses.tolist()}")
        assert same(found, exact) and 10 <= len(scores) <= 100
        assert torch.allclose(losses.double(), twins, rtol=3e-5), twins
        out |= {f"{i}.{key}": value.numpy() for key, value in found.items()}
        out[f"{i}.losses"] = losses.numpy()
    out["shapes"] = np.array(json.dumps(shapes))
    np.savez_compressed(HERE / "yhenon.npz", **out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
