"""Where a model's time goes: inference and a training step, stage by stage, each beside what
the machine could do at best.

Times and work are measured apart, since counting slows everything down. Times are medians of
rounds, which take turns with calls that nobody watches, so that the price of watching shows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.export import calibrate, optimize
from eyeline.inspection.limits import Limits
from eyeline.inspection.meters import TimeMeter, WorkMeter
from eyeline.inspection.stages import (
    OWN_STAGES,
    Path,
    Recorder,
    Stage,
    build_stages,
    total,
    watching,
)
from eyeline.nn.segmenter import is_segmenter
from eyeline.structures import Target
from eyeline.training.recipe import Recipe
from eyeline.training.step import backward, clip_gradients, look, loss_scaler, set_up, take_step

OBJECTS = 10  # of a picture that is trained on
WARM_UP = 2  # calls that are not counted
# What is measured: called with a function that makes a part of it a stage.
Call = Callable[[Callable[[str], AbstractContextManager[Any]]], object]


@dataclass(frozen=True)
class Profile:
    """What was measured."""

    whole: list[float]  # seconds of each call that nobody watched
    sum: Stage  # the stages together
    limits: Limits
    uncounted: list[str]  # operators whose operations are not known

    @property
    def stages(self) -> list[Stage]:
        return self.sum.parts


def profile_inference(
    model: nn.Module,
    limits: Limits,
    size: tuple[int, int],
    batch: int = 1,
    precision: str = "float32",
    as_is: bool = False,
    trained: bool = True,
    rounds: int = 5,
    depth: int = 1,
) -> Profile:
    """From pictures in memory to detections or maps, on the model's device.

    Args:
        model: a detector or a segmenter; a copy is measured.
        size: height and width of the pictures, which the network sees as they are.
        precision: what `eyeline.optimize` knows; for int8 these pictures calibrate it.
        as_is: the model itself, not what `eyeline.optimize` makes of it.
        trained: False for weights that learned nothing: see `wake`.
        rounds: calls that are timed; as many more are timed as a whole.
        depth: 1 for the stages, 2 for their parts too ...
    """
    if as_is and precision != "float32":
        raise EyelineError(f"a model as it is computes in float32, not {precision}")
    pictures = [picture(size, seed) for seed in range(batch)]
    model = fixed_size(deepcopy(model), size)
    if not trained:
        wake(model, pictures, _targets(model, size, batch))
    device = next(model.parameters()).device
    ranges = calibrate(model.eval(), [pictures]) if precision == "int8" else None
    model = model.eval() if as_is else optimize(model, precision, ranges=ranges)
    return _measure(
        model, lambda stage: infer(model, pictures, device), device, limits, rounds, depth
    )


def profile_training(
    model: nn.Module,
    limits: Limits,
    size: tuple[int, int],
    recipe: Recipe,
    batch: int = 1,
    rounds: int = 5,
    depth: int = 1,
) -> Profile:
    """A step as the training loop makes it: forward, backward, clipping, optimizer.

    Pictures are prepared beforehand, as the loop has its workers do. Precision, optimizer and
    what is frozen come from the recipe; the learning rate is 0, so that all steps are alike.
    The other arguments are those of `profile_inference`.

    Raises:
        EyelineError: the recipe computes activations twice, which has no order of stages.
    """
    if recipe.checkpoint_activations:
        raise EyelineError("checkpoint_activations cannot be profiled; set it to false")
    model = fixed_size(deepcopy(model), size)
    device = next(model.parameters()).device
    optimizer = set_up(model, recipe, device)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    prepare: Any = model.prepare
    ready = prepare([picture(size, seed) for seed in range(batch)], _targets(model, size, batch))
    model.train()
    call = partial(_step, model, ready, optimizer, recipe, device)
    return _measure(model, call, device, limits, rounds, depth + 1)  # below forward and backward


def infer(model: Any, pictures: list[Tensor], device: torch.device) -> Any:
    """What a model says of pictures (3, H, W); a classifier's are of one size."""
    with torch.inference_mode():
        if not hasattr(model, "compute"):
            return model(torch.stack(pictures).to(device))
        batch = model.prepare(pictures).to(device)
        return model.finish(model.compute(batch), batch)


def _step(
    model: nn.Module,
    batch: Any,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    device: torch.device,
    stage: Any,
) -> None:
    scaler = loss_scaler(device, recipe.precision)
    _, values = backward(model, [batch], [1.0], device, recipe.precision, scaler)
    with stage("clip gradients"):
        scaler.unscale_(optimizer)
        look(values, clip_gradients(model, recipe.clip_norm))
    with stage("optimizer step"):
        take_step(optimizer, scaler)


