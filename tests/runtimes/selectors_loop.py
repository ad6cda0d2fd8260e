"""An event loop on `selectors`, in a plain thread, as small as one can be. It knows no anyp2p.

A task is a coroutine that awaits events and nothing else.
"""

import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")


class Cancelled(BaseException):
    """Thrown into a task to end it."""


class Event:
    def __init__(self, loop: "Loop") -> None:
        self._loop = loop
        self._happened = False
        self.tasks: list[Task] = []

    def set(self) -> None:
        self._happened = True
        self._loop.ready += self.tasks
        self.tasks.clear()

    async def wait(self) -> None:
        while not self._happened:
            await self

    def __await__(self) -> Generator["Event", None, None]:
        yield self


class Task:
    def __init__(self, loop: "Loop", coroutine: Coroutine[Any, Any, Any]) -> None:
        self.outcome: Future[Any] = Future()
        self.ended = Event(loop)
        self._loop = loop
        self._coroutine = coroutine
        self._waits_for: Event | None = None
        self._cancelled = False
        loop.ready.append(self)
        loop.tasks[self] = None

    def cancel(self) -> None:
        """Throw ``Cancelled`` where it waits, or where it will wait next."""
        self._cancelled = True
        if self._waits_for is not None and self in self._waits_for.tasks:
            self._waits_for.tasks.remove(self)
            self._loop.ready.append(self)

    def step(self) -> None:
        """Run until it waits for the next event."""
        self._loop.current, cancelled, self._cancelled = self, self._cancelled, False
        try:
            if cancelled:
                self._waits_for = self._coroutine.throw(Cancelled())
            else:
                self._waits_for = self._coroutine.send(None)
        except StopIteration as stop:
            self.outcome.set_result(stop.value)
        except BaseException as error:
            self.outcome.set_exception(error)
        else:
            self._waits_for.tasks.append(self)
            if self._cancelled:
                self.cancel()
            return
        del self._loop.tasks[self]
        self.ended.set()


class Loop(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="loop", daemon=True)
        self.ready: deque[Task] = deque()
        self.tasks: dict[Task, None] = {}
        self.current: Task | None = None
        self.timers: dict[object, tuple[float, Callable[[], object]]] = {}
        self._selector = selectors.DefaultSelector()
        self._waiting: dict[int, dict[int, Event]] = {}  # by file descriptor, then by what for
        self._calls: deque[Callable[[], object]] = deque()
        self._bell, self._ear = socket.socketpair()
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._running = True

    def run(self) -> None:
        while self._running:
            for _ in range(len(self.ready)):
                self.ready.popleft().step()
            for key, events in self._selector.select(self._patience()):
                if key.fileobj is self._ear:
                    for _ in self._ear.recv(100):  # a byte for each call
                        self._calls.popleft()()
                else:
                    waiting = self._waiting[key.fd]
                    for event in [event for what, event in waiting.items() if what & events]:
                        event.set()
            now = monotonic()
            for owner, (when, function) in list(self.timers.items()):
                if when <= now:
                    del self.timers[owner]
                    function()

    def _patience(self) -> float | None:
        if self.ready:
            return 0.0
        due = min((when for when, _ in self.timers.values()), default=None)
        return None if due is None else max(0.0, due - monotonic())

    async def wait_for(self, sock: socket.socket, what: int) -> None:
        """Wait until a socket is readable or writable."""
        waiting = self._waiting.setdefault(fd := sock.fileno(), {})
        event = waiting[what] = Event(self)
        self._watch(fd)
        try:
            await event.wait()
        finally:
            del waiting[what]
            self._watch(fd)

    def _watch(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)
        if events := sum(self._waiting[fd]):
            self._selector.register(fd, events)

    def call(self, function: Callable[[], object]) -> None:
        """Call it in the loop's thread. For other threads, as are the next two."""
        self._calls.append(function)
        self._bell.send(b"!")

    def finish(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function in the loop's thread, and wait for what it returns."""
        made: Future[Task] = Future()
        self.call(lambda: made.set_result(Task(self, function())))
        result: T = made.result().outcome.result()
        return result

    def stop(self) -> None:
        """End the thread."""
        self.call(lambda: setattr(self, "_running", False))
        self.join()
        self._selector.close()
        self._bell.close()
        self._ear.close()
