"""Randomness of the operating system, and what a fork means for it.

    OsEntropy    secrets: keys, nonces, ephemerals
    OsChoice     shuffles, jitter, sampling
    fork_check   a child process must not go on with its parent's ciphers: both would use the
                 same key and nonce for different data, and that reveals both

A host makes ``forked = fork_check()`` when it starts and asks ``forked()`` before it seals or
sends anything; True means that it was made by a parent process, and every connection of it must be
dropped. A host made in the child asks a check of its own and is fine. The randomness here needs no
check: it is drawn from the operating system each time.
"""

import os
from collections.abc import Callable
from random import SystemRandom
from typing import TypeVar

from anyp2p_core.crypto import Choice, Entropy
from anyp2p_core.errors import LocalError

T = TypeVar("T")


class OsEntropy(Entropy):
    """``os.urandom``. Raises LocalError at construction if that repeats itself."""

    simulated = False

    def __init__(self) -> None:
        first, second = os.urandom(32), os.urandom(32)
        if first == second or bytes(32) in (first, second):
            raise LocalError(
                "os.urandom repeats itself or gives zeros: mend this system's random generator, "
                "every key made with it could be guessed"
            )

    def __call__(self, n: int) -> bytes:
        return os.urandom(n)


class OsChoice(Choice):
    """``random.SystemRandom``: nobody can predict it, and it survives a fork."""

    def __init__(self) -> None:
        self._random = SystemRandom()

    def random(self) -> float:
        return self._random.random()

    def below(self, n: int) -> int:
        return self._random.randrange(n)

    def shuffle(self, items: list[T]) -> None:
        self._random.shuffle(items)

    def sample(self, items: list[T], k: int) -> list[T]:
        return self._random.sample(items, min(k, len(items)))


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
