"""The same sweep for Weights & Biases: its server chooses the values, its agents start
`eyeline train RECIPE log.wandb=PROJECT key=value ...`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from eyeline.errors import EyelineError
from eyeline.training.recipe import save_recipe, save_yaml
from eyeline.training.sweeps.plan import Plan
from eyeline.training.sweeps.ranges import Range, label

METHODS = {"tpe": "bayes", "random": "random", "grid": "grid"}
# 1e-05 is a text in the YAML 1.1 that W&B reads, 1.0e-05 a number in both.
POINTLESS = re.compile(r"(?<= )(-?\d+)e([-+]\d+)$", re.MULTILINE)
LOGGED = "epoch/metrics/"  # how a run's log calls the metrics of an epoch


def wandb_config(plan: Plan, recipe: str, project: str) -> dict[str, Any]:
    """W&B's sweep configuration.

    Args:
        recipe: the path of the recipe's file, as agents find it.
        project: that the runs are logged to, PROJECT or ENTITY/PROJECT.
    """
    entity, _, name = project.rpartition("/")
    config: dict[str, Any] = {"project": name, **({"entity": entity} if entity else {})}
    goal = "minimize" if plan.lower_is_better else "maximize"
    config |= {
        "program": "eyeline",
        "method": METHODS[plan.sweep.sampler],
        "metric": {"name": LOGGED + plan.metric, "goal": goal},
        "run_cap": plan.trials,
        "parameters": {r.key: _parameter(r) for r in plan.ranges},
        "command": [
            "${env}", "${program}", "train", recipe, f"log.wandb={label(project)}",
            "${args_no_hyphens}",
        ],
    }  # fmt: skip
    if plan.sweep.pruner != "none":  # which is Hyperband there, counted in evaluations
        first = plan.warmup // plan.recipe.eval.every
        config["early_terminate"] = {"type": "hyperband", "min_iter": max(1, first), "eta": 3}
    return config


def write_wandb(folder: Path, plan: Plan, project: str) -> Path:
    """Write the recipe and the configuration into a folder; gives the configuration's path."""
    if not project.rpartition("/")[2]:
        raise EyelineError("which project of W&B? give --wandb PROJECT, or ENTITY/PROJECT")
    folder.mkdir(parents=True, exist_ok=True)
    recipe, config = folder / "recipe.yaml", folder / "wandb.yaml"
    save_recipe(plan.recipe, recipe)
    save_yaml(wandb_config(plan, str(recipe), project), config)
    text = config.read_text(encoding="utf-8")
    config.write_text(POINTLESS.sub(r"\1.0e\2", text), encoding="utf-8")
    return config


def _parameter(one: Range) -> dict[str, Any]:
    """A range in W&B's words. An agent writes values as Python does, so all but numbers are given
    as the text that our command line reads."""
    values = one.values()
    if one.kind == "choice" or one.step is not None:
        return {"values": [v if _is_number(v) else label(v) for v in values or ()]}
    if one.kind == "int":
        return {"distribution": "int_uniform", "min": int(one.low), "max": int(one.high)}
    kind = "log_uniform_values" if one.kind == "log" else "uniform"
    return {"distribution": kind, "min": one.low, "max": one.high}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
