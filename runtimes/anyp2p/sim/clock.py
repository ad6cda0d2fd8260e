"""Virtual time: a queue for now, a heap for later, and nothing in between.

    run -> what is due, and after each call the ready queue -> an instant is over
        -> the clock jumps to the earliest time that something was asked for -> what is due ...

Equal times run in the order in which they were asked for.
"""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from anyp2p_core.errors import LocalError

if TYPE_CHECKING:
    from .tasks import Task

MAX_REFUSALS = 1_000_000
"""Waits in a closed world after which a task is taken to ignore that it has to end."""
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
        "closed", "current", "failed", "faults", "now", "ready",
        "_cancelled", "_due", "_later", "_purge_at", "_refused", "_running", "_times",
    )  # fmt: skip

    def __init__(self) -> None:
        self.now = 0.0
        self.ready: deque[tuple[Call, Any]] = deque()
        """Calls of this instant."""
        self.current: Task[Any] | None = None
        """The task that is being stepped."""
        self.failed: list[Task[Any]] = []
        """Tasks that raised and that nobody waited for, so far."""
        self.faults: list[Exception] = []
        """Errors that are nobody's to handle."""
        self.closed = False
        """The world is gone: nothing that waits will ever go on."""
        # Calls and their arguments in turns, by time: many things happen at the same time, and
        # a heap of bare numbers is quick.
        self._later: dict[float, list[Any]] = {}
        self._times: list[float] = []
        self._due: list[Any] = []  # what a run left undone that was broken off by an error
        self._cancelled = 0
        self._purge_at = 1024
        self._refused = 0
        self._running = False

    def call_soon(self, call: Call, argument: object) -> None:
        """Call it within this instant, after everything that is ready already."""
        self.ready.append((call, argument))

    def call_at(self, when: float, call: Call, argument: object) -> None:
        """Call it at ``when``, not to be taken back; what is past comes soon."""
        calls = self._later.get(when)
        if calls is None:
            self._later[when] = [call, argument]
            heappush(self._times, when)
        else:
            calls.append(call)
            calls.append(argument)

    def timer(self, when: float, call: Call, argument: object) -> Timer:
        """Call it at ``when`` unless ``cancel`` comes first."""
        timer = Timer(call, argument)
        self.call_at(when, _ring, timer)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Take a timer back. One that has run is ignored."""
        if timer.call is not None:
            timer.call = timer.argument = None
            self._cancelled += 1
            if self._cancelled >= self._purge_at:
                self._purge()

    def refuse(self) -> bool:
        """Whether a wait in a closed world shall raise; if not, Python complains of the task."""
        self._refused += 1
        return self._refused < MAX_REFUSALS

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
            while self._finish_instant():
                if stop is not None and stop():
                    return True
                times = self._times
                if not times or times[0] > until:
                    break
                self.now = max(self.now, times[0])
        finally:
            self._running = False
        self.now = max(self.now, until)
        return False

    def _finish_instant(self) -> bool:
        """Call everything that is due now, and what that makes ready."""
        ready, times, later, now = self.ready, self._times, self._later, self.now
        take = ready.popleft
        turns = 0
        while True:
            while ready:
                turns += 1
                call, argument = take()
                call(argument)
                if turns > MAX_TURNS:
                    raise self._stuck()
            if self._due:
                calls, self._due = self._due, []
            elif times and times[0] <= now:
                calls = later.pop(heappop(times))
            else:
                break
            place = 0
            try:
                while place < len(calls):
                    call, argument = calls[place], calls[place + 1]
                    place += 2
                    call(argument)
                    while ready:
                        turns += 1
                        call, argument = take()
                        call(argument)
                        if turns > MAX_TURNS:
                            raise self._stuck()
            finally:
                self._due = calls[place:]
            turns += place
            if turns > MAX_TURNS:
                raise self._stuck()
        if self.failed or self.faults:
            self._report()
        return True

    def _report(self) -> None:
        """Raise what nobody has waited for."""
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
            "loop without waiting, or is there a loop of links without latency?"
        )

    def _purge(self) -> None:
        """Forget timers that were taken back."""
        left = 0
        for when, calls in list(self._later.items()):
            kept: list[Any] = []
            for call, argument in zip(calls[::2], calls[1::2], strict=True):
                if call is not _ring or argument.call is not None:
                    kept += (call, argument)
            calls[:] = kept
            left += len(kept)
            if not kept:
                del self._later[when]
        self._times[:] = sorted(self._later)  # in place: a run holds this list
        self._cancelled = 0
        self._purge_at = max(1024, left)
