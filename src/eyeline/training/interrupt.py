"""Ctrl-C, and the SIGTERM of schedulers and containers: the step is finished, the state saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Signals wait for the end of the step, `wanted` says that one came; a second does not."""

    wanted = False

    def __enter__(self) -> Interrupt:
        # Only the main thread can hear signals.
        self.listens = threading.current_thread() is threading.main_thread()
        self.heard = signal.SIGINT
        if self.listens:
            self.before = [signal.signal(number, self._heard) for number in SIGNALS]
        return self

    def __exit__(self, *error: object) -> None:
        if self.listens:
            for number, handler in zip(SIGNALS, self.before, strict=True):
                signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.heard = signal.Signals(number)
        if self.wanted:
            self.stop()
        self.wanted = True

    def stop(self) -> NoReturn:
        """Raise KeyboardInterrupt; after a SIGTERM SystemExit, with the status it stands for."""
        if self.heard == signal.SIGTERM:
            raise SystemExit(128 + self.heard)
        raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, a signal does not wait; nor does one that came since the last step."""
        if self.wanted:
            self.stop()
        self.wanted = True
        try:
            yield
        finally:
            self.wanted = False
