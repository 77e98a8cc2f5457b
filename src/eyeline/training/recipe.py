"""A recipe: everything that decides a training run, in one small YAML file.

YAML 1.2, core schema: `1e-4` is a number, `yes` a word, `010` ten. The schema below is checked
before anything runs; every key can also be set as `key.sub=value`, the value read as YAML::

    recipe = load_recipe("recipes/bccd_retinanet.yaml", ["optimizer.lr=1e-4", "epochs=10"])

Paths are as the file or the command line gives them: relative to the working directory.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import BaseResolver

from eyeline.errors import EyelineError

COMMAND_LINE = "command line"
AUTO = "auto"

Natural = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """Strict: "3" is no number, and an unknown key is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Model(Section):
    """Which model; every other key (backbone, norm, min_size ...) is an option of its own."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """What `create_model` gets besides name, classes and weights.

        Raises:
            EyelineError: these are among them; they are keys of the recipe itself.
        """
        options = dict(self.model_extra or {})
        for key in ("weights", "classes", "num_classes"):
            if key in options:
                raise EyelineError(f"model.{key} is not a key of a recipe; set weights or classes")
        return options


class Data(Section):
    path: str | None = None
    train: str = "train"  # names of splits
    val: str | None = "val"
    tolerant: bool = False  # leave out what would spoil training, and tell it; or else refuse
    bad_boxes: Literal["error", "drop"] = "error"  # drop: be tolerant of boxes alone
    one_based: bool = False  # VOC's pixels are counted from 1
    format: str | None = None  # where the folder looks like two
    unknown: Literal["error", "ignore"] = "error"  # objects of other classes than `classes`
    transforms: list[str | dict[str, Any]] = ["hflip"]
    single_epochs: Natural = 0  # the last ones, without transforms that take several pictures
    draft: Count | None = None  # of training: decode JPEGs smaller, the shorter side at least so
    channels: Count = 3  # of the pictures; of other numbers than 3 the model gets its in_channels
    workers: Natural = 2
    sizes: list[Count] = []  # of training: the shorter side is another of them every so often,
    sizes_every: Count = 10  # batches, and the longer side's limit in proportion
    aspect_grouping: bool = False  # batches of upright or of wide pictures: less padding
    masks: bool = (
        False  # read the objects' masks; set by itself where model or transforms need them
    )
    # Of segmenters. What numbers in masks mean, where they are not those of the classes:
    ignore: list[int] | Literal["others"] = []  # to be ignored, as 255 always is
    shift: int = 0  # is added to each
    ids: dict[int, int] | None = None  # the class's number by the mask's
    background: str | None = None  # of what no object covers: ignore, or the name of a class
    on_top: Literal["later", "smaller"] = "later"  # of objects that overlap


class Optimizer(Section):
    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Positive = 1e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of sgd; beta 1 of adam and adamw
    weight_decay: NotNegative = 1e-2
    backbone_lr_factor: NotNegative = 1.0
    no_decay_on_norms: bool | None = None  # nor on biases; None: so for adamw only


class Schedule(Section):
    name: Literal["constant", "cosine", "step", "onecycle"] = "cosine"
    warmup_steps: Natural = 0  # linear; onecycle: its rising part, 0 for 30 %
    milestones: list[float] = []  # of step, in epochs
    gamma: Positive = 0.1  # of step
    final: NotNegative = 0.0  # of cosine: the last factor

    @model_validator(mode="after")
    def _every_key_counts(self) -> Schedule:
        for key, kind in (("milestones", "step"), ("gamma", "step"), ("final", "cosine")):
            default = type(self).model_fields[key].default
            if self.name != kind and getattr(self, key) != default:
                raise ValueError(f"{key} is of schedule.name={kind}; {self.name} does not use it")
        return self


class Ema(Section):
    """An average of the weights over the last steps; a number alone is its decay."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9998
    warmup: Positive = 10.0  # at step t the decay is at most (1 + t) / (warmup + t); 1 for none

    @model_validator(mode="before")
    @classmethod
    def _a_number_is_the_decay(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return {"decay": float(value)} if number else value


class Eval(Section):
    every: Natural = 1  # epochs; 0 for never
    batch_size: Count = 1
    # The best weights have the highest (of "loss": the lowest); auto: AP, of segmenters mIoU.
    metric: str = AUTO


class Save(Section):
    """When the state to resume from is saved within an epoch, besides at its end; None: never."""

    minutes: Positive | None = 10.0
    steps: Count | None = None


class Log(Section):
    every: Count = 20  # steps
    tensorboard: bool | Literal["auto"] = "auto"  # auto: where it is installed
    wandb: str | None = None  # a project of W&B: PROJECT or ENTITY/PROJECT
    mlflow: str | None = None  # an experiment of MLflow
    report: Positive | None = 5.0  # minutes between two of the run's page, besides each epoch's


class Recipe(Section):
    model: Model | None = None
    weights: str | None = None  # file, URL or hub id to start from
    classes: list[str] | None = None  # None: those of the training data
    freeze: list[str] = []  # parts that do not learn: names or their beginnings, at a dot
    data: Data = Data()
    seed: Natural = 0
    epochs: Count = 25
    batch_size: Count = 2  # pictures of one forward pass, of one process
    accumulate: Count = 1  # forward passes of one step
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    checkpoint_activations: bool = False  # recompute the backbone's blocks: less memory, slower
    compile: bool = False  # let torch's compiler write the network: a slow start, for a GPU
    device: str | None = None  # None: the GPU if there is one
    sync_norms: bool = True  # batch norms see all processes' pictures, where these have GPUs
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    clip_norm: Positive | None = None
    ema: Ema | None = None  # where set, the averaged weights are evaluated and kept
    eval: Eval = Eval()
    stop_after: Count | None = None  # epochs without a better eval.metric
    on_nan: Literal["stop", "skip"] = "stop"  # where a loss is no number: the run, or the step
    save: Save = Save()
    log: Log = Log()
    out: str | None = None  # the run folder; None: the first free one of runs/NAME, runs/NAME-2 ...

    @model_validator(mode="after")
    def _one_writes_the_network(self) -> Recipe:
        if self.compile and self.checkpoint_activations:
            raise ValueError("compile and checkpoint_activations exclude each other")
        return self


def load_recipe(
    source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] = ()
) -> Recipe:
    """Read and check a recipe.

    Args:
        source: a YAML file, or the values themselves as nested dictionaries.
        overrides: "key.sub=value" each; later ones win.

    Raises:
        EyelineError: no such file, no YAML, an unknown key or a value of the wrong type; names
            the file and line, and the nearest key there is.
    """
    text = ""
    if isinstance(source, Recipe):
        values = source.model_dump()
    elif isinstance(source, Mapping):
        values = deepcopy(dict(source))
    else:
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EyelineError(f"{source}: cannot be read as a recipe: {error}") from error
        values = parse_yaml(text, str(source))
        if values is None:
            values = {}
        if not isinstance(values, dict):
            raise EyelineError(f"{source}: a recipe is a mapping of keys to values")
    set_here = [_override(values, text_of_one) for text_of_one in overrides]
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(part for part in first["loc"] if part not in _BRANCHES)
        # A wrong value lies at or below the key that was set, a wrong section above it.
        if any(path[: len(keys)] == keys[: len(path)] for keys in set_here):
            where = f"{COMMAND_LINE}: "
        elif text:
            where = f"{source}:{line_of(text, path)}: "
        else:
            where = ""
        raise EyelineError(where + explain(path, first)) from error


