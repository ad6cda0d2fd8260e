"""What we think of each peer: counters of good and bad, which decay, and one number of them.

Spec: https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.1.md#peer-scoring

    connected    counters move, and decay every ``decay_interval``
    gone         score above 0: forgotten at once, so that nobody comes back to collect
                 else: kept as it is for ``retain`` seconds, first deliveries set to 0,
                 deficits in meshes made permanent

    message      unknown --accepted--> valid: the first sender, and whoever sent it meanwhile or
                                       within the window, is credited
                         --rejected--> invalid: all senders are charged
                         --ignored, or not looked at--> nobody is
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from .score_params import PeerScoreParams, TopicScoreParams

MAX_RETAINED = 10_000
"""Peers that are remembered after they have gone; the oldest are forgotten first."""
MAX_RECORDS = 131_072
"""Messages of which it is known who delivered them."""

UNKNOWN, VALID, INVALID, IGNORED = range(4)


class TopicStats:
    """Counters of one peer in one topic."""

    __slots__ = ("active", "first_deliveries", "grafted_at", "in_mesh", "invalid",
                 "mesh_deliveries", "mesh_failures", "time_in_mesh")  # fmt: skip

    def __init__(self) -> None:
        self.in_mesh = False
        self.grafted_at = 0.0
        self.time_in_mesh = 0.0
        self.active = False
        """Long enough in the mesh for its deliveries to be judged."""
        self.first_deliveries = 0.0
        self.mesh_deliveries = 0.0
        self.mesh_failures = 0.0
        self.invalid = 0.0


class PeerStats:
    """Counters of one peer."""

    __slots__ = ("behaviour", "cached", "connected", "epoch", "expires", "ips", "topics")

    def __init__(self) -> None:
        self.connected = True
        self.expires = 0.0
        self.topics: dict[bytes, TopicStats] = {}
        self.ips: tuple[str, ...] = ()
        self.behaviour = 0.0
        self.cached: float | None = None
        self.epoch = 0


class Record:
    """Who delivered one message."""

    __slots__ = ("expires", "peers", "status", "validated")

    def __init__(self, expires: float) -> None:
        self.expires = expires
        self.status = UNKNOWN
        self.validated = 0.0
        self.peers: dict[PeerId, None] = {}


@dataclass(slots=True)
class ScoreSnapshot:
    """What a score is made of."""

    score: float
    topics: dict[str, float] = field(default_factory=dict)
    """What each topic adds, before the cap."""
    app: float = 0.0
    ip_colocation: float = 0.0
    behaviour: float = 0.0
    """The counters P5, P6, P7, without their weights."""


class PeerScore:
    """All peers. Inputs are what happened; ``score`` is what comes of it."""

    def __init__(self, params: PeerScoreParams) -> None:
        params.check()
        self.params = params = replace(params, topics=dict(params.topics))
        self._topics = {name.encode(): topic for name, topic in params.topics.items()}
        self._peers: dict[PeerId, PeerStats] = {}
        self._gone: dict[PeerId, PeerStats] = {}
        self._ips: dict[str, dict[PeerId, None]] = {}
        self._records: dict[bytes, Record] = {}
        self._epoch = 0

    def __len__(self) -> int:
        """Peers that are remembered."""
        return len(self._peers) + len(self._gone)

    @property
    def records(self) -> int:
        """Messages that are remembered."""
        return len(self._records)

    # Peers.

    def connected(self, peer: PeerId, addresses: Iterable[Multiaddr | None]) -> None:
        """A peer is there, at these addresses, or its addresses have changed."""
        stats = self._peers.get(peer)
        if stats is None:
            stats = self._gone.pop(peer, None) or PeerStats()
            stats.connected = True
            self._peers[peer] = stats
        stats.cached = None
        self._set_ips(peer, stats, _ips(addresses))

    def disconnected(self, peer: PeerId, now: float) -> None:
        """A peer is gone."""
        stats = self._peers.pop(peer, None)
        if stats is None:
            return
        good = self._compute(peer, stats) > 0
        if good or not self.params.retain:
            self._set_ips(peer, stats, ())
            return
        for name, topic in stats.topics.items():
            topic.first_deliveries = 0.0
            self._leave_mesh(topic, self._topics[name])
        stats.connected = False
        stats.expires = now + self.params.retain
        stats.cached = None
        self._gone[peer] = stats
        if len(self._gone) > MAX_RETAINED:
            self._forget(next(iter(self._gone)))

    def penalize(self, peer: PeerId, count: float) -> None:
        """A peer broke the rules of the protocol ``count`` times (P7)."""
        stats = self._peers.get(peer) or self._gone.get(peer)
        if stats is not None:
            stats.behaviour += count
            stats.cached = None

    # The mesh.

    def graft(self, peer: PeerId, topic: bytes, now: float) -> None:
        """A peer came into our mesh."""
        stats = self._topic(peer, topic)
        if stats is not None:
            stats.in_mesh = True
            stats.grafted_at = now
            stats.time_in_mesh = 0.0
            stats.active = False

    def prune(self, peer: PeerId, topic: bytes) -> None:
        """A peer left our mesh."""
        stats = self._topic(peer, topic)
        if stats is not None:
            self._leave_mesh(stats, self._topics[topic])
            self._peers[peer].cached = None

    # Messages.

    def validating(self, message_id: bytes, now: float) -> None:
        """A message is new."""
        self._record(message_id, now)

    def delivered(self, peer: PeerId, topic: bytes, message_id: bytes, now: float) -> None:
        """A message of ``peer``, its first sender, was accepted."""
        params = self._topics.get(topic)
        if params is None:
            return
        stats = self._topic(peer, topic)
        if stats is not None:
            cap = params.first_deliveries_cap
            stats.first_deliveries = min(stats.first_deliveries + 1, cap)
            self._near(stats, params)
        record = self._record(message_id, now)
        if record.status != UNKNOWN:
            return
        record.status = VALID
        record.validated = now
        for other in record.peers:
            if other != peer:
                near = self._topic(other, topic)
                if near is not None:
                    self._near(near, params)

    def duplicate(self, peer: PeerId, topic: bytes, message_id: bytes, now: float) -> None:
        """``peer`` sent a message that was seen before."""
        params = self._topics.get(topic)
        record = self._records.get(message_id)
        if params is None or record is None or peer in record.peers:
            return
        status = record.status
        if status == IGNORED:
            return
        if status == INVALID:
            self.invalid(peer, topic)
            return
        record.peers[peer] = None
        if status == VALID and now - record.validated <= params.mesh_deliveries_window:
            stats = self._topic(peer, topic)
            if stats is not None:
                self._near(stats, params)

    def rejected(self, peer: PeerId, topic: bytes, message_id: bytes, now: float) -> None:
        """A message turned out not to be valid: whoever sent it is charged."""
        record = self._record(message_id, now)
        if record.status != UNKNOWN:
            return
        record.status = INVALID
        self.invalid(peer, topic)
        for other in record.peers:
            if other != peer:
                self.invalid(other, topic)
        record.peers = {}

    def ignored(self, message_id: bytes, now: float) -> None:
        """A message was not looked at, or nobody is to blame for it."""
        record = self._record(message_id, now)
        if record.status == UNKNOWN:
            record.status = IGNORED
            record.peers = {}

    def invalid(self, peer: PeerId, topic: bytes) -> None:
        """A message was wrong before it was even looked at (P4)."""
        stats = self._topic(peer, topic)
        if stats is not None:
            stats.invalid += 1
            self._peers[peer].cached = None

    # Time.

    def decay(self, now: float) -> None:
        """Let counters decay; call it every ``decay_interval``."""
        zero = self.params.decay_to_zero
        for stats in self._peers.values():
            stats.cached = None
            for name, topic in stats.topics.items():
                params = self._topics[name]
                value = topic.first_deliveries * params.first_deliveries_decay
                topic.first_deliveries = value if value >= zero else 0.0
                value = topic.mesh_deliveries * params.mesh_deliveries_decay
                topic.mesh_deliveries = value if value >= zero else 0.0
                value = topic.mesh_failures * params.mesh_failure_decay
                topic.mesh_failures = value if value >= zero else 0.0
                value = topic.invalid * params.invalid_decay
                topic.invalid = value if value >= zero else 0.0
                if topic.in_mesh:
                    topic.time_in_mesh = now - topic.grafted_at
                    if topic.time_in_mesh > params.mesh_deliveries_activation:
                        topic.active = True
            value = stats.behaviour * self.params.behaviour_decay
            stats.behaviour = value if value >= zero else 0.0
        for peer in [peer for peer, stats in self._gone.items() if stats.expires < now]:
            self._forget(peer)
        old = []
        for message_id, record in self._records.items():
            if record.expires >= now:
                break
            old.append(message_id)
        for message_id in old:
            del self._records[message_id]

    # The result.

    def score(self, peer: PeerId) -> float:
        """The score; 0 of peers that are not known.

        What a peer earned counts from the next ``decay`` on, what it did wrong at once.
        """
        stats = self._peers.get(peer) or self._gone.get(peer)
        if stats is None:
            return 0.0
        if stats.cached is None or stats.epoch != self._epoch:
            stats.cached = self._compute(peer, stats)
            stats.epoch = self._epoch
        return stats.cached

    def snapshot(self, peer: PeerId) -> ScoreSnapshot:
        """What the score of a peer is made of, right now."""
        stats = self._peers.get(peer) or self._gone.get(peer)
        if stats is None:
            return ScoreSnapshot(0.0)
        return ScoreSnapshot(
            self._compute(peer, stats),
            {
                name.decode(): self._topic_score(topic, self._topics[name])
                for name, topic in stats.topics.items()
            },
            self.params.app(peer) if self.params.app is not None else 0.0,
            self._colocation(stats),
            stats.behaviour,
        )

    def set_topic(self, topic: bytes, params: TopicScoreParams) -> None:
        """Judge a topic in another way from now on. Raises LocalError as ``check`` does."""
        changed = replace(self.params, topics={**self.params.topics, topic.decode(): params})
        changed.check()
        self.params = changed
        self._topics[topic] = params
        for stats in (*self._peers.values(), *self._gone.values()):
            stats.cached = None
            found = stats.topics.get(topic)
            if found is not None:
                found.first_deliveries = min(found.first_deliveries, params.first_deliveries_cap)
                found.mesh_deliveries = min(found.mesh_deliveries, params.mesh_deliveries_cap)

    # Inside.

    def _compute(self, peer: PeerId, stats: PeerStats) -> float:
        params = self.params
        score = 0.0
        for name, topic in stats.topics.items():
            score += self._topic_score(topic, self._topics[name])
        if params.topic_cap and score > params.topic_cap:
            score = params.topic_cap
        if params.app is not None:
            score += params.app(peer) * params.app_weight
        if params.ip_weight:
            score += self._colocation(stats) * params.ip_weight
        excess = stats.behaviour - params.behaviour_threshold
        if excess > 0:
            score += excess * excess * params.behaviour_weight
        return score

    @staticmethod
    def _topic_score(topic: TopicStats, params: TopicScoreParams) -> float:
        score = topic.first_deliveries * params.first_deliveries_weight
        if topic.in_mesh:
            quanta = min(topic.time_in_mesh // params.time_in_mesh_quantum, params.time_in_mesh_cap)
            score += quanta * params.time_in_mesh_weight
            score += _deficit(topic, params) * params.mesh_deliveries_weight
        score += topic.mesh_failures * params.mesh_failure_weight
        score += topic.invalid * topic.invalid * params.invalid_weight
        return score * params.weight

    def _colocation(self, stats: PeerStats) -> float:
        result = 0.0
        for ip in stats.ips:
            surplus = len(self._ips[ip]) - self.params.ip_threshold
            if surplus > 0:
                result += surplus * surplus
        return result

    def _topic(self, peer: PeerId, topic: bytes) -> TopicStats | None:
        stats = self._peers.get(peer)
        if stats is None or topic not in self._topics:
            return None
        found = stats.topics.get(topic)
        if found is None:
            found = stats.topics[topic] = TopicStats()
        return found

    def _near(self, stats: TopicStats, params: TopicScoreParams) -> None:
        """A delivery that was first, or nearly, counts for a peer in the mesh."""
        if stats.in_mesh:
            stats.mesh_deliveries = min(stats.mesh_deliveries + 1, params.mesh_deliveries_cap)

    def _leave_mesh(self, stats: TopicStats, params: TopicScoreParams) -> None:
        if stats.in_mesh:
            stats.mesh_failures += _deficit(stats, params)
            stats.in_mesh = stats.active = False

    def _record(self, message_id: bytes, now: float) -> Record:
        records = self._records
        record = records.get(message_id)
        if record is None:
            record = records[message_id] = Record(now + self.params.seen_ttl)
            if len(records) > MAX_RECORDS:
                del records[next(iter(records))]
        return record

    def _forget(self, peer: PeerId) -> None:
        self._set_ips(peer, self._gone.pop(peer), ())

    def _set_ips(self, peer: PeerId, stats: PeerStats, ips: Iterable[str]) -> None:
        new = tuple(ip for ip in dict.fromkeys(ips) if not self._is_allowed(ip))
        if new == stats.ips:
            return
        self._epoch += 1
        for ip in stats.ips:
            peers = self._ips[ip]
            del peers[peer]
            if not peers:
                del self._ips[ip]
        for ip in new:
            self._ips.setdefault(ip, {})[peer] = None
        stats.ips = new

    def _is_allowed(self, ip: str) -> bool:
        networks = self.params.ip_allowed
        if not networks or "/" in ip:
            return False
        address = ip_address(ip)
        return any(address in network for network in networks)


def _deficit(stats: TopicStats, params: TopicScoreParams) -> float:
    missing = params.mesh_deliveries_threshold - stats.mesh_deliveries
    return missing * missing if stats.active and missing > 0 else 0.0


def _ips(addresses: Iterable[Multiaddr | None]) -> list[str]:
    """IP addresses that count: none of this machine, of IPv6 the /64 network as well."""
    found: list[str] = []
    for address in addresses:
        if address is None:
            continue
        first = address.components[0]
        if first.name == "ip4":
            if not IPv4Address(first.value).is_loopback:
                found.append(first.value)
        elif first.name == "ip6":
            six = IPv6Address(first.value)
            if six.ipv4_mapped is not None:
                if not six.ipv4_mapped.is_loopback:
                    found.append(str(six.ipv4_mapped))
            elif not six.is_loopback:
                found += str(six), f"{six.packed[:8].hex()}/64"
    return found
