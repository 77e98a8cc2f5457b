"""Files that are there whole, or not at all."""

from __future__ import annotations

import os
import stat

import pytest

from eyeline.files import write_whole


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
        assert stat.S_ISREG(os.fstat(descriptor).st_mode)
        seen.append(((tmp_path / "a").exists(), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", sync)
    write_whole(tmp_path / "a", lambda part: part.write_text("12345"))
    assert seen == [(False, 5)]
    assert (tmp_path / "a").read_text() == "12345"
