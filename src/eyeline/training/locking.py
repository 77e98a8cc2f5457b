"""One process at a time writes a run folder."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from eyeline.errors import EyelineError

LOCK = ".lock"  # tells who writes the folder


class FolderLock:
    """A lock between processes, of one machine or of several that share the folder's disk.

    The system keeps it, so it ends with the process, however that ends; workers that outlive it
    hold nothing. The file that is left behind then locks nobody out. (Windows has no such locks.)
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / LOCK
        self.descriptor: int | None = None

    def acquire(self) -> None:
        """Raises EyelineError, naming the other process, where it is held."""
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

        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.pread(descriptor, 300, 0).decode(errors="replace") or "another process"
            raise EyelineError(
                f"{self.folder}: {holder} is training in this folder; wait for its end, stop it, "
                f"or choose another out= (if its machine is lost, delete {self.path})"
            ) from error
        except OSError as error:  # not every file system over a network has locks
            print(
                f"{self.folder}: cannot be locked ({error.strerror}); see to it that no other "
                "process trains in it",
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
