"""How far a peer may send on a QUIC stream, or on all of them: a limit that only grows.

Spec: https://www.rfc-editor.org/rfc/rfc9000#section-4

    consumed <= received <= limit = consumed + size, as of the last grant

Half a window of consumed bytes makes a new grant. If that took no more than four round trips, the
window is what holds the peer back, and it grows as well.
"""

from collections.abc import Callable


class Window:
    """One limit, at first ``size`` bytes. Whoever is done with some adds them to ``consumed``."""

    __slots__ = ("consumed", "limit", "size", "_granted_at")

    def __init__(self, size: int, now: float) -> None:
        self.size = size
        self.limit = size
        self.consumed = 0
        self._granted_at = now

    @property
    def due(self) -> bool:
        """Whether it is time to tell the peer a new limit."""
        return (self.limit - self.consumed) * 2 <= self.size

    def grant(self, rtt: float | None, grow: Callable[[int], int], now: float) -> int:
        """Return the new limit. ``grow(size)`` says by how much a window of ``size`` may grow.

        >>> window = Window(100, 0.0)
        >>> window.consumed += 50
        >>> window.due, window.grant(0.1, lambda size: size, 0.3), window.size, window.due
        (True, 250, 200, False)
        """
        if rtt is not None and now - self._granted_at <= 4 * rtt:
            self.size += grow(self.size)
        self._granted_at = now
        self.limit = self.consumed + self.size
        return self.limit
