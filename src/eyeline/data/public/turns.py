"""One process at a time in a folder.

The lock is the operating system's, on an open file: it is gone when the process is, however it
ended, so no lock is ever left over, and nobody has to guess whether a noted process still lives or
its number is another's by now. Python has it on all systems but Windows, where nothing is locked.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from eyeline.errors import EyelineError

LOCK = "lock"  # the file stays; what it says is who was the last


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No other process is in such a block of this folder, which is made where it is not there.

    Raises EyelineError where one is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    with open(descriptor, "r+", encoding="utf-8", errors="replace") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EyelineError(
                f"{folder.parent}: {file.read().strip() or 'another process'} is fetching into it; "
                "wait until it is done, then the same command goes on from there"
            ) from None
        except OSError:  # a file system without locks
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
