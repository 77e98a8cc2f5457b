"""eyeline models: what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyeline.errors import EyelineError

if TYPE_CHECKING:
    from eyeline.registry import Entry

# Task -> height and width of the picture that is counted, number of classes.
COUNTED = {
    "detection": (800, 1066, 80),
    "segmentation": (512, 512, 19),
    "classification": (224, 224, 1000),
}


def models(
    task: Annotated[
        str | None, typer.Option(help="detection, segmentation, classification")
    ] = None,
) -> None:
    """List the models, with paper, parameters and GFLOPs."""
    from rich import box
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from eyeline.registry import entries

    if task is not None and task not in COUNTED:
        raise EyelineError(f"no task is called {task!r}; there are: {', '.join(COUNTED)}")
    errors = Console(stderr=True)
    tables = {}
    for entry in track(
        entries(task), "counting", console=errors, transient=True, disable=not errors.is_terminal
    ):
        if entry.task not in tables:
            height, width, classes = COUNTED[entry.task]
            tables[entry.task] = table = Table(box=box.SIMPLE_HEAD, title_justify="left")
            table.title = (
                f"{entry.task}: GFLOPs are billions of multiply-adds, "
                f"one picture of {height}x{width}, {classes} classes"
            )
            table.add_column("model", no_wrap=True)
            table.add_column("parameters", justify="right", no_wrap=True)
            table.add_column("GFLOPs", justify="right", no_wrap=True)
            table.add_column("paper")
        parameters, flops = cost(entry)
        tables[entry.task].add_row(
            entry.name, f"{parameters / 1e6:.1f} M", f"{flops / 1e9:.1f}", entry.paper
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    for _, table in sorted(tables.items(), reverse=True):
        console.print(table)


def cost(entry: Entry, **options: Any) -> tuple[int, int]:
    """Parameters, and multiply-adds of one picture of the size in `COUNTED`.

    On torch's meta device: shapes alone, nothing is computed. A detector counts as if every slot
    for a box were taken.
    """
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    height, width, classes = COUNTED[entry.task]
    with torch.device("meta"):
        model = entry.build(num_classes=classes, **options).eval()
        image = torch.empty(3, height, width)
    parameters = sum(p.numel() for p in model.parameters())
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):  # has none, and is slow on this device
                setattr(module, name, nn.Identity())
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        if hasattr(model, "compute"):
            model.compute(model.prepare([image]))
        else:
            model(image[None])
    return parameters, counter.get_total_flops() // 2
