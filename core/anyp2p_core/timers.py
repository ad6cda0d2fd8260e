"""One heap of deadlines for the whole node, so that a runtime arms one timer.

call_at -> live -> run: called once
                -> cancel: forgotten; its heap entry goes when it is reached,
                   or when dead entries outnumber live ones
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush

Callback = Callable[[float], object]


class Timers:
    """Deadlines in seconds of the caller's clock, cancelled lazily.

    Equal deadlines run in the order in which they were made.

    >>> timers = Timers(); fired = []
    >>> handle = timers.call_at(5.0, "example", fired.append)
    >>> timers.next_timeout()
    5.0
    >>> timers.run(6.0); fired
    [6.0]
    """

    __slots__ = ("_heap", "_live", "_next")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._live: dict[int, tuple[str, Callback]] = {}
        self._next = 0

    def __len__(self) -> int:
        """The number of live deadlines."""
        return len(self._live)

    def call_at(self, when: float, reason: str, callback: Callback) -> int:
        """Call ``callback(now)`` once at ``when``; returns the handle for ``cancel``."""
        self._next += 1
        self._live[self._next] = (reason, callback)
        heappush(self._heap, (when, self._next))
        return self._next

    def cancel(self, handle: int) -> None:
        """Forget a deadline. A handle that has run or was cancelled is ignored."""
        if self._live.pop(handle, None) is not None and len(self._heap) > 64 + 2 * len(self._live):
            live = self._live
            self._heap = [entry for entry in self._heap if entry[1] in live]
            heapify(self._heap)

    def reasons(self) -> list[str]:
        """Why each live deadline exists, for people who debug."""
        return [reason for reason, _ in self._live.values()]

    def next_timeout(self) -> float | None:
        """The earliest deadline, or None."""
        heap, live = self._heap, self._live
        while heap and heap[0][1] not in live:
            heappop(heap)
        return heap[0][0] if heap else None

    def run(self, now: float) -> None:
        """Call what is due. Deadlines made meanwhile wait for the next run, with what follows them.

        So a deadline that is always due again keeps nobody busy for ever.
        """
        live = self._live
        last = self._next
        while (when := self.next_timeout()) is not None and when <= now:
            heap = self._heap
            if heap[0][1] > last:  # made by a callback of this run
                return
            _, callback = live.pop(heappop(heap)[1])
            callback(now)
