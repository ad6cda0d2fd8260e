"""What must happen to messages in a network: everything reaches everyone, exactly once."""

import asyncio
import itertools
from dataclasses import dataclass

from pubsub_network import TOPIC, Kind, Network, Node

PATIENCE = 15.0
"""Seconds until everybody has everything."""
QUIET = 1.2
"""Seconds after that, more than a heartbeat, in which nothing may come again."""
POLL = 0.25
MIB = 1 << 20
SIZES = (10, 300, 1500, 5000, 20_000)

_numbers = itertools.count()


@dataclass(slots=True)
class Sent:
    """A message that was published."""

    node: Node
    author: str | None
    size: int
    sha256: str

    @property
    def key(self) -> tuple[str | None, str]:
        return self.author, self.sha256


class Round:
    """Messages that were published at the same time, and what came of them where."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.seconds = 0.0
        """Until everybody had everything."""
        self.sent: list[Sent] = []
        self._got: dict[str, dict[tuple[str | None, str], tuple[int, int]]] = {}

    async def run(self, sizes: tuple[int, ...], nodes: list[Node]) -> None:
        """Let these nodes publish messages of these sizes, and wait until all are everywhere."""
        clock = asyncio.get_running_loop().time
        started = clock()
        await asyncio.gather(*(self._publish(node, sizes) for node in nodes))
        while True:
            await asyncio.gather(*map(self._ask, self.network))
            if not any(self._missing(one, node) for one in self.sent for node in self.network):
                break
            if clock() - started > PATIENCE:
                break
            await asyncio.sleep(POLL)
        self.seconds = clock() - started
        await asyncio.sleep(QUIET)
        await asyncio.gather(*map(self._ask, self.network))

    async def _publish(self, node: Node, sizes: tuple[int, ...]) -> None:
        author = None if self.network.policy == "nosign" else node.peer.id
        for size in sizes:
            seed = f"{next(_numbers)} "
            answer = await node.peer.call("pubsub_publish", topic=TOPIC, seed=seed, size=size)
            self.sent.append(Sent(node, author, size, answer["sha256"]))

    async def _ask(self, node: Node) -> None:
        messages = (await node.peer.call("pubsub_received", topic=TOPIC))["messages"]
        self._got[node.peer.id] = {
            (one["from"], one["sha256"]): (one["size"], one["count"]) for one in messages
        }

    @property
    def remark(self) -> str:
        """What was measured."""
        size = len(self.network.nodes)
        return (
            f"{size} nodes, {len(self.sent)} messages, {len(self.sent) * (size - 1)} deliveries"
            f" within {self.seconds:.1f} s"
        )

    def _missing(self, one: Sent, node: Node) -> bool:
        return one.node is not node and one.key not in self._got[node.peer.id]

    def failure(self, who: Kind, other: Kind) -> str:
        """What went wrong with messages of one kind of node at another kind, or nothing."""
        for node in self.network.of(other):
            got = self._got[node.peer.id]
            sent = [one for one in self.sent if one.node.kind == who.name]
            theirs = [one for one in sent if one.node is not node]
            lost = [one for one in theirs if one.key not in got]
            if lost:
                sizes = sorted({one.size for one in lost})
                first = lost[0].node.peer.label
                return (
                    f"{node.peer.label} misses {len(lost)} of {len(theirs)} messages, the first"
                    f" of {first}; sizes {sizes}"
                )
            for one in theirs:
                size, count = got[one.key]
                if count != 1:
                    return f"{node.peer.label} got a message of {one.node.peer.label} {count} times"
                if size != one.size:
                    return f"{node.peer.label} got {size} bytes instead of {one.size}"
            for one in sent:
                if one.node is node and one.key in got:
                    return f"{node.peer.label} got its own message"
        return ""
