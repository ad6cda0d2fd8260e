"""Networks of whole nodes under random acts, and what must hold after every heartbeat."""

from core.pubsub.net import Net
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from anyp2p_core.pubsub import message as messages, rpc as wire
from anyp2p_core.pubsub.config import GossipConfig
from anyp2p_core.pubsub.events import MessageReceived
from anyp2p_core.pubsub.gossipsub import GossipSub
from anyp2p_core.pubsub.score_params import PeerScoreParams, Thresholds
from anyp2p_core.varint import decode as read_varint

NODES = 7
TOPICS = ("a", "b")
ALL = wire.WireLimits(max_entries=1 << 20, max_control=1 << 20)


def config():
    return GossipConfig(
        d=3, d_lo=2, d_hi=5, d_score=2, d_out=1, d_lazy=2, prune_backoff=6.0,
        unsubscribe_backoff=3.0, backoff_slack=1.0, seen_ttl=30.0, fanout_ttl=5.0, graft_flood=2.0,
        flood_publish=False, idontwant_threshold=100, max_seen=50, max_history=5000,
        opportunistic_ticks=4, px=True, message_id=lambda message: message.data,
        score=PeerScoreParams(behaviour_weight=-1.0, behaviour_decay=0.5),
        thresholds=Thresholds(gossip=-10, publish=-20, graylist=-30, opportunistic_graft=1.0),
    )  # fmt: skip


class Checked(GossipSub):
    """Looks at everything that it sends."""

    def __init__(self):
        super().__init__(config())
        self.senders = {}
        self.sent = {}

    def on_new(self, peer, topic, message, now):
        assert message.id not in self.senders or now - self.senders[message.id][1] >= 30.0
        self.senders[message.id] = peer.raw, now
        super().on_new(peer, topic, message, now)

    def send(self, peer, data, kind, now, message_id=None):
        size, start = read_varint(data)
        rpc = wire.parse(data[start : start + size], ALL)
        for raw in rpc.publish:
            message = messages.parse(raw)
            assert message.from_ != peer.raw, "sent to its author"
            sender = self.senders.get(message.data, (b"", 0))[0]
            assert sender != peer.raw, "sent back to its sender"
        if rpc.control is not None:
            for topic in rpc.control.graft:
                assert not self.backoff.blocks(topic, peer.raw, now), "GRAFT in backoff"
                assert peer in self._topics[topic].mesh
            for prune in rpc.control.prune:
                mesh = self._topics[prune.topic].mesh
                assert mesh is None or peer not in mesh
        super().send(peer, data, kind, now, message_id)


def check_tables(member):
    """What no act may break, at any time."""
    pubsub = member.pubsub
    limits = pubsub.config
    connected = member.node.connected_peers()
    assert len(pubsub.all_peers) <= len(connected)
    assert len(pubsub.seen) <= limits.max_seen
    assert pubsub.cache.size <= limits.max_history
    assert len(pubsub._topics) <= 2 * len(TOPICS)
    assert len(pubsub.score) <= NODES and len(pubsub.backoff) <= NODES * len(TOPICS)
    for topic in pubsub._topics.values():
        assert not topic.is_idle
        assert (topic.mesh is not None) == bool(topic.subscriptions) == (topic in pubsub._joined)
        assert (topic.fanout is not None) == (topic in pubsub._fanouts)
        for peer in topic.peers:
            assert topic in peer.topics and pubsub.all_peers[peer.id] is peer
        for table in (topic.mesh or (), topic.fanout or ()):
            assert len(table) <= limits.d_hi
            for peer in table:
                assert peer in topic.peers and peer.outbox is not None
    for peer in pubsub.all_peers.values():
        assert len(peer.unwanted) <= limits.max_unwanted
        assert peer.outbox is None or peer.outbox.count <= limits.max_queue_count


def check_at_rest(net):
    """What holds when nothing is on its way and every backoff is over."""
    for topic in TOPICS:
        meshes = {member.id: set(member.pubsub.mesh(topic)) for member in net.members}
        for member in net.members:
            for other in meshes[member.id]:
                assert member.id in meshes[other], f"a link of {topic} has one end"
            able = [
                peer.id
                for peer in member.pubsub.all_peers.values()
                if topic in {one.name for one in peer.topics} and peer.outbox is not None
            ]
            if topic in member.pubsub.topics():
                assert len(meshes[member.id]) >= min(len(able), config().d_lo)
                assert len(meshes[member.id]) < config().d_hi
            else:
                assert not meshes[member.id]


