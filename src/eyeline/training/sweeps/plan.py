"""What a sweep searches and how, checked before its first trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from torch import nn

from eyeline.errors import EyelineError
from eyeline.evaluation.segmentation import NUMBERS
from eyeline.metrics.detection import COCO_NUMBERS
from eyeline.registry import create_model, find_entry
from eyeline.training.measures import MASK_NUMBERS, decided
from eyeline.training.recipe import (
    Count,
    Natural,
    Recipe,
    Section,
    explain,
    line_of,
    load_recipe,
    parse_yaml,
    save_yaml,
    set_key,
)
from eyeline.training.resuming import flat
from eyeline.training.sweeps.ranges import Range, is_range, read_range

TRIALS = 20
METRICS = (*COCO_NUMBERS, "AP_11point", "AP_every_point", "loss", *MASK_NUMBERS, *NUMBERS)


class Sweep(Section):
    """A sweep's file."""

    recipe: str | dict[str, Any]  # a recipe's file, or its keys
    search: dict[str, Any]  # ranges by the recipe's keys, see ranges.py
    fixed: dict[str, Any] = Field(default={})  # keys of the recipe that are others in all trials
    trials: Count | None = None  # None: 20, and of a grid all
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    seed: Natural = 0  # of the sampler
    pruner: Literal["median", "hyperband", "none"] = "median"
    warmup: Natural | None = None  # epochs in which no trial is ended; None: a fifth of them
    metric: str | None = None  # None: the recipe's eval.metric
    keep: Literal["all", "best"] = "all"  # whose weights and states stay


@dataclass(frozen=True)
class Plan:
    """A checked sweep.

    The recipe is that of all trials but for the ranges' keys.
    """

    sweep: Sweep
    recipe: Recipe
    ranges: tuple[Range, ...]

    @property
    def metric(self) -> str:
        task = find_entry(self.recipe.model.name).task if self.recipe.model else ""
        return decided(self.recipe, task).eval.metric

    @property
    def lower_is_better(self) -> bool:
        return self.metric == "loss"

    @property
    def trials(self) -> int:
        count = self.grid_size()
        if count is None:
            return self.sweep.trials or TRIALS
        return min(count, self.sweep.trials or count)

    @property
    def epochs(self) -> int:
        """Of the longest trial."""
        ends = [max(r.ends()) for r in self.ranges if r.key == "epochs"]
        return int(*ends) if ends else self.recipe.epochs

    @property
    def warmup(self) -> int:
        """Epochs in which no trial is ended."""
        return self.epochs // 5 if self.sweep.warmup is None else self.sweep.warmup

    def grid_size(self) -> int | None:
        """Of a grid."""
        if self.sweep.sampler != "grid":
            return None
        return math.prod(len(r.values() or ()) for r in self.ranges)

    def grid(self, number: int) -> dict[str, Any]:
        """The values of a grid's trial, in order; the last key changes first."""
        values = {}
        for one in reversed(self.ranges):
            every = one.values() or ()
            number, i = divmod(number, len(every))
            values[one.key] = every[i]
        return {r.key: values[r.key] for r in self.ranges}

    def recipe_of(self, values: Mapping[str, Any], out: Path | None = None) -> Recipe:
        """The recipe with values of the ranges' keys. Raises EyelineError: they do not fit."""
        whole = self.recipe.model_dump()
        for key, value in values.items():
            set_key(whole, key, deepcopy(value))
        return load_recipe({**whole, "out": None if out is None else str(out)})

    def save(self, path: Path) -> None:
        """As a sweep's file that needs no other."""
        values = self.sweep.model_dump()
        values["recipe"] = self.recipe.model_dump(exclude={"out"})
        values["search"] = {r.key: str(r) for r in self.ranges}
        values["fixed"] = {}
        save_yaml(values, path)


def is_sweep_file(path: Path) -> bool:
    """Is it a YAML file with a `search:`, not a recipe?"""
    return path.suffix in (".yaml", ".yml") and "search" in _mapping(path)


def load_sweep(source: str | Path | Mapping[str, Any], **options: Any) -> Sweep:
    """Read a sweep's file, or its values; options that are not None win.

    Raises:
        EyelineError: no such file, no YAML, an unknown key or a wrong value, with its line.
    """
    values = _mapping(Path(source)) if isinstance(source, str | Path) else dict(source)
    values |= {key: value for key, value in options.items() if value is not None}
    try:
        return Sweep.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(part for part in first["loc"] if part not in ("str", "dict[str,any]"))
        where = ""
        if isinstance(source, str | Path) and path[0] not in options:
            text = Path(source).read_text(encoding="utf-8")
            where = f"{source}:{line_of(text, path)}: "
        raise EyelineError(where + explain(path, first, Sweep)) from error


