"""The one kind of error that is the user's to mend."""


class EyelineError(ValueError):
    """Bad input, told in one line: what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with 1; in Python it is an
    ordinary ValueError.
    """
