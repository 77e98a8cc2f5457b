"""The configuration in an mmdetection checkpoint: Python text, of which the literals are read, and
nothing is run.

Versions 2.x keep it as `meta["config"]`, 3.x as `meta["cfg"]`. It is looked up by paths of keys; a
path that leads nowhere, or to what is no number where one is wanted, gives None.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping
from typing import Any

LONGEST = 1 << 20  # characters


class Unknown(Exception):
    """An expression that is no literal."""


def read_config(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration's names and values; {} where there is none that can be read."""
    text = meta.get("cfg", meta.get("config"))
    if not isinstance(text, str) or len(text) > LONGEST:
        return {}
    for attempt in (text, f"#{text}"):  # early ones begin with the name of their file
        try:
            return _assigned(ast.parse(attempt))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return {}


def _assigned(tree: ast.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in tree.body:
        if isinstance(line, ast.Assign) and isinstance(target := line.targets[0], ast.Name):
            try:
                found[target.id] = _value(line.value, found)
            except (Unknown, TypeError):
                continue
    return found


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.Tuple | ast.List):
        return [_value(part, names) for part in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, names)
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_value(k, names): _value(v, names) for k, v in pairs if k is not None}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        made: dict[str, Any] = {}
        for word in node.keywords:
            try:
                value = _value(word.value, names)
            except Unknown:
                continue
            made |= value if word.arg is None else {word.arg: value}
        return made
    raise Unknown


def at(config: Any, *path: str | int) -> Any:
    """What lies at a path of keys and places."""
    for key in path:
        if isinstance(config, dict):
            config = config.get(key)
        elif (
            isinstance(config, list) and isinstance(key, int) and -len(config) <= key < len(config)
        ):
            config = config[key]
        else:
            return None
    return config


def within(config: Any) -> Iterator[dict[str, Any]]:
    """All dicts below and including `config`, outer ones first."""
    waiting, seen = [config], set()  # a text of a few lines can name a list any number of times
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict | list) and id(part) not in seen:
            seen.add(id(part))
            if isinstance(part, dict):
                yield part
            waiting += reversed(part.values() if isinstance(part, dict) else part)


def number(value: Any) -> float | None:
    """The value, if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None


def numbers(value: Any, count: int | None = None) -> list[float] | None:
    """The value, if it is a list of numbers, of so many."""
    if not isinstance(value, list) or any(number(v) is None for v in value):
        return None
    return value if count is None or len(value) == count else None


def pixels(config: dict[str, Any]) -> tuple[list[float], list[float], bool] | None:
    """Mean and deviation of pictures from 0 to 255, and whether they are RGB, not BGR."""
    for part in (at(config, "model", "data_preprocessor"), at(config, "data_preprocessor")):
        if found := _normalised(part):  # either turns round what was read as BGR
            return *found, bool(part.get("bgr_to_rgb") or part.get("rgb_to_bgr"))
    for step in within(_test_steps(config)):
        if step.get("type") == "Normalize" and (found := _normalised(step)):
            return *found, bool(step.get("to_rgb", True))
    return None


def _normalised(part: Any) -> tuple[list[float], list[float]] | None:
    """Mean and deviation."""
    mean, std = numbers(at(part, "mean"), 3), numbers(at(part, "std"), 3)
    return (mean, std) if mean and std and min(std) > 0 else None


def side(config: dict[str, Any]) -> tuple[int, int] | None:
    """The shorter and the longer side to which pictures are resized for tests."""
    for step in within(_test_steps(config)):
        for key in ("img_scale", "scale"):
            if found := numbers(step.get(key), 2):
                low, high = sorted(int(x) for x in found)
                if low > 0:
                    return low, high
    return None


def _test_steps(config: dict[str, Any]) -> list[Any]:
    return [
        at(config, "test_pipeline"),
        at(config, "data", "test", "pipeline"),
        at(config, "test_dataloader", "dataset", "pipeline"),
    ]
