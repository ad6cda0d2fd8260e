"""gossipsub 1.0 to 1.3: full messages to a few peers, the mesh; word of them to some others.

Specs: https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/README.md

    GRAFT      enter my mesh: I send you everything    PRUNE   no, or no more, for so many seconds
    IHAVE      these messages exist                    IWANT   send me these
    IDONTWANT  I have these already, do not send them (1.2, large messages)

    message  --> mesh (or all peers of the topic, if it is ours), direct peers, floodsub peers
    every heartbeat, of each topic:
      bad scores out | too small: GRAFT up to d | too large: PRUNE down to d | enough that we dialed
      sometimes better ones in | IHAVE to some who are not in the mesh | fanout | old messages out

The mesh never has more than d_hi peers: a GRAFT beyond is refused, also from peers that we dialed.
IDONTWANT goes out when the signature was good, before the application validates: before that, a
forger could use it to keep a message from us.
"""

from collections.abc import Callable, Iterable

from ..connection import Connection
from ..errors import Error
from ..events import Event
from ..peer_id import PeerId
from ..service import Context
from . import rpc as wire
from .backoff import Backoff
from .config import GossipConfig
from .events import ExtensionReceived
from .gater import Gater
from .mcache import MessageCache
from .mesh import excess, median
from .message import Message
from .outbox import Kind
from .peers import Peer, Topic, unwanted_key
from .promises import Promises
from .px import PeerExchange
from .rpc import Control, Prune, Rpc
from .score import PeerScore, ScoreSnapshot
from .score_params import TopicScoreParams
from .service import SELF_ORIGIN, PubSub
from .signing import (
    INVALID_SIGNATURE,
    MISSING_SIGNATURE,
    UNEXPECTED_AUTH_INFO,
    UNEXPECTED_SIGNATURE,
)
from .trace import Sink
from .validation import FAILED, IGNORED, THROTTLED

SWEEP_TICKS = 15
"""Heartbeats between two looks for backoffs that are over."""
MAX_WELCOME = 200
"""Ids per heartbeat that a peer is told of because it subscribes, however often it does."""
SECOND_EXTENSIONS = 10
"""Penalty for saying twice which extensions one knows."""

_WRONG = {
    MISSING_SIGNATURE, INVALID_SIGNATURE, UNEXPECTED_SIGNATURE, UNEXPECTED_AUTH_INFO, SELF_ORIGIN,
}  # fmt: skip
"""Why a message is held against its sender alone."""


