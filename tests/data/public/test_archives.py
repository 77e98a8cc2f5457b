from __future__ import annotations

import io
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from eyeline.data.public import archives
from eyeline.data.public.archives import unpack
from eyeline.errors import EyelineError

Make = Callable[[Path, dict[str, bytes]], None]
FILES = {"top/a.txt": b"a" * 3000, "top/deep/b.bin": bytes(range(256)), "top/empty": b""}


def make_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.mkdir("top")
        for name, content in files.items():
            out.writestr(name, content)


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as out:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))


def make_tgz(path: Path, files: dict[str, bytes]) -> None:
    make_tar(path, files, "w:gz")


EACH = pytest.mark.parametrize("make", [make_zip, make_tar, make_tgz])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where it is unpacked; beside it lies what no archive may touch."""
    (tmp_path / "own.txt").write_text("mine")
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def lying(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(archive: Path, folder: Path, message: str) -> None:
    """Nothing lies in the folder, and nothing new beside it."""
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(EyelineError, match=message) as caught:
        unpack(archive, folder)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{archive.name}: ")
    assert sorted(folder.parent.rglob("*")) == before
    assert (folder.parent / "own.txt").read_text() == "mine"


@EACH
def test_unpack(folder: Path, make: Make) -> None:
    """By content: the name tells nothing."""
    make(folder.parent / "archive", FILES)
    assert unpack(folder.parent / "archive", folder) == 3
    assert lying(folder) == FILES


@EACH
def test_one_folder_of_it(folder: Path, make: Make) -> None:
    make(folder.parent / "archive", FILES | {"other/c": b"c", "topping/d": b"d"})
    assert unpack(folder.parent / "archive", folder, inside="top") == 3
    assert lying(folder) == {name.removeprefix("top/"): FILES[name] for name in FILES}


@EACH
def test_what_macos_adds_is_left_out(folder: Path, make: Make) -> None:
    junk = ["__MACOSX/top/._a.txt", "top/._a.txt", "top/.DS_Store"]
    make(folder.parent / "archive", FILES | dict.fromkeys(junk, b"junk"))
    assert unpack(folder.parent / "archive", folder) == 3
    assert lying(folder) == FILES


@EACH
@pytest.mark.parametrize(
    "name",
    ["../own.txt", "top/../../own.txt", "/tmp/own.txt", "..\\own.txt", "C:\\own.txt", "C:own.txt",
     "top/..", "//host/own.txt"],
)  # fmt: skip
def test_names_that_lead_out(folder: Path, make: Make, name: str) -> None:
    """Even behind good files: nothing at all is written."""
    make(folder.parent / "archive", FILES | {name: b"evil"})
    refused(folder.parent / "archive", folder, "leads out of the folder")


def test_a_folder_that_leads_out(folder: Path) -> None:
    archive = folder.parent / "archive"
    with tarfile.open(archive, "w") as out:
        info = tarfile.TarInfo("../elsewhere")
        info.type = tarfile.DIRTYPE
        out.addfile(info)
    refused(archive, folder, "'../elsewhere' in it leads out")
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("../elsewhere/", b"")
    refused(archive, folder, "'../elsewhere/' in it leads out")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_links_and_devices_in_a_tar(folder: Path, kind: bytes) -> None:
    """Also the trick with two steps: a link out of the folder, then a file through it."""
    archive = folder.parent / "archive"
    with tarfile.open(archive, "w") as out:
        info = tarfile.TarInfo("top")
        info.type, info.linkname = kind, ".."
        out.addfile(info)
        through = tarfile.TarInfo("top/own.txt")
        through.size = 4
        out.addfile(through, io.BytesIO(b"evil"))
    refused(archive, folder, "'top' in it is a link or a device")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip(folder: Path, kind: int) -> None:
    archive = folder.parent / "archive"
    with zipfile.ZipFile(archive, "w") as out:
        info = zipfile.ZipInfo("top")
        info.create_system, info.external_attr = 3, (kind | 0o777) << 16
        out.writestr(info, "/etc/passwd")
    refused(archive, folder, "'top' in it is a link or a device")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@EACH
@pytest.mark.parametrize("name", ["top/a.txt", "top/./a.txt", "top//a.txt"])
def test_a_name_twice(folder: Path, make: Make, name: str) -> None:
    if name in FILES:
        archive = folder.parent / "archive"
        if make is make_zip:
            with zipfile.ZipFile(archive, "w") as out:
                out.writestr(name, b"1")
                out.writestr(name, b"2")
        else:
            with tarfile.open(archive, "w") as tar:
                tar.addfile(tarfile.TarInfo(name))
                tar.addfile(tarfile.TarInfo(name))
    else:
        make(folder.parent / "archive", FILES | {name: b"other"})
    refused(folder.parent / "archive", folder, f"'{name}' is in it twice")


@EACH
def test_a_file_that_is_a_folder_too(folder: Path, make: Make) -> None:
    make(folder.parent / "archive", FILES | {"top/a.txt/b": b"b"})
    refused(folder.parent / "archive", folder, r"'top/a\.txt' is a file and a folder in it")


@pytest.mark.parametrize("make", [make_zip, make_tgz])
def test_bombs(folder: Path, make: Make) -> None:
    """100 MB in 100 kB."""
    make(folder.parent / "archive", {"a": bytes(100 << 20)})
    assert (folder.parent / "archive").stat().st_size < 200_000
    refused(
        folder.parent / "archive", folder, r"refused: \d+ bytes would become more than 67108864"
    )


def test_too_many_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FILES", 20)
    make_zip(folder.parent / "archive", {f"{i}": b"" for i in range(21)})
    refused(folder.parent / "archive", folder, "or more than 20 files")


def test_a_zip_that_lies_about_a_size(folder: Path) -> None:
    """Its directory says 10 bytes where 3000 are packed."""
    archive = folder.parent / "archive"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a", b"a" * 3000)
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.index(signature) + offset
        assert int.from_bytes(content[at : at + 4], "little") == 3000
        content[at : at + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(EyelineError, match="archive: "):
        unpack(archive, folder)
    assert sum(map(len, lying(folder).values())) <= 10


@EACH
@pytest.mark.parametrize("damage", ["cut", "zeroed", "empty", "page"])
def test_damaged(folder: Path, make: Make, damage: str) -> None:
    archive = folder.parent / "archive"
    noise = bytes(hash((7, i)) % 251 for i in range(50_000))
    make(archive, {"a": noise, "b": noise})
    content = archive.read_bytes()
    archive.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "zeroed": content[:600] + bytes(2000) + content[2600:],
            "empty": b"",
            "page": b"<!doctype html><html>not found</html>",
        }[damage]
    )
    if damage == "zeroed" and make is make_tar:  # a tar has no checksums of contents
        assert unpack(archive, folder) == 2
        return
    message = "a web page" if damage == "page" else "damaged"
    with pytest.raises(EyelineError, match=f"archive: .*{message}") as caught:
        unpack(archive, folder)
    assert "\n" not in str(caught.value)


def test_with_a_password(folder: Path) -> None:
    archive = folder.parent / "archive"
    make_zip(archive, {"a": b"a" * 100})
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.rindex(signature) + offset
        content[at] |= 1  # says that it is encrypted
    archive.write_bytes(content)
    with pytest.raises(EyelineError, match="encrypted"):
        unpack(archive, folder)


def test_no_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_zip(folder.parent / "archive", FILES)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 7, 3))  # type: ignore[attr-defined]
    refused(folder.parent / "archive", folder, "unpacked it has 3256 bytes, and .* room for 3")
