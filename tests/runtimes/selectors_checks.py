"""What `anyp2p.testing` has to know of the loop of `selectors_loop.py`."""

from concurrent.futures import Future
from time import monotonic
from typing import Any, TypeVar

from selectors_loop import Cancelled, Event, Loop, Task

from anyp2p.testing import loops
from anyp2p.testing.loops import Counted, Function

T = TypeVar("T")


def _succeeded(outcome: Future[Any]) -> bool:
    return outcome.exception() is None


class SelectorsLoop(loops.Loop):
    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    async def sleep(self, seconds: float) -> None:
        event = Event(self._loop)
        self._loop.timers[event] = (monotonic() + seconds, event.set)
        try:
            await event.wait()
        finally:
            self._loop.timers.pop(event, None)

    async def together(self, *functions: Function[T]) -> list[T]:
        tasks = [self._start(function) for function in functions]
        failed = Event(self._loop)
        for task in tasks:
            task.outcome.add_done_callback(lambda done: None if _succeeded(done) else failed.set())
        try:
            watch = self._start(lambda: self._all_ended(tasks, failed))
            await failed.wait()
            watch.cancel()
            for task in tasks:
                if task.outcome.done():
                    task.outcome.result()
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                await task.ended.wait()
        return [task.outcome.result() for task in tasks]

    async def within(self, seconds: float, function: Function[T]) -> T:
        task = self._start(function)
        late = []

        def expire() -> None:
            late.append(True)
            task.cancel()

        self._loop.timers[task] = (monotonic() + seconds, expire)
        try:
            await task.ended.wait()
        finally:
            self._loop.timers.pop(task, None)
            task.cancel()
        if late:
            raise TimeoutError
        result: T = task.outcome.result()
        return result

    async def cancel_at(self, checkpoint: int, function: Function[Any], *, late: bool) -> bool:
        counted = Counted(function, checkpoint, lambda: task.cancel(), False)

        async def run() -> None:
            await counted

        task = Task(self._loop, run())
        await task.ended.wait()
        if not isinstance(task.outcome.exception(), Cancelled):
            task.outcome.result()
        return counted.reached

    def tasks(self) -> int:
        return len(self._loop.tasks)

    def timers(self) -> int:
        return len(self._loop.timers)

    def _start(self, function: Function[Any]) -> Task:
        async def run() -> Any:
            return await function()

        return Task(self._loop, run())

    async def _all_ended(self, tasks: list[Task], ended: Event) -> None:
        for task in tasks:
            await task.ended.wait()
        ended.set()
