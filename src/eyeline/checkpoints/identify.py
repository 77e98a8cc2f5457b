"""Whose checkpoint a state dict is: each family's reader is asked in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eyeline.checkpoints import (
    detectron2,
    eyeline,
    fcn,
    hrnet,
    light,
    lufficc,
    luuuyi,
    mmdetection,
    smp,
    smp_dilated,
    torchvision,
    torchvision_segmentation,
    vgg,
    yhenon,
)
from eyeline.checkpoints.families import looks_like
from eyeline.checkpoints.source import Checkpoint, State, some
from eyeline.errors import EyelineError, one_line


def identify(
    state: State, metadata: dict[str, Any], where: str, num_classes: int | None, skip: Sequence[str]
) -> Checkpoint | None:
    """What a state dict is, by the first family that knows it; detectron2's, whose box heads have
    torchvision's names, and VGG16's, whose classifier has, stand before that, and `smp_dilated`
    before `smp`, which refuses what it does not know."""
    how = (state, where, num_classes, tuple(skip))
    try:
        return (
            eyeline.read(state, metadata, where)
            or smp_dilated.read(state, where, tuple(skip))
            or smp.read(state, where, tuple(skip))
            or torchvision_segmentation.read(state, where, tuple(skip))
            or light.read(state, where, tuple(skip))
            or hrnet.read(state, where, tuple(skip))
            or fcn.read(state, where, tuple(skip))
            or lufficc.read(state, where, tuple(skip))
            or luuuyi.read(state, where, tuple(skip))
            or mmdetection.read(state, metadata, where, tuple(skip))
            or yhenon.read(state, where, tuple(skip))
            or detectron2.read(*how)
            or vgg.read(state, where, tuple(skip))
            or torchvision.read(*how)
        )
    except EyelineError:
        raise
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {one_line(error)}"
        raise EyelineError(f"{where}: tensors of unexpected names or shapes ({what})") from error


def unknown(state: State, where: str) -> EyelineError:
    """What to say where none knows it."""
    family = looks_like(state)
    like = f"it looks like {family}, which is not read" if family else f"with {some(state)}"
    return EyelineError(
        f"{where} is a checkpoint of an unknown kind, {like}; known are eyeline's own, "
        "torchvision's ResNets, VGG16, MobileNetV2, Faster R-CNN, Mask R-CNN, RetinaNet, SSD, FCN "
        "and DeepLabV3, timm's aligned Xception, detectron2's and mmdetection's detectors of these "
        "kinds, segmentation-models-pytorch's, HRNets of its authors, FCNs of "
        "wkentaro/pytorch-fcn, lufficc/SSD's with VGG16, "
        "luuuyi/RefineDet.PyTorch's, yhenon/pytorch-retinanet's, and darknet's .weights"
    )
