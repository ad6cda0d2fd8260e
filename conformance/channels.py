"""Every transport, security and muxer with every peer, both ways, on every runtime of ours.

    python conformance/channels.py [--peers go,rust] [--channels ws+tls+yamux,pnet] [-v]

    start the peers: each once with everything, and once more for each thing it must not have
    for each runtime of ours:  start our side once for each security, muxer and network
        what waits for time limits, all at once
        for each peer, two at a time:   we dial, then we listen: the columns in order
        stop our side

interop.py runs it after the matrix. README.md says what the columns are.
"""

import asyncio
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

import channel_cells
from building import Built
from cells import CellFailed, Lane
from channel_cells import ALL, CHANNELS, COLUMNS, Channel, Start
from material import Material, material
from matrix import Plan, Problem, Side
from peer import Peer, PeerFailed, PeerNotHere
from report import FAIL, OK, SKIP, Progress, Result, Suite

TITLE = "Channels: connect, ping, identify, echo and perf over each, both ways"
TRANSPORTS = {
    "ws": "/ip4/127.0.0.1/tcp/0/ws",
    "wss": "/ip4/127.0.0.1/tcp/0/tls/ws",
    "quic-v1": "/ip4/127.0.0.1/udp/0/quic-v1",
}
"""Besides TCP, on which every peer listens."""
AT_ONCE = 2
"""Peers that are tried, and processes that are started, at the same time."""
STDERR_LINES = 5


async def run_channels(plan: Plan, progress: Progress) -> list[Result]:
    """Start everything that was built, run all rows, stop everything."""
    with material() as files:
        own = plan.subject.spec.name
        columns = [CHANNELS[name] for name in plan.columns]
        peers: dict[str, Program] = {}
        problems = dict(plan.problems)
        results: list[Result] = []
        for name in plan.peers:
            problem = plan.built[name].spec.cannot.get("channels") if name in plan.built else None
            if problem is not None:
                problems[name] = SKIP, problem
            elif name in plan.built and name != own:
                peers[name] = Program(plan.built[name], name, columns, files)
        try:
            progress.now("starting the peers")
            await _start(peers.values(), plan, [channel.theirs for channel in columns])
            for number, runtime in enumerate(plan.runtimes):
                extra = ("--runtime", runtime) if runtime else ()
                subject = Program(plan.subject, own, columns, files, extra)
                try:
                    progress.now(f"starting {own} {runtime}")
                    await _start([subject], plan, [channel.ours for channel in columns])
                    rows = Rows(subject, runtime, columns, progress)
                    await rows.run(peers)
                    for name, (outcome, reason) in problems.items():
                        if number == 0 or name not in plan.once:
                            rows.not_run(name, outcome, reason)
                    results += rows.results
                finally:
                    await subject.stop()
        finally:
            progress.clear()
            await asyncio.gather(*(peer.stop() for peer in peers.values()))
    return results


async def _start(programs: Iterable["Program"], plan: Plan, starts: list[Start]) -> None:
    """Start every process that the columns need, few at a time; each keeps why it did not."""
    few = asyncio.Semaphore(AT_ONCE)

    async def start(program: Program, how: Start) -> None:
        async with few:
            with suppress(PeerFailed):
                await program.peer(how, plan.missing)

    async with asyncio.TaskGroup() as tasks:
        for program in programs:
            for how in dict.fromkeys(starts):
                if program.lacks(how) is None:
                    tasks.create_task(start(program, how))


class Program:
    """The processes of one peer, one for each way to start it."""

    def __init__(
        self,
        built: Built,
        label: str,
        columns: list[Channel],
        files: Material,
        extra: tuple[str, ...] = (),
    ) -> None:
        self.built = built
        self.spec = built.spec
        self._label = label
        self._files = files
        self._extra = extra
        self._wanted = {channel.transport for channel in columns}
        self._sides: dict[Start, Side] = {}
        self.problems: dict[Start, Problem] = {}

    def lacks(self, how: Start) -> str | None:
        """Why it cannot be started like that."""
        for names in (how.security, how.muxers):
            if not self._able(names):
                return self.spec.cannot[names.partition(",")[0]]
        return self.spec.cannot.get("pnet") if how.network else None

    def _able(self, names: str) -> str:
        return ",".join(name for name in names.split(",") if name not in self.spec.cannot)

    async def peer(self, how: Start, missing: str = FAIL) -> Peer:
        """The process, started unless it runs. Raises PeerFailed."""
        side = self._sides.get(how)
        if side is None:
            side = self._sides[how] = Side(self.built, self._label, self._options(how))
        if how in self.problems:
            raise PeerFailed(self.problems[how][1])
        try:
            return await side.peer()
        except PeerFailed as error:
            outcome = missing if isinstance(error, PeerNotHere) else FAIL
            first, *rest = str(error).splitlines()
            self.problems[how] = outcome, f"{first}: {rest[-1].strip()}" if rest else first
            raise PeerFailed(self.problems[how][1]) from None

    def _options(self, how: Start) -> tuple[str, ...]:
        able = self._able
        words = ["--security", able(how.security), "--muxers", able(how.muxers), *self._extra]
        if how.network:
            words += ["--psk", self._files.psk if how.network == "right" else self._files.other_psk]
        for transport in how.transports:
            if transport in TRANSPORTS and transport in self._wanted and able(transport):
                words += ["--listen", TRANSPORTS[transport]]
                if transport == "wss":
                    files = self._files
                    words += (files.other_web if how.web == "other" else files.web).options
        return tuple(words)

    async def stop(self) -> None:
        await asyncio.gather(*(side.stop() for side in self._sides.values()))


