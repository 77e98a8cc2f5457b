"""What the loop and its trials share: a model made ready, and one step of its training."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from copy import deepcopy
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.utils.data import Dataset

from eyeline.device import autocast, find_device
from eyeline.errors import EyelineError
from eyeline.structures import Batch
from eyeline.training.checks import NotFinite, check_data, check_finite
from eyeline.training.freezing import freeze
from eyeline.training.optimizers import build_optimizer
from eyeline.training.recipe import Recipe, load_recipe, merge


def set_up(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """Move the model to the device and freeze what is not to learn; the optimizer of the rest."""
    # Pictures are channels-last; so must weights be, or each convolution reorders them.
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    freeze(model, recipe.freeze)
    return build_optimizer(model, recipe.optimizer)


class TrialModel(NamedTuple):
    """A copy of a model that is trained for a few steps, to learn something about them."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    recipe: Recipe
    device: torch.device


def start_trial(
    model: nn.Module, dataset: Dataset[Any], recipe: Recipe | None, fields: Mapping[str, Any]
) -> TrialModel:
    """With the recipe's optimizer, frozen parts and so on, `fields` over it.

    Raises:
        EyelineError: model, data and recipe disagree.
    """
    recipe = load_recipe(merge(recipe.model_dump() if recipe else {}, fields))
    check_data(model, dataset, None)
    device = find_device(recipe.device)
    copy = deepcopy(model).train()
    return TrialModel(copy, set_up(copy, recipe, device), recipe, device)


class Step(NamedTuple):
    """What became of a step."""

    losses: dict[str, float]  # means over its pictures
    norm: float  # of the gradients, before they were clipped
    taken: bool  # False: scaled gradients overflowed, and the weights are as before


def train_step(
    model: nn.Module,
    group: list[Any],
    optimizer: torch.optim.Optimizer,
    scaler: GradScaler,
    recipe: Recipe,
    device: torch.device,
    where: str,
) -> Step:
    """One step over a group of batches: forward, backward, clip, step.

    Raises:
        NotFinite: a loss or the gradients' norm is no number, and the step was not taken; in every
            process, if it is so in one. `where` says at which step.
    """
    names, values = backward(model, group, device, recipe.precision, scaler)
    scaler.unscale_(optimizer)
    norm = clip_gradients(model, recipe.clip_norm)
    rows, value = look(values, norm)
    sizes = [size(batch) / sum(map(size, group)) for batch in group]
    columns = zip(*rows, strict=True)
    means = [sum(s * v for s, v in zip(sizes, column, strict=True)) for column in columns]
    losses = dict(zip(names, means, strict=True))
    if not scaler.is_enabled():
        try:
            for row, batch in zip(rows, group, strict=True):
                check_finite(dict(zip(names, row, strict=True)), [batch], where)
            check_finite({"the gradients' norm": value}, group, where)
        except NotFinite as error:
            error.losses, error.norm = losses, value
            optimizer.zero_grad()
            raise
    return Step(losses, value, take_step(optimizer, scaler))


def look(values: list[Tensor], norm: Tensor) -> tuple[list[list[float]], float]:
    """A step's one look at the device: each batch's losses, and the gradients' norm. Until here
    the host has only asked, and a GPU may still be far behind it."""
    *rows, (first, *_) = torch.stack([*values, norm.expand_as(values[0])]).tolist()
    return rows, first


def groups(batches: Iterable[Any], count: int) -> Iterator[list[Any]]:
    """The batches of each step; the last one may have fewer."""
    batches = iter(batches)
    while group := list(islice(batches, count)):
        yield group


def loss_scaler(device: torch.device, precision: str) -> GradScaler:
    """Of fp16, whose small gradients would vanish: losses are multiplied by a scale that halves
    when gradients overflow and doubles after 2000 good steps (Micikevicius et al., "Mixed
    Precision Training", ICLR 2018, sec. 3.2). Disabled, it passes everything on, for the others.

    Raises:
        EyelineError: the device cannot compute in half precision.
    """
    if precision == "fp16":
        try:
            x = torch.ones(1, 1, 3, 3, device=device, dtype=torch.float16, requires_grad=True)
            F.conv2d(x, x).sum().backward()
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise EyelineError(
                f"precision: fp16 does not work on {device.type} ({reason}); take bf16 or float32"
            ) from error
    return GradScaler(device.type, enabled=precision == "fp16")


def backward(
    model: nn.Module,
    group: list[Any],
    device: torch.device,
    precision: str,
    scaler: GradScaler,
) -> tuple[list[str], list[Tensor]]:
    """Add the gradients of a step, split into batches, as if it were one; gives the names of the
    losses, and of each batch their values (L,), float32.

    A loss that is not finite makes all gradients NaN, so that every process sees it.
    """
    pictures = sum(map(size, group))
    names: list[str] = []
    values = []
    for batch in group:
        share = size(batch) / pictures
        alone = batch is group[-1] or not hasattr(model, "no_sync")
        # Processes exchange gradients once a step, with its last batch.
        with nullcontext() if alone else model.no_sync():  # type: ignore[operator]
            with autocast(device, precision):
                parts: dict[str, Tensor] = model(*move(batch, device))
            names = names or list(parts)
            if set(parts) != set(names):
                raise EyelineError(
                    f"the model's losses are {', '.join(names)} for one batch and "
                    f"{', '.join(parts)} for another; they must have the same names"
                )
            each = torch.stack([parts[name].float() for name in names])
            factor = torch.where(each.isfinite().all(), share, math.nan)
            scaler.scale(each.sum() * factor).backward()
        values.append(each.detach())
    return names, values


def clip_gradients(model: nn.Module, clip_norm: float | None) -> Tensor:
    """Scale the gradients down to a norm of `clip_norm`; gives the norm they had, ()."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    return norm


def take_step(optimizer: torch.optim.Optimizer, scaler: GradScaler) -> bool:
    """Step, unless scaled gradients overflowed; says whether it did. Then no gradient is left."""
    before = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    return scaler.get_scale() >= before


def size(batch: Any) -> int:
    """Pictures in a batch of the loader."""
    return len(batch) if isinstance(batch, Batch) else len(batch[0])


def move(batch: Any, device: torch.device) -> tuple[Any, ...]:
    """The model's arguments, on its device: (Batch,) or (images, targets)."""
    if isinstance(batch, Batch):
        return (batch.to(device, non_blocking=True),)
    images, targets = batch
    images = [image.to(device, non_blocking=True) for image in images]
    return images, [{k: v.to(device, non_blocking=True) for k, v in t.items()} for t in targets]


def seed_generators(*key: int) -> None:
    """What is drawn from here on, on any device, depends on nothing but the key: a resumed run
    draws the same."""
    a, b, c = (int(word) for word in np.random.SeedSequence(key).generate_state(3))
    random.seed(a)
    np.random.seed(b)
    torch.manual_seed(c)
