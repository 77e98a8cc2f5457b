"""Less memory for more time: activations that are computed again in the backward pass.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, arXiv:1604.06174.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from eyeline.errors import EyelineError


@contextmanager
def recomputing(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Within, each block of the backbone's stages keeps its input alone for the backward pass.

    The gradients are the same; running statistics are updated once, not twice.

    Raises:
        EyelineError: the model has no backbone made of stages (`nn.Sequential` of blocks).
    """
    blocks = stage_blocks(model) if wanted else []
    for block in blocks:
        block.forward = MethodType(_forward, block)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the class's own is seen again


def stage_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of all stages of `model.backbone`."""
    backbone = getattr(model, "backbone", None)
    parts = backbone.children() if isinstance(backbone, nn.Module) else ()
    stages = [part for part in parts if isinstance(part, nn.Sequential)]
    if not stages:
        name = getattr(model, "name", type(model).__name__)
        raise EyelineError(
            f"checkpoint_activations: {name} has no backbone of stages; set it to false"
        )
    return [block for stage in stages for block in stage]


def _forward(block: nn.Module, *inputs: Any) -> Any:
    """`forward` of a block that is computed twice."""
    plain = partial(type(block).forward, block)
    if not torch.is_grad_enabled():
        return plain(*inputs)
    return checkpoint(
        plain,
        *inputs,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _statistics_rest(block)),
    )


@contextmanager
def _statistics_rest(block: nn.Module) -> Iterator[None]:
    """Within, norms in train mode normalise as ever and leave their running statistics alone."""
    norms = [m for m in block.modules() if isinstance(m, _NormBase) and m.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
