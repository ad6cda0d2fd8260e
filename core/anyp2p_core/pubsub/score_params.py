"""The numbers of the peer score, and what makes a set of them sound.

Spec: https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.1.md#peer-scoring

    score(p) = min(topic cap, sum over topics w * (w1 P1 + w2 P2 + w3 P3 + w3b P3b + w4 P4))
               + w5 P5 + w6 P6 + w7 P7

``check`` refuses sets that are no numbers or have the wrong sign, and sets in which misbehaviour
can be paid for: where a peer that sits in the mesh of a topic and never delivers there keeps a good
score with what it earns elsewhere (CVE-2022-47547). Times are seconds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from ..errors import LocalError
from ..peer_id import PeerId

DECAY_TO_ZERO = 0.01


def decay(seconds: float, *, interval: float = 1.0, to_zero: float = DECAY_TO_ZERO) -> float:
    """The factor per ``interval`` after which a counter of 1 is gone in ``seconds``.

    >>> round(decay(60), 4)
    0.9261
    """
    if not 0 < interval <= seconds or not 0 < to_zero < 1:
        raise LocalError(f"nothing decays within {seconds} s in steps of {interval} s")
    return float(to_zero ** (1 / (seconds // interval)))


@dataclass(slots=True, kw_only=True)
class TopicScoreParams:
    """How peers are judged in one topic. A weight of 0 turns its part off."""

    weight: float = 1.0

    # P1: time in our mesh, in quanta.
    time_in_mesh_weight: float = 0.0
    time_in_mesh_quantum: float = 1.0
    time_in_mesh_cap: float = 3600.0

    # P2: messages that it was the first to deliver.
    first_deliveries_weight: float = 0.0
    first_deliveries_decay: float = 0.5
    first_deliveries_cap: float = 2000.0

    # P3: too few messages from a peer in our mesh, the deficit squared.
    mesh_deliveries_weight: float = 0.0
    mesh_deliveries_decay: float = 0.5
    mesh_deliveries_cap: float = 100.0
    mesh_deliveries_threshold: float = 20.0
    mesh_deliveries_window: float = 0.01
    """After the first one, a delivery counts for so long."""
    mesh_deliveries_activation: float = 5.0
    """In the mesh before it is judged."""

    # P3b: the same when it left the mesh, and stays.
    mesh_failure_weight: float = 0.0
    mesh_failure_decay: float = 0.5

    # P4: messages that were not valid, squared.
    invalid_weight: float = 0.0
    invalid_decay: float = 0.3

    @property
    def most(self) -> float:
        """The most that can be earned here."""
        return self.weight * (
            self.time_in_mesh_weight * self.time_in_mesh_cap
            + self.first_deliveries_weight * self.first_deliveries_cap
        )

    @property
    def silent(self) -> float:
        """What a peer has here that stays in the mesh and delivers nothing, at best."""
        return self.weight * (
            self.time_in_mesh_weight * self.time_in_mesh_cap
            + self.mesh_deliveries_weight * self.mesh_deliveries_threshold**2
        )

    def check(self, name: str) -> None:
        """LocalError for what makes no sense."""
        at = f"score of topic {name}: "
        _positive(at, self, "weight", zero=True)
        _positive(at, self, "time_in_mesh_quantum")
        if _used(at, self, "time_in_mesh_weight", 1):
            _positive(at, self, "time_in_mesh_cap")
        used = _used(at, self, "first_deliveries_weight", 1)
        _fraction(at, self, "first_deliveries_decay", used)
        _positive(at, self, "first_deliveries_cap", zero=not used)
        _positive(at, self, "mesh_deliveries_window", zero=True)
        used = _used(at, self, "mesh_deliveries_weight", -1)
        _fraction(at, self, "mesh_deliveries_decay", used)
        if used:
            _positive(at, self, "mesh_deliveries_cap", "mesh_deliveries_threshold")
            if not _finite(self.mesh_deliveries_activation) or self.mesh_deliveries_activation < 1:
                raise LocalError(f"{at}mesh_deliveries_activation is at least 1 s")
            if self.mesh_deliveries_cap < self.mesh_deliveries_threshold:
                raise LocalError(f"{at}nobody can reach mesh_deliveries_threshold under the cap")
        used = _used(at, self, "mesh_failure_weight", -1)
        _fraction(at, self, "mesh_failure_decay", used)
        used = _used(at, self, "invalid_weight", -1)
        _fraction(at, self, "invalid_decay", used)


@dataclass(slots=True, kw_only=True)
class PeerScoreParams:
    """How peers are judged."""

    topics: Mapping[str, TopicScoreParams] = field(default_factory=dict)
    topic_cap: float = 0.0
    """The most that all topics together can give; 0: no cap."""

    # P5: what the application thinks.
    app: Callable[[PeerId], float] | None = None
    app_weight: float = 1.0

    # P6: peers at the same IP address above the threshold, squared.
    ip_weight: float = 0.0
    ip_threshold: int = 10
    ip_allowed: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks whose peers are not counted."""

    # P7: broken rules above the threshold, squared.
    behaviour_weight: float = 0.0
    behaviour_threshold: float = 0.0
    behaviour_decay: float = 0.2

    decay_interval: float = 1.0
    decay_to_zero: float = DECAY_TO_ZERO
    retain: float = 3600.0
    """How long what is not good is remembered of a peer that has gone."""
    seen_ttl: float = 120.0
    """How long it is remembered who delivered a message."""
    tolerate: tuple[str, ...] = ()
    """Topics of which it is known, and accepted, that silence in them can be paid for."""

    @property
    def most(self) -> float:
        """The most that a peer can earn with topics."""
        total = sum(topic.most for topic in self.topics.values())
        return min(total, self.topic_cap) if self.topic_cap else total

    def paid_for(self) -> dict[str, float]:
        """Topics that want deliveries from mesh peers and do not get them enforced.

        Each with the score of a peer that is silent there and earns all it can elsewhere; only
        where that is not negative.
        """
        total = sum(topic.most for topic in self.topics.values())
        found = {}
        for name, topic in self.topics.items():
            if topic.mesh_deliveries_weight * topic.weight:
                score = total - topic.most + topic.silent
                if self.topic_cap:
                    score = min(score, self.topic_cap)
                if score >= 0:
                    found[name] = score
        return found

    def check(self) -> None:
        """LocalError for what makes no sense, or can be bought."""
        at = "score: "
        for name, topic in self.topics.items():
            topic.check(name)
        _positive(at, self, "topic_cap", zero=True)
        if not _finite(self.app_weight) or self.app_weight < 0:
            raise LocalError(f"{at}app_weight is at least 0")
        if _used(at, self, "ip_weight", -1) and self.ip_threshold < 1:
            raise LocalError(f"{at}ip_threshold is at least 1")
        used = _used(at, self, "behaviour_weight", -1)
        _fraction(at, self, "behaviour_decay", used)
        _positive(at, self, "behaviour_threshold", "retain", "seen_ttl", zero=True)
        _fraction(at, self, "decay_to_zero")
        if not _finite(self.decay_interval) or self.decay_interval < 1:
            raise LocalError(f"{at}decay_interval is at least 1 s")
        for name, score in self.paid_for().items():
            if name not in self.tolerate:
                raise LocalError(
                    f"{at}a peer that never delivers in {name} can have {score:g} all the same, "
                    "earned in other topics: raise |mesh_deliveries_weight| or the threshold, "
                    "lower caps elsewhere, or name the topic in tolerate"
                )


