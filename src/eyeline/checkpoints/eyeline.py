"""Our own weights: safetensors, with the model's name, classes and config in the header."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eyeline.checkpoints.source import Checkpoint, State
from eyeline.errors import EyelineError
from eyeline.files import write_whole

KEY = "eyeline"  # of the header's entry
MODEL_FILE = "model.py"  # in a run folder: the file of the user's that registers its model


def is_described(model: nn.Module) -> bool:
    """Is it one of `create_model`'s, which weights can rebuild?"""
    named = all(hasattr(model, key) for key in ("name", "task", "classes"))
    return named and dataclasses.is_dataclass(getattr(model, "config", None))


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write the model's weights, and of one of `create_model`'s all that
    `create_model(weights=path)` needs to rebuild it.

    The file appears whole or not at all. Weights that two parts share are written for each.

    Raises:
        OSError: it cannot be written.
    """
    weights_now(model)(Path(path))


def weights_now(model: nn.Module) -> Callable[[Path], None]:
    """`save_weights` in two parts: what writes the weights to a path, as they are now."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    metadata = {KEY: json.dumps(_description(model))} if is_described(model) else None
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }

    def write(part: Path) -> None:
        try:
            save_file(state, part, metadata)
        except SafetensorError as error:  # its word for what the system says of a full disk
            raise OSError(str(error)) from error

    def save(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)

    return save


def _description(model: Any) -> dict[str, Any]:
    described = {
        "name": model.name,
        "task": model.task,
        "classes": list(model.classes),
        "config": dataclasses.asdict(model.config),
    }
    if getattr(model, "source", None) is not None:
        described["file"] = MODEL_FILE  # the weights alone do not tell what they belong to
    return described


def run_weights(folder: Path) -> Path | None:
    """The best weights of a run folder; the last where nothing was evaluated; or None."""
    files = (folder / name for name in ("best.safetensors", "last.safetensors"))
    return next((file for file in files if file.is_file()), None)


def run_model(folder: Path, checkpoint: Checkpoint) -> str | Path:
    """What `create_model` builds for a run's weights: a name, or the run's own model file.

    Nothing but a run folder that the user names has its code run, and only its model.py.
    """
    return folder / MODEL_FILE if checkpoint.own else checkpoint.name


def read(state: State, metadata: dict[str, str], where: str) -> Checkpoint | None:
    """The checkpoint, if its header is ours."""
    if KEY not in metadata:
        return None
    try:
        described = json.loads(metadata[KEY])
        name, classes, config = described["name"], described["classes"], described["config"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise EyelineError(f"{where} has a damaged header ({error!r}); save it again") from error
    options = {key: _tuples(value) for key, value in config.items()}
    own = "file" in described
    return Checkpoint("eyeline", name, where, options, classes, state, own=own)


def _tuples(value: Any) -> Any:
    """JSON knows no tuples; the configs know no lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
