"""What a key of the recipe may be in a sweep: a range or a choice, written in a few letters::

optimizer.lr: log(1e-5, 1e-2)                 # loguniform is the same
optimizer.weight_decay: uniform(0, 0.1)       # uniform(0, 0.1, step=0.02)
batch_size: int(2, 16)                        # int(2, 16, step=2), both ends included
model.backbone: choice(resnet18, resnet50)    # or [resnet18, resnet50]
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from eyeline.errors import EyelineError
from eyeline.training.recipe import parse_yaml

NAMES = {"uniform": "uniform", "log": "log", "loguniform": "log", "int": "int", "choice": "choice"}
WRITTEN = re.compile(r"([A-Za-z_]\w*)\((.*)\)", re.DOTALL)
MOST = 100_000  # values of a range with steps


@dataclass(frozen=True)
class Range:
    """The values that `key` may have."""

    key: str
    kind: str  # one of NAMES' values
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    choices: tuple[Any, ...] = ()

    @property
    def labels(self) -> dict[str, Any]:
        """The choices by their text: a sampler knows texts alone."""
        return {label(choice): choice for choice in self.choices}

    def values(self) -> Sequence[Any] | None:
        """All of them, where they can be counted."""
        if self.kind == "choice":
            return self.choices
        if self.kind == "int":
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        if self.step is None:
            return None
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return [float(f"{self.low + i * self.step:.12g}") for i in range(count)]

    def ends(self) -> list[Any]:
        """Values that stand for all when they are checked: every choice, or both ends."""
        if self.choices:
            return list(self.choices)
        every = self.values() or [self.low, self.high]
        return [every[0], every[-1]]

    def suggest(self, trial: Any) -> Any:
        """The value that a trial of Optuna's has here."""
        if self.kind == "choice":
            return self.labels[trial.suggest_categorical(self.key, list(self.labels))]
        if self.kind == "int":
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return trial.suggest_int(self.key, low, high, step=step)
        return trial.suggest_float(
            self.key, self.low, self.high, step=self.step, log=self.kind == "log"
        )

    def __str__(self) -> str:
        """As it is written."""
        if self.kind == "choice":
            return f"choice({', '.join(map(label, self.choices))})"
        step = "" if self.step is None else f", step={self.step!r}"
        return f"{self.kind}({self.low!r}, {self.high!r}{step})"


def label(value: Any) -> str:
    """A value as YAML on one line, without quotes where it needs none."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {label(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(label, value))}]"
    if (
        isinstance(value, str)
        and re.fullmatch(r"\w[\w./-]*", value)
        and parse_yaml(value, "") == value
    ):
        return value  # and no number, truth value or null
    return json.dumps(value)


def is_range(text: str) -> bool:
    """Is it written like a range, "name(...)", be its name known or not?"""
    return WRITTEN.fullmatch(text.strip()) is not None


def read_range(key: str, written: Any, where: str = "") -> Range:
    """A range as YAML or the command line has it; raises EyelineError: which is wrong, and how."""
    where = f"{where}{key}"
    if isinstance(written, list):
        return _choice(key, written, where)
    found = WRITTEN.fullmatch(written.strip()) if isinstance(written, str) else None
    if found is None:
        raise EyelineError(
            f"{where}: {written!r} is no range; write log(1e-5, 1e-2), uniform(0, 1), int(2, 16) "
            "or choice(a, b)"
        )
    name, inner = found.groups()
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(NAMES)}"
        raise EyelineError(f"{where}: there is no range {name!r}; {hint}")
    values = parse_yaml(f"[{inner}]", where)
    if NAMES[name] == "choice":
        return _choice(key, values, where)
    return _numbers(key, NAMES[name], values, f"{where}={written.strip()}")


def _choice(key: str, values: list[Any], where: str) -> Range:
    if not values:
        raise EyelineError(f"{where}: nothing to choose from; write choice(a, b)")
    labels = [label(value) for value in values]
    for one in labels:
        if labels.count(one) > 1:
            raise EyelineError(f"{where}: choice has {one} twice")
    return Range(key, "choice", choices=tuple(values))


def _numbers(key: str, kind: str, values: list[Any], where: str) -> Range:
    step = None
    if values and isinstance(values[-1], str) and values[-1].startswith("step="):
        step = parse_yaml(values.pop().removeprefix("step="), where)
    needed = [*values, *([] if step is None else [step])]
    known = int if kind == "int" else int | float
    if len(values) != 2 or not all(
        isinstance(v, known) and not isinstance(v, bool) for v in needed
    ):
        what = "two whole numbers" if kind == "int" else "two numbers"
        raise EyelineError(f"{where}: needs {what}, from the lowest to the highest")
    low, high = values
    if not all(map(math.isfinite, needed)):
        raise EyelineError(f"{where}: needs finite numbers")
    if low >= high:
        raise EyelineError(f"{where}: the range is empty; the first number must be the smaller one")
    if kind == "log" and (low <= 0 or step is not None):
        raise EyelineError(f"{where}: log needs numbers above 0, and has no step")
    if step is not None and not 0 < step <= high - low:
        raise EyelineError(f"{where}: the step must be above 0 and at most {high - low:g}")
    if step is not None and (high - low) / step > MOST:
        raise EyelineError(f"{where}: more than {MOST} steps; leave the step out")
    if kind == "int":
        return Range(key, kind, low, high, step)
    return Range(key, kind, float(low), float(high), None if step is None else float(step))
