"""Recipes: YAML 1.2, a strict schema, overrides, errors that say where."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from eyeline.data.transforms import from_names
from eyeline.errors import EyelineError
from eyeline.nn.detector import Detector
from eyeline.nn.segmenter import Segmenter
from eyeline.registry import create_model
from eyeline.training.recipe import Ema, Recipe, _keys, load_recipe, save_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def failure(source, overrides=()) -> str:
    with pytest.raises(EyelineError) as caught:
        load_recipe(source, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5e-3", 5e-4),
        ("-1.", -1.0),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("FALSE", False),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-3", -3),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("~", None),
        ("null", None),
        ("", None),
        ("'1e-4'", "1e-4"),
        ("=", "="),
        ("<<", "<<"),
        ("[1, a, 2.5]", [1, "a", 2.5]),
    ],
)
def test_core_schema(text, value):
    option = load_recipe({"model": {"name": "m"}}, [f"model.option={text}"]).model.options["option"]
    assert option == value
    assert type(option) is type(value)


def test_defaults_and_file(tmp_path):
    recipe = load_recipe(written(tmp_path, "epochs: 3\noptimizer: {lr: 1e-3}\n"))
    assert (recipe.epochs, recipe.optimizer.lr, recipe.optimizer.name) == (3, 1e-3, "adamw")
    assert load_recipe(written(tmp_path, "# nothing\n")) == Recipe()


def test_overrides_are_yaml_and_the_last_wins(tmp_path):
    path = written(tmp_path, "model: {name: retinanet, norm: batch}\noptimizer: {lr: 1}\n")
    recipe = load_recipe(
        path,
        [
            "optimizer.lr=1e-4",
            "optimizer.lr=2e-4",
            "data.transforms=[hflip, {a: {b: 2}}]",
            "model.size=010",
        ],
    )
    assert recipe.optimizer.lr == 2e-4
    assert recipe.data.transforms == ["hflip", {"a": {"b": 2}}]
    assert recipe.model.options == {"norm": "batch", "size": 10}
    assert load_recipe(path, ["clip_norm=null"]).clip_norm is None


def test_source_mapping_is_not_changed():
    values = {"optimizer": {"lr": 1.0}}
    load_recipe(values, ["optimizer.lr=2.0"])
    assert values == {"optimizer": {"lr": 1.0}}


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("epoch", "did you mean epochs?"),
        ("optimizer.learning_rate", "there are: optimizer.name, optimizer.lr,"),
        ("optimizer.weight_decy", "did you mean optimizer.weight_decay?"),
        ("lr", "did you mean optimizer.lr?"),
        ("bad_boxes", "did you mean data.bad_boxes?"),
        ("optimiser.lr", "did you mean optimizer"),
    ],
)
def test_unknown_key_suggests_the_nearest(key, hint):
    message = failure({}, [f"{key}=1"])
    assert message.startswith("command line: unknown key ")
    assert hint in message


def test_errors_name_file_and_line(tmp_path):
    text = "# a comment\nmodel:\n  name: retinanet\noptimizer:\n  name: sgd\n  momentm: 0.9\n"
    path = written(tmp_path, text)
    message = failure(path)
    assert message == (f"{path}:6: unknown key optimizer.momentm; did you mean optimizer.momentum?")
    path = written(tmp_path, "classes:\n- a\n- 3\n")
    assert failure(path).startswith(f"{path}:3: classes.1: ")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("epochs=three", "epochs: input should be a valid integer, not 'three'"),
        ("epochs='3'", "epochs: input should be a valid integer, not '3'"),
        ("epochs=1.0", "epochs: input should be a valid integer, not 1.0"),
        ("epochs=0", "epochs: input should be greater than or equal to 1, not 0"),
        ("optimizer.lr=yes", "optimizer.lr: input should be a valid number, not 'yes'"),
        ("optimizer.lr=-1", "optimizer.lr: input should be greater than 0, not -1"),
        ("optimizer.lr=.nan", "optimizer.lr: input should be a finite number, not nan"),
        ("optimizer.name=adamq", "optimizer.name: input should be 'adamw', 'adam' or 'sgd'"),
        ("data.masks=yes", "data.masks: input should be a valid boolean, not 'yes'"),
        ("optimizer=3", "optimizer: "),
        ("classes=RBC", "classes: input should be a valid list, not 'RBC'"),
        ("data.transforms=[3]", "data.transforms.0: input should be a valid string"),
        ("log.tensorboard=maybe", "log.tensorboard: input should be"),
        ("model.size=3", "model.name is missing"),
    ],
)
def test_wrong_values(override, expected):
    assert expected in failure({}, [override])


def test_a_key_below_a_value_is_no_key(tmp_path):
    path = written(tmp_path, "epochs: 3\nema: 1.5\n")
    assert failure(path) == f"{path}:2: ema.decay: input should be less than 1, not 1.5"
    path = written(tmp_path, "ema: 0.99\n")
    assert failure(path, ["ema.warmup=5"]) == (
        "command line: ema.warmup cannot be set, as ema is 0.99; give all of it, ema={warmup: ...}"
    )
    assert load_recipe(path, ["ema={decay: 0.9, warmup: 5}"]).ema == Ema(decay=0.9, warmup=5.0)
    path = written(tmp_path, "ema: null\n")
    assert load_recipe(path, ["ema.warmup=5"]).ema == Ema(warmup=5.0)


@pytest.mark.parametrize("override", ["epochs", "=3", "a..b=3", ".=1"])
def test_malformed_override(override):
    assert "is not of the form key.sub=value" in failure({}, [override])


def test_bad_files(tmp_path):
    assert "cannot be read" in failure(tmp_path / "none.yaml")
    assert f"{tmp_path}: cannot be read" in failure(tmp_path)
    path = written(tmp_path, "a: 1\n b: 2\n")
    assert failure(path).startswith(f"{path}:2: not YAML")
    for key in ("[a, b]", "{a: b}", "[[a], {b: c}]"):
        path = written(tmp_path, f"? {key}\n: 1\n")
        assert failure(path).startswith(f"{path}:")
    path = written(tmp_path, "epochs: 1\nepochs: 2\n")
    assert "duplicate key" in failure(path)
    assert "a recipe is a mapping" in failure(written(tmp_path, "- 1\n"))
    assert "not YAML" in failure(written(tmp_path, "a: !!python/name:os.system\n"))
    assert failure({}, ["epochs=[1"]).startswith("command line: epochs")


@settings(max_examples=30, deadline=None)
@given(
    lr=st.floats(min_value=1e-300, max_value=1e300),
    names=st.lists(st.text(), max_size=5),
    option=st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()
    ),
)
def test_saved_recipe_runs_again(tmp_path_factory, lr, names, option):
    recipe = load_recipe(
        {
            "model": {"name": "m", "option": option},
            "classes": names,
            "optimizer": {"lr": lr},
            "out": "runs/x",
        }
    )
    path = tmp_path_factory.getbasetemp() / "recipe.yaml"
    save_recipe(recipe, path)
    assert load_recipe(path, ["out=runs/x"]) == recipe
    assert load_recipe(path).out is None


def test_every_key_of_the_schema_is_saved(tmp_path):
    save_recipe(load_recipe({"model": {"name": "m"}, "ema": 0.9}), tmp_path / "recipe.yaml")
    text = (tmp_path / "recipe.yaml").read_text()

    def keys(values: dict, prefix: str = "") -> set[str]:
        inner = [keys(v, f"{prefix}{k}.") for k, v in values.items() if isinstance(v, dict)]
        return {prefix + k for k in values}.union(*inner)

    assert keys(YAML(typ="safe").load(text)) == set(_keys(Recipe)) - {"out"}
    assert len(set(_keys(Recipe))) > 40
    for line in ("epochs: 25", "  lr: 0.0001", "  warmup_steps: 0", "clip_norm: null"):
        assert line in text.splitlines()


def test_shipped_recipes():
    paths = sorted(RECIPES.glob("*.yaml"))
    for path in paths:
        recipe = load_recipe(path)
        assert recipe.model and recipe.data.path and recipe.out
        from_names(recipe.data.transforms)
        options = {**recipe.model.options, "pretrained": None}  # nothing is downloaded here
        with torch.device("meta"):  # the options are checked, no weight is drawn
            model = create_model(
                recipe.model.name, num_classes=len(recipe.classes or "ab"), **options
            )
        assert isinstance(model, (Detector, Segmenter)), path
        header = path.read_text().split("\nmodel:")[0]
        for word in ("command", "hardware", "time", "score"):
            assert f"# {word}" in header, path
    assert {path.stem for path in paths} == {
        "camvid", "bccd_cascade_rcnn", "bccd_cascade_rcnn_quick", "bccd_faster_rcnn",
        "bccd_faster_rcnn_quick", "bccd_refinedet320", "bccd_refinedet320_quick",
        "bccd_retinanet", "bccd_ssd300", "bccd_ssd300_quick", "bccd_transfer",
        "bccd_yolov1_quick", "bccd_yolov2_quick", "bccd_yolov3", "bccd_yolov3_quick",
        "bccd_yolov3_tiny_quick",
        "sample_faster_rcnn", "sample_mask_rcnn", "sample_retinanet",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["a\x85b", "\u2028", "x\u2029", "\ufeffz", "세포", "it's: #1"])
def test_any_class_name_survives_the_file(name: str, tmp_path: Path) -> None:
    save_recipe(Recipe(classes=[name]), tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml").classes == [name]
