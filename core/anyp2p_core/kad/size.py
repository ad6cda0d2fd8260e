"""How many peers there are, and whether somebody crowds around a key.

    The i-th closest of N peers is at about i/N of the key space.

    lookups of random keys    -> N, the median of many estimates
    a lookup that matters     -> are its k closest far closer than N peers would be? Then most of
                                 them were made for this key: ask the whole region in which k
                                 honest peers are expected, instead of the k closest

After the attack and the defence in "Content Censorship in the InterPlanetary File System" (NDSS
2024): peers that are nearer to a content than all honest ones can hide it.
"""

from collections import deque
from collections.abc import Sequence

from .keys import BITS

MIN_ESTIMATES = 5
"""Lookups that an estimate needs."""
MAX_ESTIMATES = 16
"""The most recent ones count: in a network that has grown, older ones cry wolf."""
MARGIN = 3
"""How many times closer than expected is suspicious: 1 in 50,000 by chance with k = 20."""
MARGIN_OF_FEW = 5
"""The same for k below 20, whose distances scatter more: 1 in 5,000 by chance with k = 8."""
REGION = 2
"""The region that is asked holds so many times k peers, so that k of them are honest."""


class NetworkSize:
    """Learns the number of peers from lookups of keys that nobody but us could know before."""

    __slots__ = ("_estimates",)

    def __init__(self) -> None:
        self._estimates: deque[int] = deque(maxlen=MAX_ESTIMATES)

    def learn(self, distances: Sequence[int], k: int) -> None:
        """Take the ascending distances of the k closest to a random key; fewer say nothing."""
        if len(distances) >= k > 1:
            self._estimates.append(((k - 1) << BITS) // max(distances[k - 1], 1))

    @property
    def estimate(self) -> int | None:
        """The number of peers, None until enough lookups were made."""
        ordered = sorted(self._estimates)
        return ordered[len(ordered) // 2] if len(ordered) >= MIN_ESTIMATES else None


def is_crowded(distances: Sequence[int], k: int, size: int) -> bool:
    """Whether the k closest to a key are closer than chance would have it among ``size`` peers."""
    margin = MARGIN if k >= 20 else MARGIN_OF_FEW
    return len(distances) >= k and margin * distances[k - 1] * size < k << BITS


def region(k: int, size: int) -> int:
    """The distance within which twice k of ``size`` peers are expected."""
    return (REGION * k << BITS) // max(size, 1)
