"""Tasks of the virtual world: coroutines that wait for its events and for nothing else.

    spawned -> ready --step--> waiting for an Event --set--> ready ...
                               waiting --cancel, timeout--> ready, and Cancelled is raised in it
                     --step--> returned, raised or cancelled: done, whoever awaits it goes on

``cancel`` raises ``Cancelled`` once, where the task waits; it may clean up, and wait while it does.
A task that dies with its machine gets it again at every wait.
"""

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType, coroutine
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from anyp2p_core.errors import LocalError

from .clock import Clock, Timer

T = TypeVar("T")

MAX_LAST_WORDS = 100
"""Waits in which a dying task may refuse to die."""
CANCEL = -1
"""Rank of a cancellation; a timeout's rank is its depth. The lowest one wins."""


class Cancelled(BaseException):
    """Raised in a task that is cancelled. Let it pass."""


class Event:
    """Set once, it wakes everyone who waits, now or later."""

    __slots__ = ("_clock", "_set", "_waiting")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._set = False
        self._waiting: Task[Any] | list[Task[Any]] | None = None  # mostly one

    def set(self) -> None:
        """Wake whoever waits, after what is ready already."""
        if self._set:
            return
        self._set = True
        waiting = self._waiting
        if waiting is None:
            return
        self._waiting = None
        ready = self._clock.ready
        if isinstance(waiting, Task):
            waiting._waits_for = None
            ready.append((_step, waiting))
            return
        for task in waiting:
            task._waits_for = None
            ready.append((_step, task))

    def add(self, task: "Task[Any]") -> None:
        """Step the task when it is set."""
        waiting = self._waiting
        if waiting is None:
            self._waiting = task
        elif isinstance(waiting, Task):
            self._waiting = [waiting, task]
        else:
            waiting.append(task)

    def remove(self, task: "Task[Any]") -> None:
        """The task, which waits, goes on for another reason."""
        if isinstance(self._waiting, list):
            self._waiting.remove(task)
        else:
            self._waiting = None

    if TYPE_CHECKING:

        async def wait(self) -> None:
            """Return when it is set."""

    else:

        @coroutine
        def wait(self) -> Generator["Event", None, None]:
            """Return when it is set."""
            if self._set:
                return
            clock = self._clock
            if clock.closed and clock.refuse():
                raise GeneratorExit
            try:
                yield self
            except GeneratorExit:
                # The garbage collector got this coroutine, so that its world is gone as well:
                # clean-up code must not wait any more.
                clock.closed = True
                raise