def _measure(
    model: nn.Module, call: Call, device: torch.device, limits: Limits, rounds: int, depth: int
) -> Profile:
    """Time the call, then count what it does."""
    whole, seconds = time_stages(model, call, device, rounds, depth)
    with WorkMeter() as counter:
        recorder = Recorder(counter, depth)
        with watching(model, recorder):
            call(recorder.stage)
            work = recorder.own()
    stages = build_stages(seconds, work, recorder.calls, limits)
    return Profile(whole, total("sum", stages), limits, sorted(counter.uncounted))


def time_stages(
    model: nn.Module,
    call: Call,
    device: torch.device,
    rounds: int,
    depth: int,
    own_stages: tuple[str, ...] = OWN_STAGES,
) -> tuple[list[float], dict[Path, float]]:
    """Seconds of each whole call, and the median of each stage alone, without its parts, of as
    many calls that are watched; in turns."""
    meter = TimeMeter(device)
    whole: list[float] = []
    timed: list[dict[Path, float]] = []
    for _ in range(WARM_UP):
        call(nullcontext)
    for _ in range(rounds):
        whole.append(meter.time(lambda: call(nullcontext)))
        recorder = Recorder(meter, depth, own_stages)
        with watching(model, recorder):
            call(recorder.stage)
            own = recorder.own()
        timed.append({path: amounts["seconds"] for path, amounts in own.items()})
    paths = dict.fromkeys(path for one in timed for path in one)
    return whole, {path: median(one.get(path, 0.0) for one in timed) for path in paths}


# ---- what a model is given


def picture(size: tuple[int, int], seed: int) -> Tensor:
    """A uint8 picture (3, H, W) of smooth random colours, coarse and fine."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 3, *size)
    for cells in (4, 16, 64):
        noise = torch.rand(1, 3, cells, cells, generator=generator)
        image += F.interpolate(noise, size, mode="bicubic") / 3
    return (image[0].clamp(0, 1) * 255).to(torch.uint8)


def objects(size: tuple[int, int], seed: int, num_classes: int, masks: bool = False) -> Target:
    """Random boxes of a picture and, if wanted, masks that fill them."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    corner = torch.rand(OBJECTS, 2, generator=generator) * 0.6
    extent = 0.05 + 0.3 * torch.rand(OBJECTS, 2, generator=generator)
    boxes = torch.cat([corner, corner + extent], 1) * torch.tensor([width, height] * 2)
    labels = torch.randint(num_classes, (OBJECTS,), generator=generator)
    target = {"boxes": boxes, "labels": labels}
    if masks:
        target["masks"] = torch.zeros(OBJECTS, height, width, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(target["masks"], boxes.long().tolist(), strict=True):
            mask[y1 : y2 + 1, x1 : x2 + 1] = True
    return target


def target(model: Any, size: tuple[int, int], seed: int) -> Target:
    """What a model of its task learns from, of a random picture of that size."""
    if is_segmenter(model):
        return {"map": blobs(size, seed, len(model.classes))}
    return objects(size, seed, len(model.classes), model.needs_masks)


def blobs(size: tuple[int, int], seed: int, num_classes: int) -> Tensor:
    """A map (H, W) int64 of random patches."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(num_classes, (1, 1, 8, 8), generator=generator)
    return F.interpolate(cells.float(), size)[0, 0].long()


def _targets(model: Any, size: tuple[int, int], count: int) -> list[Target]:
    return [target(model, size, seed) for seed in range(count)]


def default_size(model: Any) -> tuple[int, int]:
    """Height and width of the pictures that a model is measured with: its own height, and a width
    of four thirds as far as it goes; of a segmenter that resizes none 512 x 512, of others
    224 x 224."""
    if not hasattr(model, "preprocess"):
        return (512, 512) if is_segmenter(model) else (224, 224)
    height = model.preprocess.min_size
    if not height:
        return 512, 512
    if model.preprocess.stretch:
        return height, height
    return height, min(height * 4 // 3, model.preprocess.max_size)


def fixed_size(model: Any, size: tuple[int, int]) -> Any:
    """The model, which from now on takes pictures of that size as they are."""
    model.preprocess.min_size, model.preprocess.max_size = min(size), max(size)
    model.preprocess.stretch = False
    return model


@torch.no_grad()
def wake(model: Any, pictures: list[Tensor], targets: list[Target]) -> None:
    """Make an untrained detector as busy as a trained one, in place.

    Its activations grow from layer to layer, and it finds nothing: its last stages would be idle.
    So batch norms take their statistics from these pictures, and the score threshold falls so
    low that every slot for a detection is taken.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    model(pictures, targets)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    if not hasattr(model.config, "score_threshold"):
        return
    model.config = replace(model.config, score_threshold=0.0)
    found = model.compute(model.prepare(pictures).to(next(model.parameters()).device))
    scores = found.scores[found.valid]
    lowest = float(scores.min()) if len(scores) else 0.0
    model.config = replace(model.config, score_threshold=lowest * 0.999)
