"""Tasks, events, timeouts and the virtual clock."""

import asyncio
import gc
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

import pytest

from anyp2p.sim import Cancelled, Task, World, clock as clock_module
from anyp2p.sim.tasks import MAX_LAST_WORDS
from anyp2p_core.errors import LocalError

Function = Callable[[], Awaitable[Any]]


def finish(world: World, function: Callable[[], Any], timeout: float = 100.0) -> Any:
    return world.run_task(world.spawn(function), timeout)


def test_time_passes_in_sleeps_alone() -> None:
    world = World()
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await world.sleep(seconds)
        seen.append((name, world.now))

    for name, seconds in (("c", 2.5), ("a", 0.5), ("b", 0.5), ("now", 0.0), ("past", -1.0)):
        world.spawn(sleeper, name, seconds)
    world.run(2.0)
    assert seen == [("now", 0.0), ("past", 0.0), ("a", 0.5), ("b", 0.5)]
    assert world.now == 2.0
    world.run(1.0)
    assert seen[-1] == ("c", 2.5)
    assert world.now == 3.0
    world.run(0.0)
    assert world.now == 3.0


def test_what_takes_no_time_happens_in_the_order_it_was_asked_for() -> None:
    world = World()
    order: list[int] = []

    async def child(number: int) -> None:
        order.append(number)
        await world.sleep(0)
        order.append(number + 10)

    for number in range(3):
        world.spawn(child, number)
    world.run(0)
    assert order == [0, 1, 2, 10, 11, 12]


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_times_that_are_none(seconds: float) -> None:
    world = World()
    with pytest.raises(LocalError):
        world.run(seconds)
    with pytest.raises(LocalError):
        world.run_until(lambda: True, seconds)
    with pytest.raises(LocalError):
        world.timeout(seconds)


def test_sleep_of_nan() -> None:
    world = World()

    async def main() -> None:
        await world.sleep(math.nan)

    with pytest.raises(LocalError):
        finish(world, main)


def test_run_until() -> None:
    world = World()
    reached: list[float] = []

    async def main() -> None:
        for _ in range(5):
            await world.sleep(1.0)
            reached.append(world.now)

    world.spawn(main)
    assert world.run_until(lambda: len(reached) == 2, 10.0) is True
    assert world.now == 2.0
    assert world.run_until(lambda: reached, 0.0) is True
    assert world.now == 2.0
    assert world.run_until(lambda: len(reached) == 5, 2.5) is False
    assert world.now == 4.5
    assert world.run_until(lambda: False, 3.0) is False
    assert world.now == 7.5


def test_run_until_looks_at_the_end_of_an_instant() -> None:
    world = World()
    done: list[int] = []

    async def main(number: int) -> None:
        await world.sleep(1.0)
        done.append(number)
        await world.sleep(0)
        done.append(number)

    for number in range(3):
        world.spawn(main, number)
    assert world.run_until(lambda: done, 5.0)
    assert sorted(done) == [0, 0, 1, 1, 2, 2]


def test_run_inside_of_a_run() -> None:
    world = World()

    async def main() -> None:
        world.run(1.0)

    with pytest.raises(LocalError, match="running already"):
        finish(world, main)


def test_results() -> None:
    world = World()

    async def work(value: int) -> int:
        await world.sleep(value)
        return value * 2

    async def main() -> tuple[int, list[int], int]:
        task = world.spawn(work, 3)
        assert "running" in repr(task)
        with pytest.raises(LocalError, match="not done"):
            task.result()
        first = await task
        again = await task
        return first, await world.gather(*(world.spawn(work, n) for n in (2, 1))), again

    assert finish(world, main) == (6, [4, 2], 6)
    assert world.now == 5.0


def test_run_task_in_vain() -> None:
    world = World()
    task = world.spawn(world.forever)
    with pytest.raises(TimeoutError, match="5 s of virtual time"):
        world.run_task(task, 5.0)
    assert world.now == 5.0 and not task.done


def test_error_of_a_task_stops_the_run_where_it_happened() -> None:
    world = World()
    went_on: list[float] = []

    async def broken() -> None:
        await world.sleep(2.0)
        raise ValueError("broken")

    async def other() -> None:
        await world.sleep(2.0)
        went_on.append(world.now)
        await world.sleep(1.0)
        went_on.append(world.now)

    task = world.spawn(broken)
    world.spawn(other)
    with pytest.raises(ValueError, match="broken") as caught:
        world.run(10.0)
    assert world.now == 2.0
    assert went_on == [2.0]  # the instant was finished
    assert (
        "broken failed" in caught.value.__notes__[0] and "2.000000 s" in caught.value.__notes__[0]
    )
    assert task.done and task.error is caught.value and "failed" in repr(task)
    world.run(8.0)  # once is enough
    assert went_on == [2.0, 3.0]
    assert world.now == 10.0


