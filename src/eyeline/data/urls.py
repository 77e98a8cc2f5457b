"""What lies on a server."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, unquote

from eyeline.errors import EyelineError

LOGIN = re.compile(r"(?<=://)([^/?#]*)@")  # "name:password" of a URL


def without_login(url: str) -> str:
    """The URL as it may be shown and written down: without the user's name and password."""
    return LOGIN.sub("", url)


@contextmanager
def opened(url: str, timeout: float, headers: Mapping[str, str] | None = None) -> Iterator[Any]:
    """The answer to a GET of an http(s) URL, in which blanks and letters beyond ASCII may stand.

    A name and password in it are sent as basic authentication.

    Args:
        timeout: seconds without an answer.
        headers: sent beside our name.

    Raises:
        EyelineError: it cannot be had, or breaks off while it is read within the context.
    """
    shown = without_login(url)
    try:
        # What is escaped already stays as it is.
        address = quote(shown, safe="%/:=&?~#+!$,;'@()*[]")
        sent = {"User-Agent": "eyeline", **(headers or {})}
        request = urllib.request.Request(address, headers=sent)
        if login := LOGIN.search(url):
            secret = b64encode(unquote(login[1]).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {secret}")
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            yield answer
    except EyelineError:
        raise
    except urllib.error.HTTPError as error:
        raise EyelineError(f"cannot download {shown}: {error.code} {error.reason}") from error
    # URLError, time-outs and a full disk are OSErrors; ValueError: it is no URL.
    except (OSError, ValueError, HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", None) or error).split())
        raise EyelineError(f"cannot download {shown}: {reason}") from error
