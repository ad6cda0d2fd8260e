"""What any runtime must pass, ours or yours: ``check_runtime``.

    async def main():
        await check_runtime(Host, AsyncioLoop())

    asyncio.run(main())

``make_host(**options)`` makes a host that is not started: mostly it is your ``Host`` class. The
loop tells how your event loop sleeps, cancels and counts, see ``Loop``. The checks talk to real
sockets on this machine alone and take about ten seconds.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from . import cancelling, closing, connecting, load, misuse, streams
from .kit import Kit
from .loops import AnyioLoop, AsyncioLoop, Loop, TrioLoop

__all__ = [
    "CHECKS", "AnyioLoop", "AsyncioLoop", "Check", "Kit", "Loop", "TrioLoop", "check_runtime",
    "run_check",
]  # fmt: skip

Check = Callable[[Kit], Awaitable[None]]

CHECKS: tuple[Check, ...] = (
    *connecting.CHECKS,
    *streams.CHECKS,
    *closing.CHECKS,
    *misuse.CHECKS,
    *cancelling.CHECKS,
    *load.CHECKS,
)
"""All of them, the basic ones first. Each one's name says what must be true."""


async def check_runtime(
    make_host: Callable[..., Any],
    loop: Loop,
    *,
    checks: Sequence[Check] = CHECKS,
    report: Callable[[str], object] = lambda line: None,
) -> None:
    """Run the checks one after the other; ``report`` gets a line for each.

    All are run, whatever fails. Then the failures are raised together, each with a note that names
    its check.
    """
    kit = Kit(make_host, loop)
    async with kit.pair():
        pass  # what a loop or a library makes once is not counted as left behind
    failures: list[Exception] = []
    for number, check in enumerate(checks, 1):
        name = getattr(check, "__name__", str(check))
        try:
            await run_check(kit, check)
        except Exception as error:
            error.add_note(f"check: {name}")
            failures.append(error)
            outcome = "FAILED"
        else:
            outcome = "ok"
        report(f"{number}/{len(checks)} {name}: {outcome}")
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(checks)} runtime checks failed", failures)


async def run_check(kit: Kit, check: Check) -> None:
    """One check, and whether it leaves tasks, timers, descriptors, threads or errors behind."""
    before = kit.census()
    await kit.loop.within(kit.time_limit, lambda: check(kit))
    if getattr(check, "leaves_threads", False):  # a pool that the loop keeps for look-ups
        before.threads = kit.census().threads
        before.tasks = max(before.tasks, kit.loop.tasks())
    await kit.no_more_than(before)
    kit.no_internal_errors()
