"""How far a run has come, of which its state and its log tell."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Position:
    """How far a run has come."""

    epoch: int = 0  # the one being worked on, from 0
    batches: int = 0  # of this epoch, without those `dealt`
    batch: int = 0  # of them, so many are done
    # Batches of this epoch before a resumption with batches of another size: (pictures of one, of
    # all processes together; how many).
    dealt: list[tuple[int, int]] = field(default_factory=list)
    step: int = 0  # the optimizer's steps so far
    pictures: int = 0  # of this epoch, so far
    sums: dict[str, float] = field(default_factory=dict)  # of its losses, over these pictures
    best: float | None = None  # the best value so far of the metric that decides
    best_epoch: int = 0  # after which, from 1; 0: none yet
    stopped: bool = False  # before its last epoch, by stop_after
    skipped: int = 0  # steps not taken, as some number was not finite
    skipped_running: int = 0  # the last of them, in a row

    def advance(
        self, batches: int, pictures: int, losses: dict[str, float], taken: bool = True
    ) -> None:
        """One step done: its batches, its pictures and their mean losses; if it was not taken,
        these count only where they are numbers."""
        self.batch += batches
        self.step += 1
        self.skipped += not taken
        self.skipped_running = 0 if taken else self.skipped_running + 1
        if not taken and not all(map(math.isfinite, losses.values())):
            return
        self.pictures += pictures
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * pictures

    def mean_losses(self) -> dict[str, float]:
        """Over the pictures of this epoch so far."""
        return {name: total / self.pictures for name, total in self.sums.items()}

    def next_epoch(self) -> None:
        self.epoch, self.batch, self.pictures, self.sums = self.epoch + 1, 0, 0, {}
        self.dealt = []

    def steps_left(self, epochs: int, steps_per_epoch: int, accumulate: int) -> int:
        """Of the optimizer, to the end of the run."""
        here = math.ceil((self.batches - self.batch) / accumulate)
        return here + (epochs - self.epoch - 1) * steps_per_epoch
