"""Starts the peers, runs the chosen cells of every row, reruns what failed, stops the peers.

for each peer:  we dial                we listen
                cells in order         cells in order        over one connection
                each kind of key       each kind of key      over a connection each
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import cells
from building import Built, Spec
from cells import Cell, CellFailed, Lane
from peer import Peer, PeerFailed
from report import FAIL, OK, SKIP, Progress, Result


class NotStarted(Exception):
    """The subject does not run, so there is nothing to compare with."""


@dataclass(slots=True)
class Plan:
    """What to run. ``problems`` holds (outcome, reason) of each peer that was not built."""

    subject: Built
    subject_options: tuple[str, ...]
    peers: list[str]
    built: dict[str, Built]
    problems: dict[str, tuple[str, str]]
    columns: list[str]


async def run_matrix(plan: Plan, progress: Progress) -> list[Result]:
    """Start everything that was built, run all rows, stop everything."""
    name = plan.subject.spec.name
    subject = Side(plan.subject, name, plan.subject_options)
    sides = {
        peer: Side(plan.built[peer], peer if peer != name else f"other {peer}")
        for peer in plan.peers
        if peer in plan.built
    }
    matrix = Matrix(subject, plan.columns, progress)
    try:
        progress.now("starting the peers")
        failed = await _start_all(subject, sides, plan.columns)
        if name in failed:
            raise NotStarted(f"cannot start {failed[name]}")
        for peer in plan.peers:
            if peer in plan.problems:
                matrix.not_run(peer, *plan.problems[peer])
            elif peer in failed:
                matrix.not_run(peer, FAIL, failed[peer])
            else:
                await matrix.run(sides[peer])
    finally:
        progress.clear()
        await asyncio.gather(subject.stop(), *(side.stop() for side in sides.values()))
    return matrix.results


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

    def __init__(self, subject: Side, names: list[str], progress: Progress) -> None:
        self.results: list[Result] = []
        self._subject = subject
        self._cells = [cell for cell in cells.CELLS if cell.name in names]
        self._keys = [key for key in cells.KEYS if key in names]
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

        reachable = True
        for cell in self._cells:
            reason = _cannot(cell, self._subject.spec, side.spec)
            if reason:
                self._add(Result(side.spec.name, direction, cell.name, SKIP, reason=reason))
            elif not reachable:
                self._add(
                    Result(side.spec.name, direction, cell.name, FAIL, reason="no connection")
                )
            else:
                result = await self._run_cell(side, direction, cell.name, lane, cell.run)
                reachable = cell.name != "connect" or result.outcome == OK
        with suppress(CellFailed, PeerFailed):
            await cells.hang_up(await lane())
        for key in self._keys:
            await self._run_key(side, direction, key, lane)

    async def _run_key(
        self, side: Side, direction: str, key: str, lane: Callable[..., Awaitable[Lane]]
    ) -> None:
        lacking = [spec for spec in (self._subject.spec, side.spec) if key not in spec.keys]
        if lacking:
            spec = lacking[0]
            reason = f"{spec.name}: {spec.cannot.get(f'key {key}', 'it has no such keys')}"
            self._add(Result(side.spec.name, direction, key, SKIP, reason=reason))
            return

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
            results.append(
                await self._run_cell(side, direction, key, side_with_key, meet, add=False)
            )
            with suppress(CellFailed, PeerFailed):
                await cells.hang_up(await side_with_key())
        failed = [result for result in results if result.outcome != OK]
        total = failed[0] if failed else results[0]
        total.seconds = sum(result.seconds for result in results)
        self._add(total)

    async def _run_cell(
        self,
        side: Side,
        direction: str,
        name: str,
        lane: Callable[[], Awaitable[Lane]],
        run: Callable[[Lane], Awaitable[str]],
        add: bool = True,
    ) -> Result:
        self._progress.now(f"{side.spec.name}: {direction}: {name}")
        result = Result(side.spec.name, direction, name, OK)
        started = time.monotonic()
        first = await self._attempt(lane, run, result)
        if first:
            second = await self._attempt(lane, run, result)
            result.outcome = FAIL
            again = f"again: {second}" if second != first else "twice"
            result.reason = f"{first} ({again})" if second else f"flaky: {first} (rerun: ok)"
        result.seconds = time.monotonic() - started
        if add:
            self._add(result)
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

    def _add(self, result: Result) -> None:
        self.results.append(result)
        self._progress.done(result)

    def not_run(self, name: str, outcome: str, reason: str) -> None:
        """Account for a peer that could not be built or started."""
        for direction in ("we dial", "we listen"):
            for column in (*(cell.name for cell in self._cells), *self._keys):
                self._add(Result(name, direction, column, outcome, reason=reason))


def _cannot(cell: Cell, *specs: Spec) -> str:
    for spec in specs:
        for command in cell.needs:
            if command in spec.cannot:
                return f"{spec.name}: {spec.cannot[command]}"
    return ""


async def _start_all(subject: Side, sides: dict[str, Side], columns: list[str]) -> dict[str, str]:
    """Start every process that the cells need, all at once. Returns why some did not start."""
    failed: dict[str, str] = {}

    async def start(side: Side, key: str) -> None:
        try:
            await side.peer(key)
        except PeerFailed as error:
            failed[side.spec.name] = str(error)

    keys = ["ed25519", *(key for key in cells.KEYS if key in columns)]
    async with asyncio.TaskGroup() as tasks:
        for side in (subject, *sides.values()):
            for key in keys:
                if key in side.spec.keys:
                    tasks.create_task(start(side, key))
    return failed
