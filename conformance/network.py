"""Nodes of every kind in one Kademlia network, each of them a process.

         asyncio trio gevent   4 each      the last one of each kind is a client,
         go rust js            6 each      all others are servers
         = 30
    and 2 more of a guest, a program that does not tell its table: nobody joins there

    node 0 of a kind is where others join; node i of a kind joins at the i-th kind of ``doors``,
    so that a node of each kind has joined at each other kind, and all nodes 0 at the first kind

A kind is a peer program, or one runtime of ours.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from building import Built
from peer import Peer, PeerFailed

OWN = "ours"
OWN_RUNTIMES = ("asyncio", "trio", "gevent")
STARTING = 6
"""Programs that start at the same time: any more would only wait for each other."""
GUESTS = 2
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@dataclass(slots=True)
class Node:
    """One process in the network."""

    kind: str
    number: int
    server: bool
    door: str
    """The kind at whose node 0 it joins."""
    peer: Peer

    @property
    def key(self) -> int:
        """Where it is in the network."""
        return position(self.peer.id)


@dataclass(slots=True)
class Kind:
    """A program, or a runtime of ours, and its nodes."""

    name: str
    built: Built
    runtime: str = ""
    nodes: list[Node] = field(default_factory=list)

    @property
    def program(self) -> str:
        return self.built.spec.name

    @property
    def is_guest(self) -> bool:
        return "dht_table" in self.built.spec.cannot

    @property
    def servers(self) -> list[Node]:
        return [node for node in self.nodes if node.server]

    @property
    def client(self) -> Node:
        """The last one, if there is more than one."""
        return self.nodes[-1]

    async def start(self, *, dht: str = "off", protocol: str = "", label: str = "") -> Peer:
        """One more process."""
        runtime = ("--runtime", self.runtime) if self.runtime else ()
        name = ("--dht-protocol", protocol) if protocol else ()
        extra = (*runtime, *name, "--dht", dht)
        return await Peer.start(self.built, extra=extra, label=label or self.name)


class Network:
    """All kinds that could be built."""

    def __init__(self, built: dict[str, Built], runtimes: list[str]) -> None:
        self.kinds: dict[str, Kind] = {}
        for name, one in built.items():
            for runtime in runtimes if name == OWN else [""]:
                self.kinds[runtime or name] = Kind(runtime or name, one, runtime)

    def __iter__(self) -> Iterator[Node]:
        return (node for kind in self.kinds.values() for node in kind.nodes)

    def doors(self, kind: Kind) -> list[str]:
        """At which kinds the nodes of a kind join, one for each."""
        hosts = [other for other in self.kinds.values() if not other.is_guest]
        others = [other for other in hosts if other.program != kind.program]
        if kind.is_guest:
            return [other.name for other in others[:GUESTS]]
        if kind.program != OWN:
            return [*(other.name for other in others), kind.name]
        runtimes = [other.name for other in self.kinds.values() if other.program == OWN]
        following = runtimes[(runtimes.index(kind.name) + 1) % len(runtimes)]
        return [*(other.name for other in others), following]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Network"]:
        """Start all nodes, and stop them whatever happens. Nobody has joined yet."""
        try:
            await self._start()
            yield self
        finally:
            await asyncio.gather(*(node.peer.stop() for node in self))

    async def _start(self) -> None:
        slots = asyncio.Semaphore(STARTING)

        async def start(kind: Kind, number: int, door: str, server: bool) -> None:
            async with slots:
                label = f"{kind.name} {number}"
                peer = await kind.start(dht="server" if server else "client", label=label)
                kind.nodes.append(Node(kind.name, number, server, door, peer))

        try:
            async with asyncio.TaskGroup() as tasks:
                for kind in self.kinds.values():
                    doors = self.doors(kind)
                    for number, door in enumerate(doors):
                        server = number == 0 or number < len(doors) - 1
                        tasks.create_task(start(kind, number, door, server))
        except* PeerFailed as errors:
            raise errors.exceptions[0] from None
        for kind in self.kinds.values():
            kind.nodes.sort(key=lambda node: node.number)


def position(peer_id: str) -> int:
    """The Kademlia key of a peer id in base58. Written here so that it shares nothing with core."""
    number = 0
    for character in peer_id:
        number = number * 58 + ALPHABET.index(character)
    zeros = len(peer_id) - len(peer_id.lstrip("1"))
    data = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)
    return int.from_bytes(hashlib.sha256(data).digest())
