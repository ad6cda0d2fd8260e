"""The transport contract of the interop suites: every channel, in both roles, over a real Redis.

    redis-server  <-- listener, dialer: contract/transport.py, or the same on py-libp2p

    ours x ours            everything; over tcp also in the words of test-plans
    ours x py-libp2p       everything, both ways
    ours x go, js, rust    some, both ways: what they bring for these suites is in no registry,
                           so that peers of the matrix stand in

A run has passed when its dialer ends with 0 and has said two times on stdout, in the very form
that the suite reads, and nothing else. In test-plans the listener's address has one name in
Redis for all runs, so those that are under way together have a server each.
"""

import asyncio
import hashlib
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

from building import BuildFailed, Built, NotHere
from channel_cells import ALL, CHANNELS
from channels import Program as Peers
from contracts import CONTRACT, find_redis, redis_server, rival
from material import Material, material
from matrix import Problem
from peer import PeerFailed
from report import FAIL, OK, SKIP, Progress, Result, Suite
from transport_sides import (
    TEST_PLANS,
    UNIFIED,
    Player,
    Program,
    Run,
    RunFailed,
    SetListener,
    StandIn,
)

HEADS = ("dialer", "implementation", "listener", "suite")
TITLE = "The transport contract of the interop suites: who dials whom, in the words of which suite"
NOTE = (
    "The programs of go, js and rust for these suites are in no registry: peers of the matrix\n"
    "stand in for them, and Redis is done for these here."
)
AT_ONCE = 2
"""Runs, each of them at most two processes."""
SECONDS = 30
"""What a program is given, to start, too."""
ALONE = 1
"""The same for one whose other side never comes."""
MORE = 10.0
"""Seconds after that until it is killed."""

COMBINATIONS = (
    *(
        f"{transport}+{security}+{muxer}"
        for transport in ("tcp", "ws", "wss")
        for security in ("noise", "tls")
        for muxer in ("yamux", "mplex")
    ),
    "quic-v1",
)
FEW = ("tcp+noise+yamux", "ws+tls+yamux", "wss+noise+mplex", "quic-v1")
"""With peers who do all of them in channels.py."""
SET = "SET"
"""The address is not in a list, as the documents of the suites have it."""
NOBODY = "nobody else"
"""The other side never comes: neither role may end with 0, or have a result."""
COLUMNS = (*COMBINATIONS, SET, NOBODY)

OURS = Program("ours", [sys.executable, str(CONTRACT / "transport.py")])


@dataclass(slots=True)
class Job:
    """A cell: who is to do what."""

    dialer: Player
    listener: Player
    suite: str
    combination: str
    cell: str = ""

    def result(self, outcome: str, reason: str = "") -> Result:
        cell = self.cell or self.combination
        names = self.dialer.name, self.listener.name, self.suite
        return Result(*names, cell, outcome, reason=reason)


async def run_transports(
    built: dict[str, Built], problems: dict[str, Problem], missing: str, progress: Progress
) -> list[Result]:
    """Every cell. ``missing``: the outcome without a server."""
    cell = COMBINATIONS[0]
    try:
        server = find_redis(progress)
    except NotHere as reason:
        return [Result("ours", "", "", cell, missing, reason=str(reason))]
    except BuildFailed as error:
        return [Result("ours", "", "", cell, FAIL, reason=str(error).partition("\n")[0])]
    results = [
        Result(name, "", "", cell, outcome, reason=reason)
        for name, (outcome, reason) in problems.items()
    ]
    jobs = list(_ours())
    try:
        side = rival("pylibp2p_transport.py", progress)
        jobs += _both_ways(Program(side.name, side.command), COMBINATIONS)
    except (NotHere, BuildFailed) as reason:  # it is no part of this directory: never a failure
        results.append(
            Result("py-libp2p", "", "", cell, SKIP, reason=str(reason).partition("\n")[0])
        )
    async with AsyncExitStack() as stack:
        stack.callback(progress.clear)
        files = stack.enter_context(material())
        for name, one in built.items():
            if name == OURS.name or "channels" in one.spec.cannot:
                continue
            try:
                jobs += _both_ways(await _stand_in(one, files, stack), FEW)
            except PeerFailed as error:
                results.append(Result(name, "", "", cell, FAIL, reason=str(error)))
        free: asyncio.Queue[str] = asyncio.Queue()
        for _ in range(AT_ONCE):
            free.put_nowait(await stack.enter_async_context(redis_server(server)))
        return results + await asyncio.gather(*(_cell(job, free, progress) for job in jobs))


