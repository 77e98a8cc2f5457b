"""The command `eyeline`: what is wrong with the user's input is told in one line."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from eyeline.errors import EyelineError, one_line


def main() -> None:
    """Entry point."""
    status = run(sys.argv[1:])
    number = {130: signal.SIGINT, 143: signal.SIGTERM}.get(status)
    if number and "WANDB_SWEEP_ID" in os.environ:
        # W&B's agent gives up after some runs with a status above 0, but not for those that it
        # ended itself: these end by its signal.
        sys.stdout.flush()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    The exit status is 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C, 143 for a SIGTERM.
    """
    debug = "--debug" in arguments
    try:
        from eyeline.cli.app import app  # takes a while, in which Ctrl-C may come, too

        app(args=[a for a in arguments if a != "--debug"], prog_name="eyeline")
    except SystemExit as stop:  # how typer ends every command, by Ctrl-C too
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:  # before there is a command to end
        return 130
    except (EyelineError, OSError) as error:  # OSError: a full disk, a missing permission
        if debug:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        why = _lack_of_memory(error)
        if debug or not why:
            raise
        print(f"error: {why}", file=sys.stderr)
        return 1
    return 0


def _lack_of_memory(error: Exception) -> str:
    """What to say of it; nothing of another error. Torch, which is not imported for it, has a class
    for a GPU's and none for the CPU's."""
    kind, text = type(error).__name__, one_line(error)
    if kind in ("MemoryError", "OutOfMemoryError") or "can't allocate memory" in text:
        return "out of memory; take a smaller batch size"
    if text.startswith("DataLoader worker (pid"):  # whom the system chose when memory ended
        return (
            f"a process that loads pictures is gone ({text[:200]}), most often for lack of memory; "
            "take fewer workers, or a smaller batch size"
        )
    return ""