def test_two_errors_in_one_instant() -> None:
    world = World()

    async def broken(name: str) -> None:
        raise ValueError(name)

    world.spawn(broken, "first")
    world.spawn(broken, "second")
    with pytest.raises(ValueError, match="first"):
        world.run(1.0)
    with pytest.raises(ValueError, match="second"):
        world.run(1.0)
    world.run(1.0)


@pytest.mark.parametrize("how", ["await", "wait", "gather", "result"])
def test_an_error_that_is_handled_is_not_raised_again(how: str) -> None:
    world = World()

    async def broken() -> None:
        await world.sleep(1.0)
        raise ValueError("broken")

    async def main() -> str:
        task = world.spawn(broken)
        try:
            if how == "await":
                await task
            elif how == "gather":
                await world.gather(world.spawn(world.sleep, 5.0), task)
            elif how == "wait":
                await task.wait()
                assert isinstance(task.error, ValueError)
                return "handled"
            else:
                task.awaited = True
                await world.sleep(2.0)
                task.result()
        except ValueError:
            return "handled"
        return "nothing was raised"

    assert finish(world, main) == "handled"
    world.run(10.0)


def test_an_error_may_be_handled_within_its_instant() -> None:
    world = World()

    async def broken() -> None:
        raise ValueError("broken")

    async def handle(task: Task[None]) -> None:
        await world.sleep(0)
        assert task.done
        with pytest.raises(ValueError):
            await task

    task = world.spawn(broken)
    handlers = [world.spawn(handle, task) for _ in range(2)]
    world.run(1.0)
    assert all(handler.done for handler in handlers)


def test_many_may_wait_for_a_task() -> None:
    world = World()
    task = world.spawn(world.sleep, 1.0)

    async def wait() -> float:
        await task
        return world.now

    waiters = [world.spawn(wait) for _ in range(3)]
    world.run(2.0)
    assert [waiter.result() for waiter in waiters] == [1.0] * 3


def test_an_error_before_anyone_waits_is_raised() -> None:
    world = World()

    async def broken() -> None:
        raise ValueError("broken")

    async def main() -> None:
        task = world.spawn(broken)
        await world.sleep(1.0)
        await task

    world.spawn(main)
    with pytest.raises(ValueError):
        world.run(0.5)


def test_interrupts_go_through() -> None:
    world = World()

    async def stop() -> None:
        raise KeyboardInterrupt

    task = world.spawn(stop)
    with pytest.raises(KeyboardInterrupt):
        world.run(1.0)
    assert task.done
    world.run(1.0)


def test_cancel() -> None:
    world = World()
    log: list[object] = []

    async def work() -> None:
        try:
            await world.sleep(100.0)
        except Cancelled:
            log.append(("cancelled", world.now))
            await world.sleep(1.0)  # clean-up may wait
            log.append(("cleaned up", world.now))
            raise

    async def main() -> None:
        task = world.spawn(work)
        await world.sleep(2.0)
        world.cancel(task)
        task.cancel()  # once is enough
        await task.wait()
        assert task.cancelled and task.error is None
        assert "cancelled" in repr(task)
        with pytest.raises(LocalError, match="no result"):
            task.result()
        task.cancel()  # too late

    finish(world, main)
    assert log == [("cancelled", 2.0), ("cleaned up", 3.0)]


def test_cancel_before_it_began() -> None:
    world = World()
    task = world.spawn(world.forever)
    task.cancel()
    assert task.done and task.cancelled
    world.run(1.0)


def test_cancel_oneself() -> None:
    world = World()

    async def main() -> None:
        task.cancel()
        world_time.append(world.now)
        await world.sleep(5.0)
        world_time.append(world.now)

    world_time: list[float] = []
    task = world.spawn(main)
    world.run(10.0)
    assert task.cancelled and world_time == [0.0]


def test_cancellation_can_be_declined() -> None:
    world = World()

    async def stubborn() -> str:
        with suppress(Cancelled):
            await world.sleep(5.0)
        await world.sleep(1.0)
        return "done"

    task = world.spawn(stubborn)
    world.run(1.0)
    task.cancel()
    world.run(2.0)
    assert task.result() == "done"


