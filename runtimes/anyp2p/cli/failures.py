"""Errors as sentences for people: what happened, with whom, and what to do."""

import os
import re

from anyp2p.keyfile import KeyFileMissing
from anyp2p_core.errors import DialError, Error


class Failure(Exception):
    """A command cannot do what it was asked to; the text is shown as it is."""


class UsageError(Failure):
    """The arguments make no sense together."""


def exit_code(error: Exception) -> int:
    """What the process returns for an error."""
    return 2 if isinstance(error, UsageError) else 1


def describe(error: Exception) -> str:
    """One line about an error."""
    if isinstance(error, DialError) and error.attempts:
        return "; ".join(_attempt(address, reason) for address, reason in error.attempts)
    if isinstance(error, KeyFileMissing):
        name = str(error).partition(" does not exist")[0]
        return f"{name} does not exist: make it with `anyp2p key generate {name}`"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, Error | Failure | OSError | ImportError):
        return str(error) or type(error).__name__
    return f"internal error, please report it: {type(error).__name__}: {error} (see --debug)"


def human(reason: str) -> str:
    """Why a connection failed, without what only a programmer wants to see.

    >>> human("[Errno 111] Connect call failed ('127.0.0.1', 1)")
    'connection refused'
    """
    found = re.match(r"\[Errno (-?\d+)\] (.*)", reason, re.DOTALL)
    if found is None:
        return reason
    number = int(found[1])
    text = os.strerror(number) if number > 0 else found[2]
    return text[:1].lower() + text[1:]


def _attempt(address: str, reason: str) -> str:
    text = human(reason.removeprefix(f"{address}: "))
    return f"cannot reach {address}: {text}{_HINTS.get(text, '')}"


_HINTS = {"connection refused": " (is the peer running, and listening on this port?)"}
