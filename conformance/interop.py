"""The interop matrix: anyp2p against peers in other languages, both ways, cell by cell.

    python conformance/interop.py [--peers go,rust] [--cells ping,echo] [--json] [-v]
    python conformance/interop.py --new-peer NAME      write the skeleton of another peer

Exit code 0 only if nothing failed. A cell that fails is run once more and both outcomes are shown;
it counts as failed either way. A peer whose tools are missing is skipped, or failed under CI=true.
README.md says more.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

import cells
from building import BuildFailed, Built, NotHere, Spec, discover, prepare
from cells import Cell, CellFailed, Lane
from peer import Peer, PeerFailed
from skeleton import write_skeleton

OK, FAIL, SKIP = "ok", "FAIL", "skip"
COLUMNS = (*(cell.name for cell in cells.CELLS), *cells.KEYS)


@dataclass(slots=True)
class Result:
    """One cell of the table. ``reason`` also tells what a rerun of a failed cell gave."""

    peer: str
    direction: str
    cell: str
    outcome: str
    seconds: float = 0.0
    reason: str = ""
    remark: str = ""


class Progress:
    """One line on stderr that is rewritten on a terminal; whole lines only if ``verbose``."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._terminal = sys.stderr.isatty()

    def line(self, text: str) -> None:
        """Something that should stay readable."""
        self.clear()
        print(text, file=sys.stderr, flush=True)

    def now(self, text: str) -> None:
        """What is under way."""
        if self._terminal and not self._verbose:
            print(f"\r\033[K{text[:78]}", end="", file=sys.stderr, flush=True)

    def done(self, result: Result) -> None:
        if self._verbose:
            remark = result.remark or result.reason
            self.line(
                f"{result.peer:6} {result.direction:9} {result.cell:11}"
                f" {result.outcome:4} {result.seconds:6.2f} s  {remark}"
            )

    def clear(self) -> None:
        if self._terminal and not self._verbose:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


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
                return f"{spec.name} cannot {command}: {spec.cannot[command]}"
    return ""