class Task(Generic[T]):
    """A coroutine on its way. ``await task`` gives its result, or raises what it raised."""

    __slots__ = (
        "awaited", "cancelled", "depth", "done", "error", "name", "number",
        "_clock", "_coroutine", "_doomed", "_finished", "_interrupt", "_on_done", "_rank", "_start",
        "_value", "_waits_for",
    )  # fmt: skip

    def __init__(
        self,
        clock: Clock,
        number: int,
        name: str,
        function: Callable[..., Coroutine[Any, Any, T]],
        args: tuple[Any, ...],
        on_done: Callable[["Task[Any]"], object],
    ) -> None:
        self.number = number
        self.name = name
        self.done = False
        self.cancelled = False
        self.error: Exception | None = None
        """What it raised; None also while it runs."""
        self.awaited = False
        """Somebody has waited for the outcome: an error is not reported by ``run``."""
        self.depth = 0
        """Timeouts that it is inside of."""
        self._clock = clock
        # Made when it starts: a coroutine that is never started is a warning.
        self._start: tuple[Callable[..., Coroutine[Any, Any, T]], tuple[Any, ...]] | None
        self._start = (function, args)
        self._coroutine: Coroutine[Any, Any, T] | None = None
        self._waits_for: Event | None = None
        self._interrupt: BaseException | None = None
        self._rank = CANCEL
        self._doomed = 0
        self._finished: Event | None = None
        self._value: Any = None
        self._on_done = on_done
        clock.ready.append((_step, self))

    def __repr__(self) -> str:
        state = "running"
        if self.done:
            state = "cancelled" if self.cancelled else "failed" if self.error else "finished"
        return f"<Task {self.number} {self.name} {state}>"

    def cancel(self) -> None:
        """Raise ``Cancelled`` where it waits. A task that is done stays as it is."""
        self.interrupt(Cancelled(), CANCEL)

    def kill(self) -> None:
        """Cancel it, and raise ``Cancelled`` again wherever it waits after that."""
        if not self.done:
            self._doomed = self._doomed or 1
            self.interrupt(Cancelled(), CANCEL)

    def result(self) -> T:
        """What it returned. Raises what it raised, and LocalError if it has no result."""
        self.awaited = True
        if not self.done:
            raise LocalError(f"{self!r} is not done")
        if self.error is not None:
            raise self.error
        if self.cancelled:
            raise LocalError(f"{self!r} has no result")
        return cast(T, self._value)

    async def wait(self) -> None:
        """Return when it is done, however it ended; an error counts as seen."""
        self.awaited = True
        if not self.done:
            if self._finished is None:
                self._finished = Event(self._clock)
            await self._finished.wait()

    async def _outcome(self) -> T:
        await self.wait()
        return self.result()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._outcome().__await__()

    # Inside.

    def interrupt(self, error: BaseException, rank: int) -> None:
        """Raise ``error`` in it, unless something of a lower rank is about to be raised."""
        if self.done or (self._interrupt is not None and self._rank <= rank):
            return
        if self._coroutine is None:
            self._finish(cancelled=True)
            return
        self._interrupt, self._rank = error, rank
        event = self._waits_for
        if event is not None:
            event.remove(self)
            self._waits_for = None
            self._clock.ready.append((_step, self))

    def discard(self) -> None:
        """End it on the spot: clean-up code runs, but cannot wait."""
        clock, current = self._clock, self._coroutine
        if current is not None and not self.done:
            self._finish(cancelled=True)
            closed, clock.closed = clock.closed, True
            try:
                current.close()
            except Exception:
                pass  # of code that is being thrown away
            finally:
                clock.closed = closed

    def _finish(
        self, value: object = None, error: Exception | None = None, cancelled: bool = False
    ) -> None:
        self.done = True
        self._value = value
        self.error = error
        self.cancelled = cancelled
        self._coroutine = self._start = self._interrupt = None
        if error is not None and not self.awaited:
            self._clock.failed.append(self)
        if self._finished is not None:
            self._finished.set()
        self._on_done(self)

    def _park(self, event: object) -> None:
        if not isinstance(event, Event) or event._clock is not self._clock:
            self.interrupt(
                LocalError(
                    f"a task of a simulated world waits for {type(event).__name__}, which only "
                    "another event loop can wake: use world.sleep() and what hosts offer"
                ),
                CANCEL,
            )
            self._clock.ready.append((_step, self))
            return
        if self._doomed:
            self._doomed += 1
            self._interrupt = Cancelled()
            if self._doomed > MAX_LAST_WORDS:
                self.discard()
                return
        if self._interrupt is not None:  # by itself, while it ran
            self._clock.ready.append((_step, self))
            return
        self._waits_for = event
        event.add(self)


def _step(task: Task[Any]) -> None:
    """Let a task run until it waits again."""
    clock = task._clock
    current = task._coroutine
    if current is None:
        if task.done or task._start is None:
            return
        function, args = task._start
        task._start = None
        current = task._coroutine = function(*args)
    clock.current = task
    try:
        interrupt = task._interrupt
        if interrupt is None:
            event = current.send(None)
        else:
            task._interrupt = None
            event = current.throw(interrupt)
    except StopIteration as stop:
        task._finish(stop.value)
    except Cancelled:
        task._finish(cancelled=True)
    except Exception as error:
        task._finish(error=error)
    except BaseException:
        task._finish(cancelled=True)
        raise
    else:
        task._park(event)
    finally:
        clock.current = None


class Timeout:
    """``with world.timeout(5):`` raises TimeoutError when the body takes longer."""

    __slots__ = ("expired", "_clock", "_depth", "_error", "_seconds", "_task", "_timer")

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.expired = False
        self._clock = clock
        self._seconds = seconds
        self._error = Cancelled()
        self._task: Task[Any] | None = None
        self._timer: Timer | None = None
        self._depth = 0

    def __enter__(self) -> Self:
        task = self._clock.current
        if task is None or self._timer is not None:
            raise LocalError("a timeout is used once, with `with`, by a task of the world")
        self._task = task
        task.depth += 1
        self._depth = task.depth
        self._timer = self._clock.timer(self._clock.now + self._seconds, _expire, self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._task is not None and self._timer is not None
        self._task.depth -= 1
        self._clock.cancel(self._timer)
        if error is self._error:
            raise TimeoutError(f"it took longer than {self._seconds:g} s") from None


def _expire(timeout: Timeout) -> None:
    timeout.expired = True
    assert timeout._task is not None
    timeout._task.interrupt(timeout._error, timeout._depth)
