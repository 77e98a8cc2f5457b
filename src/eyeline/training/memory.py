"""Memory that ends: what was being computed, and what to try."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from eyeline.errors import EyelineError
from eyeline.training.recipe import Recipe
from eyeline.training.system import memory_mb

# Of the CPU's allocator, of C++, of CUDA and its libraries, none of which has a class for it.
SIGNS = ("can't allocate memory", "bad_alloc", "out of memory", "ALLOC_FAILED")


class OutOfMemory(EyelineError):
    """A step did not fit into memory."""


def is_lack_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def out_of_memory(
    where: str, recipe: Recipe, device: torch.device, sizes: Sequence[str], pictures: str
) -> OutOfMemory:
    """The error, with what was computed and three things to try.

    Args:
        sizes: of the pictures, as "640x480".
        pictures: their names.
    """
    once = recipe.batch_size
    if once > 1:
        less = f"batch_size={-(-once // 2)} accumulate={2 * recipe.accumulate}"
    elif recipe.optimizer.name != "sgd":
        less = "optimizer.name=sgd, which keeps less"
    else:
        less = "a smaller model.backbone"
    recomputes = recipe.checkpoint_activations or recipe.compile  # which exclude each other
    lighter = [] if recomputes else ["checkpoint_activations=true"]
    lighter += ["precision=bf16"] if recipe.precision == "float32" else ["freeze=[backbone]"]
    return OutOfMemory(
        f"{where}: out of memory on {device}, of which {_in_use(device)}, with batch_size={once}, "
        f"pictures of {', '.join(sizes)} ({pictures}); try {less}, smaller pictures (model.size, "
        f"or model.min_size and model.max_size), or {' or '.join(lighter)}"
    )


@contextmanager
def evaluation_told(where: str, recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Within, a lack of memory is told as the evaluation's. Raises OutOfMemory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        raise OutOfMemory(
            f"{where}: out of memory on {device} while evaluating, of which {_in_use(device)}, "
            f"with eval.batch_size={recipe.eval.batch_size}; try eval.batch_size=1, fewer "
            "data.workers, or smaller pictures (model.size, or model.min_size and model.max_size)"
        ) from error


def _in_use(device: torch.device) -> str:
    if device.type != "cuda":
        return f"{memory_mb(device):.0f} MB were in use at most"
    free, total = torch.cuda.mem_get_info(device)
    used = torch.cuda.memory_allocated(device)
    return (
        f"{used / 1e6:.0f} MB of {total / 1e6:.0f} MB were in use here and {free / 1e6:.0f} MB free"
    )
