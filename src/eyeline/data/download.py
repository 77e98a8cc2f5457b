"""Files from a server: with a progress bar, resumed where they broke off, and checked."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError

from eyeline.data.urls import opened, without_login
from eyeline.errors import EyelineError

TIMEOUT = 30.0  # seconds without an answer
RETRIES = 4  # in a row, with nothing new received
DELAY = 1.0  # seconds before the first of them; each further one waits twice as long
BUSY = (408, 429, 500, 502, 503, 504)  # answers of a server that may pass
BROKEN = (TimeoutError, ConnectionError, HTTPException, ssl.SSLEOFError)


def download(
    urls: Sequence[str],
    path: Path,
    size: int | None = None,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Download a file from the first of its mirrors that has it whole.

    What has come is kept beside `path` as NAME.partial if the connection breaks or the user stops
    it, and the next call goes on from there if the server still has the very same file. A broken
    connection is tried again a few times.

    Args:
        urls: mirrors, in the order in which they are tried.
        path: where it goes, once it is there whole.
        size: its bytes, where they are known; a file of another size is refused.
        check: called with the whole file before it gets its name; where it raises EyelineError
            the file is removed, and the next mirror tried.

    Raises:
        EyelineError: no mirror has it; what was wrong with each.
    """
    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    faults = []
    for url in urls:
        try:
            _download_from(url, partial, size)
            if check is not None:
                _check(url, partial, check)
        except EyelineError as error:
            faults.append(str(error))
            continue
        os.replace(partial, path)
        _tag_file(partial).unlink(missing_ok=True)
        return
    raise EyelineError("; ".join(faults))


def copy(answer: Any, out: IO[bytes], name: str, total: int | None = None, done: int = 0) -> None:
    """Write what is left of an answer to a file, with a progress bar where there is a terminal.

    Args:
        answer: of `opened`.
        out: open where the next byte goes.
        name: beside the bar.
        total: bytes of the whole file; by default what the answer says, if it does.
        done: how many of them are there already.

    Raises:
        ConnectionError: it ends before `total`; `opened` makes this an EyelineError.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    if total is None:
        total = int(answer.headers.get("Content-Length") or 0) or None
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total, completed=done)
        while block := answer.read1(1 << 20):  # what has come; `read` would lose it in a break
            out.write(block)
            done += len(block)
            progress.update(task, advance=len(block))
            if total is not None and done > total:
                raise EyelineError(f"{name}: more than the {total} bytes it should have")
    if total is not None and done < total:
        raise ConnectionError(f"it broke off at {done} of {total} bytes")


def digest_of(path: Path, kind: str = "sha256") -> str:
    """A file's checksum in hexadecimal; `kind` as hashlib names it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _download_from(url: str, partial: Path, size: int | None) -> None:
    """Fill `partial` from one server, however often its connection breaks."""
    furthest, tries = _size(partial), 0
    while True:
        try:
            return _attempt(url, partial, size)
        except EyelineError as error:
            if not _may_pass(error):
                raise
            received = _size(partial)
            tries = 1 if received > furthest else tries + 1
            furthest = max(furthest, received)
            if tries > RETRIES:
                raise
            wait = DELAY * 2 ** (tries - 1)
            print(f"{error}; again in {wait:g} s", file=sys.stderr)
            time.sleep(wait)


def _attempt(url: str, partial: Path, size: int | None) -> None:
    """One request, for what is still missing."""
    tag_file = _tag_file(partial)
    # Without the server's word for which file it was, nothing can be added to it.
    tag = tag_file.read_text(encoding="utf-8") if tag_file.is_file() else ""
    done = _size(partial) if tag else 0
    if done and done == size:
        return
    headers = {"Range": f"bytes={done}-", "If-Range": tag} if done else {}
    shown = without_login(url)
    try:
        with opened(url, TIMEOUT, headers) as answer:
            done, total = _span(answer, done)
            if answer.headers.get_content_type() == "text/html":
                raise EyelineError(f"cannot download {shown}: a web page came instead of the file")
            if size is not None and total not in (None, size):
                raise EyelineError(f"cannot download {shown}: it has {total} bytes, not {size}")
            # Unbuffered, so that what has come is there even if the process is killed.
            with partial.open("r+b" if done else "wb", buffering=0) as out:
                out.seek(done)
                out.truncate()
                tag_file.write_text(_tag(answer), encoding="utf-8")
                copy(answer, out, partial.stem, total or size, done)
    except EyelineError as error:
        if done and getattr(error.__cause__, "code", None) == 416:  # no such range: another file
            partial.unlink()
            return _attempt(url, partial, size)
        raise


def _span(answer: Any, asked: int) -> tuple[int, int | None]:
    """(where the answer begins in the file, the file's bytes if it says so)."""
    length = answer.headers.get("Content-Length")
    if answer.status != 206:  # the whole file, whatever was asked for
        return 0, int(length) if length else None
    told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if told is None or int(told[1]) != asked:
        raise ConnectionError("the server went on at another place than asked for")
    if told[2] != "*":
        return asked, int(told[2])
    return asked, asked + int(length) if length else None


def _tag(answer: Any) -> str:
    """What tells this file from a later one under the same address: its ETag or its date."""
    tag = answer.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):  # a weak one may stand for other bytes
        return str(tag)
    return str(answer.headers.get("Last-Modified", ""))


def _tag_file(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _may_pass(error: EyelineError) -> bool:
    """Is it worth another try?"""
    cause = error.__cause__
    if isinstance(cause, HTTPError):
        return cause.code in BUSY
    reason = cause.reason if isinstance(cause, URLError) else cause
    return isinstance(reason, BROKEN) and not isinstance(reason, ConnectionRefusedError)


def _check(url: str, partial: Path, check: Callable[[Path], None]) -> None:
    try:
        check(partial)
    except EyelineError as error:
        partial.unlink()
        _tag_file(partial).unlink(missing_ok=True)
        raise EyelineError(f"{without_login(url)}: {error}; it was removed") from error
