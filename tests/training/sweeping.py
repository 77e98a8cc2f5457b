"""Sweeps of toy runs."""

from __future__ import annotations

import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from toys import ToyData, ToyDetector

from eyeline.training import train
from eyeline.training.loop import Run
from eyeline.training.recipe import Recipe
from eyeline.training.sweeps.plan import Plan, load_sweep, make_plan
from eyeline.training.sweeps.study import Study

RECIPE = {
    "model": {"name": "retinanet", "backbone": "resnet18"},
    "data": {"path": "nowhere", "workers": 0, "transforms": []},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "batch_size": 4,
    "epochs": 3,
    "eval": {"metric": "AP"},
    "log": {"tensorboard": False},
}
SEARCH = {"optimizer.lr": "log(1e-4, 1e-1)", "optimizer.momentum": "uniform(0, 0.9)"}


def plan_of(search: dict[str, Any] | None = None, **options: Any) -> Plan:
    sweep = {"recipe": RECIPE, "search": search or SEARCH, "pruner": "none", **options}
    return make_plan(load_sweep(sweep))


class Scored:
    """As a training that took no time: its score at an epoch, from 1, is `score(recipe, epoch)`."""

    def __init__(self, score: Any = None) -> None:
        self.score = score or (lambda recipe, epoch: recipe.optimizer.lr * epoch)

    def __call__(self, recipe: Recipe, resume: bool = False, on_epoch: Any = None) -> Run:
        values, metric = [], recipe.eval.metric
        for epoch in range(1, recipe.epochs + 1):
            values.append(float(self.score(recipe, epoch)))
            if on_epoch(epoch, {metric: values[-1]}):
                break
        best = min if metric == "loss" else max
        return Run(Path(str(recipe.out)), {metric: values[-1]}, best(values))


class Toy:
    """Trains a toy; its score at an epoch, from 1, is `score(recipe, epoch)`."""

    def __init__(self, score: Any = None, pause: float = 0.0) -> None:
        self.score = score or (lambda recipe, epoch: recipe.optimizer.lr * epoch)
        self.pause, self.calls = pause, []

    def __call__(self, recipe: Recipe, resume: bool = False, on_epoch: Any = None) -> Run:
        self.calls.append((Path(str(recipe.out)).name, resume))
        epoch = 0

        def told(number: int, metrics: Any) -> bool:
            return on_epoch(number, metrics | {"AP": self.score(recipe, number)})

        def measure(model: Any) -> dict[str, float]:
            nonlocal epoch
            epoch += 1
            time.sleep(self.pause)
            return {"AP": self.score(recipe, epoch)}

        torch.manual_seed(0)
        return train(
            ToyDetector(), ToyData(8), ToyData(2), recipe, resume=resume, measure=measure,
            on_epoch=told,
        )  # fmt: skip


def sweep(folder: Path, trials: int, pause: float, told: Path) -> None:
    """All that a process does: a sweep with a pause in each evaluation; what it prints is kept."""
    torch.set_num_threads(1)
    with told.open("w") as file, redirect_stdout(file):
        Study(folder, plan_of(trials=trials), Toy(pause=pause)).run()
