"""The plan of very many pictures, and the parts of its results, without Ray's processes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import many
import pytest

from eyeline.errors import EyelineError
from eyeline.inference.parts import Counts, read_counts, read_errors
from eyeline.inference.plan import Plan, begin_or_resume, find_entries, read_rows
from eyeline.inference.ray_engine import Worker, share_out

pyarrow = pytest.importorskip("pyarrow", reason="PyArrow, of the extra `ray`, is not installed")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ten pictures, in a Parquet file too: their paths, their bytes (but the last) and records."""
    monkeypatch.chdir(tmp_path)
    many.make_pictures(Path("pictures"), 10)
    files = sorted(str(file) for file in Path("pictures").rglob("*.png"))
    data = [Path(file).read_bytes() for file in files]
    records = [{"bytes": one, "path": file} for one, file in zip(data, files, strict=True)]
    columns = {"file": files, "image": [*data[:9], None], "record": records, "id": range(10)}
    parquet.write_table(
        pyarrow.table({k: list(v) for k, v in columns.items()}), "t.parquet", row_group_size=4
    )
    return files


def test_sources(files: list[str]) -> None:
    Path("pictures/.hidden").mkdir()
    Path("pictures/.hidden/a.png").touch()
    assert [entry.name for entry in find_entries("pictures")] == files
    assert [entry.name for entry in find_entries("t.parquet", "file")] == files
    named = [f"t.parquet:{i}" for i in range(10)]
    assert [entry.name for entry in find_entries("t.parquet", "image")] == named


@pytest.mark.parametrize("rows", [(0, 10), (3, 6), (4, 8), (8, 10)])
def test_rows_of_a_parquet_file(files: list[str], rows: tuple[int, int]) -> None:
    data = [Path(file).read_bytes() for file in files]
    assert list(read_rows("t.parquet", "record", *rows)) == data[slice(*rows)]
    assert list(read_rows("t.parquet", "image", *rows)) == [*data[:9], None][slice(*rows)]


@pytest.mark.parametrize(
    ("source", "column", "words"),
    [
        ("t.parquet", None, "which column holds the pictures? --column takes one of: file,"),
        ("t.parquet", "x", "no column x"),
        ("t.parquet", "id", "column id is int64, neither paths nor pictures"),
        ("none.parquet", "x", "none.parquet: no such file"),
        ("none", None, "none: no such picture"),
        ("pictures/0/000.png", "x", "--column is for Parquet files"),
    ],
)
def test_wrong_sources(files: list[str], source: str, column: str | None, words: str) -> None:
    with pytest.raises(EyelineError, match=words.replace("?", r"\?")):
        list(find_entries(source, column))


def test_a_worker_and_another_that_resumes(files: list[str]) -> None:
    many.make_model(Path("model.safetensors"))
    folder = Path("found").resolve()
    plan = begin_or_resume(folder, "t.parquet", "image", {"model": "a"}, 4)
    worker = Worker(folder, "cpu", 1, 1, {"model": "model.safetensors", "score_threshold": 0.0})
    worker({"part": [2]})
    assert (plan.parts, plan.pictures, plan.done()) == (3, 10, [2])
    counts = read_counts(plan.result(2))
    assert counts == Counts(2, 100, 1)
    assert read_errors(plan.result(2), 5) == ["t.parquet:9: not a picture of a known format"]
    again = begin_or_resume(folder, "t.parquet", "image", {"model": "a"}, 4)
    assert again.done() == [2]
    with pytest.raises(EyelineError, match="begun with model a, now it is b"):
        begin_or_resume(folder, "t.parquet", "image", {"model": "b"}, 4)
    with pytest.raises(EyelineError, match="exists already; choose another --out"):
        begin_or_resume(Path("pictures"), "t.parquet", "image", {"model": "a"}, 4)


def test_two_commands_do_not_share_a_plan(files: list[str]) -> None:
    plan = begin_or_resume(Path("found").resolve(), "pictures", None, {}, 5)
    told = rf"process {os.getpid()} on .* is at work on it"
    with plan.alone(), pytest.raises(EyelineError, match=told), Plan(plan.folder).alone():
        raise AssertionError
    with plan.alone():
        pass
    old = json.loads((plan.folder / "_plan/settings.json").read_text())
    del old["column"]  # as another version may have it
    (plan.folder / "_plan/settings.json").write_text(json.dumps(old | {"size": 6}))
    with pytest.raises(EyelineError, match="begun with size 6, now it is 5"):
        begin_or_resume(plan.folder, "pictures", None, {}, 5)


def test_a_table_that_is_damaged_or_another(files: list[str]) -> None:
    chunk = parquet.read_metadata("t.parquet").row_group(1).column(1)
    with Path("t.parquet").open("rb+") as file:
        file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
        file.write(b"\xff" * 60)
    assert len(list(read_rows("t.parquet", "image", 0, 4))) == 4
    with pytest.raises(EyelineError, match=r"t\.parquet: cannot be read as Parquet"):
        list(read_rows("t.parquet", "image", 4, 8))
    with pytest.raises(EyelineError, match="has fewer rows now"):
        list(read_rows("t.parquet", "image", 8, 12))


@pytest.mark.parametrize(
    ("machines", "device", "workers", "shared"),
    [
        ([{"CPU": 8.0}], "cpu", None, (1, 8)),
        ([{"CPU": 8.0}], "cpu", 3, (3, 2)),
        ([{"CPU": 4.0}, {"CPU": 16.0}], "cpu", None, (2, 8)),
        ([{"CPU": 3.0}, {"CPU": 3.0}], "cpu", 3, (3, 1)),
        ([{}, {"CPU": 4.0}], "cpu", None, (1, 4)),  # a head that does no work
        ([{"CPU": 4.0, "GPU": 2.0}, {"CPU": 4.0}], "cuda", None, (2, 4)),
    ],
)
def test_every_worker_has_a_place(machines, device, workers, shared) -> None:
    assert share_out(machines, device, workers) == shared


def test_more_workers_than_there_is_room_for() -> None:
    with pytest.raises(EyelineError, match=r"5 workers, but Ray has 4 CPU\(s\) here"):
        share_out([{"CPU": 4.0}], "cpu", 5)
    with pytest.raises(EyelineError, match=r"0 workers, but Ray has 0 GPU\(s\) here"):
        share_out([{"CPU": 4.0}], "cuda", None)


def test_pictures_that_kill_every_worker(files: list[str]) -> None:
    many.make_model(Path("model.safetensors"))
    plan = begin_or_resume(Path("found").resolve(), "pictures", None, {}, 5)
    plan.tries(1).write_bytes(b"....")
    worker = Worker(plan.folder, "cpu", 1, 1, {"model": "model.safetensors"})
    with pytest.raises(EyelineError, match=f"4 workers died .* between {files[5]} and {files[9]}"):
        worker({"part": [1]})
    plan.clear()
    worker({"part": [1]})
    assert plan.done() == [1] and not plan.tries(1).exists()
