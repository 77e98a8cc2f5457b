"""What stands around each step: a batch that gives no number, or does not fit into memory, is
named, and nothing of it reaches the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from eyeline.data.loader import Loader
from eyeline.errors import EyelineError
from eyeline.nn.lone import NOTHING_LEARNT, ONE_VALUE
from eyeline.processes import any_process
from eyeline.structures import Batch
from eyeline.training.bad_batches import save_bad_batch
from eyeline.training.checks import ADVICE, SKIPS, NotFinite, targets_of
from eyeline.training.memory import is_lack_of_memory, out_of_memory
from eyeline.training.position import Position
from eyeline.training.saving import BAD_BATCHES, RunFolder
from eyeline.training.step import Step, size

NAMED = 8  # pictures in a message
KEPT = 20  # bad batches of a run


class Guard:
    """Takes the steps of a run, one by one.

    With `on_nan: skip` a step whose loss or gradients are not finite leaves the model as it was,
    running statistics of norms too; SKIPS in a row end the run all the same.
    """

    def __init__(
        self, model: nn.Module, loader: Loader, folder: RunFolder, device: torch.device, rank: int
    ) -> None:
        self.model, self.loader, self.folder = model, loader, folder
        self.recipe, self.device, self.rank = folder.recipe, device, rank
        skips = self.recipe.on_nan == "skip" and self.recipe.precision != "fp16"
        self.buffers = list(model.buffers()) if skips else []

    def step(self, take: Callable[[], Step], group: list[Any], at: Position, where: str) -> Step:
        """Take a step over a group of batches.

        Raises:
            EyelineError: it is not finite, and the run is not to skip it; memory ended; or a norm
                had one value of each channel to learn from.
        """
        before = [buffer.clone() for buffer in self.buffers]
        try:
            return take()
        except NotFinite as error:
            self._tell(error, group, at, where)
            for buffer, value in zip(self.buffers, before, strict=True):
                buffer.copy_(value)
            return error.step  # type: ignore[no-any-return]
        except ValueError as error:
            if not str(error).startswith((ONE_VALUE, NOTHING_LEARNT)):
                raise
            raise EyelineError(
                f"{where}: {NOTHING_LEARNT} "
                f"({self._names(group, group, at)}, {', '.join(_sizes(group))}); take a larger "
                "batch_size, one that divides the number of pictures otherwise, larger pictures, "
                "or model.norm=group"
            ) from error
        except (MemoryError, RuntimeError) as error:
            if not is_lack_of_memory(error):
                raise
            names, sizes = self._names(group, group, at), _sizes(group)
            raise out_of_memory(where, self.recipe, self.device, sizes, names) from error

    def _tell(self, error: NotFinite, group: list[Any], at: Position, where: str) -> None:
        """Name and save the bad batch; raises where the run is to stop."""
        # Gradients are shared, so every process comes here; where a loss is bad, its own tells.
        innocent = any_process(error.by_loss) and not error.by_loss
        if innocent:
            told = f"{where}: another process has a loss that is not finite"
        else:
            told = f"{where}: {error.what} on pictures {self._names(error.batches, group, at)}"
            told += self._save(error, group, at)
        if self.recipe.on_nan == "stop":
            raise EyelineError(f"{told}; {ADVICE}, or on_nan=skip") from error
        if at.skipped_running + 1 >= SKIPS:
            raise EyelineError(f"{told}, for {SKIPS} steps in a row; {ADVICE}") from error
        if not innocent:
            print(f"{told}; the step is skipped", flush=True)

    def _save(self, error: NotFinite, group: list[Any], at: Position) -> str:
        """Where the batch lies now, in words."""
        folder = self.folder.path / BAD_BATCHES
        if folder.is_dir() and sum(1 for _ in folder.iterdir()) >= KEPT:
            return f", not saved, as {folder} holds {KEPT} already"
        folder /= f"step-{at.step + 1}" + (f"-rank-{self.rank}" if self.rank else "")
        try:
            preprocess = getattr(self.model, "preprocess", None)
            pictures = self._pictures(error.batches, group, at)
            save_bad_batch(folder, error.batches, pictures, error.what, preprocess)
        except OSError as full:
            return f", which could not be saved ({full})"
        return f", saved in {folder}"

    def _pictures(self, batches: list[Any], group: list[Any], at: Position) -> list[dict[str, Any]]:
        """Index in the data set and file of each picture."""
        found = []
        for batch in batches:
            number = at.batch + next(i for i, one in enumerate(group) if one is batch)
            for i in range(size(batch)):
                index, path = self.loader.picture(number, i)
                found.append({"index": index, "path": None if path is None else str(path)})
        return found

    def _names(self, batches: list[Any], group: list[Any], at: Position) -> str:
        """The pictures' files; where they are not told, ids, or else indices."""
        targets = [target for batch in batches for target in targets_of(batch)]
        names = []
        for i, picture in enumerate(self._pictures(batches, group, at)):
            number = targets[i].get("image_id") if i < len(targets) else None
            known = f"index {picture['index']}" if number is None else str(int(number))
            names.append(picture["path"] or known)
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return ", ".join(names[:NAMED]) + more


def _sizes(group: list[Any]) -> list[str]:
    """Of a network's pictures, with their padding; each once."""
    found: dict[str, None] = {}
    for batch in group:
        for image in batch.images if isinstance(batch, Batch) else batch[0]:
            found[f"{image.shape[-1]}x{image.shape[-2]}"] = None
    return list(found)[:NAMED]
