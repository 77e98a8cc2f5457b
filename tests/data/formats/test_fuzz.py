"""Broken files give the annotations that are left, or one line; never a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyeline.data.faults import STRICT, Faults
from eyeline.data.formats import FORMATS, Annotations, Format, Record, open_annotations
from eyeline.data.formats.writing import plan, write
from eyeline.errors import EyelineError

ALL = pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.NAME)


def data_set(folder: Path, format: Format) -> Path:
    rng = np.random.default_rng(0)
    records = []
    for i in range(3):
        path = folder / f"{i}.png"
        Image.new("RGB", (64, 48)).save(path)
        corners = np.sort(rng.integers(0, 48, (3, 2, 2)), axis=1).reshape(3, 4)
        labels, crowd = rng.integers(0, 2, 3), np.zeros(3, bool)
        outlines = [[], [[1.0, 1, 9, 1.5, 9, 7]], [[1.25, 1, 30, 1, 30, 40]]]
        where = ["a", "b", "c"]
        one = (path, 64, 48, corners.astype(np.float32), labels, crowd, outlines, i, where)
        records.append(Record(*one))
    write(plan({"train": Annotations(["cat", "dog"], records, "x")}, format), folder / "set")
    return folder / "set"


def broken(content: bytes, rng: np.random.Generator) -> bytes:
    """The file cut, with zeros, with flipped bits, or with two pieces changed for each other."""
    a, b, c, d = np.sort(rng.integers(0, len(content) + 1, 4)).tolist()
    kind = rng.integers(6)
    if kind == 0:
        return content[:a]
    if kind == 1:
        return content[:a] + b"\0" * (b - a) + content[b:]
    if kind == 2:
        return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]
    if kind == 3:  # a word becomes another
        words = content.split(b" ")
        i, j = rng.integers(len(words), size=2)
        words[i], words[j] = words[j], words[i]
        return b" ".join(words)
    if kind == 4:  # a digit becomes something else
        digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()] or [0]
        at = digits[rng.integers(len(digits))]
        new = rng.choice([b"-", b"9" * 400, b'"x"', b"null", b"1e999", b"[]", b"{}", b"nan", b""])
        return content[:at] + bytes(new) + content[at + 1 :]
    array = np.frombuffer(content, np.uint8).copy()
    if len(array):
        array[rng.integers(len(array), size=3)] ^= np.uint8(1 << rng.integers(8))
    return array.tobytes()


def outcome(whole: Path, folder: Path, faults: Faults) -> int | None:
    """How many objects there are; None where that was refused, in one line that names the file."""
    told: list[EyelineError] = []
    count = None
    try:
        records = open_annotations(whole, "train", faults=faults).records
        assert all(len(r.boxes) == len(r.labels) == len(r.where) for r in records)
        count = sum(len(record.boxes) for record in records)
    except EyelineError as error:
        told.append(error)
    for error in [*told, *faults.found]:
        assert "\n" not in str(error), error
        assert str(folder) in str(error), error
    return count


def breaks(format: Format, folder: Path, count: int) -> None:
    whole = data_set(folder, format)
    pictures = {record.path for record in open_annotations(whole, "train").records}
    files = sorted(p for p in whole.rglob("*") if p.is_file() and p not in pictures)
    told = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        file = files[rng.integers(len(files))]
        content = file.read_bytes()
        file.write_bytes(broken(content, rng))
        try:
            strict = outcome(whole, folder, STRICT)
            gathering = Faults(gather=True)
            gathered = outcome(whole, folder, gathering)
        except Exception as error:
            raise AssertionError(f"{file}, seed {seed}: {type(error).__name__}") from error
        if strict is None:  # whatever is told when it is raised is told when it is left out
            assert gathered is None or gathering.found, (seed, file)
            told += 1
        else:
            assert gathered == strict, (seed, file)
            assert not gathering.found, (seed, file)
        file.write_bytes(content)
    assert told > count / 5
    shutil.rmtree(whole)


@ALL
def test_fifty_broken_files(format: Format, tmp_path: Path) -> None:
    breaks(format, tmp_path, 50)


@pytest.mark.slow
@ALL
def test_two_thousand_broken_files(format: Format, tmp_path: Path) -> None:
    breaks(format, tmp_path, 2000)
