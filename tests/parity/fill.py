"""Weights for parity tests, made from nothing but names and shapes, the same on every machine.

Each tensor comes from its own generator, seeded by its name. Scales follow the fan-in, so that
activations stay in a trained network's range, and the traps of published files are laid on purpose:

- a fifth of the norms' variances lie in 1e-6 .. 1e-3, with weights as small as their roots: there
  an epsilon of 1e-5 where 0 is meant is no rounding error;
- the class slots that COCO does not use score about -20, as in trained files;
- class scores spread, so that dozens of detections pass the threshold (see `calibration`).
"""

from __future__ import annotations

from zlib import crc32

import numpy as np

# Category ids of COCO that no picture has; 0 is background in softmax heads, unused in others.
UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


def fill(
    shapes: dict[str, list[int]], calibration: dict[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """A float32 array (counters: int64) for each name.

    `calibration` is what `make_torchvision.py` found on the test's pictures: for some weights a
    factor, for some biases their values. It gives a layer outputs without a mean and of a chosen
    spread, as training does; random weights alone say the same at every place of a picture.
    """
    arrays = {name: values(name, tuple(shape)) for name, shape in shapes.items()}
    for name, value in (calibration or {}).items():
        arrays[name] = value if name.endswith(".bias") else arrays[name] * value
    return arrays


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng(crc32(name.encode()))
    layer, kind = name.rsplit(".", 1)
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if kind == "running_var":
        return variances(layer, shape[0])
    if kind == "running_mean":
        return (0.1 * random.standard_normal(shape)).astype(np.float32)
    if kind == "weight" and len(shape) == 1:  # a norm's: roots of its variances, times about 1
        # The last norm of a block is damped, as training leaves it, lest the sums grow.
        gain = 0.3 if layer.endswith("bn3") else 1.0
        spread = random.uniform(0.7, 1.3, shape) * gain
        return (spread * np.sqrt(variances(layer, shape[0]))).astype(np.float32)
    array = random.standard_normal(shape, np.float32)
    array *= np.float32(np.prod(shape[1:]) ** -0.5 if kind == "weight" else 0.1)
    if layer == "fc":
        array *= 3
    return with_unused_slots(layer, kind, array)


def variances(layer: str, channels: int) -> np.ndarray:
    """Log-uniform: 0.2 .. 2, and for a fifth of the channels 1e-6 .. 1e-3."""
    random = np.random.default_rng(crc32(f"{layer}.running_var".encode()))
    usual = random.uniform(np.log(0.2), np.log(2), channels)
    small = random.uniform(np.log(1e-6), np.log(1e-3), channels)
    return np.exp(np.where(random.random(channels) < 0.2, small, usual)).astype(np.float32)


def with_unused_slots(layer: str, kind: str, array: np.ndarray) -> np.ndarray:
    """Rows of COCO's unused slots (of each anchor, where a cell has several) score -20."""
    if not layer.endswith(("box_predictor.cls_score", "classification_head.cls_logits")):
        return array
    if len(array) % 91:
        return array
    rows = array.reshape(-1, 91, *array.shape[1:])
    unused = list(UNUSED) if "box_predictor" in layer else [0, *UNUSED]
    rows[:, unused] = 0 if kind == "weight" else -20
    return rows.reshape(array.shape)