def test_cancel_when_what_it_waits_for_has_happened() -> None:
    """The cancellation wins: the task was ready, but it has not run."""
    world = World()
    event = world.event()

    async def waiter() -> None:
        await event.wait()

    task = world.spawn(waiter)
    world.run(0)
    event.set()
    task.cancel()
    world.run(0)
    assert task.cancelled


def test_events_wake_everyone() -> None:
    world = World()
    event = world.event()
    woken: list[int] = []

    async def waiter(number: int) -> None:
        await event.wait()
        woken.append(number)

    tasks = [world.spawn(waiter, number) for number in range(4)]
    world.run(0)
    tasks[1].cancel()
    world.run(0)
    assert not woken
    event.set()
    event.set()
    world.run(0)
    assert woken == [0, 2, 3]
    world.spawn(waiter, 9)
    world.run(0)
    assert woken[-1] == 9


def test_timeout() -> None:
    world = World()

    async def main() -> float:
        with pytest.raises(TimeoutError, match=r"2\.5 s"), world.timeout(2.5):
            await world.forever()
        assert world.now == 2.5
        with world.timeout(1.0) as scope:
            await world.sleep(0.5)
        assert not scope.expired
        await world.sleep(10.0)
        return world.now

    assert finish(world, main) == 13.0


@pytest.mark.parametrize(("outer", "inner", "expected"), [(1.0, 2.0, "outer"), (2.0, 1.0, "inner")])
def test_nested_timeouts(outer: float, inner: float, expected: str) -> None:
    world = World()

    async def main() -> str:
        try:
            with world.timeout(outer):
                try:
                    with world.timeout(inner):
                        await world.forever()
                except TimeoutError:
                    return "inner"
        except TimeoutError:
            return "outer"
        return "none"

    assert finish(world, main) == expected
    assert world.now == min(outer, inner)


def test_nested_timeouts_at_the_same_time() -> None:
    """The outer one wins: whoever set it wants all of it to end."""
    world = World()

    async def main() -> str:
        try:
            with world.timeout(1.0):
                try:
                    with world.timeout(1.0):
                        await world.forever()
                except TimeoutError:
                    return "inner"
        except TimeoutError:
            return "outer"
        return "none"

    assert finish(world, main) == "outer"


def test_cancellation_beats_a_timeout() -> None:
    world = World()

    async def main() -> None:
        with world.timeout(1.0):
            await world.forever()

    async def canceller() -> None:
        await world.sleep(1.0)
        task.cancel()

    world.spawn(canceller)  # its sleep comes first
    task = world.spawn(main)
    world.run(2.0)
    assert task.cancelled


def test_timeouts_are_for_tasks() -> None:
    world = World()
    with pytest.raises(LocalError, match="by a task"), world.timeout(1.0):
        pass

    async def main() -> None:
        scope = world.timeout(1.0)
        with scope:
            pass
        with scope:
            pass

    with pytest.raises(LocalError, match="used once"):
        finish(world, main)


def test_many_timeouts_leave_nothing_behind() -> None:
    world = World()

    async def main() -> None:
        for _ in range(20_000):
            with world.timeout(1000.0):
                await world.sleep(0.001)

    finish(world, main)
    clock = world._clock
    assert sum(map(len, clock._later.values())) <= 2 * 1024 + 2
    world.run(2000.0)
    assert not clock._later and not clock._times


def test_timers_that_are_left_still_ring() -> None:
    world = World()
    rung: list[float] = []

    async def sleeper(seconds: float) -> None:
        await world.sleep(seconds)
        rung.append(seconds)

    tasks = [world.spawn(sleeper, 1.0 + (n % 1500)) for n in range(3000)]
    world.run(0)
    for task in tasks[::2]:
        task.cancel()
    world.run(2000.0)
    assert rung == sorted(1.0 + (n % 1500) for n in range(1, 3000, 2))


def test_awaiting_what_is_not_of_this_world() -> None:
    world = World()
    other = World()
    loop = asyncio.new_event_loop()

    async def foreign_loop() -> None:
        await loop.create_future()

    async def foreign_world() -> None:
        await other.sleep(1.0)

    try:
        for function, name in ((foreign_loop, "Future"), (foreign_world, "Event")):
            with pytest.raises(LocalError, match=f"waits for {name}"):
                finish(world, function)
    finally:
        loop.close()


