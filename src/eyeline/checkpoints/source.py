"""Where weights come from: a path, a URL, a hub id; and how a file is read without running it."""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import torch
from torch import Tensor

from eyeline.checkpoints.inert import known, read_inert
from eyeline.checkpoints.pickles import Refused, read_pickle
from eyeline.data.download import copy, digest_of
from eyeline.data.urls import opened
from eyeline.errors import EyelineError
from eyeline.files import cache_folder

State = dict[str, Tensor]

# What batch norm counts and, its momentum being fixed, never reads.
COUNTER = "num_batches_tracked"


@dataclass
class Checkpoint:
    """What a file holds, told in our terms."""

    origin: str  # whose file: "eyeline", "torchvision" ...
    name: str  # the model of ours that it fits
    where: str  # the file, for messages
    options: dict[str, Any]  # what the file says of that model's config
    classes: list[str] | None  # names of its classes, where it names them or they are known
    state: State  # its tensors under our names
    renamed: dict[str, str] = field(default_factory=dict)  # our name -> the file's
    dropped: list[str] = field(default_factory=list)  # keys of the file that mean nothing to us
    own: bool = False  # the model is one of the user's own files, which weights do not hold
    also: tuple[str, ...] = ()  # other models of ours that it fits, where nothing tells which
    whole: State = field(default_factory=dict)  # of `state`'s, what was made smaller, as it was


def some(names: Collection[str], limit: int = 5) -> str:
    """The first few names, and how many there are: "a, b (2)"."""
    shown = ", ".join(sorted(names)[:limit])
    return f"{shown}{', ...' if len(names) > limit else ''} ({len(names)})"


def begins(name: str, prefixes: Iterable[str]) -> bool:
    """Whether `name` is one of the dotted prefixes or stands below one: "head.fc1" below "head"."""
    return any(f"{name}.".startswith(f"{prefix.rstrip('.')}.") for prefix in prefixes)


# -- from a source to a local file


def fetch(source: str | Path) -> Path:
    """The local file that `source` names, downloaded once if it lies elsewhere.

    `source` is a path, an http(s) URL, or "hf:owner/name/file" for a file on the Hugging Face hub.
    A download is checked against the start of its SHA-256 where the file's name tells it, as
    torch hub's do: "resnet50-11ad3fa6.pth".
    """
    text = str(source)
    if text.startswith("hf:"):
        text = _hub_url(text)
    if text.startswith(("http://", "https://")):
        return _download(text)
    path = Path(source).expanduser()
    if path.is_dir():
        raise EyelineError(f"{path} is a folder; name the weights file in it")
    if not path.is_file():
        raise EyelineError(f"no weights file at {path}")
    return path


def _hub_url(source: str) -> str:
    parts = source.removeprefix("hf:").split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise EyelineError(f"{source!r} is not a hub id; write hf:owner/name/file")
    owner, name, file = parts
    return f"https://huggingface.co/{owner}/{name}/resolve/main/{file}"


def _download(url: str) -> Path:
    name = unquote(Path(urlsplit(url).path).name)
    if not name:
        raise EyelineError(f"{url} names no file")
    folder = cache_folder() / "weights" / hashlib.sha256(url.encode()).hexdigest()[:12]
    path, partial = folder / name, folder / f".{name}.{os.getpid()}.partial"
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        out = partial.open("wb")
    except OSError as error:
        raise EyelineError(f"cannot write to {folder}: {error}; set EYELINE_HOME") from error
    try:
        with out, opened(url, timeout=30) as answer:
            copy(answer, out, name)
        digest = digest_of(partial)
        expected = re.search(r"-(?!(?:19|20)\d{6}\.)([0-9a-f]{8,64})\.", name)  # but no date
        if expected and not digest.startswith(expected[1]):
            raise EyelineError(
                f"{url} is damaged: its SHA-256 begins {digest[: len(expected[1])]}, "
                f"its name says {expected[1]}"
            )
        os.replace(partial, path)  # atomic: nobody ever sees half a file under the final name
    finally:
        partial.unlink(missing_ok=True)
    return path


# -- from a file to tensors

# How a pickle of torch's own begins, as versions before 1.6 wrote them: with a magic number.
_TORCH_PICKLE = b"\x80\x02\x8a\x0a"
# What training scripts wrap their tensors in.
_WRAPPERS = ("model", "state_dict", "model_state_dict")


def read_file(path: str | Path) -> State:
    """The tensors of a safetensors or torch file, by name, on the CPU. Code in it is never run."""
    return unwrap(read_whole(path), str(path))


def read_whole(path: str | Path) -> object:
    """What a file holds, tensors and what is wrapped about them, as `read_file` reads it."""
    path = Path(path)
    if _is_safetensors(path):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise EyelineError(f"{path} is not a readable safetensors file: {error}") from error
    start = _start(path)
    if path.suffix == ".pkl" and start[:1] == b"\x80" and not start.startswith(_TORCH_PICKLE):
        return read_pickle(path)  # numpy's arrays: detectron2's files
    # argparse.Namespace holds torchvision's training arguments; it is inert.
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            code = re.search(r"(?:GLOBAL|Unsupported class|instantiate) ([\w.]+)", str(error))
            what = code[1] if code else "a pickle"
            if known(what):
                try:
                    return read_inert(path)
                except Refused as refused:
                    what = str(refused)
                except Exception as damage:
                    raise _unreadable(path, damage) from damage
            if code or _start(path)[:1] == b"\x80":  # a pickle, of a kind torch cannot check
                raise EyelineError(
                    f"{path} contains code ({what}) and was refused; save its state dict alone, "
                    "torch.save(model.state_dict(), ...), best as safetensors"
                ) from error
            raise EyelineError(f"{path} is not a checkpoint, torch's or safetensors") from error
        except Exception as error:  # a damaged pickle can raise anything
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> EyelineError:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return EyelineError(f"{path} is not a checkpoint that can be read: {first}")


def read_metadata(path: str | Path) -> dict[str, str]:
    """What a safetensors file says of itself; nothing for other files."""
    if not _is_safetensors(Path(path)):
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise EyelineError(f"{path} is not a readable safetensors file: {error}") from error


def unwrap(found: object, where: str) -> State:
    """The state dict in what a file held, out of its wrapping and DDP's "module." prefix."""
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not found:
        raise EyelineError(f"{where} is not a checkpoint: it holds no tensors by name")
    odd = [str(key) for key, value in found.items() if not isinstance(value, Tensor)]
    if odd:
        raise EyelineError(f"{where} is not a checkpoint: these are not tensors: {some(odd)}")
    if nameless := [str(key) for key in found if not isinstance(key, str)]:
        raise EyelineError(f"{where} is not a checkpoint: these are not names: {some(nameless)}")
    if all(key.startswith("module.") for key in found):
        return {key.removeprefix("module."): value for key, value in found.items()}
    return dict(found)


def _is_safetensors(path: Path) -> bool:
    """By content: eight bytes of length, then JSON."""
    start = _start(path)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < 1 << 30


def _start(path: Path) -> bytes:
    """The first nine bytes."""
    try:
        with path.open("rb") as file:
            return file.read(9)
    except OSError as error:
        raise EyelineError(f"cannot read {path}: {error.strerror}") from error
