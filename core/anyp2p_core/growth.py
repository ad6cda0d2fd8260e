"""How far receive windows may grow beyond what every stream has without asking.

All growth together stays within half of ``Limits.max_unread``: the other half is for the windows
that streams begin with.
"""

from .limits import Limits


class Growth:
    """The growth of all streams of one session; no window becomes larger than ``largest``."""

    __slots__ = ("_largest", "_left")

    def __init__(self, limits: Limits, largest: int) -> None:
        self._largest = min(limits.max_stream_window, largest)
        self._left = limits.max_unread // 2

    def reserve(self, size: int) -> int:
        """By how much a window of ``size`` may grow: to twice as much if possible."""
        growth = max(min(size, self._largest - size, self._left), 0)
        self._left -= growth
        return growth

    def release(self, size: int) -> None:
        """A stream is finished whose window had grown by ``size``."""
        self._left += size
