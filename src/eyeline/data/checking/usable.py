"""What of a checked data set can be trained on, or measured by: all of it, or what is sound."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from eyeline.data.annotated import AnnotatedPictures
from eyeline.data.arrange import Splits
from eyeline.data.checking import check
from eyeline.data.checking.report import Report
from eyeline.data.datasets import DetectionDataset
from eyeline.data.faults import KINDS, Fault
from eyeline.data.formats.annotations import Annotations, taken, with_classes
from eyeline.errors import EyelineError
from eyeline.files import write_whole

D = TypeVar("D", bound=AnnotatedPictures)
NAMED = 10  # faults that an error names; the rest is counted


def open_checked(
    path: str | Path,
    splits: Sequence[str],
    tolerant: bool = False,
    bad_boxes: str = "error",
    format: str | None = None,
    seed: int = 0,
    channels: int = 3,
    say: Callable[[str], object] | None = None,
    make: Callable[..., D] = DetectionDataset,  # type: ignore[assignment]
    **options: Any,
) -> list[D]:
    """Data sets of the splits, with the classes of the first, or else `classes`.

    What would spoil them is looked for first. Without `tolerant` the pictures' headers and ends
    are read, which is quick; what is damaged in between is told when it is read. With it all
    pictures are decoded, so that whatever cannot be read is left out before anything begins.

    Args:
        tolerant: leave out what is wrong, as the data sets' `left_out` tells, and say how much.
        say: gets a line on what is left out, and one on warnings, where there are any.
        bad_boxes: "drop" to do so with boxes alone.
        make: a data set of annotations, `seed` and `channels`.
        options: `classes`, `one_based`, `unknown`, `values`, `lazy` and `track` of `check`.

    Raises:
        EyelineError: no such data or split; faults that are not to be left out, the first of
            them named; nothing of a split is left.
    """
    if bad_boxes not in ("error", "drop"):
        raise EyelineError(f'bad_boxes is "error" or "drop", not {bad_boxes!r}')
    names = list(dict.fromkeys(splits))
    pictures: Any = True if tolerant else "headers"
    report = check(path, names, format, pictures, copies=False, channels=channels, **options)
    kinds = set(KINDS) if tolerant else {"box", "scale"} if bad_boxes == "drop" else set()
    sound, left_out = usable(report, kinds, names)
    datasets = [make(sound[name], seed=seed, channels=channels) for name in splits]
    for dataset in datasets:
        dataset.left_out = left_out
    warnings = [fault for fault in report.faults if fault.severity == "warning"]
    if left_out and say:
        say(in_words(left_out))
    if warnings and say:
        count = "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings, the first"
        say(f"{count}: {warnings[0]}; see {_command(report)}")
    return datasets


def usable(
    report: Report, tolerated: set[str], needed: Sequence[str]
) -> tuple[Splits, list[Fault]]:
    """The splits without what is wrong, and what that was.

    Args:
        tolerated: kinds of errors that are left out.
        needed: names of splits, the first to train on.

    Raises:
        EyelineError: an error of another kind; a split that cannot be read at all, or of which
            no picture is left.
    """
    errors = [fault for fault in report.faults if fault.severity == "error"]
    refused = [fault for fault in errors if fault.kind not in tolerated]
    if refused:
        raise EyelineError(_refusal(report, refused))
    bad = {fault.where for fault in errors}
    splits = {name: _without(data, bad) for name, data in report.splits.items()}
    for name in needed:
        if name not in splits or not splits[name].records:
            named = "; ".join(map(str, errors[:NAMED]))
            raise EyelineError(f"{report.path}: nothing is left of {name}: {named}")
    known = report.known or report.splits[needed[0]].classes
    return {name: with_classes(data, known) for name, data in splits.items()}, errors


def _without(data: Annotations, bad: set[str]) -> Annotations:
    """Without the pictures and objects at these places."""
    records = []
    for record in data.records:
        if str(record.path) in bad or str(record.mask) in bad:
            continue
        good = np.array([where not in bad for where in record.where], bool)
        records.append(record if good.all() else taken(record, np.flatnonzero(good)))
    return replace(data, records=records)


def _refusal(report: Report, faults: list[Fault]) -> str:
    named = "; ".join(map(str, faults[:NAMED]))
    more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return (
        f"{report.path}: {count} in the data: {named}{more}; mend them ({_command(report)} shows "
        "them), or leave them out with --tolerant (data.tolerant=true)"
    )


def _command(report: Report) -> str:
    return f"`{shlex.join(['eyeline', 'data', 'check', str(report.path), '--all'])}`"


def in_words(left_out: Sequence[Fault]) -> str:
    """In words, how many of what were left out."""
    counts = Counter(fault.kind for fault in left_out)
    parts = [f"{counts[kind]} ({KINDS[kind].title})" for kind in KINDS if counts[kind]]
    return f"left out of the data: {'; '.join(parts)}"


def write_left_out(path: Path, left_out: Sequence[Fault]) -> None:
    """All of it: kind, place and reason of each, and how many of each kind."""
    content = {
        "counts": Counter(fault.kind for fault in left_out),
        "left_out": [{"kind": f.kind, "where": f.where, "what": f.what} for f in left_out],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_whole(path, partial(Path.write_text, data=text, encoding="utf-8"))
