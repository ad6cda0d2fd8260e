"""Peers that speak pubsub, and topics, each knowing the other: bounded by what is connected.

    Peer.topics   <->   Topic.peers       what the peer subscribed to, at most so many topics
                        Topic.mesh        those to exchange full messages with; None: not joined
                        Topic.fanout      those that our messages go to, where we have not joined

A topic exists while anybody, we included, has to do with it.
"""

from hashlib import sha256
from typing import TYPE_CHECKING

from ..peer_id import PeerId
from .ids import MessageId
from .outbox import Outbox
from .signing import SignaturePolicy
from .validation import Rule

if TYPE_CHECKING:
    from .streams import Inbound

FLOODSUB = "/floodsub/1.0.0"
MESHSUB = ("/meshsub/1.3.0", "/meshsub/1.2.0", "/meshsub/1.1.0", "/meshsub/1.0.0")
"""Best first."""


class Peer:
    """A peer with a pubsub stream in one direction at least."""

    __slots__ = (
        "asked", "attempts", "bad_at", "bad_signatures", "direct", "dontwants", "extended",
        "extensions", "given", "ihaves", "id", "inbound", "ip", "opened_at", "opening", "outbound",
        "outbox", "protocol", "raw", "retry", "topics", "unwanted", "version",
        "welcomed",
    )  # fmt: skip

    def __init__(self, peer: PeerId, *, direct: bool) -> None:
        self.id = peer
        self.raw = bytes(peer)
        self.direct = direct
        """An agreement outside of the mesh: everything is forwarded to it."""
        self.topics: dict[Topic, None] = {}
        self.ip = ""
        # Streams.
        self.inbound: Inbound | None = None
        self.outbox: Outbox | None = None
        """None while we have no stream to write on."""
        self.opening = False
        self.protocol = ""
        self.version = -1
        """-1 floodsub, 0 to 3 for gossipsub 1.0 to 1.3, of our stream."""
        self.outbound = False
        """We dialed the connection that our stream is on."""
        self.attempts = 0
        self.opened_at = 0.0
        self.retry = 0
        """The timer for the next attempt."""
        # What it may still do until the next heartbeat, or within some.
        self.ihaves = 0
        self.asked = 0
        self.dontwants = 0
        self.welcomed = 0
        """Ids that it was told of because it subscribed."""
        self.given = 0
        """Bytes of messages that it asked for."""
        self.bad_signatures = 0.0
        self.bad_at = 0.0
        self.unwanted: dict[bytes, int] = {}
        """Ids with the heartbeat after which they are forgotten."""
        # Extensions.
        self.extensions: bool | None = None
        """Whether it takes part in the test extension; None before its first RPC."""
        self.extended = False
        """We told it ours."""

    def __repr__(self) -> str:
        return f"<Peer {self.id} {self.protocol}>"

    def is_unwanted(self, message_id: bytes) -> bool:
        """Whether the peer said that it has a message."""
        return unwanted_key(message_id) in self.unwanted


def unwanted_key(message_id: bytes) -> bytes:
    """What is kept of an id that a peer does not want: 64 bytes at most."""
    return message_id if len(message_id) <= 64 else sha256(message_id).digest()


class Topic:
    """One topic."""

    __slots__ = ("fanout", "mesh", "message_id", "name", "peers", "policy", "published_at", "raw",
                 "rule", "subscriptions")  # fmt: skip

    def __init__(self, raw: bytes, policy: SignaturePolicy, message_id: MessageId | None) -> None:
        self.raw = raw
        self.name = raw.decode("utf-8", "replace")
        self.peers: dict[Peer, None] = {}
        self.mesh: dict[Peer, None] | None = None
        self.fanout: dict[Peer, None] | None = None
        self.published_at = 0.0
        self.subscriptions: tuple[int, ...] = ()
        self.policy = policy
        self.message_id = message_id
        """None: author and number."""
        self.rule: Rule | None = None

    def __repr__(self) -> str:
        return f"<Topic {self.name!r}>"

    @property
    def is_idle(self) -> bool:
        """Whether nobody would miss it."""
        return not (self.peers or self.subscriptions or self.rule or self.fanout is not None)
