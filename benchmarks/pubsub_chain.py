"""Nodes in memory, over real noise and yamux, one message at a time: what one of them spends.

source --> middle --> sinks        time counts only while the middle is at work
"""

from time import process_time

from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsChoice, OsEntropy
from anyp2p_core.events import CloseConnection, Dial
from anyp2p_core.keys import PrivateKey
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.node import Node
from anyp2p_core.pubsub.config import GossipConfig
from anyp2p_core.pubsub.events import MessageReceived
from anyp2p_core.pubsub.gossipsub import GossipSub

TOPIC = "benchmark"


class Member:
    """A node and its links."""

    def __init__(self, place: int) -> None:
        crypto, entropy = Cryptography(), OsEntropy()
        self.router = GossipSub(GossipConfig())
        self.node = Node(
            PrivateKey.generate(crypto, entropy),
            crypto=crypto,
            entropy=entropy,
            choice=OsChoice(),
            services=[self.router],
        )
        self.address = Multiaddr(f"/ip4/127.0.0.1/tcp/{4001 + place}")
        self.links: dict[int, tuple[Member, int]] = {}
        self.inbox: list[tuple[int, bytes]] = []
        self.spent = 0.0
        self.received = 0


class Chain:
    """A source, a middle and its sinks, linked."""

    def __init__(self, fan_out: int) -> None:
        self.now = 0.0
        self.members = [Member(place) for place in range(2 + fan_out)]
        self.source, self.middle, *self.sinks = self.members
        for member in self.members:
            member.router.subscribe(TOPIC, self.now)
        self._at = {member.address: member for member in self.members}
        for member in (self.source, *self.sinks):
            member.node.dial(self.middle.node.peer_id, [self.middle.address], self.now)
        for _ in range(100):
            self.run()
            self.now += 0.05
            for member in self.members:
                due = member.node.next_timeout()
                if due is not None and due <= self.now:
                    member.node.handle_timeout(self.now)

    def message(self, data: bytes) -> None:
        """One message through the chain."""
        self.source.router.publish(TOPIC, data, self.now)
        self.run()

    def run(self) -> None:
        """Until nobody has anything to say."""
        busy = True
        while busy:
            busy = False
            for member in self.members:
                begun = process_time()
                for conn, data in member.inbox:
                    member.node.receive(conn, data, self.now)
                member.inbox.clear()
                out = [
                    (conn, member.node.data_to_send(conn, self.now))
                    for conn in member.node.writable()
                ]
                items = member.node.poll()
                member.spent += process_time() - begun
                busy = busy or bool(out or items)
                for conn, data in out:
                    if data:
                        other, theirs = member.links[conn]
                        other.inbox.append((theirs, data))
                for item in items:
                    if isinstance(item, Dial):
                        self._connect(member, item)
                    elif isinstance(item, MessageReceived):
                        member.received += 1
                    elif isinstance(item, CloseConnection):
                        raise RuntimeError("a connection ended")

    def _connect(self, member: Member, dial: Dial) -> None:
        other = self._at[dial.address]
        conn = member.node.connected(dial.conn, member.address, dial.address, self.now)
        theirs = other.node.connected(None, other.address, member.address, self.now)
        member.links[conn] = other, theirs
        other.links[theirs] = member, conn


def signature(chain: Chain, size: int) -> float:
    """CPU seconds to verify one message."""
    key = chain.source.node.key
    message = bytes(size + 80)
    sealed, public = key.sign(message), key.public
    best = float("inf")
    for _ in range(5):
        begun = process_time()
        for _ in range(300):
            if not public.verify(sealed, message):
                raise RuntimeError("a good signature is refused")
        best = min(best, (process_time() - begun) / 300)
    return best


def cost(fan_out: int, size: int, count: int) -> tuple[float, float]:
    """CPU seconds per message of the middle, best of five, and of its signature."""
    chain = Chain(fan_out)
    for _ in range(50):
        chain.message(bytes(size))
    best = float("inf")
    for _ in range(5):
        chain.middle.spent = 0.0
        for member in chain.members:
            member.received = 0
        for _ in range(count):
            chain.message(bytes(size))
        if any(sink.received != count for sink in (chain.middle, *chain.sinks)):
            raise RuntimeError("messages are missing")
        best = min(best, chain.middle.spent / count)
    return best, signature(chain, size)
