"""eyeline data get: what servers, disks, archives and Ctrl-C do to it."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from layouts import archives, below, tarred, voc, zipped

from eyeline.data.labelled import open_cifar10
from eyeline.data.public.get import folder_lock
from eyeline.data.public.sets import SETS

if TYPE_CHECKING:
    from conftest import Run, Server

PUBLISHED = dict(SETS)
FILES = archives()


def test_mirrors_in_order(
    cli: Run, files: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "PennFudanPed.zip"
    urls = tuple(files.url(way, name) for way in ("missing", "page", "longer", "breaking", "ok"))
    one = dataclasses.replace(SETS["pennfudan"].archives[0], urls=urls)
    monkeypatch.setitem(SETS, "pennfudan", dataclasses.replace(SETS["pennfudan"], archives=(one,)))
    status, _, err = cli("data", "get", "pennfudan")
    assert status == 0, err
    assert files.asked[-1][0] == f"/breaking/{name}"  # it goes on where it breaks off
    assert (SETS["pennfudan"].path / "PedMasks/Penn0_mask.png").is_file()


def test_a_wrong_file(cli: Run, files: Server, tmp_path: Path) -> None:
    """Of the right size: only its checksum tells."""
    status, _, err = cli("data", "get", "cifar10", "--from", files.url("other"))
    assert status == 1 and err.count("\n") == 1
    expected = SETS["cifar10"].archives[0].sum or ""
    assert re.search(
        f"has sha256 [0-9a-f]{{64}}, and should have {expected.partition(':')[2]}; it was removed",
        err,
    )
    assert below(tmp_path) == {}
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/cifar-10-binary.tar.gz").write_bytes(bytes(100))
    err = cli("data", "get", "cifar10", "--from", "mirror")[2]
    assert "cifar-10-binary.tar.gz has 100 bytes, and should have" in err
    assert (tmp_path / "mirror/cifar-10-binary.tar.gz").is_file()  # the user's own


def test_no_public_checksum(cli: Run, files: Server, tmp_path: Path) -> None:
    """The first one is told and written down, and holds from then on."""
    status, out, _ = cli("data", "get", "balloon", "--from", files.url("ok"))
    record = json.loads((tmp_path / "all/balloon/.eyeline/record.json").read_text())
    sha256 = record["balloon_dataset.zip"]["sha256"]
    assert status == 0
    assert f"no checksum is published, its size is right; its sha256 is {sha256}" in out
    shutil.rmtree(tmp_path / "all/balloon/balloon")
    err = cli("data", "get", "balloon", "--from", files.url("other"))[2]
    assert f"and should have {sha256}" in err
    assert not (tmp_path / "all/balloon/balloon").exists()
    assert cli("data", "get", "balloon", "--from", files.url("ok"))[0] == 0


def test_another_archive_of_the_same_size(
    cli: Run, files: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sum, and a real archive: its contents tell."""
    files.files["balloon_dataset.zip"] = content = zipped({"cats/a.jpg": b"cat"})
    one = dataclasses.replace(SETS["balloon"].archives[0], size=len(content))
    monkeypatch.setitem(SETS, "balloon", dataclasses.replace(SETS["balloon"], archives=(one,)))
    status, _, err = cli("data", "get", "balloon", "--from", files.url("ok"))
    assert status == 1 and "another archive than expected: 0 of 1 balloon/*/via_region" in err
    assert not (tmp_path / "all/balloon/cats").exists()


