"""One process at a time in a folder."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from eyeline.errors import EyelineError


class FileLock:
    """A lock between processes, of one machine or of several that share the file's disk.

    The system keeps it, so it ends with the process, however that ends, and a file that is left
    behind locks nobody out. (Windows has no such locks: there nothing is locked.)

    Args:
        path: of a file that tells who holds it, deleted with it; its folder is made.
        told: what another process is told, with "{holder}" in it.
        threads: it is between the threads of a process, too. Children that are forked meanwhile
            then keep it until they end.
    """

    def __init__(self, path: Path, told: str, threads: bool = False) -> None:
        self.path, self.told, self.threads = path, told, threads
        self.descriptor: int | None = None

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Raises EyelineError, with what is told, where it is held."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while self.descriptor is None and os.name == "posix":
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._lock(descriptor)
                if _is_file(descriptor, self.path):  # else its holder deleted it since
                    self.descriptor = descriptor
            finally:
                if self.descriptor is None:
                    os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        import fcntl

        lock = fcntl.flock if self.threads else fcntl.lockf
        try:
            lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.pread(descriptor, 300, 0).decode(errors="replace") or "another process"
            raise EyelineError(self.told.replace("{holder}", holder)) from error
        except OSError as error:  # not every file system over a network has locks
            print(
                f"{self.path.parent}: cannot be locked ({error.strerror}); see to it that no other "
                "process is at work in it",
                flush=True,
            )
        with suppress(OSError):  # on a full disk nobody is named
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())

    def release(self) -> None:
        """Let go, and delete the file."""
        if self.descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self.descriptor)
            self.descriptor = None


def _is_file(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
