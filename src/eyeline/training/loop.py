"""The training loop: data, forward, backward, step, evaluate, save; read it from top to bottom.

It learns nothing about any model: `model(images, targets)` gives a dictionary of losses, each a
mean over the batch, and their sum is made small. Several GPUs and machines run through torchrun::

    torchrun --nproc-per-node=4 --no-python eyeline train recipes/bccd_retinanet.yaml
"""

from __future__ import annotations

import math
import random
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from eyeline.data.datasets import open_dataset
from eyeline.data.loader import Loader, build_loader
from eyeline.data.transforms import from_names
from eyeline.errors import EyelineError
from eyeline.evaluation.evaluate import eval_mode, evaluate
from eyeline.metrics.detection import COCO_NUMBERS
from eyeline.registry import create_model, find_entry
from eyeline.structures import Batch
from eyeline.training.checks import check_data, check_finite
from eyeline.training.logs import Log
from eyeline.training.optimizers import build_optimizer
from eyeline.training.parallel import any_process, share_gradients, start_processes
from eyeline.training.recipe import Recipe, load_recipe, merge
from eyeline.training.saving import Position, RunFolder
from eyeline.training.schedules import build_schedule

Metrics = Mapping[str, float | None]
Measure = Callable[[nn.Module], Metrics]


@dataclass(frozen=True)
class Run:
    """What `train` leaves behind."""

    folder: Path
    metrics: Metrics  # of the last epoch that was evaluated; empty: none was
    best: float | None  # the best value of the metric that decides


def train_recipe(recipe: Recipe, resume: bool = False) -> Run:
    """Open the data and build the model that a recipe names, and train."""
    if recipe.model is None or recipe.data.path is None:
        raise EyelineError("a recipe needs model.name and data.path")
    entry = find_entry(recipe.model.name)
    if entry.task != "detection":
        raise EyelineError(f"{entry.name} is for {entry.task}; only detectors can be trained yet")
    data, path = recipe.data, recipe.data.path
    if data.val is not None and Path(path).is_file():
        raise EyelineError(
            f"{path} is one split: give the folder that holds train and val, or data.val=null"
        )
    common: dict[str, Any] = {"masks": data.masks, "bad_boxes": data.bad_boxes, "seed": recipe.seed}
    transforms = from_names(data.transforms)
    dataset = open_dataset(path, data.train, recipe.classes, transforms, **common)
    val_dataset = None
    if data.val is not None:
        val_dataset = open_dataset(path, data.val, dataset.classes, **common)
    seed_generators(recipe.seed)  # for the first weights
    model = create_model(
        recipe.model.name, classes=dataset.classes, weights=recipe.weights, **recipe.model.options
    )
    if recipe.weights is not None:
        print(f"{recipe.weights}: {model.load_report}", flush=True)
    return train(model, dataset, val_dataset, recipe, resume=resume)


