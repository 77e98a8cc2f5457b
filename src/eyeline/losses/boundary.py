"""Boundary loss: Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019,
arXiv:1812.07032, sec. 2.

Departs: the paper's level set is the plain distance with its sign; the authors' code, which is
followed, has 0 on the pixels of the border within a region, 1 on those around it. They have no
ignored pixels: here those belong to no region and bound none.

Letters   B pictures, K classes, H and W their size.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage  # type: ignore[import-untyped]
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.losses.normaliser import batch_total
from eyeline.losses.pixels import pixels
from eyeline.ops.labels import IGNORE, check_labels


def boundary_loss(
    logits: Tensor, target: Tensor, distances: Tensor | None = None, ignore: int = IGNORE
) -> Tensor:
    """Mean over labelled pixels and classes of p times the signed distance: ().

    In pixels, and below 0 where the regions are right: probability is pushed to where its class
    is, the harder the farther away. It is meant to be added to a loss of regions (Dice), with a
    weight that grows during training, as the authors do; alone it may collapse.

    logits     (B, K, H, W), any number; with K = 1 the one class's sigmoid alone counts
    target     (B, H, W) int64, classes 0 .. K-1, or `ignore`
    distances  (B, K, H, W), `signed_distances` of the target (with K = 1 of two classes: K is 2);
               without them they are computed on the CPU, which a GPU waits for: tens of
               milliseconds a picture and class, so with many classes have a data loader do it

    Without a labelled pixel 0 with gradients 0.
    """
    batch = pixels(logits, target, ignore)
    if distances is None:
        distances = signed_distances(target, batch.logits.shape[1], ignore)
    elif distances.shape != batch.logits.shape:
        raise EyelineError(
            f"distances are {tuple(distances.shape)}, not {tuple(batch.logits.shape)} as the logits"
        )
    phi = distances.to(batch.logits)[:, batch.first :]
    p = batch.probabilities()[:, batch.first :]
    return (p * phi).sum() / phi.shape[1] / batch_total(batch.valid.sum(), len(logits))


def signed_distances(target: Tensor, num_classes: int, ignore: int = IGNORE) -> Tensor:
    """How far each pixel is from each class's region, (B, K, H, W) float32, no gradient.

    target  (B, H, W), classes 0 .. K-1, or `ignore`; any device, the result's too

    In pixels, centre to centre. Outside a region above 0, to its nearest pixel; within it 0 and
    below, 1 minus that to the nearest labelled pixel of another class. 0 where a pixel is ignored,
    of a class that a picture has not, and of one that is all that is labelled.

    Raises EyelineError for a label that is neither a class nor `ignore`.
    """
    labels = target.detach().cpu().long()
    check_labels(labels, num_classes, "a target", ignore)
    maps = labels.numpy()
    result = np.zeros((len(maps), num_classes, *maps.shape[1:]), np.float32)
    for picture, out in zip(maps, result, strict=True):
        valid = picture != ignore
        for k in np.unique(picture[valid]):
            inside = picture == k
            other = valid & ~inside
            if other.any():
                away = ndimage.distance_transform_edt(~inside)
                away -= np.where(inside, ndimage.distance_transform_edt(~other) - 1, 0)
                out[k] = np.where(valid, away, 0)
    return torch.from_numpy(result).to(target.device)