class Rows:
    """Runs the chosen columns of one subject with all peers."""

    def __init__(
        self, subject: Program, runtime: str, columns: list[Channel], progress: Progress
    ) -> None:
        self.results: list[Result] = []
        self._subject = subject
        self._runtime = runtime
        self._columns = columns
        self._progress = progress

    async def run(self, peers: dict[str, Program]) -> None:
        few = asyncio.Semaphore(AT_ONCE)

        async def rows(program: Program) -> None:
            async with few:
                for direction in ("we dial", "we listen"):
                    for channel in self._columns:
                        if not channel.slow:
                            await self._cell(program, direction, channel)

        async with asyncio.TaskGroup() as tasks:
            for program in peers.values():
                for channel in self._columns:
                    for direction in ("we dial", "we listen") if channel.slow else ():
                        tasks.create_task(self._cell(program, direction, channel))
                tasks.create_task(rows(program))
        order = {name: number for number, name in enumerate(peers)}
        self.results.sort(key=lambda result: (order[result.peer], result.direction))

    async def _cell(self, program: Program, direction: str, channel: Channel) -> None:
        name = program.spec.name
        self._progress.now(f"{self._runtime} {name}: {direction}: {channel.name}".lstrip())
        result = self._result(name, direction, channel.name, OK)
        lacking = self._lacking(program, channel)
        if lacking is not None:
            result.outcome, result.reason = lacking
            self._add(result)
            return
        started = time.monotonic()
        first = await self._attempt(program, direction, channel, result)
        if first:
            second = await self._attempt(program, direction, channel, result)
            result.outcome = FAIL
            again = f"again: {second}" if second != first else "twice"
            result.reason = f"{first} ({again})" if second else f"flaky: {first} (rerun: ok)"
        result.seconds = time.monotonic() - started
        self._add(result)

    def _lacking(self, program: Program, channel: Channel) -> Problem | None:
        for one, how in ((self._subject, channel.ours), (program, channel.theirs)):
            for word in channel.needs + (channel.theirs_needs if one is program else ()):
                if word in one.spec.cannot:
                    return SKIP, f"{one.spec.name}: {one.spec.cannot[word]}"
            if how in one.problems:
                return one.problems[how]
        return None

    async def _attempt(
        self, program: Program, direction: str, channel: Channel, result: Result
    ) -> str:
        """Run once and return why it failed, or nothing."""
        lane: Lane | None = None

        async def between(ours: Start, theirs: Start, transport: str) -> Lane:
            a, b = await asyncio.gather(self._subject.peer(ours), program.peer(theirs))
            lane = Lane(a, b) if direction == "we dial" else Lane(b, a)
            return replace(lane, address=lane.listener.address_of(transport))

        try:
            lane = await between(channel.ours, channel.theirs, channel.transport)
            elsewhere = None
            if channel.goes_on:
                elsewhere = await between(channel.ours, ALL, "tcp")
            result.remark = await channel_cells.run(lane, channel, elsewhere)
        except (CellFailed, PeerFailed) as error:
            reason = str(error)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"an answer that does not follow the protocol: {error!r}"
        else:
            return ""
        for peer in (lane.dialer, lane.listener) if lane is not None else ():
            for line in list(peer.stderr)[-STDERR_LINES:]:
                self._progress.line(f"    {peer.label} stderr: {line}")
            peer.stderr.clear()
        return reason

    def not_run(self, name: str, outcome: str, reason: str) -> None:
        """Account for a peer that could not be built."""
        for direction in ("we dial", "we listen"):
            self._add(self._result(name, direction, self._columns[0].name, outcome, reason))

    def _result(
        self, name: str, direction: str, column: str, outcome: str, reason: str = ""
    ) -> Result:
        return Result(name, self._runtime, direction, column, outcome, reason=reason)

    def _add(self, result: Result) -> None:
        self.results.append(result)
        self._progress.done(result)


def suite(results: list[Result]) -> Suite:
    """The results as ``report`` wants them."""
    return Suite("channels", results, COLUMNS, title=TITLE, stacked=True)


def main() -> int:
    from interop import main as interop

    sys.argv[1:1] = ["--only", "channels"]
    return interop()


if __name__ == "__main__":
    sys.exit(main())
