"""Optimizers, and which parameters get which weight decay and learning rate."""

from __future__ import annotations

import torch
from torch import nn

from eyeline.training.recipe import Optimizer


def parameter_groups(model: nn.Module, options: Optimizer) -> list[dict[str, object]]:
    """The trainable parameters, split by weight decay and learning rate; empty groups left out.

    Biases and the weights of norms (every parameter with fewer than two axes) go without decay
    if `no_decay_on_norms`; those below `model.backbone` learn at `lr * backbone_lr_factor`.
    """
    spare = options.no_decay_on_norms
    if spare is None:
        spare = options.name == "adamw"
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (name.startswith("backbone."), spare and parameter.ndim < 2)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": options.lr * (options.backbone_lr_factor if in_backbone else 1.0),
            "weight_decay": 0.0 if spared else options.weight_decay,
        }
        for (in_backbone, spared), parameters in groups.items()
    ]


def build_optimizer(model: nn.Module, options: Optimizer) -> torch.optim.Optimizer:
    """The optimizer of a recipe over the model's trainable parameters."""
    groups = parameter_groups(model, options)
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, fused=True)
    kind = torch.optim.AdamW if options.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=options.lr, betas=(options.momentum, 0.999), fused=True)
