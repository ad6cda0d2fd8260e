"""Randomness by counting: every draw has a key that says what it is for, and a number.

    key  = blake2b(seed, "link", "n1", "n2", 3)        what for
    draw = blake2b(key, counter)                       which of them

No draw depends on another one, so that one more node, packet or fault elsewhere leaves every other
draw as it was. What is drawn here is guessable: keys made of it are marked as simulated.
"""

from hashlib import blake2b, shake_256
from typing import TypeVar

from anyp2p_core.crypto import Choice, Entropy

T = TypeVar("T")
Word = str | int

_UNIT = 2.0**-53


def key(seed: int, *words: Word) -> bytes:
    """The key of one purpose.

    >>> key(7, "link", "n1", "n2") == key(7, "link", "n1n2")
    False
    """
    state = blake2b(digest_size=16)
    for word in (seed, *words):
        text = f"{type(word).__name__} {word}".encode()
        state.update(len(text).to_bytes(4, "little") + text)
    return state.digest()


def uniform(purpose: bytes, count: int) -> float:
    """Draw number ``count`` of a purpose, in [0, 1)."""
    data = blake2b(purpose + count.to_bytes(8, "little"), digest_size=8).digest()
    return (int.from_bytes(data, "little") >> 11) * _UNIT


def uniforms(purpose: bytes, count: int) -> tuple[float, float]:
    """Two independent draws for the price of one."""
    data = blake2b(purpose + count.to_bytes(8, "little"), digest_size=16).digest()
    return (
        (int.from_bytes(data[:8], "little") >> 11) * _UNIT,
        (int.from_bytes(data[8:], "little") >> 11) * _UNIT,
    )


class SeededEntropy(Entropy):
    """What a simulated node makes its keys and nonces of. No real node takes it."""

    __slots__ = ("_count", "_key")

    simulated = True

    def __init__(self, purpose: bytes) -> None:
        self._key = purpose
        self._count = 0

    def __call__(self, n: int) -> bytes:
        self._count += 1
        data = self._key + self._count.to_bytes(8, "little")
        if 0 < n <= 64:
            return blake2b(data, digest_size=n).digest()
        return shake_256(data).digest(n)


class SeededChoice(Choice):
    """Shuffles, jitter and samples of one simulated node, or of an application."""

    __slots__ = ("_count", "_key")

    def __init__(self, purpose: bytes) -> None:
        self._key = purpose
        self._count = 0

    def random(self) -> float:
        self._count += 1
        return uniform(self._key, self._count)

    def below(self, n: int) -> int:
        self._count += 1
        data = blake2b(self._key + self._count.to_bytes(8, "little"), digest_size=16).digest()
        return (int.from_bytes(data, "little") * n) >> 128

    def shuffle(self, items: list[T]) -> None:
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]

    def sample(self, items: list[T], k: int) -> list[T]:
        rest = items[:]
        k = min(k, len(rest))
        for place in range(k):
            other = place + self.below(len(rest) - place)
            rest[place], rest[other] = rest[other], rest[place]
        return rest[:k]
