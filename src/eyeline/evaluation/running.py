"""What every evaluation does: a model over a data set, batch by batch, in one or more processes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from eyeline.device import PRECISIONS, autocast
from eyeline.errors import EyelineError
from eyeline.processes import count_processes, in_order, of_all, place, turns
from eyeline.structures import Target

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")


class Ran(NamedTuple, Generic[T]):
    """What `run` gives."""

    kept: list[T]  # a batch each, in order
    pictures_per_second: float  # prepare, compute and finish; neither loading nor measuring
    device: torch.device


def run(
    model: nn.Module,
    dataset: Dataset[Any],
    keep: Callable[[Any, list[Target]], T],
    batch_size: int = 1,
    device: torch.device | str | None = None,
    precision: str = "float32",
    progress: bool = True,
    workers: int = 0,
) -> Ran[T]:
    """What `keep(model(images), targets)` keeps of each batch, of all processes, in order.

    Args:
        device: where the model is moved to; None: where it is.
        progress: a bar with the remaining time, on a terminal.
        workers: processes that load pictures.

    Raises:
        EyelineError: an empty data set, an unknown precision.
    """
    count = check_run(dataset, precision)
    if device is not None:
        model.to(device)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    own = own_batches(count, batch_size)
    loader: Any = DataLoader(dataset, batch_sampler=own, num_workers=workers, collate_fn=unzip)  # type: ignore[arg-type]
    done: list[T] = []  # batch by batch
    seconds: list[float] = []  # a picture
    in_precision, total = autocast(device, precision), sum(map(len, own))
    shown = progress and place()[0] == 0
    with eval_mode(model), torch.inference_mode(), in_precision, bar(total, shown) as advance:
        for images, batch_targets in loader:
            images = [image.to(device) for image in images]
            wait(device)
            start = time.perf_counter()
            found = model(images)
            wait(device)
            seconds.append((time.perf_counter() - start) / len(images))
            done.append(keep(found, batch_targets))
            advance(len(images))
    # The first call allocates and tunes.
    speed = sum(1 / median(times[1:] or times) for times in of_all(seconds) if times)
    return Ran(in_order(of_all(done)), speed, device)


def check_run(dataset: Dataset[Any], precision: str) -> int:
    """How many pictures there are. Raises EyelineError for none, or an unknown precision."""
    if precision not in PRECISIONS:
        raise EyelineError(f"no precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    count = len(dataset)  # type: ignore[arg-type]
    if not count:
        raise EyelineError("the data set to evaluate on has no pictures")
    return count


def own_batches(count: int, batch_size: int) -> list[range]:
    """Indices of the batches that this process takes. Raises EyelineError for batches of none."""
    if batch_size < 1:
        raise EyelineError(f"batch_size must be 1 or more, not {batch_size}")
    batches = [range(i, min(i + batch_size, count)) for i in range(0, count, batch_size)]
    return [batches[i] for i in turns(len(batches))]


def facts_of(
    model: nn.Module,
    dataset: Dataset[Any],
    device: torch.device,
    precision: str,
    batch_size: int,
) -> dict[str, str]:
    """What a report says of how it was made."""
    annotations = getattr(dataset, "annotations", None)
    return {
        "model": getattr(model, "name", None) or type(model).__name__,
        "parameters": millions(parameters_of(model)),
        "data": str(getattr(annotations, "source", type(dataset).__name__)),
        "device": str(device),
        "precision": precision,
        "batch size": str(batch_size),
        **({} if count_processes() == 1 else {"processes": str(count_processes())}),
    }


def parameters_of(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def millions(count: int) -> str:
    return f"{count / 1e6:.1f} million"


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode within; afterwards every module has its own mode again, frozen parts too."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def show(value: float | None) -> str:
    """A number of merit, or a dash where nothing speaks for it."""
    return "-" if value is None or value < 0 else f"{value:.3f}"


def rate(per_second: float) -> str:
    """A speed in three digits, or as many as stand before the point."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def classes_of(model: nn.Module, dataset: Dataset[Any]) -> list[str]:
    """Names of the labels, which model and data must agree on where both have them."""
    models = list(getattr(model, "classes", None) or [])
    datas = list(getattr(dataset, "classes", None) or [])
    if not (models or datas):
        raise EyelineError("neither model nor data set names its classes; set model.classes")
    if not (models and datas) or models == datas:
        return datas or models
    numbers = [str(k) for k in range(len(models))]  # what unnamed classes are called
    if len(models) == len(datas) and numbers in (models, datas):
        return datas if models == numbers else models
    how = "open the data with classes=model.classes"
    if len(models) != len(datas):
        raise EyelineError(
            f"the model knows {len(models)} classes ({_some(models)}) and the data has "
            f"{len(datas)} ({_some(datas)}); {how}"
        )
    k = next(k for k in range(len(models)) if models[k] != datas[k])
    raise EyelineError(
        f"label {k} is {models[k]!r} to the model and {datas[k]!r} in the data; {how}"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def unzip(pairs: Sequence[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    return [image for image, _ in pairs], [target for _, target in pairs]


def wait(device: torch.device) -> None:
    """For what the device was asked to do, so that the clock counts it."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def bar(total: int, progress: bool) -> Iterator[Any]:
    """A bar on standard error; gives the function that advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = Console(stderr=True)
    columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), Remaining())
    shown = progress and console.is_terminal
    with Progress(*columns, console=console, disable=not shown, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)


def plain(table: Table) -> str:
    """A table as text."""
    from rich.console import Console

    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")


def write_text(path: str | Path, text: str) -> Path:
    """In a folder that is made where it is missing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_json(path: str | Path, content: Any, indent: int | None = None) -> Path:
    text = json.dumps(content, indent=indent, allow_nan=False)
    # Rows of numbers on one line each.
    text = re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda row: f"[{' '.join(row[1].split())}]", text)
    return write_text(path, text + "\n")
