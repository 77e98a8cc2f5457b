"""What every benchmark shares: sides that take turns, and one table of all that was measured."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from eyeline.inspection.limits import machine_name

Call = Callable[[], object]
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
PEERS = (
    "torch", "torchvision", "segmentation-models-pytorch", "albumentations",
    "opencv-python-headless", "simplejpeg", "ultralytics",
)  # fmt: skip
WIDTH = 56  # of a row's name


def take_turns(
    calls: Mapping[str, Call], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of every call in every round, after one call each to warm up.

    The order turns round each time, so that whatever else the machine does meets all sides.
    """
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        for name in list(calls)[:: 1 if i % 2 == 0 else -1]:
            start = clock()
            calls[name]()
            seconds[name].append(clock() - start)
    return seconds


@dataclass(frozen=True)
class Row:
    """One comparison: of each side the median, least and most."""

    section: str
    what: str
    unit: str
    theirs: tuple[float, float, float]
    ours: tuple[float, float, float]
    ratio: float  # above 1: ours takes less
    bar: float | None  # what the ratio is to reach


class Table:
    """Rows as they come, printed and kept. Ratios above 1 are in eyeline's favour.

    Args:
        busy: others use the machine: what counts is the processor's time, not that on the wall;
            `clock` gives it to all rows but those of input, which are the processor's either way.
    """

    def __init__(self, threads: int, busy: bool = False) -> None:
        self.threads, self.clock = threads, time.process_time if busy else time.perf_counter
        self.machine = machine(threads)
        processor = "the processor's, of all threads"
        self.machine["time"] = processor if busy else f"on the wall; of input {processor}"
        self.rows: list[Row] = []
        self.notes: list[str] = []
        for key, value in self.machine.items():
            print(f"{key:12}{value}")

    def section(self, title: str, theirs: str = "torchvision") -> None:
        self.current = title
        print(
            f"\n{title}\n  {'median [least, most]':<{WIDTH}}{theirs:>25}{'eyeline':>25}{'ratio':>8}"
        )

    def note(self, text: str) -> None:
        """A line that belongs to the section."""
        self.notes.append(f"{self.current}: {text}")
        print(f"  {text}", flush=True)

    def row(
        self,
        what: str,
        theirs: list[float],
        ours: list[float],
        unit: str = "s",
        bar: float | None = None,
    ) -> None:
        """`bar` is what the ratio is to reach."""
        ratio = statistics.median(theirs) / statistics.median(ours)
        sides = [(statistics.median(side), min(side), max(side)) for side in (theirs, ours)]
        self.rows.append(Row(self.current, what, unit, sides[0], sides[1], ratio, bar))
        verdict = "LOST" if ratio < 0.99 else ""
        if bar is not None:
            verdict = f"bar {bar:.3g}" + ("" if ratio >= bar else " MISSED")
        shown = "".join(f"{_shown(side, unit):>25}" for side in sides)
        print(f"  {what:<{WIDTH}}{shown}{ratio:>7.2f}x {verdict}".rstrip(), flush=True)

    def end(self, path: Path | None) -> None:
        """Print what is lost, and write everything as JSON."""
        lost = [row for row in self.rows if row.ratio < 0.99]
        missed = [row for row in self.rows if row.bar is not None and row.ratio < row.bar]
        print(f"\n{len(lost)} of {len(self.rows)} comparisons lost, {len(missed)} bars missed")
        for row in self.rows:
            if row not in lost and row not in missed:
                continue
            print(f"  {row.section}: {row.what}: {row.ratio:.2f}x")
        if path is not None:
            found = {
                "machine": self.machine,
                "notes": self.notes,
                "rows": [asdict(row) for row in self.rows],
            }
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(f"all of it: {path}")


def _shown(side: tuple[float, float, float], unit: str) -> str:
    middle, least, most = side
    if unit == "s" and middle < 1:
        middle, least, most, unit = middle * 1e3, least * 1e3, most * 1e3, "ms"
    places = 2 if middle < 10 else 1 if middle < 100 else 0
    extremes = f" [{least:.{places}f}, {most:.{places}f}]" if most > least else ""
    return f"{middle:.{places}f}{extremes} {unit}"


def _release(library: str) -> str:
    try:
        return f"{library} {version(library)}"
    except PackageNotFoundError:
        return f"no {library}"


def machine(threads: int) -> dict[str, str]:
    """What the figures were measured on, with what, when."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    flags = set((re.search(r"flags\s*: (.*)", text) or ["", ""])[1].split())
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    found = {
        "processor": f"{machine_name(torch.device('cpu'))}, {os.cpu_count()} CPUs",
        "has": ", ".join(flag for flag in FLAGS if flag in flags) or "unknown instructions",
        "threads": str(threads),
        "with": ", ".join([*map(_release, PEERS), f"Python {platform.python_version()}"]),
        "commit": f"{commit or 'unknown'}, {datetime.date.today()}",
    }
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name()
    return found
