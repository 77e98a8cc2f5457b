"""eyeline data get: each set's layout, its parts and places, and the user's own files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from layouts import archives, below

from eyeline.data.formats import open_annotations
from eyeline.data.labelled import open_cifar10, open_mnist
from eyeline.data.public.sets import SETS
from eyeline.errors import EyelineError

if TYPE_CHECKING:
    from conftest import Run, Server

FILES = archives()
EACH = pytest.mark.parametrize("name", list(SETS))


# -- the table


def test_the_table_is_of_real_files() -> None:
    """Sums are sums, mirrors of one file have its name, no two archives share one."""
    archives = [archive for public in SETS.values() for archive in public.archives]
    assert len(SETS) == 10 and len(archives) == 18
    names = [archive.name for archive in archives]
    assert len(set(names)) == len(names)
    for archive in archives:
        assert all(url.startswith(("http://", "https://")) for url in archive.urls)
        assert {url.rpartition("/")[2] for url in archive.urls} == {archive.name}
        assert archive.sum is None or re.fullmatch(
            r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", archive.sum
        )
        assert archive.size or archive.sum  # something to be compared
    unknown = {public.name for public in SETS.values() if public.archives[0].sum is None}
    assert unknown == {"pennfudan", "balloon"}
    assert SETS["coco"].archives[2].size == 19336861798


def test_list(cli: Run) -> None:
    status, out, _ = cli("data", "get", "--list")
    assert status == 0 and cli("data", "get")[1] == out
    assert [line.split()[0] for line in out.splitlines() if line[0] != " "] == list(SETS)
    assert "licence: CC BY-NC-SA 3.0" in out and "COCO_ROOT" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["voc"], "no public data set 'voc'; did you mean voc2007 or voc2012?"),
        (["coco2017"], "no public data set 'coco2017'; did you mean coco?"),
        (["imagenet"], "no public data set 'imagenet'; there are: voc2007, voc2012, coco"),
        (["coco", "--part", "test"], "coco has no part 'test'; there are: annotations, val, train"),
        (["--folder", "x"], "which data set?"),
        (["mnist", "--folder", "file"], "file is no folder"),
        (["mnist", "--from", "nowhere"], "no train-images-idx3-ubyte.gz in nowhere"),
    ],
)
def test_wrong_usage(cli: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "file").write_text("mine")
    status, _, err = cli("data", "get", *arguments)
    assert status == 1 and message in err and err.count("\n") == 1
    assert below(tmp_path).keys() == {"file"}


# -- every set


@EACH
def test_get(cli: Run, files: Server, tmp_path: Path, name: str) -> None:
    """From a server; a second time nothing is fetched."""
    status, out, err = cli("data", "get", name, "--from", files.url("ok"))
    assert (status, err) == (0, "")
    public = SETS[name]
    assert f"licence: {public.licence}" in out
    last = (
        f"{tmp_path / 'all' / name / public.home}: ready; its name, {name}, stands for this path\n"
    )
    assert out.endswith(last + (f"{public.opens}\n" if public.opens else ""))
    folder = tmp_path / "all" / name
    for archive in public.archives:
        assert all(list(folder.glob(pattern)) for pattern in archive.holds)
    assert [p.name for p in (folder / ".eyeline").iterdir()] == ["record.json"]
    assert not [p for p in below(folder) if "MACOSX" in p or "/._" in p or "README.md" in p]
    before, asked = below(folder), len(files.asked)
    assert asked == len(public.archives)
    status, out, err = cli("data", "get", name, "--from", files.url("ok"))
    assert (status, err) == (0, "") and out.count("there already") == len(public.archives)
    assert below(folder) == before and len(files.asked) == asked


@EACH
def test_get_from_a_folder(cli: Run, tmp_path: Path, name: str) -> None:
    """Whose files stay."""
    (tmp_path / "mirror").mkdir()
    for archive in SETS[name].archives:
        (tmp_path / "mirror" / archive.name).write_bytes(FILES[archive.name])
    before = below(tmp_path / "mirror")
    status, _, err = cli("data", "get", name, "--from", "mirror", "--folder", "here")
    assert (status, err) == (0, "")
    assert below(tmp_path / "mirror") == before
    for archive in SETS[name].archives:
        assert all(list((tmp_path / "here").glob(pattern)) for pattern in archive.holds)


@pytest.mark.parametrize("name", ["voc2007", "coco", "kitti", "camvid", "pennfudan", "balloon"])
def test_what_was_fetched_can_be_opened(cli: Run, files: Server, tmp_path: Path, name: str) -> None:
    assert cli("data", "get", name, "--from", files.url("ok"))[0] == 0
    split = ["--split", "train"] if name == "kitti" else []
    for path in (name, SETS[name].path, tmp_path / "all" / name):
        status, out, _ = cli("data", "check", path, *split)
        # (The made pictures are alike, which is told.)
        assert status == 0 and ("no fault found" in out or "\n0 errors, " in out), out
    pictures = {"camvid": 2, "pennfudan": 2, "balloon": 1}.get(name, 3)
    data = open_annotations(name, "train")
    assert len(data.records) == pictures
    assert data.classes[0] == {"camvid": "Sky", "balloon": "balloon"}.get(name, data.classes[0])


def test_layouts(cli: Run, files: Server, tmp_path: Path) -> None:
    for name in ("camvid", "pennfudan", "balloon", "pets", "mnist", "cifar10"):
        assert cli("data", "get", name, "--from", files.url("ok"))[0] == 0
    top = {name: sorted(p.name for p in SETS[name].path.iterdir() if p.name[0] != ".")
           for name in ("camvid", "pennfudan", "balloon", "pets")}  # fmt: skip
    assert top == {
        "camvid": ["classes.txt", "test", "test.txt", "testannot", "train", "train.txt",
                   "trainannot", "val", "val.txt", "valannot"],
        "pennfudan": ["Annotation", "PNGImages", "PedMasks", "readme.txt"],
        "balloon": ["classes.txt", "train", "val"],
        "pets": ["annotations", "images"],
    }  # fmt: skip
    assert len(open_mnist()) == 20 and len(open_mnist(split="test")) == 5
    assert len(open_cifar10()) == 20 and len(open_cifar10(split="test")) == 3


# -- parts, places


def test_parts_one_by_one(cli: Run, files: Server, tmp_path: Path) -> None:
    source = ["--from", files.url("ok")]
    assert cli("data", "get", "coco", "--part", "val", "--part", "annotations", *source)[0] == 0
    folder = tmp_path / "all/coco"
    assert sorted(p.name for p in folder.iterdir()) == [".eyeline", "annotations", "val2017"]
    assert cli("data", "check", "coco", "--split", "val")[0] == 0
    status, out, _ = cli("data", "get", "coco", *source)
    assert status == 0 and out.count("there already") == 2
    assert len(list((folder / "train2017").iterdir())) == 3
    assert [path.rpartition("/")[2] for path, _, _ in files.asked] == [
        "annotations_trainval2017.zip", "val2017.zip", "train2017.zip",
    ]  # fmt: skip


def test_two_years_in_one_root(
    cli: Run, files: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOC_ROOT", str(tmp_path / "my voc"))
    for name in ("voc2007", "VOC-2012"):
        assert cli("data", "get", name, "--from", files.url("ok"))[0] == 0
    assert sorted(p.name for p in (tmp_path / "my voc/VOCdevkit").iterdir()) == [
        "VOC2007", "VOC2012",
    ]  # fmt: skip
    assert len(open_annotations("voc2007", "test").records) == 3
    assert len(open_annotations("voc2012", "trainval").records) == 4


def test_where_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The set's own variable before EYELINE_DATA before the cache."""
    coco = SETS["coco"]
    for variable in ("COCO_ROOT", "EYELINE_DATA", "EYELINE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert coco.folder == tmp_path / ".cache/eyeline/data/coco"
    monkeypatch.setenv("EYELINE_DATA", "~/data")
    assert coco.folder == tmp_path / "data/coco"
    monkeypatch.setenv("COCO_ROOT", "/mnt/coco")
    assert coco.folder == coco.path == Path("/mnt/coco")


def test_a_name_that_is_not_there(cli: Run, tmp_path: Path) -> None:
    status, _, err = cli("data", "check", "kitti")
    assert status == 1 and "`eyeline data get kitti` puts the public data set in" in err
    assert str(tmp_path / "all/kitti") in err and "KITTI_ROOT" in err
    with pytest.raises(EyelineError, match=r"^kitty: no such file or folder$"):
        open_annotations("kitty", "train")
    (tmp_path / "all/kitti/.eyeline").mkdir(parents=True)  # only begun
    assert "no such file or folder" in cli("data", "check", "kitti")[2]


def test_a_folder_of_that_name_comes_first(cli: Run, files: Server, tmp_path: Path) -> None:
    assert cli("data", "get", "kitti", "--from", files.url("ok"))[0] == 0
    (tmp_path / "kitti").mkdir()
    assert "kitti: not annotations of a known format" in cli("data", "check", "kitti")[2]


# -- the user's own files


def test_what_the_user_has_already_counts(
    cli: Run, files: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unpacked by hand: nothing is fetched, nothing changed; its name leads there."""
    assert cli("data", "get", "kitti", "--from", files.url("ok"), "--folder", "mine")[0] == 0
    shutil.rmtree(tmp_path / "mine/.eyeline")
    before, asked = below(tmp_path / "mine"), len(files.asked)
    monkeypatch.setenv("KITTI_ROOT", str(tmp_path / "mine"))
    assert len(open_annotations("kitti", "train").records) == 3
    status, out, _ = cli("data", "get", "kitti")
    assert status == 0 and out.count("there already by the number of its files; not compared") == 2
    assert below(tmp_path / "mine") == before and len(files.asked) == asked


def test_nothing_is_written_over(cli: Run, files: Server, tmp_path: Path) -> None:
    own = tmp_path / "all/kitti/training/label_2/000001.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    status, _, err = cli("data", "get", "kitti", "--from", files.url("ok"))
    assert status == 1 and err.count("\n") == 1
    assert f"{own} is there and is another; nothing was changed" in err
    names = [name for name in below(tmp_path / "all/kitti") if not name.startswith(".eyeline")]
    assert names == ["training/label_2/000001.txt"] and own.read_text() == "mine"
    own.unlink()
    other = own.with_name("notes.txt")
    other.write_text("mine")
    assert cli("data", "get", "kitti", "--from", files.url("ok"))[0] == 0
    assert other.read_text() == "mine" and own.is_file()


def test_lost_files_come_back(cli: Run, files: Server, tmp_path: Path) -> None:
    assert cli("data", "get", "kitti", "--from", files.url("ok"))[0] == 0
    folder = tmp_path / "all/kitti/training/label_2"
    before = below(folder)
    for path in sorted(folder.iterdir())[1:]:
        path.unlink()
    assert cli("data", "get", "kitti", "--from", files.url("ok"))[0] == 0
    assert below(folder) == before


def test_pets_are_opened(cli: Run, files: Server) -> None:
    """What of them can be, as the command says; the pictures without boxes are counted."""
    status, out, _ = cli("data", "get", "pets", "--from", files.url("ok"))
    assert status == 0 and "opened as Pascal VOC: split trainval" in out.splitlines()[-1]
    status, out, _ = cli("data", "check", "pets")
    lines = out.splitlines()
    assert status == 0 and lines[0] == "pets: Pascal VOC, pictures all decoded"
    assert lines[1] == "not used: trainval: 1 listed picture(s) without an XML file"
    assert [r.path.name for r in open_annotations("pets", "trainval").records] == [
        "Abyssinian_1.jpg"
    ]
