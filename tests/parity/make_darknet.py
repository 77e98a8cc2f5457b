"""What OpenCV's DNN module makes of our weights: `yolov3.npz` and its sisters.

Two steps, for OpenCV 4 lies in an environment of its own:

    PYTHONPATH=src:tests/parity python tests/parity/make_darknet.py write FOLDER
    PYTHONPATH=tests/parity OTHER_PYTHON tests/parity/make_darknet.py read FOLDER PICTURE

PICTURE is tiny_coco's 000000037777.jpg; 128 x 128 pixels of it are seen, and 3 classes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from darknet import CFGS, model_of, write_weights
from darknet_layers import LAYERS

CLASSES, SIDE = 3, 128
GAIN = 8  # of the last convolutions, so that outputs spread as a trained network's


def arrays(shapes):
    from fill import fill

    made = fill(shapes)
    for name in made:
        if ".output." in name:
            made[name] = made[name] * np.float32(GAIN)
        elif ".wide.norm." in name and name.endswith("weight"):
            made[name] = made[name] * np.float32(0.3)  # as training leaves a block's last norm
    return made


def write_layers(folder, name):
    """One of LAYERS, and its weights, filled by the layers' numbers."""
    from eyeline.checkpoints.darknet import convolutions
    from eyeline.checkpoints.darknet_cfg import network_of

    path = folder / f"{name}.cfg"
    path.write_text(LAYERS[name](CLASSES, SIDE))
    _, sections, network = network_of(path)
    made = arrays({key: list(value.shape) for key, value in network.state_dict().items()})
    for i, section in enumerate(sections):
        if str(i) in network.ends:
            made[f"{i}.conv.weight"] *= np.float32(
                GAIN / 2 if name in ("two_heads", "region") else GAIN
            )
        elif section.kind == "shortcut":
            made[f"{i - 1}.norm.weight"] *= np.float32(0.3)
    order = [(conv, norm) for conv, norm, _ in convolutions(network)]
    write_weights(folder / f"{name}.weights", made, order)


def write(folder):
    import torch

    from eyeline.checkpoints.darknet import convolutions
    from eyeline.registry import create_model

    for name, cfg in CFGS.items():
        with torch.device("meta"):
            ours, options = model_of(name)
            model = create_model(ours, num_classes=CLASSES, convention="darknet", **options)
        shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
        order = [(conv, norm) for conv, norm, _ in convolutions(model)]
        write_weights(folder / f"{name}.weights", arrays(shapes), order)
        (folder / f"{name}.cfg").write_text(cfg(CLASSES, SIDE))
    for name in LAYERS:
        write_layers(folder, name)


def read(folder, picture):
    import cv2

    image = cv2.imread(picture)[100 : 100 + SIDE, 40 : 40 + SIDE]
    blob = cv2.dnn.blobFromImage(image, 1 / 255, swapRB=True)
    for name in [*CFGS, *LAYERS]:
        net = cv2.dnn.readNetFromDarknet(
            str(folder / f"{name}.cfg"), str(folder / f"{name}.weights")
        )
        net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
        net.setInput(blob)
        names = net.getLayerNames()
        heads = [layer for layer in names if layer.startswith(("yolo_", "detection_out"))]
        raw = [
            [before for before in names[: names.index(head)] if before.startswith("conv_")][-1]
            for head in heads
        ]
        found = dict(zip(heads + raw, net.forward(heads + raw), strict=True))
        values = {f"raw.{i}": found[layer][0] for i, layer in enumerate(raw)}
        values |= {
            f"boxes.{i}": found[layer].reshape(-1, 5 + CLASSES) for i, layer in enumerate(heads)
        }
        values["opencv"] = np.array(cv2.__version__)
        values["pixels"] = image[::16, ::16, ::-1].copy()  # a JPEG decodes differently elsewhere
        for key, value in values.items():
            print(
                name,
                key,
                value.shape,
                value.min() if value.dtype == "f4" else "",
                value.max() if value.dtype == "f4" else "",
            )
        file = f"darknet_{name}.npz" if name in LAYERS else f"{name}.npz"
        np.savez_compressed(Path(__file__).with_name(file), **values)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        read(Path(sys.argv[2]), sys.argv[3])