class GossipSub(PubSub):
    """The gossipsub router."""

    config: GossipConfig

    def __init__(self, config: GossipConfig | None = None, *, trace: Sink | None = None) -> None:
        config = config or GossipConfig()
        super().__init__(config, trace=trace)
        self.score = PeerScore(config.score) if config.score is not None else None
        self._decay_at = float("-inf")
        self.ticks = 0
        """Heartbeats so far."""
        self.cache = MessageCache(
            length=config.history_length, gossip=config.history_gossip, max_bytes=config.max_history
        )
        self.backoff = Backoff(slack=config.backoff_slack, size=config.max_backoffs)
        self.promises = Promises(config.iwant_followup)
        self._always: dict[Peer, None] = {}
        """Peers that messages go to without a mesh: direct ones, and those of floodsub."""
        self._fanouts: dict[Topic, None] = {}
        self._joined: dict[Topic, None] = {}

    def attach(self, context: Context) -> None:
        super().attach(context)
        config = self.config
        self._px = PeerExchange(context, config)
        self._gater = Gater(config.gater, context.choice) if config.gater is not None else None

    # Commands.

    def mesh(self, topic: str) -> list[PeerId]:
        """Peers that we exchange full messages of a topic with."""
        found = self._topics.get(topic.encode())
        return [peer.id for peer in found.mesh] if found is not None and found.mesh else []

    def fanout(self, topic: str) -> list[PeerId]:
        """Peers that our messages go to, in a topic that we have not joined."""
        found = self._topics.get(topic.encode())
        return [peer.id for peer in found.fanout] if found is not None and found.fanout else []

    def scores(self) -> dict[PeerId, float]:
        """What we think of the peers that are connected."""
        return {peer.id: self._score(peer) for peer in self.all_peers.values()}

    def inspect(self, peer: PeerId) -> ScoreSnapshot:
        """What a peer's score is made of."""
        return self.score.snapshot(peer) if self.score is not None else ScoreSnapshot(0.0)

    def set_topic_score(self, topic: str, params: TopicScoreParams) -> None:
        """Judge peers in a topic in this way from now on."""
        raw = self._check_topic(topic)
        if self.score is not None:
            self.score.set_topic(raw, params)

    # What the service asks for.

    def hello(self, peer: Peer) -> bytes:
        peer.extended = self.config.test_extension and peer.version >= 3
        return wire.OUR_EXTENSIONS if peer.extended else b""

    def is_direct(self, peer: PeerId) -> bool:
        return peer in self.config.direct

    def hears(self, peer: Peer) -> bool:
        if peer.direct:
            return True
        if self.score is not None and self.score.score(peer.id) < self.config.thresholds.graylist:
            return False
        return super().hears(peer)

    def takes_messages(self, peer: Peer, now: float) -> bool:
        return self._gater is None or peer.direct or self._gater.accepts(peer.ip, now)

    def on_event(self, event: Event, now: float) -> None:
        super().on_event(event, now)
        self._px.on_event(event, now)

    def on_connected(self, connection: Connection, now: float) -> None:
        super().on_connected(connection, now)
        assert connection.peer is not None
        peer = self.all_peers.get(connection.peer)
        if peer is not None:
            self.on_addresses(peer, now)

    def on_addresses(self, peer: Peer, now: float) -> None:
        remotes = [one.remote for one in self.context.connections(peer.id)]
        first = remotes[0].components[0] if remotes and remotes[0] is not None else None
        peer.ip = first.value if first is not None else ""
        if self.score is not None:
            self.score.connected(peer.id, remotes)

    def on_peer(self, peer: Peer, now: float) -> None:
        if peer.direct or peer.version < 0:
            self._always[peer] = None
        for topic in peer.topics:
            self.on_subscribed(peer, topic, now)
        self._extend(peer, now)

    def on_peer_lost(self, peer: Peer, now: float) -> None:
        self._always.pop(peer, None)
        for topic in peer.topics:
            self._drop(peer, topic, now)

    def on_unreadable(self, peer: Peer, now: float) -> None:
        # It has dropped us from its meshes, as we do when our stream breaks.
        for topic in peer.topics:
            self._drop(peer, topic, now)

    def on_gone(self, peer: Peer, now: float) -> None:
        if self.score is not None:
            self.score.disconnected(peer.id, now)

    def on_malformed(self, peer: Peer, now: float) -> None:
        self._penalize(peer.id, 1)

    def on_subscribed(self, peer: Peer, topic: Topic, now: float) -> None:
        """Neither the mesh nor gossip waits for the heartbeat when somebody is new."""
        if peer.outbox is None:
            return
        self._graft_early(peer, topic, now)
        if (topic.mesh is not None or topic.fanout is not None) and self._may_gossip(peer):
            ids = self.cache.ids(topic.raw)[: max(MAX_WELCOME - peer.welcomed, 0)]
            if ids:
                peer.welcomed += len(ids)
                self._gossip_to([peer], topic, ids, now)

    def on_unsubscribed(self, peer: Peer, topic: Topic, now: float) -> None:
        self._drop(peer, topic, now)

    def on_new(self, peer: Peer, topic: Topic, message: Message, now: float) -> None:
        config = self.config
        self.promises.kept(message.id)
        if self.score is not None:
            self.score.validating(message.id, now)
        if self._gater is not None:
            self._gater.validated()
        if topic.mesh and len(message.data or b"") >= config.idontwant_threshold:
            (data,) = wire.idontwant([message.id])
            for other in topic.mesh:
                if other.version >= 2 and other is not peer:
                    self.send(other, data, Kind.CONTROL, now)

    def on_duplicate(self, peer: Peer, topic: Topic, message: Message, now: float) -> None:
        if self.score is not None:
            self.score.duplicate(peer.id, topic.raw, message.id, now)
        if self._gater is not None:
            self._gater.source(peer.ip).duplicate += 1

    def on_accepted(self, message: Message, now: float) -> None:
        sender = message.received_from
        assert sender is not None
        if self.score is not None:
            self.score.delivered(sender, message.topic, message.id, now)
        if self._gater is not None and sender in self.all_peers:
            self._gater.source(self.all_peers[sender].ip).delivered += 1

    def on_rejected(self, message: Message, reason: str, now: float) -> None:
        sender = message.received_from
        assert sender is not None
        if self.score is not None:
            if reason in _WRONG:
                self.score.invalid(sender, message.topic)
            elif reason == FAILED:
                self.score.rejected(sender, message.topic, message.id, now)
            elif message.id and reason in (IGNORED, THROTTLED) and message.id in self.seen:
                self.score.ignored(message.id, now)
        if self._gater is not None:
            if reason == THROTTLED:
                self._gater.throttled(now)
            elif sender in self.all_peers:
                source = self._gater.source(self.all_peers[sender].ip)
                if reason == IGNORED:
                    source.ignored += 1
                else:
                    source.rejected += 1

    # Messages out.

    def route(self, topic: Topic, message: Message, now: float) -> None:
        self.cache.put(message)
        own = message.received_from is None
        if own and self.config.flood_publish:
            targets = [peer for peer in topic.peers if peer.direct or self._may_publish(peer)]
        else:
            first = topic.mesh
            if first is None:
                first = self._fanout_of(topic, now)
            targets = [
                peer
                for peer in first
                if not (peer.unwanted and peer.is_unwanted(message.id))
            ]  # fmt: skip
            for peer in self._always:
                if (
                    topic in peer.topics
                    and peer not in first
                    and (peer.direct or self._may_publish(peer))
                ):
                    targets.append(peer)
        data = wire.publish((message.raw,))
        kind = Kind.OWN if own else Kind.FORWARD
        sender = None if message.received_from is None else bytes(message.received_from)
        author = message.from_
        for peer in targets:
            if peer.raw != sender and peer.raw != author:
                self.send(peer, data, kind, now, message.id)

    def _fanout_of(self, topic: Topic, now: float) -> dict[Peer, None]:
        """Where messages of a topic go that we have not joined."""
        topic.published_at = now
        if topic.fanout is None:
            topic.fanout = {}
            self._fanouts[topic] = None
        self._fill_fanout(topic, topic.fanout)
        return topic.fanout

    def _fill_fanout(self, topic: Topic, fanout: dict[Peer, None]) -> None:
        missing = self.config.d - len(fanout)
        if missing > 0:
            able = [
                peer
                for peer in topic.peers
                if self._is_able(peer) and peer not in fanout and self._may_publish(peer)
            ]
            for peer in self.context.choice.sample(able, missing):
                fanout[peer] = None

    def _may_publish(self, peer: Peer) -> bool:
        return self._score(peer) >= self.config.thresholds.publish

    # The mesh.

    def on_join(self, topic: Topic, now: float) -> None:
        mesh: dict[Peer, None] = {}
        topic.mesh = mesh
        self._joined[topic] = None
        self._fanouts.pop(topic, None)
        fanout, topic.fanout = topic.fanout or {}, None
        chosen = [peer for peer in fanout if self._may_graft(peer, topic, now)]
        chosen += self._candidates(topic, self.config.d - len(chosen), now, but=chosen)
        for peer in chosen:
            self._graft(peer, topic, now)
            self._send_control(peer, (topic,), (), now)

    def on_leave(self, topic: Topic, now: float) -> None:
        mesh, topic.mesh = topic.mesh or {}, None
        del self._joined[topic]
        backoff = self.config.unsubscribe_backoff
        for peer in mesh:
            self._left(peer, topic, now)
            self.backoff.add(topic.raw, peer.raw, now + backoff)
            prune = self._prune_of(peer, topic, backoff, px=self.config.px)
            self._send_control(peer, (), (prune,), now)

    def _is_able(self, peer: Peer) -> bool:
        """Whether a peer can be in a mesh at all."""
        return peer.outbox is not None and peer.version >= 0 and not peer.direct

    def _may_graft(self, peer: Peer, topic: Topic, now: float) -> bool:
        return (
            self._is_able(peer)
            and not self.backoff.blocks(topic.raw, peer.raw, now)
            and self._score(peer) >= 0
        )

    def _candidates(
        self,
        topic: Topic,
        count: int,
        now: float,
        *,
        but: Iterable[Peer] = (),
        also: Callable[[Peer], bool] | None = None,
    ) -> list[Peer]:
        """Up to ``count`` random peers that may enter the mesh."""
        mesh = topic.mesh
        assert mesh is not None
        if count <= 0:
            return []
        taken = dict.fromkeys(but)
        found = [
            peer
            for peer in topic.peers
            if peer not in mesh
            and peer not in taken
            and self._may_graft(peer, topic, now)
            and (also is None or also(peer))
        ]
        return self.context.choice.sample(found, count)

    def _graft_early(self, peer: Peer, topic: Topic, now: float) -> None:
        """A mesh that is too small does not wait for the heartbeat."""
        mesh = topic.mesh
        if (
            mesh is not None
            and len(mesh) < self.config.d
            and peer not in mesh
            and self._may_graft(peer, topic, now)
        ):
            self._graft(peer, topic, now)
            self._send_control(peer, (topic,), (), now)

    def _graft(self, peer: Peer, topic: Topic, now: float) -> None:
        """A peer enters the mesh."""
        assert topic.mesh is not None
        topic.mesh[peer] = None
        if self.score is not None:
            self.score.graft(peer.id, topic.raw, now)
        if self._tracer is not None:
            self._tracer.grafted(peer.raw, topic.name, now)

    def _left(self, peer: Peer, topic: Topic, now: float) -> None:
        """A peer is not in the mesh any more."""
        if self.score is not None:
            self.score.prune(peer.id, topic.raw)
        if self._tracer is not None:
            self._tracer.pruned(peer.raw, topic.name, now)

    def _drop(self, peer: Peer, topic: Topic, now: float) -> None:
        """A peer can be in no mesh of a topic any more."""
        if topic.mesh is not None and peer in topic.mesh:
            del topic.mesh[peer]
            self._left(peer, topic, now)
        if topic.fanout is not None:
            topic.fanout.pop(peer, None)

    def _prune_of(self, peer: Peer, topic: Topic, backoff: float, *, px: bool) -> Prune:
        prune = Prune(topic.raw)
        if peer.version >= 1:
            prune.backoff = int(backoff)
            if px:
                others = [one for one in topic.peers if one is not peer and self._score(one) >= 0]
                chosen = self.context.choice.sample(others, self.config.prune_peers)
                prune.peers = self._px.records([one.id for one in chosen])
        return prune

    def _send_control(
        self, peer: Peer, grafts: Iterable[Topic], prunes: Iterable[Prune], now: float
    ) -> None:
        data = wire.graft_prune([topic.raw for topic in grafts], prunes)
        self.send(peer, data, Kind.CONTROL, now)

    # Control in.

    def on_control(self, peer: Peer, rpc: Rpc, now: float) -> None:
        control = rpc.control
        if peer.extensions is None:
            peer.extensions = control is not None and control.test_extension
            self._extend(peer, now)
        elif control is not None and control.extensions:
            self._penalize(peer.id, SECOND_EXTENSIONS)
        if rpc.truncated:
            self._penalize(peer.id, 1)
        if rpc.test_extension and self.config.test_extension and peer.extensions:
            self.context.emit(ExtensionReceived(peer.id))
        if control is None:
            return
        if control.ihave:
            self._on_ihave(peer, control, now)
        if control.iwant:
            self._on_iwant(peer, control.iwant, now)
        if control.graft:
            self._on_graft(peer, control.graft, now)
        if control.prune:
            self._on_prune(peer, control.prune, now)
        if control.idontwant:
            self._on_idontwant(peer, control.idontwant)

    def _extend(self, peer: Peer, now: float) -> None:
        """Once both sides have named their extensions, use the one there is."""
        if peer.extended and peer.extensions:
            peer.extended = False
            self.send(peer, wire.TEST_EXTENSION_RPC, Kind.CONTROL, now)

    def _on_ihave(self, peer: Peer, control: Control, now: float) -> None:
        config = self.config
        if self._score(peer) < config.thresholds.gossip:
            return
        peer.ihaves += 1
        room = config.max_ihave_length - peer.asked
        if peer.ihaves > config.max_ihave_messages or room <= 0:
            return
        seen = self.seen
        missing: dict[bytes, None] = {}
        for raw, ids in control.ihave:
            topic = self._topics.get(raw)
            if topic is not None and topic.mesh is not None:
                for message_id in ids:
                    if message_id and message_id not in seen:
                        missing[message_id] = None
        if not missing:
            return
        wanted = self.context.choice.sample(list(missing), room)
        peer.asked += len(wanted)
        # One of them, at random, since nobody knows which: enough to find out who lies.
        self.promises.add(peer.id, wanted[0], now)
        for data in wire.iwant(wanted):
            self.send(peer, data, Kind.GOSSIP, now)

    def _on_iwant(self, peer: Peer, ids: list[bytes], now: float) -> None:
        config = self.config
        if self._score(peer) < config.thresholds.gossip:
            return
        for message_id in ids:
            entry = self.cache.get(message_id)
            if entry is None or peer.is_unwanted(message_id):
                continue
            if entry.sent is None:
                entry.sent = {}
            count = entry.sent.get(peer.id, 0)
            raw = entry.message.raw
            if count >= config.gossip_retransmission or peer.given + len(raw) > config.iwant_bytes:
                continue
            entry.sent[peer.id] = count + 1
            peer.given += len(raw)
            self.send(peer, wire.publish((raw,)), Kind.FORWARD, now, message_id)

    def _on_graft(self, peer: Peer, topics: list[bytes], now: float) -> None:
        config = self.config
        px = config.px
        refused: list[Topic] = []
        for raw in topics:
            topic = self._topics.get(raw)
            if topic is None or topic.mesh is None or topic not in peer.topics:
                px = False  # nobody learns of our peers by guessing topics
                continue
            if peer in topic.mesh or topic in refused:
                continue
            if self._objects(peer, topic, now):
                px = False
            elif len(topic.mesh) < config.d_hi:
                self._graft(peer, topic, now)
                continue
            else:
                self.backoff.add(raw, peer.raw, now + config.prune_backoff)
            refused.append(topic)
        if refused:
            prunes = [self._prune_of(peer, topic, config.prune_backoff, px=px) for topic in refused]
            self._send_control(peer, (), prunes, now)

    def _objects(self, peer: Peer, topic: Topic, now: float) -> bool:
        """Whether a peer must not enter our mesh, room or not. Its backoff starts again then."""
        config = self.config
        if not self._is_able(peer):
            return True
        until = self.backoff.until(topic.raw, peer.raw)
        if until is not None and now < until:
            flood = until - config.prune_backoff + config.graft_flood
            self._penalize(peer.id, 2 if now < flood else 1)
        elif self._score(peer) >= 0:
            return False
        self.backoff.add(topic.raw, peer.raw, now + config.prune_backoff)
        return True

    def _on_prune(self, peer: Peer, prunes: list[Prune], now: float) -> None:
        config = self.config
        for prune in prunes:
            topic = self._topics.get(prune.topic)
            if topic is None or topic.mesh is None:
                continue
            seconds = min(prune.backoff or config.prune_backoff, config.max_backoff)
            self.backoff.add(topic.raw, peer.raw, now + seconds)
            if peer not in topic.mesh:
                continue
            del topic.mesh[peer]
            self._left(peer, topic, now)
            # Only who was in the mesh may name others, so that it costs a GRAFT of ours each time.
            if prune.peers and self._score(peer) >= config.thresholds.accept_px:
                self._px.learn(prune.peers, now)

    def _on_idontwant(self, peer: Peer, ids: list[bytes]) -> None:
        config = self.config
        peer.dontwants += 1
        if peer.dontwants > config.max_idontwant_messages:
            return
        unwanted = peer.unwanted
        until = self.ticks + config.idontwant_ttl
        for message_id in ids[: config.max_idontwant_length]:
            key = unwanted_key(message_id)
            unwanted.pop(key, None)
            unwanted[key] = until
        while len(unwanted) > config.max_unwanted:
            del unwanted[next(iter(unwanted))]

    # The heartbeat.

    def on_tick(self, now: float) -> None:
        config = self.config
        self.ticks = ticks = self.ticks + 1
        if ticks % SWEEP_TICKS == 0:
            self.backoff.sweep(now)
        if self.score is not None or self._gater is not None:
            self._decay(now)
        for peer in self.all_peers.values():
            peer.ihaves = peer.asked = peer.dontwants = peer.given = peer.welcomed = 0
            if peer.unwanted:
                _expire(peer.unwanted, ticks)
        for peer_id, count in self.promises.broken(now).items():
            self._penalize(peer_id, count)
        if config.direct and ticks % config.direct_ticks == 1 % config.direct_ticks:
            self._connect_direct(now)
        grafts: dict[Peer, list[Topic]] = {}
        prunes: dict[Peer, list[Prune]] = {}
        for topic in self._joined:
            self._maintain(topic, grafts, prunes, now)
        for peer in {**grafts, **prunes}:
            self._send_control(peer, grafts.get(peer, ()), prunes.get(peer, ()), now)
        for topic in self._joined:
            assert topic.mesh is not None
            self._gossip(topic, topic.mesh, now)
        for topic in list(self._fanouts):
            self._maintain_fanout(topic, now)
        self.cache.shift()

    def _decay(self, now: float) -> None:
        """Decay once per interval, however long a heartbeat is."""
        due = self._decay_at
        if now < due:
            return
        interval = self.score.params.decay_interval if self.score is not None else 1.0
        self._decay_at = (due if now - due < interval else now) + interval
        if self.score is not None:
            self.score.decay(now)
        if self._gater is not None:
            self._gater.decay()

    def _maintain(
        self,
        topic: Topic,
        grafts: dict[Peer, list[Topic]],
        prunes: dict[Peer, list[Prune]],
        now: float,
    ) -> None:
        config = self.config
        mesh = topic.mesh
        assert mesh is not None

        def graft(chosen: list[Peer]) -> None:
            for peer in chosen:
                self._graft(peer, topic, now)
                grafts.setdefault(peer, []).append(topic)

        def prune(chosen: list[Peer], px: bool) -> None:
            for peer in chosen:
                del mesh[peer]
                self._left(peer, topic, now)
                self.backoff.add(topic.raw, peer.raw, now + config.prune_backoff)
                entry = self._prune_of(peer, topic, config.prune_backoff, px=px)
                prunes.setdefault(peer, []).append(entry)

        if self.score is not None:
            prune([peer for peer in mesh if self._score(peer) < 0], False)
        if len(mesh) < config.d_lo:
            graft(self._candidates(topic, config.d - len(mesh), now))
        if len(mesh) >= config.d_hi > config.d:
            prune(excess(list(mesh), self._score, config, self.context.choice), config.px)
        missing = config.d_out - sum(peer.outbound for peer in mesh)
        room = config.d_hi - len(mesh)
        if missing > 0 and len(mesh) >= config.d_lo:
            graft(self._candidates(topic, min(missing, room), now, also=lambda peer: peer.outbound))
        if (
            self.score is not None
            and len(mesh) > 1
            and self.ticks % config.opportunistic_ticks == 0
        ):
            middle = median(list(mesh), self._score)
            if middle < config.thresholds.opportunistic_graft:
                room = min(config.opportunistic_peers, config.d_hi - len(mesh))
                better = self._candidates(
                    topic, room, now, also=lambda peer: self._score(peer) > middle
                )
                graft(better)

    def _maintain_fanout(self, topic: Topic, now: float) -> None:
        fanout = topic.fanout
        assert fanout is not None
        if topic.published_at + self.config.fanout_ttl < now:
            topic.fanout = None
            del self._fanouts[topic]
            self._tidy(topic)
            return
        for peer in [peer for peer in fanout if not self._may_publish(peer)]:
            del fanout[peer]
        self._fill_fanout(topic, fanout)
        self._gossip(topic, fanout, now)

    def _gossip(self, topic: Topic, but: dict[Peer, None], now: float) -> None:
        """Tell some who do not get full messages what there is."""
        config = self.config
        ids = self.cache.ids(topic.raw)
        if not ids:
            return
        able = [peer for peer in topic.peers if peer not in but and self._may_gossip(peer)]
        count = max(config.d_lazy, int(config.gossip_factor * len(able)))
        self._gossip_to(self.context.choice.sample(able, count), topic, ids, now)

    def _may_gossip(self, peer: Peer) -> bool:
        return self._is_able(peer) and self._score(peer) >= self.config.thresholds.gossip

    def _gossip_to(self, chosen: list[Peer], topic: Topic, ids: list[bytes], now: float) -> None:
        config, choice = self.config, self.context.choice
        choice.shuffle(ids)
        frames = wire.ihave(topic.raw, ids[: config.max_ihave_length])
        for peer in chosen:
            if len(ids) > config.max_ihave_length:  # to each another part of them
                choice.shuffle(ids)
                frames = wire.ihave(topic.raw, ids[: config.max_ihave_length])
            for data in frames:
                self.send(peer, data, Kind.GOSSIP, now)

    def _connect_direct(self, now: float) -> None:
        for peer, addresses in self.config.direct.items():
            if not self.context.connections(peer):
                try:
                    self.context.dial(peer, addresses, now)
                except Error:
                    continue

    # Inside.

    def _score(self, peer: Peer) -> float:
        return 0.0 if self.score is None else self.score.score(peer.id)

    def _penalize(self, peer: PeerId, count: float) -> None:
        if self.score is not None:
            self.score.penalize(peer, count)


def _expire(unwanted: dict[bytes, int], ticks: int) -> None:
    old = []
    for key, until in unwanted.items():
        if until > ticks:
            break
        old.append(key)
    for key in old:
        del unwanted[key]