def train(
    model: nn.Module,
    dataset: Dataset[Any],
    val_dataset: Dataset[Any] | None = None,
    recipe: Recipe | None = None,
    *,
    resume: bool = False,
    measure: Measure | None = None,
    **fields: Any,
) -> Run:
    """Train a model; its weights, numbers and the state to resume from go to a run folder.

    Args:
        model: model(images, targets) -> dictionary of scalar losses. If it has `prepare`, that
            runs in the loader's workers, and the model gets the Batch.
        dataset: yields (image (3, H, W), target).
        val_dataset: the same, for the losses and the metrics after each epoch.
        recipe: how; its `model`, `weights`, `classes` and `data.path` are not used here.
        resume: go on with the run in `out`, exactly where it stopped.
        measure: gives a model's metrics; by default COCO's and VOC's on `val_dataset`.
        fields: of the recipe, over `recipe`: epochs=10, optimizer={"lr": 1e-3}, out="runs/a" ...

    Raises:
        EyelineError: model, data and recipe disagree; the run folder exists; a loss that is not
            finite.
        KeyboardInterrupt: Ctrl-C, after the step is finished and the state saved.
    """
    recipe = load_recipe(merge(recipe.model_dump() if recipe else {}, fields))
    check_data(model, dataset, val_dataset)
    rank, device = start_processes(recipe.device)
    # Pictures are channels-last; so must weights be, or each convolution reorders them.
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    prepare, workers = getattr(model, "prepare", None), recipe.data.workers
    loader = build_loader(dataset, recipe.batch_size, prepare, True, workers, recipe.seed)
    val_loader = None
    if val_dataset is not None:
        val_loader = build_loader(val_dataset, recipe.eval.batch_size, prepare, False, workers)
    if measure is None and val_dataset is not None:
        measure = _detection_metrics(val_dataset, recipe)
    steps_per_epoch = math.ceil(len(loader) / recipe.accumulate)
    optimizer = build_optimizer(model, recipe.optimizer)
    schedule = build_schedule(optimizer, recipe.schedule, recipe.epochs, steps_per_epoch)

    folder = RunFolder(recipe, getattr(model, "name", "model"), resume, writes=rank == 0)
    at = Position(batches=len(loader))
    if resume:
        at = folder.load_state(model, optimizer, schedule, len(loader))
    shared = share_gradients(model, device)
    log = Log(folder, recipe, recipe.epochs * steps_per_epoch, at)
    metrics: Metrics = {}

    with folder, log, Interrupt() as interrupt:
        folder.save_model_file(model)
        while at.epoch < recipe.epochs:
            loader.set_epoch(at.epoch, start=at.batch)
            model.train()
            log.start_epoch()
            for group in _groups(iter(loader), recipe.accumulate):
                seed_generators(recipe.seed, at.epoch, at.step, rank)
                where = f"epoch {at.epoch + 1}, step {at.step + 1}"
                losses = _backward(shared, group, device, recipe.precision, where)
                norm = _clip_gradients(model, recipe.clip_norm, group, where)
                optimizer.step()
                optimizer.zero_grad()
                lr = float(schedule.get_last_lr()[-1])
                schedule.step()
                at.advance(len(group), sum(map(_size, group)), losses)
                log.step(losses, lr, norm, device)
                if any_process(interrupt.wanted, device):
                    folder.save_weights(model, "last")
                    folder.save_state(model, optimizer, schedule, at)
                    raise KeyboardInterrupt

            val_losses, now = {}, {}
            if folder.writes and measure and val_loader and _due(at.epoch + 1, recipe):
                folder.save_state(model, optimizer, schedule, at)
                with interrupt.at_once():  # nothing to wait for: the state is saved
                    val_losses = _validation_losses(model, val_loader, device, recipe.precision)
                    metrics = now = {**measure(model), "loss": sum(val_losses.values())}
                if _better(metrics, recipe.eval.metric, at.best):
                    at.best = metrics[recipe.eval.metric]
                    folder.save_weights(model, "best")
            log.epoch(val_losses, now)
            at.next_epoch()
            folder.save_weights(model, "last")
            folder.save_state(model, optimizer, schedule, at)
    return Run(folder.path, metrics, at.best)


def _backward(
    model: nn.Module, group: list[Any], device: torch.device, precision: str, where: str
) -> dict[str, float]:
    """Add the gradients of a step, split into batches, as if it were one; gives its losses."""
    pictures = sum(map(_size, group))
    losses: dict[str, float] = {}
    for batch in group:
        share = _size(batch) / pictures
        alone = batch is group[-1] or not hasattr(model, "no_sync")
        # Processes exchange gradients once a step, with its last batch.
        with nullcontext() if alone else model.no_sync():  # type: ignore[operator]
            with _autocast(device, precision):
                parts: dict[str, Tensor] = model(*_move(batch, device))
            each = torch.stack([value.float() for value in parts.values()])
            values = dict(zip(parts, each.tolist(), strict=True))
            check_finite(values, [batch], where)
            (each.sum() * share).backward()
        losses = {name: losses.get(name, 0.0) + share * values[name] for name in values}
    return losses


