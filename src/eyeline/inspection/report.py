"""A profile as a table for the terminal, as markdown and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from eyeline import __version__
from eyeline.inspection.profile import Profile
from eyeline.inspection.stages import BETWEEN, Stage, total

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1  # of the JSON; another where a key changes its meaning
SMALL = 0.005  # of the sum: stages below it share a row
BAR = 12  # characters of a bar that is the whole
COLUMNS = ("ms", "share", "", "GFLOP", "GB", "floor ms", "of limit", "limited by")
NOTES = (
    "floor: what the limits allow, GFLOP / rate of the precision or GB / bandwidth, the larger "
    "one; of limit: floor / ms.",
    "GFLOP: convolutions and products, an addition and a multiplication are two. GB: each "
    "operator reads its inputs and writes its outputs once; more than 100 % of the limit: they "
    "lay in a cache.",
)


@dataclass(frozen=True)
class Subject:
    """What was profiled."""

    model: str
    mode: str  # "inference" or "training"
    precision: str
    batch: int
    size: tuple[int, int]  # height, width
    optimized: bool = True  # by `eyeline.optimize`

    def __str__(self) -> str:
        pictures = "1 picture" if self.batch == 1 else f"{self.batch} pictures"
        what = "training step" if self.mode == "training" else self.mode
        plain = "" if self.optimized or self.mode == "training" else ", as it is"
        return (
            f"{self.model}, {what}, {self.precision}{plain}, "
            f"{pictures} of {self.size[0]}x{self.size[1]}"
        )


def to_table(subject: Subject, profile: Profile) -> Table:
    """For `rich.print`."""
    from rich import box
    from rich.table import Table

    table = Table(title=str(subject), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("stage", no_wrap=True)
    for column in COLUMNS:
        left = column in ("", "limited by")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for level, stage in rows(profile):
        style = "dim" if level else None
        table.add_row("  " * level + label(stage), *cells(stage, profile), style=style)
    table.add_section()
    table.add_row("sum", *cells(profile.sum, profile), style="bold")
    table.caption = "\n".join([*facts(profile), *NOTES])
    table.caption_justify = "left"
    return table


def to_markdown(subject: Subject, profile: Profile) -> str:
    """A section with a table."""
    lines = [f"## {subject}", "", f"| stage | {' | '.join(COLUMNS)} |"]
    lines.append("|---|" + "".join("---|" if c in ("", "limited by") else "--:|" for c in COLUMNS))
    for level, stage in rows(profile):
        name = "\u2003" * level + label(stage)  # spaces that markdown keeps
        lines.append(f"| {name} | {' | '.join(cells(stage, profile))} |")
    lines.append(f"| **sum** | {' | '.join(cells(profile.sum, profile))} |")
    return "\n".join([*lines, "", *(f"{fact}\n" for fact in facts(profile))])


def to_json(subject: Subject, profile: Profile) -> dict[str, Any]:
    """Everything that was measured, in seconds, operations and bytes; stages below `SMALL` too."""
    return {
        "schema": SCHEMA,
        "date": date.today().isoformat(),
        "eyeline": __version__,
        "torch": torch.__version__,
        "subject": vars(subject),
        "limits": vars(profile.limits),
        "whole": profile.whole,
        "uncounted": profile.uncounted,
        "sum": _as_json(profile.sum),
    }


def save_json(subject: Subject, profile: Profile, path: str | Path) -> None:
    text = json.dumps(to_json(subject, profile), indent=2)
    Path(path).write_text(text + "\n", encoding="utf-8")


def _as_json(stage: Stage) -> dict[str, Any]:
    parts = [_as_json(part) for part in stage.parts]
    return {**vars(stage), "fraction": stage.fraction, "parts": parts}


def rows(profile: Profile) -> list[tuple[int, Stage]]:
    """Stages and how deep they lie, in order; small ones of one parent share a row, and so does
    what lies between them."""
    return _rows(profile.stages, SMALL * profile.sum.seconds, 0)


def _rows(stages: list[Stage], least: float, level: int) -> list[tuple[int, Stage]]:
    found: list[tuple[int, Stage]] = []
    between = f"{BETWEEN} the parts" if level else f"{BETWEEN} the stages"
    proper = [stage for stage in stages if not stage.name.startswith(BETWEEN)]
    rests = [stage for stage in stages if stage.name.startswith(BETWEEN)]
    for group, name in ((proper, "{} smaller"), (rests, between)):
        small = [stage for stage in group if stage.seconds < least]
        for stage in group:
            if stage.seconds >= least:
                found += [(level, stage), *_rows(stage.parts, least, level + 1)]
        if small:
            shared = total(name.format(len(small)), small, calls=0)
            found.append((level, small[0] if len(small) == 1 else shared))
    return found


def label(stage: Stage) -> str:
    return f"{stage.name} ×{stage.calls}" if stage.calls > 1 else stage.name


def cells(stage: Stage, profile: Profile) -> list[str]:
    """What stands in the `COLUMNS`."""
    share = stage.seconds / profile.sum.seconds
    return [
        f"{stage.seconds * 1e3:,.1f}",
        f"{share:.1%}",
        "█" * round(share * BAR),
        f"{sum(stage.operations.values()) / 1e9:,.1f}",
        f"{stage.bytes / 1e9:,.2f}",
        f"{stage.floor * 1e3:,.1f}",
        f"{stage.fraction:.0%}",
        stage.limit if stage.floor else "",
    ]


def facts(profile: Profile) -> list[str]:
    """The machine, its limits, and how well the stages make up the whole."""
    limits, whole = profile.limits, profile.whole
    lines = [
        f"{limits.machine}, threads: {limits.threads}; torch {torch.__version__}; "
        f"eyeline {__version__}; {date.today()}",
        f"limits measured: {limits}",
        f"whole, without watching: {median(whole) * 1e3:,.1f} ms [{min(whole) * 1e3:,.1f}, "
        f"{max(whole) * 1e3:,.1f}] in {len(whole)} rounds; the stages' sum is "
        f"{profile.sum.seconds / median(whole):.1%} of it",
    ]
    if profile.uncounted:
        lines.append(f"GFLOP without those of {', '.join(profile.uncounted)}")
    return lines
