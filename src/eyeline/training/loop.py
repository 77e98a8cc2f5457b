"""The training loop: data, forward, backward, step, evaluate, save; read it from top to bottom.

It learns nothing about any model: `model(images, targets)` gives a dictionary of losses, each a
mean over the batch, and their sum is made small. Several GPUs and machines run through torchrun::

    torchrun --nproc-per-node=4 --no-python eyeline train recipes/bccd_retinanet.yaml
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from eyeline.data.loader import Loader, build_loader
from eyeline.device import autocast
from eyeline.errors import EyelineError
from eyeline.evaluation.running import eval_mode
from eyeline.nn.detector import prepare_of
from eyeline.processes import any_process, in_order, of_all, of_first, place
from eyeline.together import together
from eyeline.training.build import build
from eyeline.training.checks import check_data, check_overflow
from eyeline.training.compiling import compiling
from eyeline.training.ema import AveragedModel
from eyeline.training.guard import Guard
from eyeline.training.interrupt import Interrupt
from eyeline.training.logs import Log
from eyeline.training.measures import Measure, Metrics, decided, measure_of, task_of
from eyeline.training.memory import evaluation_told
from eyeline.training.parallel import own_device, same_buffers, share_gradients, sync_norms
from eyeline.training.position import Position
from eyeline.training.recipe import Recipe, load_recipe, merge
from eyeline.training.recompute import recomputing
from eyeline.training.resuming import surroundings
from eyeline.training.saving import RunFolder
from eyeline.training.schedules import build_schedule
from eyeline.training.step import (
    groups,
    loss_scaler,
    move,
    seed_generators,
    set_up,
    size,
    train_step,
)

OnEpoch = Callable[[int, Metrics], bool]


@dataclass(frozen=True)
class Run:
    """What `train` leaves behind."""

    folder: Path
    metrics: Metrics  # of the last epoch that was evaluated; empty: none was
    best: float | None  # the best value of the metric that decides


@together()
def train_recipe(recipe: Recipe, resume: bool = False, on_epoch: OnEpoch | None = None) -> Run:
    """Open the data and build the model that a recipe names, and train."""
    model, dataset, val_dataset = build(recipe)
    if getattr(dataset, "masks", False):  # as a model that needs some has had them read
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"masks": True})})
    return train(model, dataset, val_dataset, recipe, resume=resume, on_epoch=on_epoch)


@together()
def train(
    model: nn.Module,
    dataset: Dataset[Any],
    val_dataset: Dataset[Any] | None = None,
    recipe: Recipe | None = None,
    *,
    resume: bool = False,
    measure: Measure | None = None,
    on_epoch: OnEpoch | None = None,
    **fields: Any,
) -> Run:
    """Train a model; its weights, numbers and the state to resume from go to a run folder.

    Args:
        model: model(images, targets) -> dictionary of scalar losses. If it has `prepare`, that
            runs in the loader's workers, and the model gets the Batch. With `ema` it keeps the
            weights of the last step; the averaged ones are in the run folder.
        dataset: yields (image (3, H, W), target).
        val_dataset: the same, for the losses and the metrics after each epoch; without it
            nothing is evaluated.
        recipe: how; its `model`, `weights`, `classes` and `data.path` are not used here.
        resume: go on with the run in `out`, exactly where it was saved; what is another than it
            was then, such as `batch_size`, is said.
        measure: gives a model's metrics; by default COCO's and VOC's on `val_dataset`, of a
            segmenter mIoU and others. All
            processes call it, and what the first one gets counts.
        on_epoch: called by the first process with the number, from 1, and the metrics of each epoch
            that was evaluated, before it is saved as done (so once more where it is resumed there);
            True ends the run.
        fields: of the recipe, over `recipe`: epochs=10, optimizer={"lr": 1e-3}, out="runs/a" ...

    Raises:
        EyelineError: model, data and recipe disagree; the run folder exists, or another process
            trains in it; a loss that is not finite (of fp16: for so long that a smaller scale
            cannot mend it); a step that does not fit into memory; the disk was full to the end.
        KeyboardInterrupt: Ctrl-C, after the step is finished and the state saved.
        SystemExit: SIGTERM, likewise; its status is 143.
    """
    recipe = load_recipe(merge(recipe.model_dump() if recipe else {}, fields))
    recipe = decided(recipe, task_of(model))
    check_data(model, dataset, val_dataset)
    device = own_device(recipe.device)
    prepare, workers = prepare_of(model), recipe.data.workers
    grouping = recipe.data.aspect_grouping
    sizes = (recipe.data.sizes, recipe.data.sizes_every)
    loader = build_loader(
        dataset, recipe.batch_size, prepare, True, workers, recipe.seed, grouping, *sizes
    )
    val_loader = None
    if val_dataset is not None:
        val_loader = build_loader(val_dataset, recipe.eval.batch_size, prepare, False, workers)
        measure = measure or measure_of(model, val_dataset, recipe)
    elif measure is not None:
        raise EyelineError("measure= is called after an evaluation, which needs val_dataset=")
    if recipe.stop_after and (val_loader is None or not recipe.eval.every):
        raise EyelineError(
            "stop_after waits for a better eval.metric: it needs validation data and eval.every"
        )
    steps_per_epoch = math.ceil(len(loader) / recipe.accumulate)
    total = recipe.epochs * steps_per_epoch
    norms = sync_norms(model, device, recipe.sync_norms)
    optimizer = set_up(model, recipe, device)
    scaler = loss_scaler(device, recipe.precision)
    state: dict[str, Any] = {"model": model, "optimizer": optimizer}
    if scaler.is_enabled():
        state["scaler"] = scaler
    ema = AveragedModel(model, recipe.ema) if recipe.ema else None
    if ema:
        state["ema"] = ema
    result = ema.model if ema else model  # what is evaluated and kept

    around, (rank, _) = surroundings(dataset, loader, device), place()
    folder = RunFolder(recipe, getattr(model, "name", "model"), resume, rank == 0, around)
    at = folder.load_state(state, loader) if resume else Position(batches=len(loader))
    left = at.steps_left(recipe.epochs, steps_per_epoch, recipe.accumulate)
    schedule = build_schedule(
        optimizer, recipe.schedule, recipe.epochs, steps_per_epoch, done=total - left
    )
    folder.tell_rate(float(schedule.get_last_lr()[-1]))
    shared = share_gradients(model, device)
    guard = Guard(model, loader, folder, device, rank)
    log = Log(folder, recipe, at.step + left, at)
    metrics: Metrics = {}
    recomputed = recomputing(model, recipe.checkpoint_activations)
    compiled = compiling(model, device, recipe.compile)  # after the average was copied from it

    with recomputed, compiled, folder, log, Interrupt() as interrupt:
        folder.save_model_file(model)
        folder.save_left_out(getattr(dataset, "left_out", []))
        if recipe.freeze:
            log.say(f"frozen: {_frozen(model)} parameters")
        if norms:
            log.say(norms)
        while at.epoch < recipe.epochs:
            loader.set_epoch(at.epoch, at.batch, at.dealt)
            at.batches = len(loader)
            model.train()
            log.start_epoch()
            for group in log.timed(groups(loader, recipe.accumulate)):
                seed_generators(recipe.seed, at.epoch, at.step, rank)
                where = f"epoch {at.epoch + 1}, step {at.step + 1}"
                step = partial(train_step, shared, group, optimizer, scaler, recipe, device, where)
                losses, norm, taken, pictures = guard.step(step, group, at, where)
                if ema and taken:
                    ema.update(model)
                lr = float(schedule.get_last_lr()[-1])
                schedule.step()
                at.advance(len(group), pictures, losses, taken)
                scale = scaler.get_scale() if scaler.is_enabled() else None
                log.step(losses, lr, norm, device, scale)
                if scaler.is_enabled() and not taken:
                    check_overflow(model, losses, at.skipped_running, where)
                if any_process(interrupt.wanted):
                    folder.save_weights(result, "last")
                    folder.save_state(state, at)
                    interrupt.stop()
                if folder.is_due(at):
                    folder.save_state(state, at)

            val_losses, now, enough = {}, {}, ""
            if measure and val_loader and _due(at.epoch + 1, recipe):
                folder.save_state(state, at)
                told = evaluation_told(f"epoch {at.epoch + 1}", recipe, device)
                same_buffers(result)
                with told, interrupt.at_once():  # nothing to wait for: the state is saved
                    val_losses = _validation_losses(result, val_loader, device, recipe.precision)
                    measured = of_first(measure(result))
                    metrics = now = {**measured, "loss": sum(val_losses.values())}
                if _better(metrics, recipe.eval.metric, at.best):
                    at.best, at.best_epoch = metrics[recipe.eval.metric], at.epoch + 1
                    folder.save_weights(result, "best")
                if at.epoch + 1 - at.best_epoch >= (recipe.stop_after or math.inf):
                    enough = f"{recipe.eval.metric} was best after epoch {at.best_epoch}"
                if any_process(bool(folder.writes and on_epoch and on_epoch(at.epoch + 1, now))):
                    enough = enough or "it was told to"
            log.epoch(val_losses, now, getattr(measure, "report", None) if now else None)
            at.next_epoch()
            at.stopped = bool(enough)
            folder.save_weights(result, "last")
            folder.save_state(state, at)
            if at.stopped and at.epoch < recipe.epochs:
                log.say(f"stopped: {enough}")
                break
        folder.check_saved()
    return Run(folder.path, metrics, at.best)


@torch.no_grad()
def _validation_losses(
    model: nn.Module, loader: Loader, device: torch.device, precision: str
) -> dict[str, float]:
    """Mean of each loss over the pictures, in eval mode; each process takes some of the batches."""
    own = []
    with eval_mode(model), autocast(device, precision):
        for batch in loader:
            parts: dict[str, Tensor] = model(*move(batch, device))
            own.append((size(batch), {name: value.item() for name, value in parts.items()}))
    at = Position()
    for pictures, losses in in_order(of_all(own)):
        at.advance(1, pictures, losses)
    return at.mean_losses()


def _frozen(model: nn.Module) -> str:
    """How many of all parameters do not learn."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return f"{sum(n for n, learns in sizes if not learns):,} of {sum(n for n, _ in sizes):,}"


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