def _ours() -> Iterator[Job]:
    for suite in (UNIFIED, TEST_PLANS):
        for combination in COMBINATIONS:
            if suite == UNIFIED or combination.startswith("tcp"):
                yield Job(OURS, OURS, suite, combination)
        yield Job(OURS, OURS, suite, COMBINATIONS[0], NOBODY)
    yield Job(OURS, SetListener(OURS), UNIFIED, COMBINATIONS[0], SET)


def _both_ways(other: Player, combinations: tuple[str, ...]) -> list[Job]:
    return [
        Job(dialer, listener, UNIFIED, combination)
        for dialer, listener in ((OURS, other), (other, OURS))
        for combination in combinations
    ]


async def _stand_in(built: Built, files: Material, stack: AsyncExitStack) -> StandIn:
    """A peer that has every channel. Raises PeerFailed."""
    peers = Peers(built, built.spec.name, list(CHANNELS.values()), files)
    stack.push_async_callback(peers.stop)
    return StandIn(await peers.peer(ALL))


async def _cell(job: Job, free: "asyncio.Queue[str]", progress: Progress) -> Result:
    redis = await free.get()
    title = f"{job.dialer.name} x {job.listener.name} ({job.combination.replace('+', ', ')})"
    progress.now(f"contract: {title}")
    key = hashlib.sha256(f"{title} {job.cell} {redis}\n".encode()).hexdigest()[:8]
    run = Run(job.suite, job.combination, key, redis, ALONE if job.cell == NOBODY else SECONDS)
    result = job.result(OK)
    started = time.monotonic()
    try:
        lacking = job.dialer.lacks(run, dials=True) or job.listener.lacks(run, dials=False)
        if lacking is not None:
            return job.result(SKIP, lacking)
        if job.cell == NOBODY:
            await _in_time(run, _alone(run))
        else:
            both, ping = await _in_time(run, _meet(job, run))
            result.remark = f"{both:.1f} ms, of these {ping:.1f} for the ping"
    except RunFailed as error:
        result.outcome = FAIL
        result.reason, *said = str(error).splitlines()
        for line in said:
            progress.line(f"    {title}: {line}")
    finally:
        free.put_nowait(redis)
    result.seconds = time.monotonic() - started
    progress.done(result)
    return result


async def _in_time(
    run: Run, what: Coroutine[object, object, tuple[float, float]]
) -> tuple[float, float]:
    try:
        async with asyncio.timeout(run.seconds + MORE):
            return await what
    except TimeoutError:
        raise RunFailed(f"it did not end by itself after {run.seconds} s") from None


async def _meet(job: Job, run: Run) -> tuple[float, float]:
    """The two times. Whoever ends first decides: a listener never should."""
    listening = asyncio.create_task(job.listener.listen(run))
    dialing = asyncio.create_task(job.dialer.dial(run))
    try:
        await asyncio.wait({listening, dialing}, return_when=asyncio.FIRST_COMPLETED)
        if not dialing.done():
            await listening
        return await dialing
    finally:
        for task in (listening, dialing):
            task.cancel()
        await asyncio.gather(listening, dialing, return_exceptions=True)


async def _alone(run: Run) -> tuple[float, float]:
    """Each role with nobody there, one after the other: they would meet."""
    for dials, role in ((True, "dialer"), (False, "listener")):
        code, output, said = await OURS.play(run, dials=dials)
        if not code or output:
            raise RunFailed(f"the {role} ended with {code}, and said {output!r}\n{said}")
    return 0.0, 0.0


def suite(results: list[Result]) -> Suite:
    """The results as ``report`` wants them."""
    return Suite("transport contract", results, COLUMNS, HEADS, TITLE, [NOTE], stacked=True)


def main() -> int:
    from interop import main as interop

    sys.argv[1:1] = ["--only", "contract"]
    return interop()


if __name__ == "__main__":
    sys.exit(main())
