"""Training: recipes, the loop, run folders."""

from eyeline.training.loop import Run, train, train_recipe
from eyeline.training.recipe import Recipe, load_recipe, save_recipe
from eyeline.training.saving import load_run

__all__ = ["Recipe", "Run", "load_recipe", "load_run", "save_recipe", "train", "train_recipe"]
