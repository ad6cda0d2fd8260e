"""Whole nodes with pubsub, joined in memory, on a clock that the test turns."""

from heapq import heappop, heappush
from random import Random

from anyp2p.sim.crypto import NullCrypto
from anyp2p_core import (
    CloseConnection,
    Dial,
    Event,
    Multiaddr,
    Node,
    PeerIdentified,
    PrivateKey,
    Service,
)
from anyp2p_core.plaintext import PlaintextSecurity
from anyp2p_core.pubsub import rpc as wire
from anyp2p_core.pubsub.message import parse as parse_message
from anyp2p_core.pubsub.rpc import WireLimits
from anyp2p_core.varint import Delimited, delimited

NULL = NullCrypto()
ALL = WireLimits(
    max_entries=1 << 20, max_control=1 << 24, max_ids=1 << 20, max_subscriptions=1 << 20
)


class Choice:
    """Seeded choice."""

    def __init__(self, seed):
        self._random = Random(seed)
        self.random = self._random.random
        self.below = self._random.randrange
        self.shuffle = self._random.shuffle

    def sample(self, items, k):
        return self._random.sample(items, min(k, len(items)))


class Entropy:
    """Seeded entropy."""

    simulated = True

    def __init__(self, seed):
        self._random = Random(seed)

    def __call__(self, n):
        return self._random.randbytes(n)


def make_key(seed):
    return PrivateKey.generate(NULL, Entropy(f"key {seed}"))


class Member:
    """One node, with what it said."""

    def __init__(self, net, number, services, **options):
        self.net = net
        self.number = number
        self.pubsub = services[0]
        key = options.pop("key", None) or make_key(number)
        self.node = Node(
            key,
            crypto=NULL,
            entropy=Entropy(f"entropy {number} {net.seed}"),
            choice=Choice(f"choice {number} {net.seed}"),
            services=services,
            security=[PlaintextSecurity(key, NULL)],
            **options,
        )
        ip = net.ips.get(number, f"10.{number >> 8}.{number & 255}.1")
        self.address = Multiaddr(f"/ip4/{ip}/tcp/4001")
        self.node.listening([self.address], net.now)
        self.events = []
        self.dials = []
        self.links = {}
        """By connection: the other member and its connection."""
        self.blocked = {}

    @property
    def id(self):
        return self.node.peer_id

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


class Net:
    """Members, links, and time. ``latency(a, b)`` in seconds; ``dialing``: follow dials."""

    def __init__(self, *, seed=0, latency=None, dialing=True):
        self.seed = seed
        self.now = 1000.0
        self.ips = {}
        self.members = []
        self.by_address = {}
        self.latency = latency
        self.dialing = dialing
        self.after = None
        self._wire = []
        self._serial = 0

    def add(self, *services, **options):
        member = Member(self, len(self.members), services, **options)
        self.members.append(member)
        self.by_address[member.address] = member
        return member

    def link(self, a, b):
        """``a`` dials ``b``."""
        a.node.dial(b.id, [b.address], self.now)
        self.run()

    def mesh(self):
        """Everybody is linked to everybody."""
        for at, member in enumerate(self.members):
            for other in self.members[:at]:
                member.node.dial(other.id, [other.address], self.now)
        self.run()

    def cut(self, a, b):
        """The connections between two are lost."""
        for conn, (other, _) in list(a.links.items()):
            if other is b:
                self.drop(a, conn)

    def drop(self, member, conn):
        """One of several connections is lost."""
        other, theirs = member.links.pop(conn)
        del other.links[theirs]
        member.node.disconnected(conn, None, self.now)
        other.node.disconnected(theirs, None, self.now)
        self.run()

    def run(self):
        """Carry what takes no time."""
        busy = True
        while busy:
            busy = False
            for member in self.members:
                busy |= self._drain(member)
            while self._wire and self._wire[0][0] <= self.now:
                busy = True
                _, _, member, conn, data = heappop(self._wire)
                if conn in member.links:
                    member.node.receive(conn, data, self.now)
                    self._drain(member)

    def _drain(self, member):
        node = member.node
        busy = False
        for conn in node.writable():
            busy = True
            data = node.data_to_send(conn, self.now)
            if data and conn in member.links:
                other, theirs = member.links[conn]
                delay = self.latency(member, other) if self.latency else 0.0
                self._serial += 1
                heappush(self._wire, (self.now + delay, self._serial, other, theirs, data))
        for item in node.poll():
            busy = True
            if isinstance(item, Event):
                member.events.append(item)
            elif isinstance(item, Dial):
                self._dial(member, item)
            elif isinstance(item, CloseConnection) and item.conn in member.links:
                other, theirs = member.links.pop(item.conn)
                del other.links[theirs]
                node.disconnected(item.conn, None, self.now)
                other.node.disconnected(theirs, None, self.now)
        return busy

    def _dial(self, member, dial):
        member.dials.append(dial.address)
        other = self.by_address.get(dial.address)
        if other is None or not self.dialing:
            member.node.dial_failed(dial.conn, OSError("nobody there"), self.now)
            return
        conn = member.node.connected(dial.conn, member.address, dial.address, self.now)
        theirs = other.node.connected(None, other.address, member.address, self.now)
        member.links[conn] = other, theirs
        other.links[theirs] = member, conn

    def wait(self, seconds):
        """Let time pass, timer by timer; ``after(net)`` is called when all is quiet each time."""
        end = self.now + seconds
        while True:
            due = [when for one in self.members if (when := one.node.next_timeout()) is not None]
            if self._wire:
                due.append(self._wire[0][0])
            when = min(due, default=None)
            if when is None or when > end:
                break
            self.now = max(self.now, when)
            for member in self.members:
                timeout = member.node.next_timeout()
                if timeout is not None and timeout <= self.now:
                    member.node.handle_timeout(self.now)
            self.run()
            if self.after is not None:
                self.after(self)
        self.now = end
        self.run()


