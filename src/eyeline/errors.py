"""The one kind of error that is the user's to mend."""


class EyelineError(ValueError):
    """Bad input, told in one line: what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with 1; in Python it is an
    ordinary ValueError.
    """


def one_line(error: BaseException) -> str:
    """An error's message in one line; of one in a loader's worker without the traceback."""
    message = str(error)
    if message.startswith("Caught EyelineError in DataLoader worker"):
        message = message.rpartition("EyelineError: ")[2]
    return " ".join(message.split()) or type(error).__name__
