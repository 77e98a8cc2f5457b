"""Writes segmentation-models-pytorch's side of the parity tests: smp.json, the names and shapes of
each case's weights, and one smp_CASE.npz a case, logits at every fifth row and column.

Needs segmentation-models-pytorch (0.6.0 made the files that are here) and the folder of pictures:

    python tests/parity/make_smp.py path/to/shared/data [CASE ...]

Every figure is the same in float64: none stands on a rounding error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
from fill import fill
from PIL import Image
from torch import Tensor

HERE = Path(__file__).parent
PICTURE = "000000037777"
IMAGENET = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]  # mean, std
CLASSES, EVERY = 5, 5
SIZE, ODD = (128, 192), (101, 150)  # upper left corners of the picture

# Its class, its encoder, more options; sizes other than SIZE where it takes them.
CASES: dict[str, tuple[str, str, dict[str, Any], list[tuple[int, int]]]] = {
    "unet_resnet18": ("Unet", "resnet18", {}, [ODD]),
    "unet_vgg16_bn": ("Unet", "vgg16_bn", dict(decoder_channels=(64, 48, 32, 16, 16)), [ODD]),
    "unet_vgg16": ("Unet", "vgg16", dict(decoder_use_norm=False), []),
    "unet_resnext50_32x4d": ("Unet", "resnext50_32x4d", {}, []),
    "unetplusplus_resnet18": ("UnetPlusPlus", "resnet18", {}, []),
    "unetplusplus_vgg16_bn": ("UnetPlusPlus", "vgg16_bn", {}, []),
    "linknet_resnet18": ("Linknet", "resnet18", {}, []),
    "linknet_resnet50": ("Linknet", "resnet50", {}, []),
    "fpn_resnet18": ("FPN", "resnet18", {}, []),
    "fpn_resnet50_cat": (
        "FPN", "resnet50", dict(decoder_merge_policy="cat", decoder_pyramid_channels=128), []
    ),
}  # fmt: skip


def build(case: str) -> torch.nn.Module:
    kind, encoder, options, _ = CASES[case]
    return getattr(smp, kind)(encoder, encoder_weights=None, classes=CLASSES, **options).eval()


@torch.no_grad()
def logits(model: torch.nn.Module, image: Tensor) -> np.ndarray:
    """(K, H, W) of a picture in [0, 1]."""
    mean, std = torch.tensor(IMAGENET)[..., None, None]
    given = ((image - mean) / std)[None]
    found, exact = model(given)[0], model.double()(given.double())[0]
    model.float()
    spread = (found - found.mean((1, 2), keepdim=True)).std()  # over the picture
    error = float((found - exact).abs().max() / spread)
    print(f"  {tuple(found.shape)}, spread {spread:.3f}, within {error:.1e} of float64")
    assert error < 3e-5 and spread > 0.002
    return found.numpy()


def main(data: Path, wanted: list[str]) -> None:
    with Image.open(data / "tiny_coco" / "val2017" / f"{PICTURE}.jpg") as file:
        image = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1) / 255
    path = HERE / "smp.json"
    shapes = json.loads(path.read_text()) if path.exists() else {}
    for case in wanted or CASES:
        print(case)
        model = build(case)
        shapes[case] = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
        arrays = fill(shapes[case])
        model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        out = {}
        for height, width in [SIZE, *CASES[case][3]]:
            found = logits(model, image[:, :height, :width])
            out[f"{height}x{width}"] = found[:, ::EVERY, ::EVERY]
        np.savez_compressed(HERE / f"smp_{case}.npz", **out)
        lines = ",\n".join(f"{json.dumps(c)}: {json.dumps(s)}" for c, s in sorted(shapes.items()))
        path.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
