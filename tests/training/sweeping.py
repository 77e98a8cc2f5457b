"""A sweep of toy runs: `sweeping.py FOLDER TRIALS SECONDS`, with a pause in each evaluation."""

from __future__ import annotations

import sys
import time
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


if __name__ == "__main__":
    Study(Path(sys.argv[1]), plan_of(trials=int(sys.argv[2])), Toy(pause=float(sys.argv[3]))).run()
