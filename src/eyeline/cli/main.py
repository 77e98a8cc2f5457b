"""The command `eyeline`: what is wrong with the user's input is told in one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from eyeline.errors import EyelineError, one_line


def main() -> None:
    """Entry point."""
    sys.exit(run(sys.argv[1:]))


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
        if debug or not _is_lack_of_memory(error):
            raise
        print("error: out of memory; take a smaller batch size", file=sys.stderr)
        return 1
    return 0


def _is_lack_of_memory(error: Exception) -> bool:
    """Torch, which is not imported for it, has a class for a GPU's and none for the CPU's."""
    kind = type(error).__name__
    return kind in ("MemoryError", "OutOfMemoryError") or "can't allocate memory" in str(error)
