"""A child process must not go on with its parent's ciphers.

Both would use the same key and nonce for different data, and that reveals both. A host makes
``forked = fork_check()`` when it starts and asks ``forked()`` before it seals or sends anything;
True means that it was made by a parent process, and every connection of it must be dropped. A host
made in the child asks a check of its own and is fine.
"""

import os
from collections.abc import Callable


def fork_check() -> Callable[[], bool]:
    """A function that tells whether this process was forked since now. Costs well under 1 us."""
    made = _forks

    def forked() -> bool:
        return _forks != made

    return forked


_forks = 0


def _after_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
