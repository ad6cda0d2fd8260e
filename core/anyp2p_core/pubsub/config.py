"""The numbers of pubsub, in one place. Times are seconds, sizes bytes; defaults are go peers'.

Where they differ from go's: messages of ours are sent to all peers of a topic (``flood_publish``),
as the specification, rust and js peers have it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import LocalError
from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from .gater import GaterParams
from .ids import MessageId
from .peers import FLOODSUB, MESHSUB
from .rpc import WireLimits
from .score_params import PeerScoreParams, Thresholds
from .signing import SignaturePolicy

MIB = 1024 * 1024


@dataclass(slots=True, kw_only=True)
class TopicConfig:
    """What is different in one topic."""

    policy: SignaturePolicy | None = None
    message_id: MessageId | None = None


@dataclass(slots=True, kw_only=True)
class PubSubConfig:
    """What floodsub and gossipsub have in common."""

    policy: SignaturePolicy = SignaturePolicy.STRICT_SIGN
    message_id: MessageId | None = None
    """None: author and number, or the hash of the data where there is no author."""
    topics: Mapping[str, TopicConfig] = field(default_factory=dict)
    deliver_own: bool = False
    """Whether our own messages come to our own subscriptions."""
    subscription_filter: Callable[[str], bool] | None = None
    """Topics that we, and peers, may subscribe to; None: all."""
    blacklist: Callable[[PeerId], bool] | None = None
    """Peers that are not listened to, as senders and as authors."""

    # What is read.
    max_rpc: int = MIB
    max_held: int = 64 * MIB
    """Bytes of incomplete RPCs of all peers."""
    wire: WireLimits = field(default_factory=WireLimits)
    max_topics_per_peer: int = 100
    max_topics: int = 10_000
    """Topics that are known, whoever subscribed to them."""
    seen_ttl: float = 120.0
    max_seen: int = 131_072
    bad_signatures_burst: int = 20
    bad_signatures_rate: float = 5.0
    """Per second and peer: beyond it, signed messages are dropped without a look."""

    # Validation.
    max_validating: int = 8192
    """Messages that wait for the application's verdict."""
    validation_timeout: float = 10.0

    # What is written.
    max_queue_bytes: int = MIB
    """Per peer, besides the one RPC that is being sent."""
    max_queue_count: int = 1024
    open_attempts: int = 4
    """To open our stream to a peer, until it has worked for ``open_forget``."""
    open_delay: float = 0.1
    max_open_delay: float = 10.0
    open_forget: float = 600.0

    heartbeat: float = 1.0
    heartbeat_delay: float = 0.1
    """Before the first one."""

    @property
    def protocols(self) -> Sequence[str]:
        """What is offered, best first."""
        return (FLOODSUB,)

    def check(self) -> None:
        """LocalError for numbers that make no sense."""
        for name in (
            "max_rpc", "max_held", "max_topics_per_peer", "max_topics", "seen_ttl", "max_seen",
            "bad_signatures_burst", "bad_signatures_rate", "max_validating", "validation_timeout",
            "max_queue_bytes", "max_queue_count", "open_attempts", "open_delay", "max_open_delay",
            "open_forget", "heartbeat", "heartbeat_delay",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise LocalError(f"pubsub: {name} is more than 0")
        if self.max_held < self.max_rpc:
            raise LocalError("pubsub: max_held has room for one RPC, max_rpc, at least")
        for name in self.wire.__slots__:
            if not getattr(self.wire, name) >= 1:
                raise LocalError(f"pubsub: {name} is at least 1")


@dataclass(slots=True, kw_only=True)
class FloodConfig(PubSubConfig):
    """floodsub."""


@dataclass(slots=True, kw_only=True)
class GossipConfig(PubSubConfig):
    """gossipsub."""

    # The mesh.
    d: int = 6
    """Peers of a mesh that is as it should be."""
    d_lo: int = 5
    d_hi: int = 12
    d_score: int = 4
    """Peers that stay for their score when the mesh is too large."""
    d_out: int = 2
    """Peers of a mesh that we dialed ourselves."""
    prune_backoff: float = 60.0
    unsubscribe_backoff: float = 10.0
    max_backoff: float = 3600.0
    """What a peer may ask for."""
    backoff_slack: float = 2.0
    max_backoffs: int = 4096
    """Per topic."""
    graft_flood: float = 10.0
    """A GRAFT so soon after a PRUNE counts twice."""
    opportunistic_ticks: int = 60
    opportunistic_peers: int = 2

    # Publishing.
    flood_publish: bool = True
    fanout_ttl: float = 60.0

    # Gossip.
    d_lazy: int = 6
    gossip_factor: float = 0.25
    history_length: int = 5
    history_gossip: int = 3
    max_history: int = 64 * MIB
    """Bytes of messages that are kept for peers that ask."""
    gossip_retransmission: int = 3
    """How often a peer may ask for a message."""
    max_ihave_messages: int = 10
    """Per peer and heartbeat."""
    max_ihave_length: int = 5000
    iwant_followup: float = 3.0
    iwant_bytes: int = 4 * MIB
    """What a peer may have sent to it because it asked, per heartbeat."""

    # IDONTWANT.
    idontwant_threshold: int = 1024
    max_idontwant_messages: int = 1000
    max_idontwant_length: int = 10
    """Ids in one RPC."""
    idontwant_ttl: int = 3
    """Heartbeats."""
    max_unwanted: int = 10_000

    # Peers by agreement, and by hearsay.
    direct: Mapping[PeerId, Sequence[Multiaddr]] = field(default_factory=dict)
    direct_ticks: int = 300
    px: bool = False
    """Name other peers to those that we prune."""
    prune_peers: int = 16
    px_pending: int = 128
    px_connectors: int = 8
    px_interval: float = 60.0
    """Between two dials to one IP address."""

    # Judging.
    score: PeerScoreParams | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    gater: GaterParams | None = None

    versions: Sequence[str] = MESHSUB
    """Protocols that are offered, best first."""
    floodsub: bool = True
    """Talk to peers that speak only floodsub."""
    test_extension: bool = False

    @property
    def protocols(self) -> Sequence[str]:
        return (*self.versions, FLOODSUB) if self.floodsub else tuple(self.versions)

    def check(self) -> None:
        PubSubConfig.check(self)
        for name in (
            "prune_backoff", "unsubscribe_backoff", "max_backoff", "max_backoffs",
            "opportunistic_ticks", "fanout_ttl", "history_length", "max_history",
            "iwant_followup", "iwant_bytes", "direct_ticks", "px_pending", "px_connectors",
            "px_interval",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise LocalError(f"gossipsub: {name} is more than 0")
        for name in (
            "d", "d_lo", "d_score", "d_out", "d_lazy", "backoff_slack", "graft_flood",
            "opportunistic_peers", "history_gossip", "gossip_retransmission",
            "max_ihave_messages", "max_ihave_length", "idontwant_threshold",
            "max_idontwant_messages", "max_idontwant_length", "idontwant_ttl", "max_unwanted",
            "prune_peers",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise LocalError(f"gossipsub: {name} is at least 0")
        if not 0 <= self.gossip_factor <= 1:
            raise LocalError("gossipsub: gossip_factor lies between 0 and 1")
        if self.history_gossip > self.history_length:
            raise LocalError("gossipsub: history_gossip is at most history_length")
        # A mesh of size 0 is what bootstrap nodes have.
        if self.d or self.d_lo or self.d_hi or self.d_out:
            if not self.d_lo <= self.d <= self.d_hi:
                raise LocalError("gossipsub: d_lo <= d <= d_hi")
            if not (self.d_out < self.d_lo and 2 * self.d_out <= self.d):
                raise LocalError("gossipsub: d_out is less than d_lo, and at most half of d")
        if self.d_score > self.d:
            raise LocalError("gossipsub: d_score is at most d")
        if not self.versions or any(name not in MESHSUB for name in self.versions):
            raise LocalError(f"gossipsub: versions are some of {', '.join(MESHSUB)}")
        if self.score is not None:
            self.score.check()
        self.thresholds.check()
        if self.gater is not None:
            self.gater.check()
