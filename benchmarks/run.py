"""Measures anyp2p beside py-libp2p and the go, rust and js peers, in one run, on this machine.

    python benchmarks/run.py [--quick] [--only NAME ...] [--runs N] [--json FILE]
                             [--write-results] [--strict]

NAME: upload ping streams connect memory import. README.md says what each one measures.

Interleaved: every run starts all sides anew and takes one sample of each side after the other,
the sides in another order in each run. Printed are medians over the runs with the least and the
largest sample, and the column x: how many times anyp2p's cost on asyncio that is.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import report
import rows
import sides
from report import BOUND, CONNECT, PIPELINE, Results
from rows import Pair, Sample
from sides import ASYNCIO, BUILT_IN, GEVENT, OURS, PYTHON, TRIO, UVLOOP, Built, PeerFailed

NAMES = ("upload", "ping", "streams", "connect", "memory", "import")
RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
_SKIPPED = {
    BUILT_IN: ("ping", "connect"),  # in which it does not differ from the first side
    TRIO: ("streams", "connect", "hang up"),
    GEVENT: ("streams", "connect", "hang up"),
}
MODULES = {ASYNCIO: "anyp2p.asyncio", PYTHON: "libp2p"}


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bench:
    """The samples of all runs so far, and how to take another one of everything."""

    def __init__(self, built: dict[str, Built], only: list[str], sizes: rows.Sizes) -> None:
        self.results: Results = {}
        self.implementations: dict[str, str] = {}
        self.failures: list[str] = []
        self.calls: dict[str, rows.Calls] = {}
        """Public-key operations of one connection at both ends, by window."""
        self._built = built
        self._only = only
        self._sizes = sizes
        self._order = list(built)

    async def run(self) -> None:
        """One sample of every chosen row of every side."""
        self._order.append(self._order.pop(0))
        if set(self._only) & {"upload", "ping", "streams", "connect"}:
            await self._two_processes()
            await self._one_process()
        if "memory" in self._only:
            await self._memory()
        if "import" in self._only:
            await self._import()

    async def _two_processes(self) -> None:
        async with self._pairs(self._order, 2) as pairs:
            await self._streaming(pairs, 2)
            if "connect" in self._only:
                await self._each(pairs, "hang up", lambda name, pair: pair.disconnect())
                await asyncio.sleep(0.5)
                await self._each(
                    pairs, "connect 2", lambda name, pair: rows.connects(pair, self._connects(name))
                )

    async def _one_process(self) -> None:
        names = [name for name in self._order if name in (*OURS, PYTHON)]
        async with self._pairs(names, 1) as pairs:
            await self._streaming(pairs, 1)
            if "connect" not in self._only:
                return
            await self._each(pairs, "hang up", lambda name, pair: pair.disconnect())
            await asyncio.sleep(0.5)
            await self._each(pairs, "connect 1", self._connect)

    async def _streaming(self, pairs: dict[str, Pair], processes: int) -> None:
        """The rows that need a connection."""
        await self._each(pairs, "dial", lambda name, pair: pair.connect())
        for row in ("upload", "ping", "streams"):
            if row in self._only:
                await self._each(pairs, "warm up", partial(self._take, row, True))
                await self._each(pairs, f"{row} {processes}", partial(self._take, row, False))

    async def _take(self, row: str, warm_up: bool, name: str, pair: Pair) -> Sample | None:
        """A sample, or a little of the same for caches, compilers and windows, not counted."""
        sizes, slow = self._sizes, name == PYTHON
        if row == "upload":
            size = sizes.slow_upload if slow else sizes.upload
            sample = await rows.upload(pair, 8 << 20 if warm_up else size)
        elif row == "ping":
            sample = await rows.ping(pair, 50 if warm_up else sizes.pings)
        else:
            count = sizes.slow_streams if slow else sizes.streams
            sample = await rows.streams(pair, 20 if warm_up else count)
        return None if warm_up else sample

    async def _connect(self, name: str, pair: Pair) -> Sample | None:
        if name != PYTHON:
            if name == ASYNCIO:
                self.calls = self.calls or await rows.public_key_calls(self._built[name], 20)
                self._add("connect 1", BOUND, await rows.bound(pair, self.calls))
            await rows.connects(pair, 5)
            return await rows.connects(pair, self._sizes.connects)
        self._add("connect 1", CONNECT, await rows.connects(pair, self._connects(name)))
        await rows.connects(pair, 5, "raw_connects")
        raw = await rows.connects(pair, self._sizes.connects, "raw_connects")
        self._add("connect 1", PIPELINE, raw)
        return None

    async def _memory(self) -> None:
        for name in self._order:
            if name in (ASYNCIO, UVLOOP, PYTHON):
                try:
                    sample = await rows.memory(self._built[name], self._sizes.connections)
                    self._add("memory", name, sample)
                except PeerFailed as error:
                    self._failed("memory", name, error)

    async def _import(self) -> None:
        for name in self._order:
            if name in MODULES:
                try:
                    # The first import may compile; only the second counts.
                    rows.importing(self._built[name], MODULES[name])
                    self._add("import", name, rows.importing(self._built[name], MODULES[name]))
                except ImportError as error:
                    self._failed("import", name, error)

    @asynccontextmanager
    async def _pairs(self, names: list[str], processes: int) -> AsyncIterator[dict[str, Pair]]:
        pairs: dict[str, Pair] = {}
        try:
            for name in list(names):
                try:
                    pairs[name] = await Pair.start(self._built[name], processes)
                    self.implementations[name] = pairs[name].server.implementation
                except PeerFailed as error:
                    self._failed("start", name, error)
                    self._order.remove(name)  # what does not start now will not start later
            yield pairs
        finally:
            for pair in pairs.values():
                await pair.stop()

    async def _each(
        self,
        pairs: dict[str, Pair],
        row: str,
        take: Callable[[str, Pair], Awaitable[Sample | None]],
    ) -> None:
        """One sample of each side in turn. A side that fails is out for the rest of this run."""
        for name, pair in list(pairs.items()):
            if row.split()[0] in _SKIPPED.get(name, ()):
                continue
            try:
                sample = await take(name, pair)
            except PeerFailed as error:
                self._failed(row, name, error)
                await pairs.pop(name).stop()
            else:
                if sample is not None:
                    self._add(row, name, sample)

    def _connects(self, name: str) -> int:
        return self._sizes.slow_connects if name == PYTHON else self._sizes.connects

    def _add(self, row: str, name: str, sample: Sample) -> None:
        self.results.setdefault(row, {}).setdefault(name, []).append(sample)

    def _failed(self, row: str, name: str, error: Exception) -> None:
        self.failures.append(f"{name}, {row}: {sides.one_line(error)}")
        log(self.failures[-1])


def ordered(found: dict[str, Any]) -> dict[str, Any]:
    """By side, in the order in which they are named above, whatever order they came in."""
    names = [*sides.NAMES, CONNECT, PIPELINE, BOUND]
    return {name: found[name] for name in names if name in found}


async def main(args: argparse.Namespace) -> int:
    load = os.getloadavg()[0]
    if load > 0.5:
        log(f"this machine is busy (load {load:.1f}): the ratios are noisier than they need be")
    peers_too = set(args.only) - {"memory", "import"}
    built = sides.find(sides.NAMES if peers_too else (*OURS, PYTHON), log)
    bench = Bench(built, args.only, rows.QUICK if args.quick else rows.FULL)
    for number in range(args.runs):
        log(f"run {number + 1} of {args.runs}")
        await bench.run()
    results: Results = {row: ordered(found) for row, found in bench.results.items()}
    text = report.tables(results)
    notes = report.machine(ordered(bench.implementations), load)
    if bench.calls:
        counted = ", ".join(f"{made:g} {name}" for name, made in sorted(bench.calls["cpu"].items()))
        notes += f"\n- public-key operations of one connect, both ends: {counted}"
    print(f"{text}\n\n{notes}")
    if args.json:
        content = {
            "samples": results,
            "implementations": bench.implementations,
            "public_key_calls": bench.calls,
            "missed": report.missed(results),
            "failures": bench.failures,
        }
        Path(args.json).write_text(json.dumps(content, indent=1) + "\n")
    if args.write_results:
        command = "python benchmarks/run.py" + (" --quick" if args.quick else "")
        RESULTS.write_text(
            f"# Results\n\nWritten by `{command} --runs {args.runs} --write-results`; medians, and"
            " x: times anyp2p's cost on asyncio.\nREADME.md says what is measured.\n\n"
            f"{notes}\n\n{text}\n"
        )
    if any(name.startswith("anyp2p") for name in bench.failures):
        return 1
    return 1 if args.strict and report.missed(results) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 runs, smaller sizes")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    parser.add_argument("--runs", type=int, help="default: 5, with --quick 3")
    parser.add_argument("--json", metavar="FILE", help="write every sample")
    parser.add_argument("--write-results", action="store_true", help="write RESULTS.md")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if a target is missed")
    args = parser.parse_args()
    args.runs = args.runs or (3 if args.quick else 5)
    return args


if __name__ == "__main__":
    if not os.path.exists("/proc/self/statm"):
        sys.exit("benchmarks/run.py reads /proc: it runs on Linux only")
    sys.exit(asyncio.run(main(parse())))