class Network(RuleBasedStateMachine):
    """A few nodes whose links, subscriptions and messages come and go."""

    @initialize(seed=st.integers(0, 1 << 16), meshed=st.booleans())
    def start(self, seed, meshed):
        # Of each connection its own, since its bytes must not overtake each other.
        self.net = Net(
            seed=seed, latency=lambda a, b: 0.01 + 0.001 * ((a.number * 7 + b.number * 3) % 30)
        )
        for _ in range(NODES):
            self.net.add(Checked())
        self.subscriptions = {}
        self.number = 0
        self.heard = {}
        self.net.after = lambda net: [check_tables(member) for member in net.members]
        if meshed:
            self.link_all()
            self.subscribe_all("a")
            self.settle()

    nodes = st.integers(0, NODES - 1)
    topic = st.sampled_from(TOPICS)

    @rule(one=nodes, other=nodes)
    def link(self, one, other):
        if one != other:
            a, b = self.net.members[one], self.net.members[other]
            a.node.dial(b.id, [b.address], self.net.now)
            self.net.wait(0.5)

    @rule()
    def link_all(self):
        self.net.mesh()
        self.net.wait(0.5)

    @rule(one=nodes, other=nodes)
    def cut(self, one, other):
        if one != other:
            self.net.cut(self.net.members[one], self.net.members[other])

    @rule(one=nodes, topic=topic)
    def subscribe(self, one, topic):
        if (one, topic) not in self.subscriptions:
            pubsub = self.net.members[one].pubsub
            self.subscriptions[one, topic] = pubsub.subscribe(topic, self.net.now)
            self.net.run()

    @rule(topic=topic)
    def subscribe_all(self, topic):
        for one in range(NODES):
            self.subscribe(one, topic)

    @rule(one=nodes, topic=topic)
    def unsubscribe(self, one, topic):
        subscription = self.subscriptions.pop((one, topic), 0)
        self.net.members[one].pubsub.unsubscribe(subscription, self.net.now)
        self.net.run()

    @rule(one=nodes, topic=topic, size=st.sampled_from([4, 200]))
    def publish(self, one, topic, size):
        self.number += 1
        data = self.number.to_bytes(size, "big")
        self.net.members[one].pubsub.publish(topic, data, self.net.now)
        self.net.run()

    @rule(one=nodes, other=nodes)
    def break_stream(self, one, other):
        pubsub = self.net.members[one].pubsub
        peer = pubsub.all_peers.get(self.net.members[other].id)
        if peer is not None:
            pubsub.streams.abandon(peer, self.net.now)
            peer.attempts = 0
            self.net.run()

    @rule(seconds=st.sampled_from([0.3, 1.0, 4.0]))
    def wait(self, seconds):
        self.net.wait(seconds)

    @rule()
    def settle(self):
        # One heartbeat after the last backoff, graylists decayed, streams open again.
        self.net.wait(20)
        while self.net._wire:
            self.net.wait(0.06)
        check_at_rest(self.net)

    @invariant()
    def delivered_at_most_once(self):
        if not hasattr(self, "net"):
            return
        for member in self.net.members:
            for event in member.events:
                if isinstance(event, MessageReceived):
                    key = member.number, event.message.data
                    first = self.heard.setdefault(key, event)
                    assert first is event, "delivered twice"
                    assert event.message.author != member.id


Network.TestCase.settings = settings(deadline=None, max_examples=40, stateful_step_count=20)
TestNetwork = Network.TestCase


def test_a_whole_network_delivers_everything_to_everybody():
    net = Net(seed=5, latency=lambda a, b: 0.02)
    for _ in range(15):
        net.add(Checked())
    # A ring with some chords: messages take several hops.
    for at in range(15):
        for step in (1, 4):
            a, b = net.members[at], net.members[(at + step) % 15]
            a.node.dial(b.id, [b.address], net.now)
    for member in net.members:
        member.pubsub.subscribe("a", net.now)
    net.after = lambda net: [check_tables(member) for member in net.members]
    net.wait(3)
    for number in range(30):
        net.members[number % 15].pubsub.publish("a", number.to_bytes(4, "big"), net.now)
        net.wait(0.2)
    net.wait(5)
    for member in net.members:
        heard = [event.message.data for event in member.of(MessageReceived)]
        assert len(heard) == len(set(heard)) == 28
