"""The DHT: 30 nodes of ours, go, rust and js in one network, each kind with each.

    python conformance/dht.py [--peers go,rust] [--columns providers,ipns] [-v]

interop.py runs it after the matrix. README.md says what the columns are.
"""

import sys
import time
from collections.abc import Awaitable, Callable

import dht_alone
import dht_cells
from building import Built
from cells import CellFailed
from dht_alone import KNOWN
from dht_cells import Differs, Pair, Untried
from network import OWN, OWN_RUNTIMES, Kind, Network
from peer import PeerFailed
from report import FAIL, OK, SKIP, Progress, Result, Suite

COLUMNS = (*dht_cells.COLUMNS, *dht_alone.COLUMNS)
HEADS = ("peer", "implementation", "runtime", "with")
TITLE = "One Kademlia network: each row acts with the help of the peers in the fourth column"
STDERR_LINES = 5
UNTRIED = "untried"
"""Of an attempt, not of a result."""
Cell = Callable[[Pair], Awaitable[str]]
Problem = tuple[str, str]


async def run_network(
    built: dict[str, Built], problems: dict[str, Problem], columns: list[str], progress: Progress
) -> list[Result]:
    """Start the network, run the chosen columns of every row, stop the network."""
    able = {name: one for name, one in built.items() if "dht" not in one.spec.cannot}
    run = Run(Network(able, list(OWN_RUNTIMES)), columns, progress)
    for name, (outcome, reason) in problems.items():
        run.not_run(name, outcome, reason)
    for name, one in built.items():
        if name not in able:
            run.not_run(name, SKIP, one.spec.cannot["dht"])
    progress.now("starting the network")
    try:
        async with run.network.running():
            await run.all()
    except PeerFailed as error:
        run.not_run("network", FAIL, str(error))
    finally:
        progress.clear()
    return run.results


class Run:
    """One run of the chosen columns."""

    def __init__(self, network: Network, columns: list[str], progress: Progress) -> None:
        self.network = network
        self.results: list[Result] = []
        self._columns = columns
        self._progress = progress

    async def all(self) -> None:
        kinds = list(self.network.kinds.values())
        pairs = [Pair(self.network, who, other) for who in kinds for other in kinds]
        for number in range(max(len(kind.nodes) for kind in kinds)):
            for pair in pairs:  # all first nodes, all second nodes: doors are open before others
                node = dht_cells.joining(pair)
                if node is not None and node.number == number:
                    await self._cell(pair, "bootstrap", dht_cells.bootstrap, hidden=True)
        self._progress.now("refreshing the tables")
        await dht_cells.refresh(self.network)
        for name, cell in dht_cells.COLUMNS.items():
            if name not in self._columns or name == "bootstrap":
                continue
            for pair in pairs:
                if name != "outsider" or pair.other.program in dht_cells.ONLY_THE_TABLE:
                    await self._cell(pair, name, cell)
        for name, cell in dht_alone.COLUMNS.items():
            if name in self._columns:
                for kind in kinds:
                    await self._cell(Pair(self.network, kind, kind), name, cell, alone=True)

    async def _cell(
        self, pair: Pair, name: str, run: Cell, *, alone: bool = False, hidden: bool = False
    ) -> None:
        """``hidden``: it has to be run, and is shown if it was chosen or fails."""
        other = "" if alone else pair.other.name
        lacking = self._lacking(pair, name)
        if lacking:
            self._add(self._result(pair.who, other, name, SKIP, lacking))
            return
        self._progress.now(f"{pair.who.name} with {other or 'the network'}: {name}")
        result = self._result(pair.who, other, name)
        started = time.monotonic()
        known = KNOWN.get((name, pair.other.program), "")
        first = await self._attempt(pair, run, result)
        if result.outcome == FAIL:
            pair.turn += 1
            second = await self._attempt(pair, run, result)
            pair.turn -= 1
            again = f"again: {second}" if second != first else "twice"
            result.reason = f"{first} ({again})" if second else f"flaky: {first} (rerun: ok)"
            result.outcome = FAIL
            if OWN not in (pair.who.program, pair.other.program) and not alone:
                result.outcome, result.reason = SKIP, f"neither is ours: {result.reason}"
        elif result.outcome == UNTRIED:
            result.outcome, result.reason = SKIP, first
        elif result.outcome == SKIP:
            result.reason = known or f"differs: {first}"
            result.outcome = SKIP if known else FAIL
        elif known:
            result.outcome, result.reason = FAIL, f"differs no longer, unlike: {known}"
        result.seconds = time.monotonic() - started
        if name in self._columns or (hidden and result.outcome != OK):
            self._add(result)

    async def _attempt(self, pair: Pair, run: Cell, result: Result) -> str:
        """Run once and return why it failed, or nothing."""
        try:
            result.remark = await run(pair)
        except (Differs, Untried) as error:
            result.outcome = SKIP if isinstance(error, Differs) else UNTRIED
            return str(error)
        except (CellFailed, PeerFailed) as error:
            reason = str(error)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"an answer that does not follow the protocol: {error!r}"
        else:
            result.outcome = OK
            return ""
        finally:
            said = self._take_stderr()
        result.outcome = FAIL
        for line in said:
            self._progress.line(line)
        return reason

    def _take_stderr(self) -> list[str]:
        """The last lines that nodes wrote since the last time."""
        lines = []
        for node in self.network:
            stderr = node.peer.stderr
            lines += [f"    {node.peer.label}: {line}" for line in list(stderr)[-STDERR_LINES:]]
            stderr.clear()
        return lines

    def not_run(self, name: str, outcome: str, reason: str) -> None:
        """All that this peer would have taken part in."""
        self._add(Result(name, "", "", self._columns[0], outcome, reason=reason))

    @staticmethod
    def _lacking(pair: Pair, name: str) -> str:
        """Why these peers cannot do this at all."""
        need = dht_cells.NEEDS.get(name, "")
        kinds = [pair.who] if name == "table" else [pair.who, pair.other]
        for kind in kinds:
            if need in kind.built.spec.cannot:
                return f"{kind.name}: {kind.built.spec.cannot[need]}"
        return ""

    def _result(
        self, who: Kind, other: str, cell: str, outcome: str = OK, reason: str = ""
    ) -> Result:
        return Result(who.program, who.runtime, other, cell, outcome, reason=reason)

    def _add(self, result: Result) -> None:
        self.results.append(result)
        self._progress.done(result)


def suite(results: list[Result]) -> Suite:
    """The results as ``report`` wants them, with what was measured below the table."""
    measured = [
        f"find_providers of a client, {result.runtime or result.peer}: {result.remark}"
        for result in results
        if result.cell == "find_providers" and result.remark
    ]
    return Suite("dht", results, COLUMNS, HEADS, TITLE, measured)


def main() -> int:
    from interop import main as interop

    sys.argv[1:1] = ["--only", "dht"]
    return interop()


if __name__ == "__main__":
    sys.exit(main())