def table(results: list[Result], specs: dict[str, Spec]) -> str:
    """The results as text, with the reasons below."""
    columns = [name for name in COLUMNS if any(result.cell == name for result in results)]
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for result in results:
        rows.setdefault((result.peer, result.direction), {})[result.cell] = result.outcome
    lines = [["peer", "implementation", "direction", *columns]]
    for (peer, direction), outcomes in rows.items():
        about = f"{specs[peer].implementation} {specs[peer].version}".strip()
        lines.append([peer, about, direction, *(outcomes.get(name, "") for name in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    text += _reasons(results)
    return "\n".join(text)


def _reasons(results: list[Result]) -> list[str]:
    """One line for each reason and peer: the cells that share it come before it."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for result in results:
        if result.outcome != OK:
            where = grouped.setdefault((result.outcome, result.peer, result.reason), [])
            where.append(f"{result.cell} ({result.direction})")
    lines = []
    for outcome in (FAIL, SKIP):
        for (kind, peer, reason), where in grouped.items():
            if kind == outcome:
                if outcome == SKIP or len(where) > 4:
                    names = dict.fromkeys(name.partition(" (")[0] for name in where)
                    where = list(names)
                said = reason.removeprefix(f"{peer}: ")
                lines.append(f"{kind} {peer}: {', '.join(where)}: {said}")
    return ["", *lines] if lines else []


def run(options: argparse.Namespace) -> int:
    """Build, then run the matrix."""
    progress = Progress(options.verbose)
    specs = discover()
    started = time.monotonic()
    built, problems = _build_all(specs, {options.subject, *options.peers}, progress)
    building = time.monotonic() - started
    if options.build_only:
        return int(any(outcome == FAIL for outcome, _ in problems.values()))
    if options.subject not in built:
        return 1
    try:
        results = asyncio.run(supervised(options, built, problems, progress))
    except NotStarted as error:
        progress.line(str(error))
        return 1
    return report(results, specs, options.json, building, time.monotonic() - started)


class NotStarted(Exception):
    """The subject does not run, so there is nothing to compare with."""


async def run_matrix(
    options: argparse.Namespace,
    built: dict[str, Built],
    problems: dict[str, tuple[str, str]],
    progress: Progress,
) -> list[Result]:
    """Start everything that was built, run all rows, stop everything."""
    extra = ("--runtime", options.runtime) if options.runtime else ()
    subject = Side(built[options.subject], options.subject, extra)
    sides = {}
    for name in options.peers:
        if name in built:
            sides[name] = Side(built[name], name if name != options.subject else f"other {name}")
    matrix = Matrix(subject, options.cells, progress)
    try:
        progress.now("starting the peers")
        failed = await _start_all(subject, sides, options.cells)
        if subject.spec.name in failed:
            raise NotStarted(f"cannot start {failed[subject.spec.name]}")
        for name in options.peers:
            if name in problems:
                matrix.not_run(name, *problems[name])
            elif name in failed:
                matrix.not_run(name, FAIL, failed[name])
            else:
                await matrix.run(sides[name])
    finally:
        progress.clear()
        await asyncio.gather(subject.stop(), *(side.stop() for side in sides.values()))
    return matrix.results


def _build_all(
    specs: dict[str, Spec], names: set[str], progress: Progress
) -> tuple[dict[str, Built], dict[str, tuple[str, str]]]:
    """What could be built, and (outcome, reason) of what could not."""
    built: dict[str, Built] = {}
    problems: dict[str, tuple[str, str]] = {}
    required = os.environ.get("CI") == "true"
    for name in sorted(names):
        try:
            built[name] = prepare(specs[name], progress.line)
        except NotHere as reason:
            progress.line(f"{'FAIL' if required else 'skip'} {reason}")
            problems[name] = FAIL if required else SKIP, str(reason)
        except BuildFailed as reason:
            progress.line(str(reason))
            problems[name] = FAIL, str(reason).partition("\n")[0]
    return built, problems


async def _start_all(subject: Side, sides: dict[str, Side], names: list[str]) -> dict[str, str]:
    """Start every process that the cells need, all at once. Returns why some did not start."""
    failed: dict[str, str] = {}

    async def start(name: str, side: Side, key: str) -> None:
        try:
            await side.peer(key)
        except PeerFailed as error:
            failed[name] = str(error)

    wanted = {subject.spec.name: subject} | sides
    keys = ["ed25519", *(key for key in cells.KEYS if key in names)]
    everything = [(name, side) for name, side in wanted.items()]
    if subject.spec.name in sides:  # the subject against itself: two sides of one name
        everything.append((subject.spec.name, subject))
    async with asyncio.TaskGroup() as tasks:
        for name, side in everything:
            for key in keys:
                if key in side.spec.keys:
                    tasks.create_task(start(name, side, key))
    return failed


def report(
    results: list[Result], specs: dict[str, Spec], as_json: bool, building: float, total: float
) -> int:
    """Print the results; returns the exit code."""
    count = {o: sum(result.outcome == o for result in results) for o in (OK, FAIL, SKIP)}
    if as_json:
        content = {
            "cells": [asdict(result) for result in results],
            "passed": count[OK],
            "failed": count[FAIL],
            "skipped": count[SKIP],
            "seconds": round(total, 1),
        }
        print(json.dumps(content, indent=1))
    else:
        print(table(results, specs))
        print(f"\n{total:.0f} s, of these {building:.0f} s for building")
        print(f"{count[OK]} passed, {count[FAIL]} failed, {count[SKIP]} skipped")
    return 1 if count[FAIL] or not count[OK] else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    found = list(discover())

    def names(of: list[str] | tuple[str, ...]) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            chosen = [name for name in text.split(",") if name]
            unknown = [name for name in chosen if name not in of]
            if unknown or not chosen:
                raise argparse.ArgumentTypeError(f"{text!r} is not of {', '.join(of)}")
            return chosen

        return parse

    parser.add_argument(
        "--peers", type=names(found), default=found, help=f"of {', '.join(found)}; default all"
    )
    parser.add_argument(
        "--cells", type=names(COLUMNS), default=list(COLUMNS), help=f"of {', '.join(COLUMNS)}"
    )
    parser.add_argument(
        "--subject", choices=found, default="ours", help="whose rows these are (default ours)"
    )
    parser.add_argument("--runtime", help="the runtime of our peer, where it has a choice")
    parser.add_argument("--json", action="store_true", help="results as JSON on stdout")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each cell")
    parser.add_argument("--build-only", action="store_true", help="fill the cache and stop")
    parser.add_argument("--new-peer", metavar="NAME", help="write peers/NAME/ to start from")
    return parser.parse_args()


async def supervised(
    options: argparse.Namespace,
    built: dict[str, Built],
    problems: dict[str, tuple[str, str]],
    progress: Progress,
) -> list[Result]:
    """The matrix, run so that SIGTERM stops the peers as Ctrl-C does."""
    task = asyncio.ensure_future(run_matrix(options, built, problems, progress))
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await task
    except asyncio.CancelledError:
        if terminated:
            sys.exit(128 + signal.SIGTERM)
        raise


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options = arguments()
    if options.new_peer:
        return write_skeleton(options.new_peer)
    try:
        return run(options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