@dataclass(slots=True, kw_only=True)
class Thresholds:
    """What a score leads to."""

    gossip: float = 0.0
    """Below it, no gossip is exchanged."""
    publish: float = 0.0
    """Below it, our own messages are not sent there, unless it is in the mesh."""
    graylist: float = 0.0
    """Below it, nothing of a peer is looked at."""
    accept_px: float = 0.0
    """From here on we connect to peers that a peer names."""
    opportunistic_graft: float = 0.0
    """A mesh whose median is below it takes in better peers."""

    def check(self) -> None:
        """LocalError unless they descend as they have to."""
        at = "thresholds: "
        values = [getattr(self, name) for name in self.__slots__]
        if not all(map(_finite, values)):
            raise LocalError(f"{at}they are numbers")
        if not self.graylist <= self.publish <= self.gossip <= 0:
            raise LocalError(f"{at}graylist <= publish <= gossip <= 0")
        if self.accept_px < 0 or self.opportunistic_graft < 0:
            raise LocalError(f"{at}accept_px and opportunistic_graft are at least 0")


def _finite(value: float) -> bool:
    return isinstance(value, int | float) and abs(value) < float("inf")


def _used(at: str, params: object, name: str, sign: int) -> bool:
    """Whether a weight is not 0; LocalError if it has the wrong sign."""
    weight = getattr(params, name)
    if not _finite(weight) or weight * sign < 0:
        raise LocalError(f"{at}{name} is {'at least' if sign > 0 else 'at most'} 0")
    return bool(weight)


def _positive(at: str, params: object, *names: str, zero: bool = False) -> None:
    for name in names:
        value = getattr(params, name)
        if not _finite(value) or value < 0 or not (value or zero):
            raise LocalError(f"{at}{name} is {'at least' if zero else 'more than'} 0")


def _fraction(at: str, params: object, name: str, used: bool = True) -> None:
    value = getattr(params, name)
    if not (0 < value < 1 or (value == 0 and not used)):
        raise LocalError(f"{at}{name} lies between 0 and 1")
