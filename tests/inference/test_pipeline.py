"""Threads between steps: order, bounds, errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from eyeline.errors import EyelineError
from eyeline.inference.pipeline import Behind, ahead


def numbers(count: int, made: list[int], closed: list[bool] | None = None) -> Iterator[int]:
    try:
        for i in range(count):
            made.append(i)
            yield i
    finally:
        if closed is not None:
            closed.append(True)


def wait_until(condition: object) -> None:
    ends = time.monotonic() + 5
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < ends, "in vain"
        time.sleep(0.005)


def test_order_and_bound() -> None:
    made: list[int] = []
    items = ahead(numbers(50, made), 3)
    assert next(items) == 0
    wait_until(lambda: len(made) >= 5)
    time.sleep(0.05)
    assert len(made) == 5  # the one taken, three that wait, and one in hand
    assert list(items) == list(range(1, 50))


def test_an_error_comes_after_what_was_made_before_it() -> None:
    def broken() -> Iterator[int]:
        yield from (1, 2)
        raise EyelineError("the third is missing")

    items, seen = ahead(broken(), 8), []
    with pytest.raises(EyelineError, match="the third"):
        for item in items:
            seen.append(item)
    assert seen == [1, 2]


def test_who_stops_early_stops_the_thread() -> None:
    made: list[int] = []
    closed: list[bool] = []
    items = ahead(numbers(1000, made, closed), 2)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert closed == [True] and len(made) < 6
    assert not any(thread.name == "eyeline-ahead" for thread in threading.enumerate())


def test_the_newest_of_a_live_source() -> None:
    done = threading.Event()

    def live() -> Iterator[int]:
        yield from range(20)
        done.set()

    items = ahead(live(), 2, live=lambda item: True)
    first = next(items)
    assert done.wait(5)
    assert [first, *items][-2:] == [18, 19]


def test_what_can_wait_is_never_forgotten() -> None:
    """Pictures (below 0) in one list with a camera."""
    done = threading.Event()

    def mixed() -> Iterator[int]:
        yield from range(-6, 20)
        done.set()
        yield from range(-9, -6)

    items = ahead(mixed(), 4, live=lambda item: item >= 0)
    seen = [next(items) for _ in range(6)]
    assert done.wait(5)
    seen += items
    assert [item for item in seen if item < 0] == [*range(-6, 0), *range(-9, -6)]
    assert 19 in seen and len(seen) < 29  # of the camera's twenty some are left out


class Stubborn:
    """Two numbers from what cannot be closed."""

    def __iter__(self) -> Iterator[int]:
        return iter([1, 2])

    def close(self) -> None:
        raise OSError("it cannot be closed")


def test_an_error_in_closing_arrives_too() -> None:
    seen: list[object] = []

    def read() -> None:
        try:
            seen.extend(ahead(Stubborn(), 8))  # type: ignore[arg-type]
        except OSError as error:
            seen.append(str(error))

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(5)
    assert not reading.is_alive(), "it waits for ever"
    assert seen[-1] == "it cannot be closed"


def test_behind_keeps_the_order_and_finishes() -> None:
    seen: list[int] = []

    def slow(item: int) -> None:
        time.sleep(0.005)
        seen.append(item)

    with pytest.raises(KeyboardInterrupt), Behind(slow, 4) as behind:
        for i in range(10):
            behind.put(i)
        raise KeyboardInterrupt  # what was put is done all the same
    assert seen == list(range(10))


@pytest.mark.parametrize("count", [1, 100])
def test_what_a_step_raises_reaches_the_caller(count: int) -> None:
    def full(item: int) -> None:
        raise EyelineError("the disk is full")

    with pytest.raises(EyelineError, match="the disk is full"), Behind(full, 4) as behind:
        for i in range(count):
            behind.put(i)
