"""Randomness of the operating system.

    OsEntropy    secrets: keys, nonces, ephemerals
    OsChoice     shuffles, jitter, sampling

It is drawn from the operating system each time, so that it survives a fork.
"""

import os
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
