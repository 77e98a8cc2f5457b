"""Writes torchvision's side of test_vgg_parity.py: shapes, and what VGG16's last pooling gives.

Needs torchvision, and the folder of real pictures:

    python tests/parity/make_vgg.py path/to/shared/data

The networks have an eighth of the paper's channels, their classifier too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fill import fill
from make_torchvision import HERE, PICTURES, load, read_picture, shapes_of
from torch import nn
from torchvision.models.vgg import VGG, cfgs, make_layers

WIDTH, SIDE = 8, 224
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def narrow(norm: bool) -> nn.Module:
    plan = [v if isinstance(v, str) else v * WIDTH // 64 for v in cfgs["D"]]
    model = VGG(make_layers(plan, batch_norm=norm), num_classes=10)
    wide, inner = 8 * WIDTH, 64 * WIDTH
    model.classifier[0] = nn.Linear(wide * 49, inner)
    model.classifier[3] = nn.Linear(inner, inner)
    model.classifier[6] = nn.Linear(inner, 10)
    return model.eval()


def main(data: Path) -> None:
    picture = read_picture(data, PICTURES[0])
    square = F.interpolate(picture[None].float(), (SIDE, SIDE), mode="bilinear").round()
    out = {}
    for name, norm in (("vgg16", False), ("vgg16_bn", True)):
        model = narrow(norm)
        shapes = shapes_of(model)
        load(model, fill(shapes))
        with torch.no_grad():
            found = model.features((square / 255 - MEAN) / STD)
        print(name, tuple(found.shape), float(found.std()))
        out |= {f"{name}.shapes": np.array(json.dumps(shapes)), f"{name}.pool5": found.numpy()}
    np.savez_compressed(HERE / "vgg.npz", **out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
