"""Pubsub: nodes of ours, go, rust and js in one network, then each of them among probes.

    python conformance/pubsub.py [--peers go,rust] [--pubsub-columns signed,backoff] [-v]

interop.py runs it after the DHT. README.md says what the columns are.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pubsub_wire
from building import Built
from cells import CellFailed
from dht_cells import Differs
from network import OWN
from peer import Peer, PeerFailed
from pubsub_cells import MIB, SIZES, Round
from pubsub_network import Kind, Network, Node, kinds_of
from pubsub_wire import Subject
from report import FAIL, OK, SKIP, Progress, Result, Suite

from anyp2p_core.errors import Error

HEADS = ("peer", "implementation", "runtime", "to")
TITLE = "Pubsub: messages of each row reach the peers in the fourth column; the last columns alone"
STDERR_LINES = 5
Problem = tuple[str, str]


@dataclass(slots=True)
class Plan:
    """A network, and what is published in it, by column."""

    router: str
    policy: str
    columns: dict[str, tuple[int, ...]]
    """Sizes of the messages of each node."""
    count: int = 2
    more: dict[str, int] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """What peers may be unable to do."""
    keys: tuple[str, ...] = ("ed25519",)


PLANS = (
    Plan(
        "gossipsub",
        "sign",
        {"signed": SIZES, "1 MiB": (MIB,)},
        count=3,
        more={"go": 4, "rust": 4},
        keys=("ed25519", "rsa", "secp256k1"),
    ),
    Plan("gossipsub", "unsigned", {"unsigned": SIZES}, needs=("pubsub unsigned",)),
    Plan("gossipsub", "nosign", {"anonymous": SIZES}),
    Plan("floodsub", "sign", {"floodsub": SIZES}, needs=("floodsub",)),
)
ONE_EACH = ("1 MiB",)
"""Columns in which one node of each kind publishes."""
SCRIPTS = ("simple-fanout", "subnet-blob-msg")
SCRIPT_NODES = {"simulator": 32, "sockets": 16}
SCRIPT_SPEED = 30
"""How much faster than they say scripts run on sockets: each takes 12 s."""
SCRIPT_TIMEOUT = 60.0
COLUMNS = (
    *(name for plan in PLANS for name in plan.columns),
    *pubsub_wire.COLUMNS,
    *SCRIPTS,
)

KNOWN = {
    ("no echo", "js"): "js peers send messages back to their authors, for which others lower their"
    " score, so that networks with scores prune them",
    ("PX taken", "rust"): "rust peers dial whom they are told of without an address, in vain",
}
"""By column and program, why it differs."""


async def run_networks(
    built: dict[str, Built], problems: dict[str, Problem], columns: list[str], progress: Progress
) -> list[Result]:
    """Run the chosen columns, each network after the other."""
    run = Run(kinds_of(built), columns, progress)
    for name, (outcome, reason) in problems.items():
        run.add(Result(name, "", "", columns[0], outcome, reason=reason))
    try:
        for plan in PLANS:
            if any(name in columns for name in plan.columns):
                await run.network(plan)
        if any(name in columns for name in pubsub_wire.COLUMNS):
            await run.alone()
        if OWN in built:
            await run.scripts()
    finally:
        progress.clear()
    return run.results


class Run:
    """One run of the chosen columns."""

    def __init__(self, kinds: list[Kind], columns: list[str], progress: Progress) -> None:
        self.results: list[Result] = []
        self._columns = columns
        self._kinds = [kind for kind in kinds if not kind.cannot("pubsub")]
        self._progress = progress
        for kind in kinds:
            if kind not in self._kinds:
                self._skip(kind, columns[0], kind.cannot("pubsub"))

    async def network(self, plan: Plan) -> None:
        """All columns of one network."""
        columns = [name for name in plan.columns if name in self._columns]
        able = [kind for kind in self._kinds if not kind.cannot(*plan.needs)]
        for kind in self._kinds:
            if kind not in able:
                self._skip(kind, columns[0], kind.cannot(*plan.needs))
        network = Network(able, plan.router, plan.policy, plan.count, plan.more, plan.keys)
        self._progress.now(f"starting the network: {columns[0]}")
        try:
            async with network.running():
                for name in columns:
                    await self._column(network, name, plan.columns[name])
        except PeerFailed as error:
            for name in columns:
                self.add(Result("network", "", "", name, FAIL, reason=str(error)))
            self._show_stderr(node.peer for node in network)

    async def _column(self, network: Network, name: str, sizes: tuple[int, ...]) -> None:
        """Everybody publishes at once; once more if anything failed."""
        self._progress.now(f"{name}: {len(network.nodes)} nodes")
        nodes = network.nodes
        if name in ONE_EACH:
            nodes = [network.of(kind)[0] for kind in network.kinds]
        first = await self._round(network, sizes, nodes)
        pairs = [(who, other) for who in network.kinds for other in network.kinds]
        failed = {(a.name, b.name): first.failure(a, b) for a, b in pairs}
        second = None
        if any(failed.values()):
            self._show_stderr(node.peer for node in network)
            second = await self._round(network, sizes, nodes)
        for who, other in pairs:
            reason = failed[who.name, other.name]
            result = Result(who.program, who.runtime, other.name, name, OK, first.seconds)
            if reason:
                assert second is not None
                again = second.failure(who, other)
                result.outcome = FAIL
                result.reason = (
                    f"{reason} (again: {again})" if again else f"flaky: {reason} (rerun: ok)"
                )
            else:
                result.remark = first.remark
            self.add(result)

    @staticmethod
    async def _round(network: Network, sizes: tuple[int, ...], nodes: list[Node]) -> Round:
        found = Round(network)
        await found.run(sizes, nodes)
        return found

    async def alone(self) -> None:
        """One peer of each kind among probes, all kinds at the same time."""
        self._progress.now("starting peers for probes")
        peers: dict[str, Peer] = {}
        try:
            for kind in self._kinds:
                peers[kind.name] = await kind.start("gossipsub", "sign", score="on")
            for name in pubsub_wire.COLUMNS:
                if name in self._columns:
                    self._progress.now(f"probes: {name}")
                    await asyncio.gather(
                        *(self._cell(kind, peers[kind.name], name) for kind in self._kinds)
                    )
        except PeerFailed as error:
            self.add(Result("probes", "", "", self._columns[-1], FAIL, reason=str(error)))
        finally:
            await asyncio.gather(*(peer.stop() for peer in peers.values()))

    async def _cell(self, kind: Kind, peer: Peer, name: str) -> None:
        result = Result(kind.program, kind.runtime, "", name, OK)
        started = time.monotonic()
        known = KNOWN.get((name, kind.program), "")
        first = await self._attempt(Subject(kind, peer, f"{name} 1"), name, result)
        if result.outcome == SKIP and known:
            result.reason = known
        elif first:
            second = await self._attempt(Subject(kind, peer, f"{name} 2"), name, result)
            again = f"again: {second}" if second != first else "twice"
            result.reason = f"{first} ({again})" if second else f"flaky: {first} (rerun: ok)"
            result.outcome = FAIL
        elif known:
            result.outcome, result.reason = FAIL, f"differs no longer, unlike: {known}"
        result.seconds = time.monotonic() - started
        self.add(result)

    async def _attempt(self, subject: Subject, name: str, result: Result) -> str:
        """Run once and return why it failed, or nothing; SKIP if that may be known of it."""
        result.outcome = OK
        try:
            result.remark = await pubsub_wire.COLUMNS[name](subject)
        except Differs as error:
            result.outcome = SKIP
            return str(error)
        except (CellFailed, PeerFailed, Error) as error:
            self._show_stderr([subject.peer])
            return str(error)
        except (KeyError, TypeError, ValueError) as error:
            return f"an answer that does not follow the protocol: {error!r}"
        return ""

    async def scripts(self) -> None:
        """The scripts of the gossipsub interop tests, which only our own nodes play."""
        self._progress.now("playing scripts")
        chosen = [(name, on) for name in SCRIPTS if name in self._columns for on in SCRIPT_NODES]
        await asyncio.gather(*(self._script(name, on) for name, on in chosen))

    async def _script(self, name: str, on: str) -> None:
        result = Result(OWN, on, "", name, FAIL)
        words = ["--on", on, "--nodes", str(SCRIPT_NODES[on]), "--speed", str(SCRIPT_SPEED)]
        program = Path(__file__).with_name("scripts.py")
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(program), name, *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(SCRIPT_TIMEOUT):
                output, _ = await process.communicate()
        except TimeoutError:
            result.reason = f"not done within {SCRIPT_TIMEOUT:.0f} s"
        else:
            lines = output.decode(errors="replace").splitlines() or ["no output"]
            if process.returncode:
                result.reason = lines[-1]
            else:
                result.outcome = OK
                result.remark = lines[-1].partition(": ")[2]
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        result.seconds = time.monotonic() - started
        self.add(result)

    def _show_stderr(self, peers: "Iterator[Peer] | list[Peer]") -> None:
        for peer in peers:
            for line in list(peer.stderr)[-STDERR_LINES:]:
                self._progress.line(f"    {peer.label}: {line}")
            peer.stderr.clear()

    def _skip(self, kind: Kind, column: str, reason: str) -> None:
        self.add(Result(kind.program, kind.runtime, "", column, SKIP, reason=reason))

    def add(self, result: Result) -> None:
        self.results.append(result)
        self._progress.done(result)


def suite(results: list[Result]) -> Suite:
    """The results as ``report`` wants them, with what was measured below the table."""
    measured = [
        f"{one.cell}{'' if one.direction else f', {one.runtime or one.peer}'}: {one.remark}"
        for one in results
        if one.remark
    ]
    return Suite("pubsub", results, COLUMNS, HEADS, TITLE, list(dict.fromkeys(measured)))


def main() -> int:
    from interop import main as interop

    sys.argv[1:1] = ["--only", "pubsub"]
    return interop()


if __name__ == "__main__":
    sys.exit(main())
