"""Many callers' items computed together: `Batches(compute).submit(item)` gives a future."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from eyeline.errors import EyelineError

T = TypeVar("T")
R = TypeVar("R")


class Batches(Generic[T, R]):
    """Gathers items of any threads into batches, and computes them in one thread of its own.

    An item whose future was cancelled before its batch began is left out. Where a batch fails, its
    items are computed one by one, so that only those fail that must.

    Args:
        compute: a list of items to the list of their results.
        max_batch: items of a batch at most.
        max_wait: seconds that the first of a batch waits for others at most.
    """

    def __init__(
        self, compute: Callable[[list[T]], Sequence[R]], max_batch: int = 8, max_wait: float = 0.01
    ) -> None:
        if max_batch < 1 or max_wait < 0:
            raise EyelineError(
                f"max_batch is at least 1 and max_wait at least 0, not {max_batch}, {max_wait}"
            )
        self.compute, self.max_batch, self.max_wait = compute, max_batch, max_wait
        # None tells the thread to end.
        self.waiting: queue.SimpleQueue[tuple[T, Future[R]] | None] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self.closed = False

    def submit(self, item: T) -> Future[R]:
        """The result to come. The thread starts with the first."""
        future: Future[R] = Future()
        with self.lock:
            if self.closed:
                raise EyelineError("the predictor is closed; make another")
            if self.thread is None:
                self.thread = threading.Thread(target=self._work, name="eyeline", daemon=True)
                self.thread.start()
            self.waiting.put((item, future))
        return future

    def close(self) -> None:
        """Take nothing more, and wait until what was taken is done."""
        with self.lock:
            self.closed = True
            self.waiting.put(None)
        if self.thread is not None:
            self.thread.join()

    def _work(self) -> None:
        while first := self.waiting.get():
            batch, ends = [first], time.monotonic() + self.max_wait
            last = False
            while len(batch) < self.max_batch and not last:
                try:
                    following = self.waiting.get(timeout=max(0.0, ends - time.monotonic()))
                except queue.Empty:
                    break
                if following is None:
                    last = True
                else:
                    batch.append(following)
            self._run([pair for pair in batch if pair[1].set_running_or_notify_cancel()])
            if last:
                break

    def _run(self, batch: list[tuple[T, Future[R]]]) -> None:
        if not batch:
            return
        try:
            results = self.compute([item for item, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for pair in batch:
                    self._run([pair])
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
