"""What the checks need to know of an event loop, for the loops that we know.

A loop of your own gets a subclass of ``Loop``. On a loop that runs coroutines it is some ten lines;
for one that blocks, ``gevent.py`` beside this file shows the way in: awaitables that never suspend.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar, cast

from anyp2p.host import BaseHost

T = TypeVar("T")
Function = Callable[[], Awaitable[T]]


class Loop(ABC):
    """One kind of event loop. The checks run inside it and await these methods."""

    late_cancellation = False
    """Whether ``cancel_at`` can cancel late."""

    def adopt(self, host: Any) -> Any:
        """The host with awaitable methods; a loop that blocks wraps it here."""
        return host

    def base(self, host: Any) -> BaseHost[Any]:
        """The ``BaseHost`` in or under what ``adopt`` returned."""
        return cast(BaseHost[Any], host)

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Let others run for a while."""

    @abstractmethod
    async def together(self, *functions: Function[T]) -> list[T]:
        """Run all of them at once; returns their results in order.

        The first exception cancels the others and is raised, bare.
        """

    @abstractmethod
    async def within(self, seconds: float, function: Function[T]) -> T:
        """Run a function; cancel it and raise ``TimeoutError`` when it takes longer."""

    @abstractmethod
    async def cancel_at(self, checkpoint: int, function: Function[Any], *, late: bool) -> bool:
        """Run a function, and cancel it the way of this loop when it suspends for the nth time.

        ``late``: only when what it waits for has happened, but before it runs again. Returns
        whether it came so far, however it ended. Exceptions other than the cancellation are raised.
        """

    @abstractmethod
    def tasks(self) -> int:
        """Tasks that are alive in this loop."""

    def timers(self) -> int:
        """Timers that the loop has yet to fire; 0 if it does not tell."""
        return 0


class Counted:
    """Awaits a function and calls ``cancel`` where it is about to suspend for the nth time."""

    def __init__(
        self, function: Function[Any], checkpoint: int, cancel: Callable[[], object], late: bool
    ) -> None:
        self._function = function
        self._left = checkpoint
        self._cancel = cancel
        self._late = late

    @property
    def reached(self) -> bool:
        return self._left <= 0

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._function().__await__()
        step: Callable[[], Any] = inner.__next__
        while True:
            try:
                waits_for = step()
            except StopIteration as stop:
                return stop.value
            self._left -= 1
            if not self._left:
                if self._late and hasattr(waits_for, "add_done_callback"):
                    waits_for.add_done_callback(lambda _: self._cancel())
                else:
                    self._cancel()
            try:
                value = yield waits_for
            except BaseException as error:
                step = _bind(cast(Any, inner).throw, error)
            else:
                step = _bind(cast(Any, inner).send, value)


def _bind(function: Callable[[Any], Any], argument: Any) -> Callable[[], Any]:
    return lambda: function(argument)


def only(error: BaseException) -> BaseException:
    """The exception in groups of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


class AsyncioLoop(Loop):
    """asyncio, and uvloop, which does not tell about its timers."""

    late_cancellation = True

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def together(self, *functions: Function[T]) -> list[T]:
        tasks = [asyncio.ensure_future(function()) for function in functions]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def within(self, seconds: float, function: Function[T]) -> T:
        async with asyncio.timeout(seconds):
            return await function()

    async def cancel_at(self, checkpoint: int, function: Function[Any], *, late: bool) -> bool:
        counted = Counted(function, checkpoint, lambda: task.cancel(), late)

        async def run() -> None:
            await counted

        task = asyncio.create_task(run())
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
        return counted.reached

    def tasks(self) -> int:
        return len(asyncio.all_tasks())

    def timers(self) -> int:
        scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())
        return sum(not timer.cancelled() for timer in scheduled)


class TrioLoop(Loop):
    """trio."""

    async def sleep(self, seconds: float) -> None:
        import trio

        await trio.sleep(seconds)

    async def together(self, *functions: Function[T]) -> list[T]:
        import trio

        results: dict[int, T] = {}

        async def call(index: int, function: Function[T]) -> None:
            results[index] = await function()

        try:
            async with trio.open_nursery() as nursery:
                for index, function in enumerate(functions):
                    nursery.start_soon(call, index, function)
        except BaseExceptionGroup as group:
            raise only(group) from None
        return [results[index] for index in range(len(functions))]

    async def within(self, seconds: float, function: Function[T]) -> T:
        import trio

        with trio.move_on_after(seconds):
            return await function()
        raise TimeoutError

    async def cancel_at(self, checkpoint: int, function: Function[Any], *, late: bool) -> bool:
        import trio

        scope = trio.CancelScope()
        counted = Counted(function, checkpoint, scope.cancel, False)
        with scope:
            await counted
        return counted.reached

    def tasks(self) -> int:
        import trio

        return trio.lowlevel.current_statistics().tasks_living

    def timers(self) -> int:
        import trio

        return trio.lowlevel.current_statistics().seconds_to_next_deadline < 3600


class AnyioLoop(Loop):
    """anyio, on either backend."""

    async def sleep(self, seconds: float) -> None:
        import anyio

        await anyio.sleep(seconds)

    async def together(self, *functions: Function[T]) -> list[T]:
        import anyio

        results: dict[int, T] = {}

        async def call(index: int, function: Function[T]) -> None:
            results[index] = await function()

        try:
            async with anyio.create_task_group() as group:
                for index, function in enumerate(functions):
                    group.start_soon(call, index, function)
        except BaseExceptionGroup as errors:
            raise only(errors) from None
        return [results[index] for index in range(len(functions))]

    async def within(self, seconds: float, function: Function[T]) -> T:
        import anyio

        with anyio.fail_after(seconds):
            return await function()

    async def cancel_at(self, checkpoint: int, function: Function[Any], *, late: bool) -> bool:
        import anyio

        scope = anyio.CancelScope()
        counted = Counted(function, checkpoint, scope.cancel, False)
        with scope:
            await counted
        return counted.reached

    def tasks(self) -> int:
        import anyio

        return len(anyio.get_running_tasks())
