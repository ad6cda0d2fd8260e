"""The simulator passes the checks that every runtime must pass, on its virtual clock."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

import pytest

from anyp2p.sim import Task, World
from anyp2p.testing import CHECKS, Check, Loop, run_check
from anyp2p.testing.kit import Kit
from anyp2p.testing.loops import Counted

T = TypeVar("T")
Function = Callable[[], Awaitable[T]]

REAL = {
    # They need a socket of this machine, which no simulated peer can reach.
    "dial_times_out",
    "upgrade_times_out",
    "accepts_strangers",
    "close_ends_unfinished_upgrades",
    # A fork of a world is another world, whose secrets are none: it may go on.
    "forked_child",
}


class SimLoop(Loop):
    def __init__(self, world: World) -> None:
        self.world = world

    async def sleep(self, seconds: float) -> None:
        await self.world.sleep(seconds)

    async def together(self, *functions: Function[T]) -> list[T]:
        tasks = [self._spawn(function) for function in functions]
        for task in tasks:
            task.awaited = True
        try:
            for task in tasks:
                await task
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                await task.wait()
        return [task.result() for task in tasks]

    async def within(self, seconds: float, function: Function[T]) -> T:
        with self.world.timeout(seconds):
            return await function()

    async def cancel_at(self, checkpoint: int, function: Function[Any], *, late: bool) -> bool:
        counted = Counted(function, checkpoint, lambda: task.cancel(), late)

        async def run() -> None:
            await counted

        task = self.world.spawn(run)
        await task.wait()
        if not task.cancelled:
            task.result()
        return counted.reached

    def tasks(self) -> int:
        return len(self.world._tasks)

    def _spawn(self, function: Function[T]) -> Task[T]:
        async def call() -> T:
            return await function()

        return self.world.spawn(call)


SIMULATED = [check for check in CHECKS if check.__name__ not in REAL]
LONG = ("a_thousand_connections", "abrupt_end_breaks_everything")


@pytest.mark.parametrize("check", SIMULATED, ids=lambda check: check.__name__)
def test_check(check: Check) -> None:
    run(check, "noise")


@pytest.mark.parametrize(
    "check",
    [check for check in SIMULATED if check.__name__ not in LONG],
    ids=lambda check: check.__name__,
)
def test_check_without_security(check: Check) -> None:
    run(check, "null")


def run(check: Check, security: Literal["null", "noise"]) -> None:
    world = World(seed=1, security=security)
    first = world.host()

    async def main() -> None:
        kit = Kit(lambda **options: world.host(beside=first, **options), SimLoop(world))
        await run_check(kit, check)

    world.run_task(world.spawn(main), 1000)