def test_time_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "MAX_TURNS", 1000)

    async def yields(world: World) -> None:
        while True:
            await world.sleep(0)

    async def spawns(world: World) -> None:
        world.spawn(spawns, world)

    async def later(world: World) -> None:
        await world.sleep(0.0625)
        await yields(world)

    def again(world: World) -> None:
        world._clock.call_at(world.now, again, world)

    for start, when in ((yields, "0"), (spawns, "0"), (later, "0.0625")):
        world = World()
        world.spawn(start, world)
        with pytest.raises(LocalError, match=f"time stands still at {when} s"):
            world.run(1.0)
        world.close()
    world = World()
    again(world)
    with pytest.raises(LocalError, match="time stands still"):
        world.run(1.0)


def test_a_broken_call_loses_nothing_of_its_instant() -> None:
    world = World()
    seen: list[str] = []

    def fail(text: str) -> None:
        raise RuntimeError(text)

    world._clock.call_at(1.0, seen.append, "before")
    world._clock.call_at(1.0, fail, "broken")
    world._clock.call_at(1.0, seen.append, "after")
    with pytest.raises(RuntimeError):
        world.run(2.0)
    assert seen == ["before"]
    world.run(1.0)
    assert seen == ["before", "after"]


def test_killed_tasks_die_whatever_they_do() -> None:
    world = World()
    log: list[str] = []

    async def stubborn() -> None:
        for _ in range(1000):
            try:
                await world.forever()
            except BaseException as error:
                log.append(type(error).__name__)

    async def orderly() -> None:
        try:
            await world.forever()
        finally:
            with pytest.raises(Cancelled):
                await world.sleep(1.0)
            log.append("orderly")

    host = world.host()
    tasks = [world.spawn(stubborn, on=host), world.spawn(orderly, on=host)]
    world.run(1.0)
    world.crash(host)
    assert not log
    world.run(0)
    assert all(task.done and task.cancelled for task in tasks)
    assert log.count("orderly") == 1
    assert log.count("Cancelled") == MAX_LAST_WORDS
    assert log.count("GeneratorExit") == 1000 - MAX_LAST_WORDS
    late = world.spawn(orderly, on=host)
    assert late.done


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_closing_a_world_whose_tasks_go_on_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "MAX_REFUSALS", 100)
    world = World()

    async def immortal(world: World) -> None:
        while True:
            with suppress(BaseException):
                await world.forever()

    task = world.spawn(immortal, world)
    world.run(1.0)
    world.close()
    assert task.done
    del task, world
    gc.collect()


def test_world_that_is_dropped_leaves_no_complaints(capsys: pytest.CaptureFixture[str]) -> None:
    """Its coroutines are closed by the garbage collector, and their clean-up must not wait."""

    async def main(world: World, cleaned: list[str]) -> None:
        host = world.host(listen=["/ip4/0.0.0.0/tcp/1"])
        try:
            async with host, world.host() as other:
                await other.connect(host.addresses[0])
                await world.forever()
        finally:
            cleaned.append("up")

    cleaned: list[str] = []
    world = World()
    world.spawn(main, world, cleaned)
    world.spawn(world.forever)
    world.run(5.0)
    world.spawn(main, world, cleaned)  # never started
    del world
    gc.collect()
    assert cleaned == ["up"]
    assert capsys.readouterr().err == ""


def test_closed_world() -> None:
    cleaned: list[str] = []

    async def main() -> None:
        async with world.host(listen=["/ip4/0.0.0.0/tcp/1"]):
            try:
                await world.forever()
            finally:
                cleaned.append("up")

    with World() as world:
        task = world.spawn(main)
        world.run(1.0)
    assert cleaned == ["up"] and task.done and task.cancelled
    with pytest.raises(LocalError, match="closed"):
        world.run(1.0)


def test_names_of_tasks() -> None:
    world = World()
    task: Task[Any] = world.spawn(world.forever, name="waiter")
    assert repr(task) == "<Task 1 waiter running>"

    class Callable_:
        async def __call__(self) -> int:
            return 1

    other = world.spawn(cast(Any, Callable_()))
    world.run(0)
    assert repr(other) == "<Task 2 Callable_ finished>"


def test_choice_of_an_application() -> None:
    world = World(seed=3)
    choice = world.choice("workload", 1)
    drawn = [choice.below(100) for _ in range(20)]
    assert drawn == [World(seed=3).choice("workload", 1).below(100) for _ in range(1)] + drawn[1:]
    assert drawn != [c.below(100) for c in [world.choice("workload", 2)] for _ in range(20)]
    assert drawn != [c.below(100) for c in [World(seed=4).choice("workload", 1)] for _ in range(20)]
