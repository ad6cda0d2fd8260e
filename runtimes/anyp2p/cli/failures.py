"""Errors as sentences for people: what happened, with whom, and what to do.

An event loop says in its own words why it could not connect, and may say it once for each address
of a name. Here that becomes the same sentence for all of them.
"""

import errno
import os
import re

from anyp2p.keyfile import KeyFileMissing
from anyp2p_core.errors import DialError, Error, ListenError


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
    if isinstance(error, ListenError):
        return f"{error.strerror or error}{_LISTEN_HINTS.get(error.errno or 0, '')}"
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
    before, *found = re.split(r"\[Errno (-?\d+)\] ", reason)
    if not found:
        return reason
    reasons = map(_errno, found[::2], found[1::2])
    return before.removeprefix("Multiple exceptions: ") + ", ".join(dict.fromkeys(reasons))


def _errno(number: str, text: str) -> str:
    text = os.strerror(int(number)) if int(number) > 0 else text.rstrip(",; ")
    return text[:1].lower() + text[1:]


def _attempt(address: str, reason: str) -> str:
    text = human(reason.removeprefix(f"{address}: "))
    for pattern, better in _HINTS:
        text, found = re.subn(pattern, better, text, flags=re.DOTALL)
        if found:
            break
    return f"cannot reach {address}: {text}"


_HUNG_UP = "(the other side hung up: is it a libp2p peer?)"
_HINTS = (
    (r"^(connection refused)$", r"\1 (is the peer running, and listening on this port?)"),
    (r"^(no answer within .*)", r"\1 (is the address right, and no firewall in between?)"),
    (
        r"^expected (\S+), the peer is (\S+)$",
        r"the peer there is \2, not \1 (dial that id if it is the one you mean)",
    ),
    (r"^(the peer does not speak multistream.*)", r"\1 (so it is no libp2p peer)"),
    (r"^(the peer supports none of /(noise|tls)\b.*)", r"\1 (try others with --security)"),
    (r"^(the peer supports none of /(yamux|mplex)\b.*)", r"\1 (try others with --muxers)"),
    (r"^(connection reset by peer)$", rf"\1 {_HUNG_UP}"),
    (r"^(the connection ended .*)", rf"\1 {_HUNG_UP}"),
)
"""What the reason looks like, and how it is told."""

_LISTEN_HINTS = {
    errno.EACCES: " (ports below 1024 are for administrators)",
    errno.EADDRINUSE: " (another program listens there; port 0 stands for any free one)",
    errno.EADDRNOTAVAIL: " (this machine does not have that address)",
}
