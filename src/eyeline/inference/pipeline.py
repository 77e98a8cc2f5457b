"""Steps that overlap: each in a thread of its own, with a bounded queue between it and the next.

Order is kept, what a step raises is raised in its neighbour after everything before it, and memory
is bounded by the queues.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 10.0  # seconds to wait at the end for a thread that reads from a silent network


class _Queue(Generic[T]):
    """A bounded queue that either side can close: afterwards nothing goes in."""

    def __init__(self, size: int, live: Callable[[T], bool] = lambda item: False) -> None:
        self.size, self.live = size, live
        self.items: deque[T] = deque()
        self.changed = threading.Condition()
        self.closed = False

    def put(self, item: T) -> bool:
        """False where the queue is closed. Full, it waits; a live item takes the place of the
        oldest live one instead."""
        with self.changed:
            while len(self.items) >= self.size and not self.closed:
                lives = [i for i, waiting in enumerate(self.items) if self.live(waiting)]
                if lives and self.live(item):
                    del self.items[lives[0]]
                else:
                    self.changed.wait()
            if not self.closed:
                self.items.append(item)
                self.changed.notify_all()
            return not self.closed

    def get(self) -> list[T]:
        """The next item in a list, which is empty once the queue is closed and has no more."""
        with self.changed:
            while not self.items and not self.closed:
                self.changed.wait()
            found = [self.items.popleft()] if self.items else []
            self.changed.notify_all()
            return found

    def close(self, discard: bool = False) -> None:
        with self.changed:
            self.closed = True
            if discard:
                self.items.clear()
            self.changed.notify_all()


def ahead(
    items: Generator[T], size: int, live: Callable[[T], bool] = lambda item: False
) -> Iterator[T]:
    """The same items, made in a thread that is up to `size` of them ahead.

    Args:
        live: is an item from a source that waits for nobody? Where the caller is slower than
            `items`, the oldest such that wait are forgotten.
    """
    queue: _Queue[T] = _Queue(size, live)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with closing(items):
                for item in items:
                    if not queue.put(item):
                        break
        except BaseException as error:  # raised below, in the caller's thread
            errors.append(error)
        finally:
            queue.close()

    thread = threading.Thread(target=work, name="eyeline-ahead", daemon=True)
    thread.start()
    try:
        while found := queue.get():
            yield found[0]
        if errors:
            raise errors[0]
    finally:
        queue.close(discard=True)
        thread.join(PATIENCE)


class Behind(Generic[T]):
    """A step done in a thread of its own: `put` hands it the next item and does not wait for it.

    Leaving the context waits until everything that was put is done, whatever happened within. What
    the step raises is raised by the next `put`, or on leaving.
    """

    def __init__(self, step: Callable[[T], object], size: int) -> None:
        self.step, self.queue = step, _Queue[T](size)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._work, name="eyeline-behind", daemon=True)

    def __enter__(self) -> Behind[T]:
        self.thread.start()
        return self

    def put(self, item: T) -> None:
        if not self.queue.put(item):
            assert self.error is not None, "used after its end"
            raise self.error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.queue.close()
        self.thread.join()
        if self.error is not None and kind is None:
            raise self.error

    def _work(self) -> None:
        try:
            while found := self.queue.get():
                self.step(found[0])
        except BaseException as error:  # raised in the caller's thread
            self.error = error
            self.queue.close(discard=True)
