"""Stream ciphers that do not survive a fork.

    parent    encrypt -> encrypt -> encrypt
    child                  LocalError: it would use the same key stream for other bytes

Whoever sees two texts under one key stream can read both. A host asks ``fork_check`` before it
sends; this is what holds for machines that are used without a host.
"""

from collections.abc import Callable

from anyp2p.forks import fork_check
from anyp2p_core.errors import LocalError
from anyp2p_core.varint import Data


def poisoned_by_fork(encrypt: Callable[[Data], bytes]) -> Callable[[Data], bytes]:
    """``encrypt``, which raises LocalError in a child process made after now."""
    forked = fork_check()

    def guarded(data: Data) -> bytes:
        if forked():
            raise LocalError(
                "this process was forked after the connection was made: open a new connection"
            )
        return encrypt(data)

    return guarded
