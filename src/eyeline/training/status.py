"""status.json: whether a run goes on, how it ended, and how long it has taken.

While it goes on the file's time is renewed every BEAT seconds: of a process that was killed, or
of one on another machine, it tells when it was last alive.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from eyeline.errors import EyelineError
from eyeline.files import write_whole

STATUS = "status.json"
BEAT = 20.0  # seconds


class Status:
    """As a context: the run goes on; after it, how it ended. Where the disk is full, nothing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / STATUS
        self.over = threading.Event()

    def __enter__(self) -> Status:
        before, now = read_status(self.path.parent), time.time()
        self.values = {
            "state": "running",
            "begun": before.get("begun", now),  # seconds since 1970, of the first part of the run
            "started": now,  # this part of it
            "earlier_seconds": seconds_of(before),  # of the parts before
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_began": _began(os.getpid()),
        }
        self._write()
        self.beats = threading.Thread(target=self._beat, daemon=True)
        self.beats.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, _: object) -> None:
        self.over.set()
        self.beats.join()
        state, why = "finished", ""
        if kind is not None and issubclass(kind, Exception):
            state = "failed"
            text = str(error) if issubclass(kind, EyelineError) else f"{kind.__name__}: {error}"
            why = " ".join(text.split())[:500]
        elif kind is not None:  # Ctrl-C, SIGTERM
            state = "interrupted"
        self.values |= {"state": state, "ended": time.time(), "why": why}
        self._write()

    def _write(self) -> None:
        text = json.dumps(self.values, indent=1) + "\n"
        with suppress(OSError):
            write_whole(self.path, partial(Path.write_text, data=text, encoding="utf-8"))

    def _beat(self) -> None:
        while not self.over.wait(BEAT):
            with suppress(OSError):
                os.utime(self.path)


def read_status(folder: Path) -> dict[str, Any]:
    """What status.json says, `state` as it is now: "running", "finished", "interrupted" (Ctrl-C,
    SIGTERM), "failed" (of the error `why`), or "crashed": it had no chance to say more. `ended`
    is there where it does not go on. Empty: there is no such file, or nobody can read it.
    """
    path = folder / STATUS
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["state"] == "running" and not _is_alive(values, path.stat().st_mtime):
            values |= {"state": "crashed", "ended": path.stat().st_mtime}
        seconds_of(values)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(values)


def seconds_of(status: dict[str, Any]) -> float:
    """How long a run has gone on, in all its parts."""
    if not status:
        return 0.0
    end = float(status.get("ended", time.time()))
    return float(status["earlier_seconds"]) + max(0.0, end - float(status["started"]))


def _is_alive(values: dict[str, Any], beat: float) -> bool:
    if values["host"] != socket.gethostname() or os.name != "posix":
        return time.time() - beat < 6 * BEAT
    try:
        os.kill(values["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return bool(_began(values["pid"]) == values["process_began"])  # else a number used again


def _began(pid: int) -> str | None:
    """When a process began, in the system's own count; None where it does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = text.rpartition(")")[2].split()  # the name before may hold anything
    return None if state == "Z" else rest[18]  # a zombie has ended
