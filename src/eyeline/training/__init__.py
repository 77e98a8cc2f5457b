"""Training: recipes, the loop, run folders."""

from eyeline.training.batch_finder import find_batch_size
from eyeline.training.build import build
from eyeline.training.freezing import freeze
from eyeline.training.loop import Run, train, train_recipe
from eyeline.training.lr_finder import lr_find
from eyeline.training.recipe import Recipe, load_recipe, save_recipe
from eyeline.training.saving import load_run

__all__ = [
    "Recipe", "Run", "build", "find_batch_size", "freeze", "load_recipe", "load_run", "lr_find",
    "save_recipe", "train", "train_recipe",
]  # fmt: skip
