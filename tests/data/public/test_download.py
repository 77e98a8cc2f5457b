from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from eyeline.data import download as module
from eyeline.data.download import RETRIES, download
from eyeline.errors import EyelineError

if TYPE_CHECKING:
    from conftest import Server

CONTENT = bytes(hashlib.sha256(b"%d" % i).digest()[0] for i in range(10_000))


@pytest.fixture
def files(server: Server) -> Server:
    server.files["a.bin"] = CONTENT
    return server


def is_content(path: Path) -> None:
    if path.read_bytes() != CONTENT:
        raise EyelineError("not the content")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("way", ["ok", "moved", "busy"])
def test_whole_file(files: Server, tmp_path: Path, way: str) -> None:
    path = tmp_path / "new" / "a.bin"
    download([files.url(way, "a.bin")], path, len(CONTENT), is_content)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["a.bin"]


def test_a_broken_connection_goes_on_where_it_broke(files: Server, tmp_path: Path) -> None:
    """4000 bytes an answer: three of them, and none twice."""
    download([files.url("breaking", "a.bin")], tmp_path / "a.bin", len(CONTENT))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [asked[1:] for asked in files.asked] == [
        (None, 4000), ("bytes=4000-", 4000), ("bytes=8000-", 2000),
    ]  # fmt: skip


def test_an_earlier_run_is_gone_on_with(files: Server, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    (tmp_path / "a.bin.partial").write_bytes(CONTENT[:7000])
    (tmp_path / "a.bin.partial.tag").write_text('"1"')
    download([files.url("ok", "a.bin")], path, len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert [asked[1:] for asked in files.asked] == [("bytes=7000-", 3000)]
    assert names(tmp_path) == ["a.bin"]


def test_stopped_between_the_last_byte_and_the_name(files: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.partial").write_bytes(CONTENT)
    (tmp_path / "a.bin.partial.tag").write_text('"1"')
    download([files.url("ok", "a.bin")], tmp_path / "a.bin", len(CONTENT), is_content)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and files.asked == []


@pytest.mark.parametrize("way", ["ranges-ignored", "untagged", "changing", "weak", "elsewhere"])
def test_starts_over_where_it_cannot_go_on(files: Server, tmp_path: Path, way: str) -> None:
    """It broke after 4000 bytes; the server does not resume, cannot say which file it has, has
    another by now, or goes on at another place."""
    path = tmp_path / "a.bin"
    if way == "elsewhere":
        with pytest.raises(EyelineError, match="at another place than asked for"):
            download([files.url(way, "a.bin")], path, len(CONTENT))
        assert not path.exists()
        return
    download([files.url(way, "a.bin")], path, len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert [sent for _, _, sent in files.asked] == [4000, 10_000]


def test_a_part_of_another_file_is_dropped(files: Server, tmp_path: Path) -> None:
    """Longer than what the server has: there is nothing to go on with."""
    (tmp_path / "a.bin.partial").write_bytes(bytes(20_000))
    (tmp_path / "a.bin.partial.tag").write_text('"1"')
    download([files.url("ok", "a.bin")], tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_server_that_promises_more_than_it_sends(files: Server, tmp_path: Path) -> None:
    with pytest.raises(EyelineError, match="broke off at 10000 of 10500 bytes") as caught:
        download([files.url("longer", "a.bin")], tmp_path / "a.bin")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a.bin").exists()
    whole = [sent for _, _, sent in files.asked if sent]
    assert len(whole) == 1 + RETRIES  # and then no more


def test_a_server_that_promises_less(files: Server, tmp_path: Path) -> None:
    path, url = tmp_path / "a.bin", files.url("shorter", "a.bin")
    with pytest.raises(EyelineError, match="it has 9500 bytes, not 10000"):
        download([url], path, len(CONTENT))
    assert names(tmp_path) == []
    with pytest.raises(EyelineError, match="not the content; it was removed"):
        download([url], path, None, is_content)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("way", "message", "requests"),
    [
        ("missing", "404 Not Found", 1),
        ("failing", "500 Internal Server Error", 1 + RETRIES),
        ("page", "a web page came instead of the file", 1),
        ("other", "not the content; it was removed", 1),
    ],
)
def test_the_next_mirror(
    files: Server, tmp_path: Path, way: str, message: str, requests: int
) -> None:
    path, bad, good = tmp_path / "a.bin", files.url(way, "a.bin"), files.url("ok", "a.bin")
    with pytest.raises(EyelineError, match=message) as caught:
        download([bad, bad], path, len(CONTENT), is_content)
    assert str(caught.value).count(message) == 2 and "\n" not in str(caught.value)
    assert len(files.asked) == 2 * requests
    assert not path.exists()
    download([bad, good], path, len(CONTENT), is_content)
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["a.bin"]


def test_size_of_another_file_is_seen_before_it_is_fetched(files: Server, tmp_path: Path) -> None:
    with pytest.raises(EyelineError, match="it has 10000 bytes, not 19336861798"):
        download([files.url("ok", "a.bin")], tmp_path / "a.bin", 19336861798)
    assert names(tmp_path) == []


def test_a_server_that_falls_silent(
    files: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    download([files.url("hanging", "a.bin")], tmp_path / "a.bin", len(CONTENT))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [asked for _, asked, _ in files.asked] == [None, "bytes=4000-"]
    assert "timed out; again in 0.001 s" in capsys.readouterr().err


def test_no_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Told at once: nothing broke that might mend."""
    with pytest.raises(EyelineError, match=r"cannot download http://127\.0\.0\.1:9/a: .*refused"):
        download(["http://127.0.0.1:9/a"], tmp_path / "a")
    assert capsys.readouterr().err == ""


def test_what_is_no_address_is_not_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(EyelineError, match="cannot download nowhere"):
        download(["nowhere/a"], tmp_path / "a")
    assert capsys.readouterr().err == ""
