"""What floodsub and gossipsub have in common: topics, messages, who is to hear of them.

Spec: https://github.com/libp2p/specs/blob/master/pubsub/README.md

    message of a peer --not ours, blacklisted, policy--> dropped
        --id seen--> duplicate
        --signature--> seen --validator--> delivered to subscriptions, and routed

A duplicate costs no signature: where the policy makes ids of author and number, they are compared
first. An id counts as seen only when its signature was good, or a forger could suppress messages.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from ..connection import Connection
from ..errors import LocalError
from ..events import Event, IdentifyFailed, PeerIdentified
from ..muxer import Stream
from ..peer_id import PeerId
from ..service import Context, Service
from . import message as messages, rpc as wire
from .config import PubSubConfig, TopicConfig
from .events import (
    MessageReceived,
    PeerSubscribed,
    PeerUnsubscribed,
    PubSubPeerAdded,
    PubSubPeerRemoved,
    ValidationRequested,
)
from .ids import MAX_ID, from_and_seqno, sha256_of_data
from .message import Message
from .outbox import Kind
from .peers import Peer, Topic
from .seen import SeenCache
from .signing import INVALID_SIGNATURE, SignaturePolicy, Signing
from .streams import Streams
from .trace import Sink, Tracer
from .validation import (
    FAILED,
    IGNORED,
    THROTTLED,
    Rule,
    Validation,
    Validator,
    Verdict,
    require_verdict,
)

BLACKLISTED_SOURCE = "blacklisted source"
SELF_ORIGIN = "self originated message"


class PubSub(Service, ABC):
    """One node's part in pubsub. Subclasses route."""

    def __init__(self, config: PubSubConfig, *, trace: Sink | None = None) -> None:
        """``trace`` is called with each ``trace.TraceEvent``."""
        config.check()
        self.config = config
        self.protocols = tuple(config.protocols)
        self.all_peers: dict[PeerId, Peer] = {}
        self.seen = SeenCache(ttl=config.seen_ttl, size=config.max_seen)
        self.validation = Validation(limit=config.max_validating, timeout=config.validation_timeout)
        self.streams = Streams(self)
        self.dropped = 0
        """Messages that could not be queued for a peer."""
        self._topics: dict[bytes, Topic] = {}
        self._settings = {name.encode(): one for name, one in config.topics.items()}
        self._subscriptions: dict[int, Topic] = {}
        self._sink = trace
        self._tracer: Tracer | None = None
        self._started = False

    def attach(self, context: Context) -> None:
        super().attach(context)
        self._own = bytes(context.peer_id)
        self._signing = Signing(context.key, context.crypto)
        if self._sink is not None:
            self._tracer = Tracer(self._sink, self._own, context.wall, self._id_of)

    # Commands.

    def subscribe(self, topic: str, now: float) -> int:
        """Take part in a topic: ``MessageReceived``. Returns the id for ``unsubscribe``."""
        raw = self._check_topic(topic)
        if self.config.subscription_filter is not None and not self.config.subscription_filter(
            topic
        ):
            raise LocalError(f"subscription_filter does not allow the topic {topic!r}")
        self._start(now)
        found = self._topic(raw)
        subscription = self.context.next_id()
        first = not found.subscriptions
        found.subscriptions += (subscription,)
        self._subscriptions[subscription] = found
        if first:
            self._announce(found, True, now)
            self.on_join(found, now)
            if self._tracer is not None:
                self._tracer.joined(found.name, now)
        return subscription

    def unsubscribe(self, subscription: int, now: float) -> None:
        """Give up a subscription; with the last one we leave the topic. Harmless when repeated."""
        topic = self._subscriptions.pop(subscription, None)
        if topic is None:
            return
        topic.subscriptions = tuple(one for one in topic.subscriptions if one != subscription)
        if not topic.subscriptions:
            self.on_leave(topic, now)
            self._announce(topic, False, now)
            if self._tracer is not None:
                self._tracer.left(topic.name, now)
            self._tidy(topic)

    def publish(self, topic: str, data: bytes, now: float) -> bytes:
        """Send a message to whoever takes part in a topic; returns its id.

        It need not be a topic that we subscribed to. LocalError if the message is too large, or
        its id is one of a message that was seen already.
        """
        raw = self._check_topic(topic)
        config = self.config
        if len(data) + len(raw) + 1024 > config.max_rpc:
            raise LocalError(f"a message of {len(data)} bytes; max_rpc is {config.max_rpc}")
        self._start(now)
        found = self._topic(raw)
        message = self._signing.make(raw, bytes(data), found.policy, self.context.wall(now))
        message_id = self._id_of(message)
        if message_id is None:
            self._tidy(found)
            raise LocalError("the message_id function gave no id for this message")
        message.id = message_id
        if not self.seen.add(message_id, now):
            raise LocalError("a message with this id was seen already")
        if self._tracer is not None:
            self._tracer.published(message, now)
        self.route(found, message, now)
        if config.deliver_own and found.subscriptions:
            self.context.emit(MessageReceived(found.name, message, found.subscriptions))
        self._tidy(found)
        return message_id

    def set_validator(self, topic: str, validator: Validator, *, limit: int = 1024) -> None:
        """Judge what others send in a topic. ``limit``: how many may wait for ``report``."""
        raw = self._check_topic(topic)
        if limit < 1:
            raise LocalError("a validator has room for one message at least")
        self._topic(raw).rule = Rule(validator, limit)

    def remove_validator(self, topic: str) -> None:
        """Accept what others send in a topic, as before."""
        found = self._topics.get(topic.encode())
        if found is not None:
            found.rule = None
            self._tidy(found)

    def report(self, message_id: bytes, verdict: Verdict, now: float) -> bool:
        """The verdict on a message that waits; False if it does not, or not any more."""
        require_verdict(verdict)
        message = self.validation.report(message_id)
        if message is None:
            return False
        self._judged(message, verdict, now)
        return True

    def topics(self) -> list[str]:
        """Topics that we subscribed to."""
        return [topic.name for topic in self._topics.values() if topic.subscriptions]

    def peers(self, topic: str | None = None) -> list[PeerId]:
        """Peers that take part in a topic, or all that we can send to."""
        if topic is None:
            return [peer.id for peer in self.all_peers.values() if peer.outbox is not None]
        found = self._topics.get(topic.encode())
        return [peer.id for peer in found.peers] if found is not None else []

    # Notices from the node.

    def on_connected(self, connection: Connection, now: float) -> None:
        self._start(now)

    def on_disconnected(self, connection: Connection, now: float) -> None:
        assert connection.peer is not None
        peer = self.all_peers.get(connection.peer)
        if peer is None:
            return
        if self.context.connections(peer.id):
            self.on_addresses(peer, now)
        else:
            self._remove(peer, now)

    def on_event(self, event: Event, now: float) -> None:
        if isinstance(event, PeerIdentified):
            spoken = [one for one in self.protocols if one in event.info.protocols]
            if spoken:
                self.streams.open(self._peer(event.peer, now), spoken[:1], now)
        elif isinstance(event, IdentifyFailed) and self.context.connections(event.peer):
            self.streams.open(self._peer(event.peer, now), self.protocols, now)

    def on_stream(self, connection: Connection, stream: Stream, protocol: str, now: float) -> None:
        assert connection.peer is not None
        peer = self._peer(connection.peer, now)
        self.streams.accept(peer, stream, now)
        self.streams.open(peer, (protocol,), now)

    # Notices from the streams.

    def on_writable(self, peer: Peer, now: float) -> None:
        """We have a stream to a peer: tell it what we subscribed to."""
        changes = [(True, one.raw) for one in self._topics.values() if one.subscriptions]
        hello = wire.subscriptions(changes, self.hello(peer))
        if len(hello) > 1:
            self.send(peer, hello, Kind.CONTROL, now)
        if self._tracer is not None:
            self._tracer.stream_opened(peer.raw, peer.protocol, now)
        self.context.emit(PubSubPeerAdded(peer.id, peer.protocol))
        self.on_peer(peer, now)

    def on_unwritable(self, peer: Peer, now: float) -> None:
        """Our stream to a peer has broken."""
        if self._tracer is not None:
            self._tracer.stream_closed(peer.raw, now)
        self.context.emit(PubSubPeerRemoved(peer.id))
        self.on_peer_lost(peer, now)

    def on_unreadable(self, peer: Peer, now: float) -> None:
        """The peer's stream to us has ended: it starts anew, or says nothing more."""

    def on_rpc(self, peer: Peer, data: bytes, now: float) -> None:
        """An RPC of a peer. DecodeError if it is none."""
        if not self.hears(peer):
            return
        rpc = wire.parse(data, self.config.wire)
        if self._tracer is not None:
            self._tracer.received(peer.raw, rpc, now)
        if rpc.subscriptions:
            self._on_subscriptions(peer, rpc.subscriptions, now)
        if rpc.publish and self.takes_messages(peer, now):
            for raw in rpc.publish:
                self._on_message(peer, raw, now)
        self.on_control(peer, rpc, now)

    def on_malformed(self, peer: Peer, now: float) -> None:
        """A peer wrote what is no RPC; its stream was reset."""

    # What subclasses do.

    def hello(self, peer: Peer) -> bytes:
        """What the first RPC holds besides subscriptions."""
        return b""

    def hears(self, peer: Peer) -> bool:
        """Whether a peer is listened to at all."""
        blacklist = self.config.blacklist
        return blacklist is None or not blacklist(peer.id)

    def takes_messages(self, peer: Peer, now: float) -> bool:
        """Whether messages of a peer are looked at right now."""
        return True

    def on_control(self, peer: Peer, rpc: wire.Rpc, now: float) -> None:
        """The rest of an RPC."""

    def on_peer(self, peer: Peer, now: float) -> None:
        """We can write to a peer."""

    def on_peer_lost(self, peer: Peer, now: float) -> None:
        """We cannot write to a peer any more."""

    def on_addresses(self, peer: Peer, now: float) -> None:
        """A peer is there, or one of several connections to it has ended."""

    def on_gone(self, peer: Peer, now: float) -> None:
        """A peer is not connected any more."""

    def on_join(self, topic: Topic, now: float) -> None:
        """We take part in a topic."""

    def on_leave(self, topic: Topic, now: float) -> None:
        """We take no part in a topic any more."""

    def on_subscribed(self, peer: Peer, topic: Topic, now: float) -> None:
        """A peer takes part in a topic."""

    def on_unsubscribed(self, peer: Peer, topic: Topic, now: float) -> None:
        """A peer takes no part in a topic any more."""

    def on_new(self, peer: Peer, topic: Topic, message: Message, now: float) -> None:
        """A message is new, and its signature good; its validation begins."""

    def on_duplicate(self, peer: Peer, topic: Topic, message: Message, now: float) -> None:
        """A message came that was seen before."""

    def on_accepted(self, message: Message, now: float) -> None:
        """A message is valid."""

    def on_rejected(self, message: Message, reason: str, now: float) -> None:
        """A message is not delivered, for a reason in the words of traces."""

    @abstractmethod
    def route(self, topic: Topic, message: Message, now: float) -> None:
        """Send a message, of ours or of others, to whom it has to go."""

    def on_tick(self, now: float) -> None:
        """A heartbeat."""

    # For subclasses and streams.

    def send(
        self, peer: Peer, data: bytes, kind: Kind, now: float, message_id: bytes | None = None
    ) -> None:
        """Send an RPC; if there is no room for it, it is lost."""
        outbox = peer.outbox
        if outbox is None:
            return
        sent = outbox.send(data, kind, message_id)
        if self._tracer is not None and sent:
            self._tracer.sent(peer.raw, data, True, now)
        if outbox.lost:
            self.dropped += len(outbox.lost)
            if self._tracer is not None:
                for lost in outbox.lost:
                    self._tracer.sent(peer.raw, lost, False, now)
            outbox.lost.clear()
            if not sent and kind is Kind.CONTROL:
                # Later, since somebody may be going through a table that this changes.
                self.context.call_at(
                    now, "pubsub overflow", lambda now: self.streams.abandon(peer, now)
                )

    def touch(self, peer: Peer) -> None:
        """Something happened on a peer's connections, outside of their own input."""
        for connection in self.context.connections(peer.id):
            self.context.touch(connection)

    # Inside.

    def _start(self, now: float) -> None:
        if not self._started:
            self._started = True
            self.context.call_at(now + self.config.heartbeat_delay, "pubsub heartbeat", self._tick)

    def _tick(self, now: float) -> None:
        self.context.call_at(now + self.config.heartbeat, "pubsub heartbeat", self._tick)
        self.seen.sweep(now)
        for message in self.validation.late(now):
            self._judged(message, Verdict.IGNORE, now)
        self.on_tick(now)

    def _check_topic(self, topic: str) -> bytes:
        try:
            raw = topic.encode()
        except UnicodeEncodeError:
            raise LocalError(f"{topic!r} cannot be written as UTF-8") from None
        if not 0 < len(raw) <= self.config.wire.max_topic:
            raise LocalError(f"a topic has 1 to {self.config.wire.max_topic} bytes")
        return raw

    def _topic(self, raw: bytes) -> Topic:
        """A topic, made if need be."""
        found = self._topics.get(raw)
        if found is None:
            config = self.config
            settings = self._settings.get(raw) or _NOTHING
            policy = settings.policy or config.policy
            message_id = settings.message_id or config.message_id
            if message_id is None and policy is not SignaturePolicy.STRICT_SIGN:
                anonymous = policy is SignaturePolicy.STRICT_NO_SIGN
                message_id = sha256_of_data if anonymous else from_and_seqno
            found = self._topics[raw] = Topic(raw, policy, message_id)
        return found

    def _tidy(self, topic: Topic) -> None:
        """Forget a topic that nobody has to do with."""
        if topic.is_idle:
            self._topics.pop(topic.raw, None)

    def _peer(self, peer_id: PeerId, now: float) -> Peer:
        peer = self.all_peers.get(peer_id)
        if peer is None:
            self._start(now)
            peer = self.all_peers[peer_id] = Peer(peer_id, direct=self.is_direct(peer_id))
            self.on_addresses(peer, now)
        return peer

    def is_direct(self, peer: PeerId) -> bool:
        """Whether there is an agreement with a peer."""
        return False

    def _remove(self, peer: Peer, now: float) -> None:
        del self.all_peers[peer.id]
        self.streams.close(peer)
        for topic in list(peer.topics):
            self._unsubscribed(peer, topic, now)
        self.on_gone(peer, now)

    def _announce(self, topic: Topic, wanted: bool, now: float) -> None:
        data = wire.subscriptions(((wanted, topic.raw),))
        for peer in self.all_peers.values():
            self.send(peer, data, Kind.CONTROL, now)

    def _on_subscriptions(self, peer: Peer, changes: list[tuple[bool, bytes]], now: float) -> None:
        config = self.config
        for wanted, raw in changes:
            topic = self._topics.get(raw)
            if not wanted:
                if topic is not None and topic in peer.topics:
                    self._unsubscribed(peer, topic, now)
                continue
            if len(peer.topics) >= config.max_topics_per_peer:
                continue
            if topic is None:
                if len(self._topics) >= config.max_topics or not self._may_subscribe(raw):
                    continue
                topic = self._topic(raw)
            if topic not in peer.topics and self._may_subscribe(raw):
                peer.topics[topic] = None
                topic.peers[peer] = None
                self.context.emit(PeerSubscribed(peer.id, topic.name))
                self.on_subscribed(peer, topic, now)

    def _may_subscribe(self, raw: bytes) -> bool:
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            return False
        allows = self.config.subscription_filter
        return bool(raw) and (allows is None or allows(name))

    def _unsubscribed(self, peer: Peer, topic: Topic, now: float) -> None:
        del peer.topics[topic]
        del topic.peers[peer]
        self.on_unsubscribed(peer, topic, now)
        self.context.emit(PeerUnsubscribed(peer.id, topic.name))
        self._tidy(topic)

    def _on_message(self, peer: Peer, raw: bytes, now: float) -> None:
        message = messages.parse(raw)
        topic = self._topics.get(message.topic)
        if topic is None or not topic.subscriptions:
            return
        message.received_from = peer.id
        objection = self._objection(peer, topic, message)
        if objection is not None:
            self._reject(message, objection, now)
            return
        if topic.message_id is None:  # STRICT_SIGN, which wants both
            message_id = message.from_ + message.seqno  # type: ignore[operator]
        else:
            found = self._id_of(message)
            if found is None:
                self._reject(message, IGNORED, now)
                return
            message_id = found
        message.id = message_id
        if message.from_ == self._own:
            if message_id not in self.seen:  # else an echo: js peers send us our own messages back
                self._reject(message, SELF_ORIGIN, now)
            return
        if message_id in self.seen:
            if self._tracer is not None:
                self._tracer.duplicate(message, now)
            self.on_duplicate(peer, topic, message, now)
            return
        if message.signature is not None:
            if not self._may_verify(peer, now):
                self._reject(message, THROTTLED, now)
                return
            if not self._signing.verify(message):
                peer.bad_signatures += 1
                self._reject(message, INVALID_SIGNATURE, now)
                return
        self.seen.add(message_id, now)
        self.on_new(peer, topic, message, now)
        rule = topic.rule
        if rule is None:
            self._accept(topic, message, now)
            return
        verdict = self.validation.judge(rule, message, now)
        if verdict is None:
            self.context.emit(ValidationRequested(topic.name, message))
        elif isinstance(verdict, str):
            self._reject(message, verdict, now)
        else:
            self._judged(message, verdict, now)

    def _objection(self, peer: Peer, topic: Topic, message: Message) -> str | None:
        blacklist = self.config.blacklist
        if blacklist is not None:
            author = message.author
            if author is not None and blacklist(author):
                return BLACKLISTED_SOURCE
        return self._signing.objection(message, topic.policy)

    def _may_verify(self, peer: Peer, now: float) -> bool:
        """Whether a peer has not sent too many bad signatures of late."""
        if not peer.bad_signatures:
            return True
        config = self.config
        regained = (now - peer.bad_at) * config.bad_signatures_rate
        peer.bad_signatures = max(peer.bad_signatures - regained, 0.0)
        peer.bad_at = now
        return peer.bad_signatures <= config.bad_signatures_burst

    def _id_of(self, message: Message) -> bytes | None:
        topic = self._topics.get(message.topic)
        function: Callable[[Message], object] = (
            topic.message_id if topic is not None and topic.message_id else from_and_seqno
        )
        try:
            message_id = function(message)
        except Exception:
            return None
        if type(message_id) is not bytes or not 0 < len(message_id) <= MAX_ID:
            return None
        return message_id

    def _judged(self, message: Message, verdict: Verdict, now: float) -> None:
        if verdict is Verdict.ACCEPT:
            topic = self._topics.get(message.topic)
            if topic is not None and topic.subscriptions:
                self._accept(topic, message, now)
        else:
            self._reject(message, FAILED if verdict is Verdict.REJECT else IGNORED, now)

    def _accept(self, topic: Topic, message: Message, now: float) -> None:
        self.on_accepted(message, now)
        self.route(topic, message, now)
        if self._tracer is not None:
            self._tracer.delivered(message, now)
        self.context.emit(MessageReceived(topic.name, message, topic.subscriptions))

    def _reject(self, message: Message, reason: str, now: float) -> None:
        if self._tracer is not None:
            self._tracer.rejected(message, reason, now)
        self.on_rejected(message, reason, now)


_NOTHING = TopicConfig()
