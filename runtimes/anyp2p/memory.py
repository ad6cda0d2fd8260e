"""/memory addresses: numbered places of this process, where hosts meet without a network.

Underneath is a Unix socket that has no name in any directory, so that the hosts may be on different
loops and threads, and are held up by each other as by any other peer.
"""

import errno
import os
import sys
from itertools import count

from anyp2p_core.multiaddr import Multiaddr

_TOKEN = os.urandom(8).hex()
_taken: dict[tuple[int, int], object] = {}
"""Numbers that are listened on, each with its process: a child has none of its parent's."""


def take(number: int) -> int:
    """Begin to listen on a number, 0 for any that is free. OSError if it is taken."""
    pid, mine = os.getpid(), object()
    for one in (number,) if number else count(1):
        if _taken.setdefault((pid, one), mine) is mine:  # threads may do this at the same time
            return one
    raise OSError(errno.EADDRINUSE, "somebody in this process listens there already")


def give_back(number: int) -> None:
    """Listen no more."""
    _taken.pop((os.getpid(), number), None)


def is_taken(number: int) -> bool:
    """Whether somebody in this process listens on a number."""
    return (os.getpid(), number) in _taken


def path_of(number: int) -> str:
    """The name of the Unix socket behind a number."""
    name = f"anyp2p-{os.getpid()}-{_TOKEN}-{number}"
    if sys.platform == "linux":
        return "\0" + name
    import tempfile  # which loads a lot

    return os.path.join(tempfile.gettempdir(), name)


def number_of(path: str) -> int | None:
    """The number of a Unix socket of ours, None for any other."""
    prefix, _, number = path.rpartition("-")
    if prefix and prefix == path_of(0).rpartition("-")[0] and number.isdecimal():
        return int(number)
    return None


def address_of(number: int) -> Multiaddr:
    """
    >>> address_of(7)
    Multiaddr('/memory/7')
    """
    return Multiaddr(f"/memory/{number}")
