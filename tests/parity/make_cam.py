"""Writes cam.npz: the class activation maps of pytorch-grad-cam on torchvision's ResNet-18.

    python tests/parity/make_cam.py path/to/shared/data    # torchvision 0.28.0, grad-cam 1.5.7

The weights are those of resnet18.npz. Maps are at the features' own size; Eigen-CAM's projections
are kept with their signs, which are the decomposition's accident.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from fill import fill
from PIL import Image
from pytorch_grad_cam import EigenCAM, GradCAM, GradCAMPlusPlus, HiResCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchvision.transforms.functional import normalize

HERE = Path(__file__).parent
PICTURES = ("000000006818", "000000037777")
METHODS = {
    "grad-cam": GradCAM,
    "grad-cam++": GradCAMPlusPlus,
    "hires-cam": HiResCAM,
    "eigen-cam": EigenCAM,
}
LAYERS = {"C3": "layer2", "C4": "layer3", "C5": "layer4"}


def main(data: Path) -> None:
    with np.load(HERE / "resnet18.npz") as file:
        prefix = "calibration."
        calibration = {k.removeprefix(prefix): v for k, v in file.items() if k.startswith(prefix)}
    shapes = json.loads((HERE / "shapes.json").read_text())["resnet18"]
    arrays = fill(shapes, calibration)
    model = torchvision.models.resnet18(weights=None).eval()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    out: dict[str, np.ndarray] = {}
    for i, name in enumerate(PICTURES):
        with Image.open(data / "tiny_coco" / "val2017" / f"{name}.jpg") as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB"))[:224, :224]).permute(2, 0, 1)
        x = normalize(pixels / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])[None]
        label = int(model(x).argmax())
        out[f"{i}.label"] = np.array(label)
        targets = [ClassifierOutputTarget(label)]
        for method, kind in METHODS.items():
            for layer, module in LAYERS.items():
                cam = kind(model, [getattr(model, module)])
                large = cam(x, targets)[0]
                if method == "grad-cam":
                    out[f"{i}.{method}.{layer}.large"] = large[::8, ::8]
                seen = cam.activations_and_grads
                gradients = seen.gradients[0].numpy() if seen.gradients else None
                raw = cam.get_cam_image(
                    x, module, targets, seen.activations[0].numpy(), gradients, False
                )
                if method != "eigen-cam":
                    raw = scale_cam_image(np.maximum(raw, 0))
                out[f"{i}.{method}.{layer}"] = raw[0]
                seen.release()
    np.savez_compressed(HERE / "cam.npz", **out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
