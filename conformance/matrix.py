"""Starts the peers, runs the chosen cells of every row, reruns what failed, stops the peers.

start all peers
for each runtime of ours:  start our side on it
    for each peer:  we dial                we listen
                    cells in order         cells in order        over one connection
                    each kind of key       each kind of key      over a connection each
    stop our side
stop all peers
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import cells
from building import Built, Spec
from cells import Cell, CellFailed, Lane
from peer import Peer, PeerFailed, PeerNotHere
from report import FAIL, OK, SKIP, Progress, Result

Problem = tuple[str, str]
"""Outcome and reason of what could not be run."""


@dataclass(slots=True)
class Plan:
    """What to run. ``problems`` holds why peers were not built."""

    subject: Built
    runtimes: list[str]
    """On which the subject runs, one after the other; an empty name if it has no choice."""
    once: list[str]
    """Peers that only meet the first runtime."""
    peers: list[str]
    built: dict[str, Built]
    problems: dict[str, Problem]
    columns: list[str]
    missing: str
    """The outcome of a peer that cannot run on this machine."""


async def run_matrix(plan: Plan, progress: Progress) -> list[Result]:
    """Start everything that was built, run all rows, stop everything."""
    own = plan.subject.spec.name
    sides = {
        name: Side(plan.built[name], name if name != own else f"other {name}")
        for name in plan.peers
        if name in plan.built
    }
    results: list[Result] = []
    try:
        progress.now("starting the peers")
        problems = plan.problems | await _start(sides, plan)
        for number, runtime in enumerate(plan.runtimes):
            extra = ("--runtime", runtime) if runtime else ()
            subject = Side(plan.subject, own, extra)
            try:
                progress.now(f"starting {own} {runtime}")
                lacking = await _start({own: subject}, plan)
                matrix = Matrix(subject, runtime, plan.columns, progress)
                for name in plan.peers:
                    if number and name in plan.once:
                        continue
                    problem = problems.get(name) or lacking.get(own)
                    if problem is not None:
                        matrix.not_run(name, *problem)
                    else:
                        await matrix.run(sides[name])
                results += matrix.results
            finally:
                await subject.stop()
    finally:
        progress.clear()
        await asyncio.gather(*(side.stop() for side in sides.values()))
    return results


async def _start(sides: dict[str, "Side"], plan: Plan) -> dict[str, Problem]:
    """Start every process that the cells need, all at once. Returns why some did not start."""
    failed: dict[str, Problem] = {}
    keys = ["ed25519", *(key for key in cells.KEYS if key in plan.columns)]

    async def start(name: str, key: str) -> None:
        try:
            await sides[name].peer(key)
        except PeerFailed as error:
            outcome = plan.missing if isinstance(error, PeerNotHere) else FAIL
            failed[name] = outcome, str(error)

    async with asyncio.TaskGroup() as tasks:
        for name, side in sides.items():
            for key in keys:
                if key in side.spec.keys:
                    tasks.create_task(start(name, key))
    return failed


class Side:
    """The processes of one program: one for each kind of key, started once, restarted if gone."""

    def __init__(self, built: Built, label: str, extra: tuple[str, ...] = ()) -> None:
        self.built = built
        self._label = label
        self.spec = built.spec
        self._extra = extra
        self._running: dict[str, Peer] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def peer(self, key: str = "ed25519") -> Peer:
        async with self._locks.setdefault(key, asyncio.Lock()):
            peer = self._running.get(key)
            if peer is None or not peer.alive:
                if peer is not None:
                    await peer.stop()
                peer = await Peer.start(self.built, key=key, extra=self._extra, label=self._label)
                self._running[key] = peer
            return peer

    async def stop(self) -> None:
        await asyncio.gather(*(peer.stop() for peer in self._running.values()))


class Matrix:
    """Runs the chosen cells of one subject against one peer after the other."""

    def __init__(
        self, subject: Side, runtime: str, columns: Iterable[str], progress: Progress
    ) -> None:
        self.results: list[Result] = []
        self._subject = subject
        self._runtime = runtime
        self._cells = [cell for cell in cells.CELLS if cell.name in columns]
        self._keys = [key for key in cells.KEYS if key in columns]
        self._progress = progress

    async def run(self, side: Side) -> None:
        """Both rows of one peer."""
        for direction in ("we dial", "we listen"):
            await self._run_row(side, direction)

    async def _run_row(self, side: Side, direction: str) -> None:
        async def lane(ours: str = "ed25519", theirs: str = "ed25519") -> Lane:
            a, b = await asyncio.gather(self._subject.peer(ours), side.peer(theirs))
            lane = Lane(a, b) if direction == "we dial" else Lane(b, a)
            if ours != "ed25519":
                lane.key, lane.key_owner = ours, a
            elif theirs != "ed25519":
                lane.key, lane.key_owner = theirs, b
            return lane

        name = side.spec.name
        reachable = True
        for cell in self._cells:
            reason = _cannot(cell, self._subject.spec, side.spec)
            if reason:
                self._add(self._result(name, direction, cell.name, SKIP, reason))
            elif not reachable:
                self._add(self._result(name, direction, cell.name, FAIL, "no connection"))
            else:
                result = await self._run_cell(side, direction, cell.name, lane, cell.run)
                self._add(result)
                reachable = cell.name != "connect" or result.outcome == OK
        with suppress(CellFailed, PeerFailed):
            await cells.hang_up(await lane())
        for key in self._keys:
            lacking = [spec for spec in (self._subject.spec, side.spec) if key not in spec.keys]
            if lacking:
                why = lacking[0].cannot.get(f"key {key}", "it has no such keys")
                reason = f"{lacking[0].name}: {why}"
                self._add(self._result(name, direction, key, SKIP, reason))
            elif not reachable:
                self._add(self._result(name, direction, key, FAIL, "no connection"))
            else:
                self._add(await self._run_key(side, direction, key, lane))

    async def _run_key(
        self, side: Side, direction: str, key: str, lane: Callable[..., Awaitable[Lane]]
    ) -> Result:
        async def meet(lane: Lane) -> str:
            await cells.ping(lane)
            await cells.identify(lane)
            return ""

        async def on_theirs() -> Lane:
            return await lane(theirs=key)

        async def on_ours() -> Lane:
            return await lane(ours=key)

        results = []
        for side_with_key in (on_theirs, on_ours):
            results.append(await self._run_cell(side, direction, key, side_with_key, meet))
            with suppress(CellFailed, PeerFailed):
                await cells.hang_up(await side_with_key())
        failed = [result for result in results if result.outcome != OK]
        total = failed[0] if failed else results[0]
        total.seconds = sum(result.seconds for result in results)
        return total

    async def _run_cell(
        self,
        side: Side,
        direction: str,
        name: str,
        lane: Callable[[], Awaitable[Lane]],
        run: Callable[[Lane], Awaitable[str]],
    ) -> Result:
        self._progress.now(f"{self._runtime} {side.spec.name}: {direction}: {name}".lstrip())
        result = self._result(side.spec.name, direction, name, OK)
        started = time.monotonic()
        first = await self._attempt(lane, run, result)
        if first:
            second = await self._attempt(lane, run, result)
            result.outcome = FAIL
            again = f"again: {second}" if second != first else "twice"
            result.reason = f"{first} ({again})" if second else f"flaky: {first} (rerun: ok)"
        result.seconds = time.monotonic() - started
        return result

    async def _attempt(
        self,
        make_lane: Callable[[], Awaitable[Lane]],
        run: Callable[[Lane], Awaitable[str]],
        result: Result,
    ) -> str:
        """Run once and return why it failed, or nothing."""
        lane = None
        try:
            lane = await make_lane()
            if run is not cells.connect and not await cells.is_connected(
                lane.dialer, lane.listener
            ):
                await cells.dial(lane)
            result.remark = await run(lane)
        except (CellFailed, PeerFailed) as error:
            self._show_stderr(lane)
            return str(error)
        except (KeyError, TypeError, ValueError) as error:
            self._show_stderr(lane)
            return f"an answer that does not follow the protocol: {error!r}"
        finally:
            if lane is not None:
                for peer in (lane.dialer, lane.listener):
                    peer.stderr.clear()
        return ""

    def _show_stderr(self, lane: Lane | None) -> None:
        for peer in (lane.dialer, lane.listener) if lane is not None else ():
            for line in list(peer.stderr)[-10:]:
                self._progress.line(f"    {peer.label} stderr: {line}")

    def not_run(self, name: str, outcome: str, reason: str) -> None:
        """Account for a peer that could not be built or started."""
        for direction in ("we dial", "we listen"):
            for column in (*(cell.name for cell in self._cells), *self._keys):
                self._add(self._result(name, direction, column, outcome, reason))

    def _result(
        self, name: str, direction: str, column: str, outcome: str, reason: str = ""
    ) -> Result:
        return Result(name, self._runtime, direction, column, outcome, reason=reason)

    def _add(self, result: Result) -> None:
        self.results.append(result)
        self._progress.done(result)


def _cannot(cell: Cell, *specs: Spec) -> str:
    for spec in specs:
        for command in cell.needs:
            if command in spec.cannot:
                return f"{spec.name}: {spec.cannot[command]}"
    return ""