def _clip_gradients(
    model: nn.Module, clip_norm: float | None, group: list[Any], where: str
) -> float:
    """Scale the gradients down to a norm of `clip_norm`; gives the norm they had."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    value = norm.item()
    check_finite({"the gradients' norm": value}, group, where)
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    return value


@torch.no_grad()
def _validation_losses(
    model: nn.Module, loader: Loader, device: torch.device, precision: str
) -> dict[str, float]:
    """Mean of each loss over the pictures, in eval mode."""
    at = Position()
    with eval_mode(model), _autocast(device, precision):
        for batch in loader:
            parts: dict[str, Tensor] = model(*_move(batch, device))
            at.advance(1, _size(batch), {name: value.item() for name, value in parts.items()})
    return at.mean_losses()


def _detection_metrics(dataset: Dataset[Any], recipe: Recipe) -> Measure:
    known = [*COCO_NUMBERS, "AP_11point", "AP_every_point", "loss"]
    if recipe.eval.metric not in known:
        raise EyelineError(
            f"eval.metric: there is no {recipe.eval.metric!r}; choose one of {', '.join(known)}"
        )

    def measure(model: nn.Module) -> Metrics:
        report = evaluate(
            model,
            dataset,
            recipe.eval.batch_size,
            precision=recipe.precision,
            progress=False,
            workers=recipe.data.workers,
        )
        return {**report.coco, **report.voc}

    return measure


def _due(epoch: int, recipe: Recipe) -> bool:
    """Is there an evaluation after this epoch, from 1? After the last one there always is."""
    every = recipe.eval.every
    return every > 0 and (epoch % every == 0 or epoch == recipe.epochs)


def _better(metrics: Metrics, name: str, best: float | None) -> bool:
    if name not in metrics:
        raise EyelineError(f"eval.metric: there is no {name!r} among {', '.join(metrics)}")
    value = metrics[name]
    if value is None or math.isnan(value):
        return False
    return best is None or (value < best if name == "loss" else value > best)


def _groups(batches: Iterator[Any], count: int) -> Iterator[list[Any]]:
    """The batches of each step; the last one may have fewer."""
    while group := list(islice(batches, count)):
        yield group


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _size(batch: Any) -> int:
    """Pictures in a batch of the loader."""
    return len(batch) if isinstance(batch, Batch) else len(batch[0])


def _move(batch: Any, device: torch.device) -> tuple[Any, ...]:
    """The model's arguments, on its device: (Batch,) or (images, targets)."""
    if isinstance(batch, Batch):
        return (batch.to(device, non_blocking=True),)
    images, targets = batch
    images = [image.to(device, non_blocking=True) for image in images]
    return images, [{k: v.to(device, non_blocking=True) for k, v in t.items()} for t in targets]


def seed_generators(*key: int) -> None:
    """What is drawn from here on depends on nothing but the key: a resumed run draws the same."""
    a, b, c = (int(word) for word in np.random.SeedSequence(key).generate_state(3))
    random.seed(a)
    np.random.seed(b)
    torch.manual_seed(c)


class Interrupt:
    """Ctrl-C waits for the end of the step, `wanted` says that it came; a second one does not."""

    wanted = False

    def __enter__(self) -> Interrupt:
        # Only the main thread can hear signals.
        self.listens = threading.current_thread() is threading.main_thread()
        if self.listens:
            self.before = signal.signal(signal.SIGINT, self._heard)
        return self

    def __exit__(self, *error: object) -> None:
        if self.listens:
            signal.signal(signal.SIGINT, self.before)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, Ctrl-C does not wait."""
        before, self.wanted = self.wanted, True
        try:
            yield
        finally:
            self.wanted = before
