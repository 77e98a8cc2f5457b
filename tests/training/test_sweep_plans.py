"""Ranges and plans of sweeps: how they are written, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweeping import RECIPE, SEARCH, plan_of

from eyeline.errors import EyelineError
from eyeline.training.sweeps.plan import is_sweep_file, load_sweep, make_plan
from eyeline.training.sweeps.ranges import label, read_range


@pytest.mark.parametrize(
    ("written", "kind", "ends"),
    [
        ("log(1e-5, 1e-2)", "log", [1e-5, 1e-2]),
        ("loguniform(1e-5,1e-2)", "log", [1e-5, 1e-2]),
        (" uniform(0, 1) ", "uniform", [0.0, 1.0]),
        ("int(2, 9)", "int", [2, 9]),
        ("choice(resnet18, resnet50)", "choice", ["resnet18", "resnet50"]),
        (["a", None, 1e-3], "choice", ["a", None, 1e-3]),
        (
            "choice([], [hflip, {mosaic: {size: 64}}])",
            "choice",
            [[], ["hflip", {"mosaic": {"size": 64}}]],
        ),
        (
            "choice(true, 'true', '10', 10, null, 'a b')",
            "choice",
            [True, "true", "10", 10, None, "a b"],
        ),
    ],
)
def test_ranges_are_read_and_written(written, kind, ends):
    found = read_range("key", written)
    assert (found.kind, found.ends()) == (kind, ends)
    assert read_range("key", str(found)) == found


def test_values_that_can_be_counted():
    steps = read_range("k", "int(2, 9, step=3)")
    assert list(steps.values()) == [2, 5, 8] and steps.ends() == [2, 8]
    assert len(read_range("k", "int(0, 4000000000)").values()) == 4_000_000_001
    assert read_range("k", "uniform(0, 0.3, step=0.1)").values() == [0.0, 0.1, 0.2, 0.3]
    assert read_range("k", "uniform(0, 1)").values() is None
    assert read_range("k", "log(1, 2)").values() is None


def test_labels_need_quotes_only_where_yaml_does():
    assert [label(v) for v in ("resnet18", "10", "null", "a b", 10, None, ["x", "1"])] == [
        "resnet18", '"10"', '"null"', '"a b"', "10", "null", '[x, "1"]',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("log(1e-2, 1e-5)", "key=log(1e-2, 1e-5): the range is empty"),
        ("uniform(1, 1)", "the range is empty"),
        ("lgo(1, 2)", "no range 'lgo'; did you mean log?"),
        ("int(1, 2.5)", "needs two whole numbers"),
        ("uniform(1)", "needs two numbers"),
        ("uniform(true, 2)", "needs two numbers"),
        ("uniform(0, .inf)", "needs finite numbers"),
        ("log(0, 1)", "log needs numbers above 0"),
        ("int(1, 4, step=0)", "the step must be above 0 and at most 3"),
        ("choice()", "nothing to choose from"),
        ([], "nothing to choose from"),
        ("choice(a, b, a)", "choice has a twice"),
        (0.1, "0.1 is no range"),
    ],
)
def test_bad_ranges_are_told(written, told):
    with pytest.raises(EyelineError) as error:
        read_range("key", written)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"search": {"optimizer.lrr": "log(1e-5, 1)"}},
            "search: optimizer.lrr=1e-05: unknown key optimizer.lrr; did you mean optimizer.lr?",
        ),
        (
            {"search": {"optimizer.lr": "uniform(0, 1)"}},
            "search: optimizer.lr=0.0: optimizer.lr: input should be greater than 0",
        ),
        ({"search": {"optimizer.name": "choice(sgd, adamm)"}}, "search: optimizer.name=adamm"),
        (
            {"search": {"model.backbon": "choice(resnet18, resnet50)"}},
            "unknown model option 'backbon'; did you mean backbone?",
        ),
        (
            {"search": {"model.backbone": "choice(resnet18, resnet51)"}},
            "search: model.backbone=resnet51",
        ),
        ({"search": {}}, "nothing to search"),
        (
            {"search": {"eval.metric": "choice(AP, AP50)"}},
            "eval.metric must be the same in all trials",
        ),
        (
            {"sampler": "grid"},
            "a grid needs values that can be counted, and log(0.0001, 0.1) has none",
        ),
        ({"sampler": "tpee"}, "sampler: input should be 'tpe', 'random' or 'grid'"),
        ({"metric": "mAP"}, "metric: 'mAP' is never measured; choose one of AP, "),
        ({"metric": "mask_AP"}, "mask_AP is never measured, as retinanet gives no masks"),
        ({"fixed": {"data.val": None}}, "data.val is null"),
        ({"fixed": {"eval.every": 0}}, "eval.every is 0"),
        ({"fixed": {"epoch": 3}}, "fixed: unknown key epoch; did you mean epochs?"),
        ({"tirals": 3}, "unknown key tirals; did you mean trials?"),
        ({"trials": 0}, "trials: input should be greater than or equal to 1"),
        ({"recipe": "none.yaml"}, "none.yaml: cannot be read as a recipe"),
        ({"fixed": {"model.name": "retinanett"}}, "did you mean retinanet?"),
    ],
)
def test_bad_sweeps_are_told_in_a_line(change, told):
    with pytest.raises(EyelineError) as error:
        make_plan(load_sweep({"recipe": RECIPE, "search": SEARCH, **change}))
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_file_with_nested_keys(tmp_path: Path):
    file = tmp_path / "sweep.yaml"
    (tmp_path / "recipe.yaml").write_text(
        "model: {name: retinanet}\nschedule: {name: step, gamma: 0.2}\ndata: {workers: 7}\n"
    )
    file.write_text(
        f"recipe: {tmp_path / 'recipe.yaml'}\n"
        "search:\n"
        "  optimizer: {lr: 'log(1e-4, 1e-2)', name: [sgd, adamw]}\n"
        "  schedule: 'choice({name: constant}, {name: step, gamma: 0.5})'\n"
        "fixed: {data: {path: x}, epochs: 4}\n"
    )  # fmt: skip
    assert is_sweep_file(file) and not is_sweep_file(tmp_path / "recipe.yaml")
    plan = make_plan(load_sweep(file), ["epochs=7", "batch_size=int(1, 4)"])
    keys = [r.key for r in plan.ranges]
    assert keys == ["optimizer.lr", "optimizer.name", "schedule", "batch_size"]
    assert (plan.recipe.epochs, plan.recipe.data.path, plan.trials) == (7, "x", 20)
    assert plan.recipe.data.workers == 7  # the section was not replaced
    made = plan.recipe_of({"schedule": {"name": "constant"}, "optimizer.lr": 1e-3})
    assert (made.schedule.name, made.schedule.gamma, made.optimizer.lr) == ("constant", 0.1, 1e-3)
    plan = make_plan(load_sweep(file), ["data.path=y", "optimizer.lr=0.1"])  # which win
    assert (plan.recipe.data.path, plan.recipe.optimizer.lr) == ("y", 0.1)
    assert [r.key for r in plan.ranges] == ["optimizer.name", "schedule"]
    file.write_text("recipe: r.yaml\nsearch: {}\nseed: -1\n")
    with pytest.raises(EyelineError, match=r"sweep.yaml:3: seed"):
        load_sweep(file)


def test_a_grid_counts_up_and_a_plan_is_read_back(tmp_path: Path):
    search = {"batch_size": "int(1, 3, step=2)", "data.transforms": "choice([], [hflip], [vflip])"}
    plan = plan_of(search, sampler="grid", trials=50, metric="loss")
    assert (plan.trials, plan.lower_is_better) == (6, True)
    assert [plan.grid(n)["batch_size"] for n in range(6)] == [1, 1, 1, 3, 3, 3]
    assert plan.grid(4) == {"batch_size": 3, "data.transforms": ["hflip"]}
    plan.save(tmp_path / "sweep.yaml")
    again = make_plan(load_sweep(tmp_path / "sweep.yaml"))
    assert (again.ranges, again.recipe, again.trials) == (plan.ranges, plan.recipe, 6)
