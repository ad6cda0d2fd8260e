"""Networks of gossipsub nodes in the simulator, and what is counted in them.

Every node is the real one: host, streams, RPCs as bytes, the router as it ships. Counted is what a
router hands to a peer's outbox, one for each RPC; an RPC with several kinds of control counts as
each of them.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from statistics import mean, stdev
from typing import Any

from anyp2p.sim import Host, World
from anyp2p_core.pubsub import rpc as wire
from anyp2p_core.pubsub.config import GossipConfig
from anyp2p_core.pubsub.events import MessageReceived
from anyp2p_core.pubsub.gossipsub import GossipSub
from anyp2p_core.pubsub.outbox import Kind
from anyp2p_core.pubsub.peers import Peer
from anyp2p_core.pubsub.rpc import WireLimits
from anyp2p_core.varint import decode as read_varint

PORT = "/ip4/0.0.0.0/tcp/4001"
TOPIC = "blocks"
MESSAGE, IHAVE, IWANT, GRAFT, PRUNE, IDONTWANT = (
    "message", "IHAVE", "IWANT", "GRAFT", "PRUNE", "IDONTWANT",
)  # fmt: skip
_ALL = WireLimits(max_entries=1 << 20, max_control=1 << 24, max_ids=1 << 20)


class Counts:
    """RPCs and bytes by kind, of all nodes that share it."""

    def __init__(self) -> None:
        self.rpcs: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()


class Counted(GossipSub):
    """The router, with its RPCs counted."""

    def __init__(self, config: GossipConfig, counts: Counts) -> None:
        super().__init__(config)
        self._counts = counts

    def send(
        self, peer: Peer, data: bytes, kind: Kind, now: float, message_id: bytes | None = None
    ) -> None:
        """Count an RPC, and send it."""
        if peer.outbox is not None:
            for name in _names(data, message_id):
                self._counts.rpcs[name] += 1
                self._counts.bytes[name] += len(data)
        super().send(peer, data, kind, now, message_id)


def _names(data: bytes, message_id: bytes | None) -> Sequence[str]:
    if message_id is not None:
        return (MESSAGE,)
    control = wire.parse(data[read_varint(data)[1] :], _ALL).control
    if control is None:
        return ()
    found = {
        IHAVE: control.ihave, IWANT: control.iwant, GRAFT: control.graft, PRUNE: control.prune,
        IDONTWANT: control.idontwant,
    }  # fmt: skip
    return [name for name, entries in found.items() if entries]


class Network:
    """So many subscribers of one topic. ``delays`` holds the seconds of each delivery."""

    def __init__(
        self,
        world: World,
        count: int,
        make: Callable[[int], GossipSub],
        **options: Any,
    ) -> None:
        self.world = world
        self.draw = Random(world.seed)
        self.routers = [make(place) for place in range(count)]
        self.hosts = [
            world.host(listen=[PORT], services=[router], **options) for router in self.routers
        ]
        self.delays: list[float] = []
        self.received: Counter[int] = Counter()
        """By message: how many nodes it reached."""
        self.late: dict[int, float] = {}
        """By message: seconds until it had reached the last one that it reached."""
        self._published: list[float] = []

        async def begin() -> None:
            for host in self.hosts:
                await host.start()

        world.run_task(world.spawn(begin), 60.0)
        for host, router in zip(self.hosts, self.routers, strict=True):
            host.watch(MessageReceived, self._on_message)
            router.subscribe(TOPIC, world.now)

    def connect(self, dials: int) -> None:
        """Everybody dials so many others, drawn by lot."""
        for host in self.hosts:
            for other in self.draw.sample(self.hosts, min(dials + 1, len(self.hosts)))[:dials]:
                if other is not host:
                    self.dial(host, other)

    def dial(self, host: Host, other: Host) -> None:
        """One connection."""
        host.node.dial(other.peer_id, [other.addresses[0]], self.world.now)
        host.flush()

    def publish(self, place: int, size: int) -> int:
        """A node publishes a message of so many bytes; its number."""
        number = len(self._published)
        self._published.append(self.world.now)
        data = number.to_bytes(8, "big") + bytes(size - 8)
        self.routers[place].publish(TOPIC, data, self.world.now)
        self.hosts[place].flush()
        return number

    def publish_at(self, rate: float, seconds: float, size: int, authors: int) -> None:
        """Publish at a steady rate, each of the first nodes in turn."""
        end = self.world.now + seconds - 1e-9
        while self.world.now < end:
            self.publish(len(self._published) % authors, size)
            self.world.run(1.0 / rate)

    @property
    def published(self) -> int:
        """Messages so far."""
        return len(self._published)

    def lost(self, first: int = 0, last: int | None = None) -> int:
        """Deliveries that are missing, of a range of messages."""
        numbers = range(len(self._published))[first:last]
        return sum(len(self.hosts) - 1 - self.received[number] for number in numbers)

    def _on_message(self, event: MessageReceived) -> None:
        data = event.message.data or b""
        number = int.from_bytes(data[:8], "big")
        if number < len(self._published):
            delay = self.world.now - self._published[number]
            self.delays.append(delay)
            self.received[number] += 1
            self.late[number] = delay


STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179,
           2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093)  # fmt: skip
"""t for a 95 % interval, by degrees of freedom from 1."""


def interval(samples: Sequence[float]) -> float:
    """Half of the 95 % confidence interval of a mean; not a number for a single sample."""
    degrees = len(samples) - 1
    if not degrees:
        return math.nan
    student = STUDENT[degrees - 1] if degrees <= len(STUDENT) else 1.96
    return student * stdev(samples) / math.sqrt(len(samples))


def estimate(samples: Sequence[float], form: str = ".0f") -> str:
    """``mean +- interval``."""
    error = interval(samples)
    text = "" if math.isnan(error) else f" +-{error:{form}}"
    return f"{mean(samples):{form}}{text}"


def quantile(samples: Sequence[float], share: float) -> float:
    """The sample that so large a share does not exceed; not a number if there is none."""
    if not samples:
        return math.nan
    return sorted(samples)[min(int(share * len(samples)), len(samples) - 1)]