def make_plan(sweep: Sweep, settings: Sequence[str] = ()) -> Plan:
    """Check a sweep against its recipe, the values of its ranges and its metric.

    Args:
        settings: "key=value" of the command line, over the sweep's own keys: a range is searched,
            anything else is the same in all trials.

    Raises:
        EyelineError: an unknown key, with the nearest; an empty range; a value that the recipe or
            the model does not take; a metric that is never measured; no validation data.
    """
    fixed = [s for s in settings if not is_range(s.partition("=")[2])]
    said = {s.partition("=")[0] for s in fixed}
    written = {key: text for key, text in flat(sweep.search).items() if key not in said}
    written |= dict(s.split("=", 1) for s in settings if s not in fixed)
    if not written:
        raise EyelineError("nothing to search: give search: a key, such as optimizer.lr")
    recipe = load_recipe(sweep.recipe, fixed)
    whole = recipe.model_dump()
    for key, value in flat(sweep.fixed).items():
        set_key(whole, key, value, "fixed: ")
    for key, _, text in (s.partition("=") for s in fixed):  # once more, over those of the file
        set_key(whole, key, parse_yaml(text, key))
    if sweep.metric is not None:
        set_key(whole, "eval.metric", sweep.metric)
    recipe = _said("fixed: ", whole)
    if recipe.model:
        find_entry(recipe.model.name)  # raises EyelineError
    ranges = tuple(read_range(key, text, "search: ") for key, text in written.items())
    plan = Plan(sweep, recipe, ranges)
    _check_measured(plan)
    _check_values(plan)
    if sweep.sampler == "grid":
        endless = [str(r) for r in ranges if r.values() is None]
        if endless:
            raise EyelineError(
                f"a grid needs values that can be counted, and {endless[0]} has none; give a "
                "choice(...), an int(...) or a step"
            )
    return plan


def _mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EyelineError(f"{path}: cannot be read as a sweep: {error}") from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise EyelineError(f"{path}: a sweep is a mapping of keys to values")
    return values


def _said(where: str, values: Mapping[str, Any]) -> Recipe:
    """The recipe of values; an error says where they come from."""
    try:
        return load_recipe(values)
    except EyelineError as error:
        raise EyelineError(f"{where}{error}") from error


def _check_measured(plan: Plan) -> None:
    recipe = plan.recipe
    if recipe.data.val is None:
        raise EyelineError(
            "a sweep compares its trials on validation data, and data.val is null; set data.val"
        )
    if recipe.eval.every == 0:
        raise EyelineError("a sweep compares evaluations, and eval.every is 0; set eval.every=1")
    if plan.metric not in METRICS:
        raise EyelineError(
            f"metric: {plan.metric!r} is never measured; choose one of {', '.join(METRICS)}"
        )
    if plan.metric in MASK_NUMBERS and not getattr(_build(recipe), "needs_masks", True):
        name = recipe.model.name if recipe.model else ""
        raise EyelineError(f"metric: {plan.metric} is never measured, as {name} gives no masks")
    fixed = {"eval.metric", "eval.every", "eval", "data.val", "data", "data.path", "out"}
    for key in (r.key for r in plan.ranges):
        if key in fixed:
            raise EyelineError(f"search: {key} must be the same in all trials, to compare them")


def _check_values(plan: Plan) -> None:
    """Both ends of each range, and each choice, in the recipe and the model."""
    first = {r.key: r.ends()[0] for r in plan.ranges}
    for one in plan.ranges:
        for value in one.ends():
            try:
                recipe = plan.recipe_of({**first, one.key: value})
                if one.key == "model" or one.key.startswith("model."):
                    _build(recipe)
            except EyelineError as error:
                raise EyelineError(f"search: {one.key}={value}: {error}") from error


def _build(recipe: Recipe) -> nn.Module | None:
    """A model of the recipe's options, which says whether they are some; None where weights to
    start from tell most of them."""
    if recipe.model is None or recipe.weights is not None:
        return None
    options = {key: v for key, v in recipe.model.options.items() if key != "pretrained"}
    return create_model(recipe.model.name, num_classes=2, **options)
