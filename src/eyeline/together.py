"""The processes that torchrun starts come together, and end together.

A process that fails would leave the others waiting for it until a timeout of half an hour. So
each tells all why it ends, and shows every second that it still lives; what one of them dies of,
all of them say.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from eyeline.errors import EyelineError, one_line

TIMEOUT = timedelta(minutes=30)  # of one exchange
BEAT = 1.0  # seconds between two signs of life
START = 600.0  # seconds until the first one: machines start at different speeds
LOST = 60.0  # seconds without one, after which a process is given up
GRACE = 5.0  # seconds in which a process may end by itself after another did
LEFT = 1 << 40  # instead of the next sign of life: ended as it should

_store: Any = None  # torchrun's, through which its processes find each other
_runs = 0
_inside = False


@contextmanager
def together() -> Iterator[None]:
    """Within, the processes of torchrun are joined, and an error in one ends all of them with its
    message. A single process, and one within another `together`, runs as it is.

    Raises:
        EyelineError: another process ended, with the reason that it gave; or the processes did not
            find each other.
    """
    global _inside
    store = None if _inside else _join()
    if store is None:
        yield
        return
    rank, count = distributed.get_rank(), distributed.get_world_size()
    watch = _Watch(store, rank, count)
    _inside = True
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # which all processes hear
        watch.leave()
        raise
    except Exception as error:
        reason = watch.reason_of(error)
        if reason is None:
            raise
        raise EyelineError(reason) from error
    else:
        watch.leave()
    finally:
        _inside = False
        watch.stopped.set()


def _join() -> Any:
    """A part of torchrun's store, after all processes have come; None: there is but one, or
    somebody else has joined them."""
    global _store, _runs
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or not distributed.is_available():
        return None
    if not distributed.is_initialized():
        try:
            _store, rank, count = next(iter(rendezvous("env://", timeout=TIMEOUT)))
        except (ValueError, RuntimeError) as error:
            raise EyelineError(
                f"the processes do not find each other ({one_line(error)[:300]}); start them with "
                "torchrun, or unset WORLD_SIZE to have but one"
            ) from error
        both = torch.cuda.is_available() and distributed.is_nccl_available()
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if both else "gloo",
            store=PrefixStore("processes", _store),
            rank=rank, world_size=count, timeout=TIMEOUT,
        )  # fmt: skip
    if _store is None:
        return None
    _runs += 1
    # A connection of its own: others may wait on theirs.
    return PrefixStore(f"together-{_runs}", _store.clone())


class _Watch:
    """Shows that this process lives, and sees whether the others do."""

    def __init__(self, store: Any, rank: int, count: int) -> None:
        self.store, self.rank, self.count = store, rank, count
        self.stopped = threading.Event()
        store.set(f"host-{rank}", socket.gethostname())
        store.add(f"beat-{rank}", 1)
        threading.Thread(target=self._watch, daemon=True).start()

    def leave(self) -> None:
        """This process has ended as it should."""
        self.stopped.set()
        try:
            self.store.add(f"beat-{self.rank}", LEFT)
        except RuntimeError:
            return  # the process that keeps the store has left before

    def reason_of(self, error: Exception) -> str | None:
        """Why the run ends: None where it is this error, which the others are told; else what has
        become of the others, of which it is but a consequence."""
        try:
            if not _is_loss_of_another(error):
                self.store.compare_set("end", "", f"{self._name(self.rank)}: {one_line(error)}")
                return None
            reason = self._told(GRACE) or self._silent()
        except RuntimeError:  # the store is gone, too
            reason = None
        return reason or f"another process ended: {one_line(error)}"

    def _told(self, seconds: float) -> str | None:
        """What another has said, at the latest after so many seconds."""
        for _ in range(round(seconds / 0.1) + 1):
            if self.store.check(["end"]):
                return self.store.get("end").decode()  # type: ignore[no-any-return]
            if seconds:
                time.sleep(0.1)
        return None

    def _silent(self) -> str | None:
        """Who does not live any more, in words that are then everybody's."""
        before = self._beats()
        time.sleep(3 * BEAT)
        gone = [i for i, beat in enumerate(self._beats()) if beat == before[i] and beat < LEFT]
        if not gone:
            return None
        text = f"{', '.join(map(self._name, gone))} ended without a word: killed, out of memory, or"
        text += " its machine is lost"
        return self.store.compare_set("end", "", text).decode()  # type: ignore[no-any-return]

    def _beats(self) -> list[int]:
        return [self.store.add(f"beat-{i}", 0) for i in range(self.count)]

    def _name(self, rank: int) -> str:
        known = self.store.check([f"host-{rank}"])
        host = self.store.get(f"host-{rank}").decode() if known else "an unknown machine"
        return f"process {rank} on {host}"

    def _watch(self) -> None:
        """What the thread does."""
        start = time.monotonic()
        last, heard = [0] * self.count, [start + START - LOST] * self.count
        while not self.stopped.wait(BEAT):
            try:
                self.store.add(f"beat-{self.rank}", 1)
                reason = self._told(0)
                now = time.monotonic()
                for i, beat in enumerate(self._beats()):
                    if beat != last[i] or beat >= LEFT:
                        last[i], heard[i] = beat, now
                    elif now - heard[i] > LOST:
                        reason = reason or f"{self._name(i)} gives no sign of life any more"
            except RuntimeError as error:
                reason = f"the first process cannot be reached any more ({one_line(error)})"
            if reason:
                self._end(reason)
                return

    def _end(self, reason: str) -> None:
        """The process may wait for another in a place where no error reaches it."""
        if not self.stopped.wait(2 * GRACE):
            print(f"error: {reason}", file=sys.stderr, flush=True)
            os._exit(1)


def _is_loss_of_another(error: BaseException) -> bool:
    """Does it come from an exchange with other processes? There is no class for all of these."""
    text = str(error)
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and any(one in text for one in ("gloo", "NCCL", "nccl"))
    )
