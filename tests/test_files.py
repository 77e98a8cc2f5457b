"""Files that are there whole, or not at all."""

from __future__ import annotations

import os
import stat

import pytest

from eyeline.files import Lines, write_whole


def test_a_failure_leaves_the_former_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "state.pt"
    write_whole(path, lambda part: part.write_text("first"))

    def breaks(part):
        part.write_text("sec")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_whole(path, breaks)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    seen = []

    def sync(descriptor):
        found = os.fstat(descriptor)
        size = found.st_size if stat.S_ISREG(found.st_mode) else "folder"
        seen.append(((tmp_path / "a").exists(), size))

    monkeypatch.setattr(os, "fsync", sync)
    write_whole(tmp_path / "a", lambda part: part.write_text("12345"))
    assert seen == [(False, 5), (True, "folder")]  # the name last, and it too
    assert (tmp_path / "a").read_text() == "12345"


def test_the_former_file_is_kept(tmp_path):
    path = tmp_path / "a"
    for text in "123":
        write_whole(path, lambda part, text=text: part.write_text(text), former="before")
    assert (path.read_text(), (tmp_path / "before").read_text()) == ("3", "2")
    with pytest.raises(OSError, match="refused"):
        write_whole(path, refuse, former="before")
    assert (path.read_text(), (tmp_path / "before").read_text()) == ("3", "2")


def refuse(part):
    raise OSError("refused")


class Full:
    """A file on a disk that takes a few bytes more and is full then, until `room` is made."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if not self.room:
            raise OSError("no space left on device")
        taken = self.file.write(data[: self.room])
        self.room -= taken
        return taken

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_lines_wait_until_there_is_room(tmp_path):
    path = tmp_path / "lines"
    path.write_text("old\n")
    lines = Lines(path)
    lines.file = full = Full(lines.file, room=7)
    lines.add("one")
    for line in ("two", "three"):
        with pytest.raises(OSError, match="no space"):
            lines.add(line)
        assert path.read_text() == "old\none\n"
    full.room = 5
    with pytest.raises(OSError, match="no space"):
        lines.sync()
    full.room = 100
    lines.sync()
    lines.close()
    assert path.read_text() == "old\none\ntwo\nthree\n"