def merge(values: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `fields` over them, section by section."""
    merged = dict(values)
    for key, value in fields.items():
        inner = merged.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = merge(inner, value)
        merged[key] = value
    return merged


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the recipe with every default filled in, but for `out`: that is where it lies."""
    save_yaml(recipe.model_dump(exclude={"out"}), path)


def save_yaml(values: Mapping[str, Any], path: Path) -> None:
    """Write values that `parse_yaml` reads back."""
    with path.open("w", encoding="utf-8") as file:
        _yaml().dump(dict(values), file)


class CoreSchema(BaseResolver):
    """YAML 1.2.2, sec. 10.3.2: what a plain scalar means. ruamel's own also knows dates, 0b11,
    1_000 and more."""

    processing_version: Any = (1, 2)

    def __init__(self, version: object = None, loader: object = None) -> None:
        super().__init__(loader)


for _tag, _pattern, _first in (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    CoreSchema.add_implicit_resolver_base(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )


class Writer(SafeRepresenter):
    """Quotes Unicode's own line breaks, which ruamel would write as they are, and not read."""


def _text(writer: SafeRepresenter, text: str) -> object:
    style = '"' if set(text) & {"\x85", "\u2028", "\u2029", "\ufeff"} else None
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Writer.add_representer(str, _text)


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = CoreSchema
    yaml.Representer = Writer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    return yaml


def parse_yaml(text: str, where: str) -> Any:
    """The value of a text; `where` it stands is named in the EyelineError that it is none."""
    try:
        return _yaml().load(text)
    except (YAMLError, ValueError, TypeError) as error:  # TypeError: a list as a key
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        line = f":{mark.line + 1}" if mark and not where.startswith(COMMAND_LINE) else ""
        problem = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise EyelineError(f"{where}{line}: not YAML: {' '.join(problem.split())}") from error


def _override(values: dict[str, Any], text: str) -> tuple[str, ...]:
    """Set one "key.sub=value" in place; gives the path back."""
    key, equals, value = text.partition("=")
    path = tuple(key.split("."))
    if not equals or not all(path):
        raise EyelineError(f"{COMMAND_LINE}: {text!r} is not of the form key.sub=value")
    set_key(values, key, parse_yaml(value, f"{COMMAND_LINE}: {key}"), f"{COMMAND_LINE}: ")
    return path


def set_key(values: dict[str, Any], key: str, value: Any, where: str = "") -> None:
    """Set "key.sub" in place, with the sections it needs; raises EyelineError where one is none."""
    path = key.split(".")
    for i, part in enumerate(path[:-1], 1):
        inner = values.get(part)
        if not isinstance(inner, dict | None):
            section = ".".join(path[:i])
            raise EyelineError(
                f"{where}{key} cannot be set, as {section} is {inner!r}; "
                f"give all of it, {section}={{{path[i]}: ...}}"
            )
        values[part] = dict(inner or {})
        values = values[part]
    values[path[-1]] = value


# pydantic names the branch of a union in an error's location; our keys are never called so.
_BRANCHES = {"bool", "str", "int", "float", "dict[str,any]", "literal['auto']"}


def explain(
    path: tuple[int | str, ...], error: Mapping[str, Any], kind: type[BaseModel] | None = None
) -> str:
    """What pydantic found at a path, in words, with the nearest key of the kind (of a recipe)."""
    key = ".".join(map(str, path))
    if error["type"] == "extra_forbidden":
        parent, _, last = key.rpartition(".")
        known = list(_keys(kind or Recipe))
        here = [k for k in known if k.rpartition(".")[0] == parent]
        near = (
            get_close_matches(key, here, n=1, cutoff=0.8)
            or [k for k in known if k.rpartition(".")[2] == last]
            or get_close_matches(key, known, n=1, cutoff=0.8)
        )
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(here)}"
        return f"unknown key {key}; {hint}"
    if error["type"] == "missing":
        return f"{key} is missing"
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{key}: {message}, not {error['input']!r}"


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All keys of the schema, dotted."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _keys(kind, f"{prefix}{name}.")


def line_of(text: str, path: Sequence[int | str]) -> int:
    """The line, from 1, on which the value at `path` stands, or the last of its parents."""
    node = _yaml().compose(io.StringIO(text))
    line = 0
    for part in path:
        items = {}  # of a scalar
        if isinstance(node, SequenceNode):
            items = {i: (value, value) for i, value in enumerate(node.value)}
        elif isinstance(node, MappingNode):
            items = {k.value: (k, v) for k, v in node.value if isinstance(k, ScalarNode)}
        if part not in items:
            break
        key, node = items[part]
        line = key.start_mark.line
    return line + 1