def test_a_malicious_archive(
    cli: Run, files: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.txt").write_text("mine")
    files.files["balloon_dataset.zip"] = content = zipped({"../../../own.txt": b"evil"})
    one = dataclasses.replace(SETS["balloon"].archives[0], size=len(content))
    monkeypatch.setitem(SETS, "balloon", dataclasses.replace(SETS["balloon"], archives=(one,)))
    status, _, err = cli("data", "get", "balloon", "--from", files.url("ok"))
    assert status == 1 and "'../../../own.txt' in it leads out of the folder" in err
    assert (tmp_path / "own.txt").read_text() == "mine"
    assert sorted(p.name for p in (tmp_path / "all/balloon").iterdir()) == [".eyeline"]


def test_two_archives_that_disagree(
    cli: Run, files: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal files of two archives are one; others are told."""
    readme = "VOCdevkit/VOC2007/README"
    first = tarred({readme: b"same", **_untar(voc(2007, "trainval", range(1, 7)))})
    test = _untar(voc(2007, "test", range(7, 10)))
    same, odd = tarred({readme: b"same", **test}), tarred({readme: b"odd", **test})
    for last, expected in ((same, 0), (odd, 1)):
        archives = [
            dataclasses.replace(archive, size=len(content), sum=None)
            for archive, content in zip(SETS["voc2007"].archives, (first, last), strict=True)
        ]
        monkeypatch.setitem(
            SETS, "voc2007", dataclasses.replace(SETS["voc2007"], archives=tuple(archives))
        )
        for archive, content in zip(archives, (first, last), strict=True):
            files.files[archive.name] = content
        folder = f"into{expected}"
        arguments = ("voc2007", "--from", files.url("ok"), "--folder", folder)
        status, _, err = cli("data", "get", *arguments)
        assert status == expected
        assert ("README is there and is another" in err) == bool(expected)
        assert (tmp_path / folder / readme).read_bytes() == b"same"


def _untar(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def test_no_room(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked before the first byte: COCO and its largest archive."""
    monkeypatch.setitem(SETS, "coco", PUBLISHED["coco"])
    usage = shutil.disk_usage(tmp_path)._replace(free=30 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    status, _, err = cli("data", "get", "coco")
    assert status == 1 and "about 39.7 GB are needed, 30.0 GB are free" in err
    err = cli("data", "get", "coco", "--from", tmp_path)[2]  # where no archive lies beside
    assert "no annotations_trainval2017.zip in" in err
    assert not (tmp_path / "all").exists()


def test_a_broken_record(cli: Run, files: Server, tmp_path: Path) -> None:
    (tmp_path / "all/mnist/.eyeline").mkdir(parents=True)
    (tmp_path / "all/mnist/.eyeline/record.json").write_text("{")
    status, _, err = cli("data", "get", "mnist", "--from", files.url("ok"))
    assert status == 1 and "record.json: " in err and "remove it" in err


# -- Ctrl-C

DRIVER = """
import sys
from eyeline.cli import main
from eyeline.data.public.sets import SETS
from layouts import small_sets
SETS.update(small_sets()[0])
sys.exit(main.run(sys.argv[1:]))
"""


def test_ctrl_c_and_again(files: Server, tmp_path: Path) -> None:
    """Stopped within the download; the same command fetches what is missing, no byte twice."""
    name = "cifar-10-binary.tar.gz"
    files.delay = 0.05
    command = [sys.executable, "-c", DRIVER, "data", "get", "cifar10", "--folder", "here"]
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[2] / "src")])
    settings = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": path}, "text": True}
    process = subprocess.Popen(
        [*command, "--from", files.url("slow")], stderr=subprocess.PIPE, **settings
    )
    partial = tmp_path / f"here/.eyeline/{name}.partial"
    deadline = time.monotonic() + 30
    while not (partial.is_file() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in err
    assert "stopped; the same command goes on from here" in err
    received = partial.stat().st_size
    assert 0 < received < len(FILES[name])
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == [".eyeline"]
    files.delay = 0.0
    again = subprocess.run([*command, "--from", files.url("slow")], timeout=60, **settings)
    assert again.returncode == 0
    assert files.asked[1][1:] == (f"bytes={received}-", len(FILES[name]) - received)
    assert len(open_cifar10(tmp_path / "here/cifar-10-batches-bin")) == 20
    assert not partial.exists()


# -- two at once


def test_two_at_once(files: Server, tmp_path: Path) -> None:
    """The second is told so in one line and touches nothing; after a kill there is no lock left."""
    name = "cifar-10-binary.tar.gz"
    files.delay = 0.2
    command = [sys.executable, "-c", DRIVER, "data", "get", "cifar10", "--folder", "here"]
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[2] / "src")])
    settings = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": path}, "text": True}
    command += ["--from", files.url("slow")]
    with subprocess.Popen(command, **settings) as first:
        partial = tmp_path / f"here/.eyeline/{name}.partial"
        deadline = time.monotonic() + 30
        while not (partial.is_file() and partial.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.01)
        second = subprocess.run(command, stderr=subprocess.PIPE, timeout=60, **settings)
        assert second.returncode == 1 and second.stderr.count("\n") == 1
        assert f"here: process {first.pid} on " in second.stderr
        assert "is fetching into it; wait until it is done" in second.stderr
        assert first.poll() is None and len(files.asked) == 1
        first.kill()
    files.delay = 0.0
    third = subprocess.run(command, timeout=60, **settings)
    assert third.returncode == 0
    assert len(open_cifar10(tmp_path / "here/cifar-10-batches-bin")) == 20


def test_a_set_that_is_there_needs_no_lock(cli: Run, files: Server, tmp_path: Path) -> None:
    """It may lie where one cannot write, or another may be fetching another part."""
    arguments = ("mnist", "--from", files.url("ok"), "--folder", "here")
    assert cli("data", "get", *arguments, "--part", "test")[0] == 0
    with folder_lock(tmp_path / "here"):
        assert cli("data", "get", *arguments, "--part", "test")[0] == 0
        status, _, err = cli("data", "get", *arguments)
        assert status == 1 and "is fetching into it" in err
    assert cli("data", "get", *arguments)[0] == 0
