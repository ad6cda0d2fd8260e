"""Nodes of every kind that exchange messages in one topic, each of them a process.

    node i dials the nodes i + 1, i + 3, i + 7 and i + 8, in a circle; kinds take turns
    so that each has 8 neighbours, of all kinds, and nobody is connected to everybody

A kind is a peer program, or one runtime of ours.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from building import Built
from network import OWN, OWN_RUNTIMES, STARTING
from peer import Peer, PeerFailed

STRIDES = (1, 3, 7, 8)
TOPIC = "conformance"
SETTLING = 15.0
"""Seconds until all neighbours know of each other, and everybody has a mesh."""
POLL = 0.2


@dataclass(slots=True)
class Kind:
    """A program, or a runtime of ours."""

    name: str
    built: Built
    runtime: str = ""

    @property
    def program(self) -> str:
        return self.built.spec.name

    def cannot(self, *words: str) -> str:
        """Why it cannot do one of these things at all, or nothing."""
        reasons = self.built.spec.cannot
        return next((f"{self.name}: {reasons[word]}" for word in words if word in reasons), "")

    async def start(
        self,
        router: str,
        policy: str,
        *,
        label: str = "",
        key: str = "ed25519",
        score: str = "off",
    ) -> Peer:
        """One more process."""
        runtime = ("--runtime", self.runtime) if self.runtime else ()
        extra = (*runtime, "--pubsub", router, "--pubsub-policy", policy, "--pubsub-score", score)
        return await Peer.start(self.built, key=key, extra=extra, label=label or self.name)


def kinds_of(built: dict[str, Built]) -> list[Kind]:
    """All kinds that could be built."""
    return [
        Kind(runtime or name, one, runtime)
        for name, one in built.items()
        for runtime in (OWN_RUNTIMES if name == OWN else ("",))
    ]


@dataclass(slots=True)
class Node:
    """One process in the network."""

    kind: str
    peer: Peer


@dataclass(slots=True)
class Network:
    """``count`` nodes of every kind, or more of some."""

    kinds: list[Kind]
    router: str
    policy: str
    count: int = 2
    more: dict[str, int] = field(default_factory=dict)
    """How many there are of a program, if not ``count``."""
    keys: tuple[str, ...] = ("ed25519",)
    """Kinds of their keys, in turn."""
    nodes: list[Node] = field(default_factory=list)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def of(self, kind: Kind) -> list[Node]:
        return [node for node in self.nodes if node.kind == kind.name]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Network"]:
        """Start all nodes, connect and subscribe them; stop them whatever happens."""
        try:
            await self._start()
            await self._connect()
            await self._settle()
            yield self
        finally:
            await asyncio.gather(*(node.peer.stop() for node in self))

    async def _start(self) -> None:
        slots = asyncio.Semaphore(STARTING)
        turns = max([self.count, *self.more.values()])

        async def start(kind: Kind, number: int) -> Node:
            async with slots:
                label = f"{kind.name} {number}"
                key = self.keys[number % len(self.keys)]
                node = Node(
                    kind.name, await kind.start(self.router, self.policy, label=label, key=key)
                )
                self.nodes.append(node)
                await node.peer.call("pubsub_subscribe", topic=TOPIC)
                return node

        wanted = [
            (kind, number)
            for number in range(turns)
            for kind in self.kinds
            if number < self.more.get(kind.program, self.count)
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                started = [tasks.create_task(start(*one)) for one in wanted]
        except* PeerFailed as errors:
            raise errors.exceptions[0] from None
        self.nodes = [task.result() for task in started]

    def neighbours(self) -> dict[str, set[str]]:
        """By peer id, who is connected to whom."""
        found: dict[str, set[str]] = {node.peer.id: set() for node in self}
        for here, there in self._edges():
            found[here.peer.id].add(there.peer.id)
            found[there.peer.id].add(here.peer.id)
        return found

    def _edges(self) -> Iterator[tuple[Node, Node]]:
        size = len(self.nodes)
        pairs: dict[tuple[int, int], None] = {}
        for here in range(size):
            for stride in STRIDES:
                there = (here + stride) % size
                if there != here and (there, here) not in pairs:
                    pairs[here, there] = None
        return ((self.nodes[here], self.nodes[there]) for here, there in pairs)

    async def _connect(self) -> None:
        async def dial(here: Node, there: Node) -> None:
            await here.peer.call("dial", address=there.peer.address)

        await asyncio.gather(*(dial(*edge) for edge in self._edges()))

    async def _settle(self) -> None:
        """Wait until neighbours have each other in the topic, and everybody has a mesh."""
        deadline = asyncio.get_running_loop().time() + SETTLING
        expected = self.neighbours()
        for node in self:
            while True:
                missing = expected[node.peer.id] - await self._topic_peers(node)
                meshed = self.router != "gossipsub" or await self._has_mesh(node)
                if not missing and meshed:
                    break
                if asyncio.get_running_loop().time() > deadline:
                    names = [other.peer.label for other in self if other.peer.id in missing]
                    what = f"does not see {', '.join(names)}" if names else "has no mesh"
                    raise PeerFailed(f"{node.peer.label} {what}")
                await asyncio.sleep(POLL)

    async def _topic_peers(self, node: Node) -> set[str]:
        return set((await node.peer.call("pubsub_peers", topic=TOPIC))["peers"])

    async def _has_mesh(self, node: Node) -> bool:
        return bool((await node.peer.call("pubsub_mesh", topic=TOPIC))["peers"])
