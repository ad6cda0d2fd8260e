"""Virtual time: a queue for now, a heap for later, and nothing in between.

    run -> ready queue until it is empty -> an instant is over -> earliest heap entry: the clock
           jumps there -> ready queue ...

Equal times run in the order in which they were asked for.
"""

from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

from anyp2p_core.errors import LocalError

if TYPE_CHECKING:
    from .tasks import Task

MAX_TURNS = 2_000_000
"""Calls within one instant after which time is taken to stand still for ever."""

Call = Callable[[Any], object]


class Timer:
    """A call that can be taken back."""

    __slots__ = ("argument", "call")

    def __init__(self, call: Call, argument: object) -> None:
        self.call: Call | None = call
        self.argument = argument


def _ring(timer: Timer) -> None:
    if timer.call is not None:
        call, timer.call = timer.call, None
        call(timer.argument)


class Clock:
    """``now`` is in seconds since the world began, and moves in ``run`` alone."""

    __slots__ = (
        "closed", "current", "failed", "faults", "now", "ready", "_cancelled", "_heap", "_next", "_running",
    )  # fmt: skip

    def __init__(self) -> None:
        self.now = 0.0
        self.ready: deque[tuple[Call, Any]] = deque()
        """Calls of this instant."""
        self.current: Task | None = None
        """The task that is being stepped."""
        self.failed: list[Task] = []
        """Tasks that raised and that nobody waited for, so far."""
        self.faults: list[Exception] = []
        """Errors that are nobody's to handle."""
        self.closed = False
        """The world is gone: nothing that waits will ever go on."""
        self._heap: list[tuple[float, int, Call, Any]] = []
        self._next = count().__next__
        self._cancelled = 0
        self._running = False

    def call_soon(self, call: Call, argument: object) -> None:
        """Call it within this instant, after everything that is ready already."""
        self.ready.append((call, argument))

    def call_at(self, when: float, call: Call, argument: object) -> None:
        """Call it at ``when``; not to be taken back."""
        heappush(self._heap, (when, self._next(), call, argument))

    def timer(self, when: float, call: Call, argument: object) -> Timer:
        """Call it at ``when`` unless ``cancel`` comes first."""
        timer = Timer(call, argument)
        heappush(self._heap, (when, self._next(), _ring, timer))
        return timer

    def cancel(self, timer: Timer) -> None:
        """Take a timer back. One that has run is ignored."""
        if timer.call is None:
            return
        timer.call = None
        self._cancelled += 1
        if self._cancelled > 64 + len(self._heap) // 2:
            self._cancelled = 0
            self._heap = [entry for entry in self._heap if not _is_dead(entry)]
            heapify(self._heap)

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> bool:
        """Go on to ``until``, or to the end of the instant in which ``stop`` first holds.

        Returns whether it held. Raises what a task raised that nobody has waited for by the end
        of its instant; the world stays as it is then, and can go on.
        """
        if self._running:
            raise LocalError("the world is running already: tasks wait with `await world.sleep()`")
        if self.closed:
            raise LocalError("this world was closed: make a new one")
        self._running = True
        try:
            return self._run(until, stop)
        finally:
            self._running = False

    def _run(self, until: float, stop: Callable[[], bool] | None) -> bool:
        ready = self.ready
        take = ready.popleft
        turns = 0
        while True:
            while ready:
                turns += len(ready)
                for _ in range(len(ready)):
                    call, argument = take()
                    call(argument)
                if turns > MAX_TURNS:
                    raise self._stuck()
            if self.failed or self.faults:
                self._report()
            if stop is not None and stop():
                return True
            heap = self._heap
            if not heap or heap[0][0] > until:
                break
            when, _, call, argument = heappop(heap)
            if when > self.now:
                self.now = when
                turns = 0
            else:
                turns += 1
                if turns > MAX_TURNS:
                    raise self._stuck()
            call(argument)
        if until > self.now:
            self.now = until
        return False

    def _report(self) -> None:
        if self.faults:
            raise self.faults.pop(0)
        while self.failed:
            task = self.failed.pop(0)
            if task.error is not None and not task.awaited:
                task.awaited = True
                task.error.add_note(f"raised by {task!r} at {self.now:.6f} s of virtual time")
                raise task.error

    def _stuck(self) -> LocalError:
        return LocalError(
            f"time stands still at {self.now:g} s: {MAX_TURNS} calls in one instant; does a task "
            "loop without waiting, or are there loops of links without latency?"
        )


def _is_dead(entry: tuple[float, int, Call, Any]) -> bool:
    return entry[2] is _ring and entry[3].call is None