class Mock(Service):
    """A peer whose RPCs the test writes, and reads."""

    def __init__(self, *protocols):
        self.protocols = protocols or ("/meshsub/1.2.0",)
        self.rpcs = []
        self.streams = []
        self.out = None
        self.resets = 0
        self.on_rpc = None
        self.reads = True
        self.eof = False

    def on_event(self, event, now):
        if isinstance(event, PeerIdentified) and self.out is None:
            self.open(event.peer, now)

    def open(self, peer, now):
        (connection, *_) = self.context.connections(peer)

        def on_open(stream, protocol, now):
            self.out = stream
            stream.on_reset = lambda code, now: self._on_reset(stream)

        connection.open_stream(self.protocols[:1], on_open, lambda error, now: None, now)
        self.context.touch(connection)
        self.connection = connection

    def _on_reset(self, stream):
        self.resets += 1
        if self.out is stream:
            self.out = None

    def on_stream(self, connection, stream, protocol, now):
        frames = Delimited(1 << 26)
        self.streams.append((stream, protocol))

        def on_data(data, now):
            if self.reads:
                stream.credit(len(data), now)
            for frame in frames.receive(data):
                found = wire.parse(frame, ALL)
                self.rpcs.append(found)
                if self.on_rpc is not None:
                    self.on_rpc(found, now)

        def on_eof(now):
            self.eof = True

        stream.on_data = on_data
        stream.on_eof = on_eof

    def raw(self, data):
        """Bytes as they are."""
        while data and self.out is not None:
            taken = self.out.write(data)
            self.context.touch(self.connection)
            data = data[taken:]
            if not taken:
                raise AssertionError("the stream is full")

    def write(self, *frames):
        """RPCs, one after the other."""
        for frame in frames:
            self.raw(frame)

    def rpc(self, body):
        self.raw(delimited(body))

    def subscribe(self, *topics):
        self.write(wire.subscriptions([(True, topic.encode()) for topic in topics]))

    def graft(self, *topics):
        self.write(wire.graft_prune([topic.encode() for topic in topics], ()))

    def messages(self):
        return [parse_message(raw) for rpc in self.rpcs for raw in rpc.publish]

    def control(self, name):
        """All that came of one kind of control."""
        found = []
        for rpc in self.rpcs:
            if rpc.control is not None:
                found += getattr(rpc.control, name)
        return found


def duel(service, *protocols, **options):
    """A net of one real member and one mock that is connected to it; the mock dialed."""
    net = Net(**options)
    member = net.add(service)
    mock = Mock(*protocols)
    net.add(mock)
    net.link(net.members[1], member)
    return net, member, mock
