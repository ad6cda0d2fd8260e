"""Whole nodes joined in memory, on a clock that the test turns. Equal seeds give equal networks.

A dial leads to whoever has the address. Bytes arrive at once, in order.
"""

from collections import deque
from random import Random

from node_pair import CRYPTO

from anyp2p_core import CloseConnection, Dial, Event, Multiaddr, Node, PrivateKey
from anyp2p_core.crypto import Choice
from anyp2p_core.errors import DialError, LocalError
from anyp2p_core.kad import messages
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.keys import key_of
from anyp2p_core.kad.messages import MAX_REQUEST, PROTOCOL, Message
from anyp2p_core.kad.query import Walk
from anyp2p_core.kad.records import AcceptAll
from anyp2p_core.kad.service import Kad
from anyp2p_core.kad.store import MemoryStore
from anyp2p_core.plaintext import PlaintextSecurity
from anyp2p_core.service import Service
from anyp2p_core.varint import Delimited, delimited

EPOCH = 1_700_000_000.0


class Seeded(Choice):
    """Entropy and choice that repeat themselves."""

    simulated = False

    def __init__(self, seed):
        self._random = Random(seed)

    def __call__(self, n):
        return self._random.randbytes(n)

    def random(self):
        return self._random.random()

    def below(self, n):
        return self._random.randrange(n)

    def shuffle(self, items):
        self._random.shuffle(items)

    def sample(self, items, k):
        return self._random.sample(items, min(k, len(items)))


class LongestValue:
    """A namespace for tests: values that start with "good", the longest is best."""

    def validate(self, key, value, wall):
        if not value.startswith(b"good"):
            raise ValueError("not good")

    def select(self, key, values):
        return max(range(len(values)), key=lambda index: len(values[index]))


VALIDATORS = {"x": LongestValue(), "any": AcceptAll()}
SMALL = Walk(k=4, beta=4, alpha=3)
"""Networks of tests are small; so is what one of their nodes has to know."""


def introduce(kad, other, now):
    """Put a member into a table, as if it had answered."""
    kad.context.peers.add_addresses(other.peer, other.node.addresses, now)
    kad.table.add(other.peer, now, addresses=tuple(other.node.addresses))


class Puppet(Service):
    """Takes requests of Kademlia and does with them what it was told.

    ``behave(request, stream)`` returns a Message or bytes to answer, or None.
    """

    protocols = (PROTOCOL,)

    def __init__(self, behave):
        self.behave = behave
        self.requests = []
        self.streams = []

    def on_stream(self, connection, stream, protocol, now):
        frames = Delimited(MAX_REQUEST)
        self.streams.append(stream)

        def on_data(data, now):
            stream.credit(len(data), now)
            for frame in frames.receive(data):
                if stream.eof_sent or stream.is_reset:
                    return
                request = messages.decode(frame)
                self.requests.append(request)
                answer = self.behave(request, stream)
                if isinstance(answer, Message):
                    answer = delimited(messages.MESSAGE.encode(answer))
                if answer:
                    send(answer)

        def send(data):
            taken = stream.write(data)
            if taken < len(data):
                stream.on_writable = lambda now: send(data[taken:])

        stream.on_data = on_data
        stream.on_eof = lambda now: stream.write_eof()


class Broken(MemoryStore):
    """A store whose disk is full."""

    broken = True

    def fail(self, *_):
        if self.broken:
            raise LocalError("the disk is full")

    def providers(self, key, wall):
        self.fail()
        return super().providers(key, wall)

    def set_own(self, key, wall):
        self.fail()
        super().set_own(key, wall)

    def put(self, record, wall):
        self.fail()
        return super().put(record, wall)


class Member:
    """One node with its services and what it said."""

    def __init__(self, net, node, kads, address):
        self.net = net
        self.node = node
        self.kads = kads
        self.address = address
        self.events = []
        self.dialed = []
        self.links = {}
        """Connections: to the member at the other end and the connection's id there."""
        self.silent = False
        """What arrives is lost, and nothing leaves."""
        self.alive = True

    @property
    def kad(self):
        return self.kads[0]

    @property
    def peer(self):
        return self.node.peer_id

    def knows(self):
        """Who is in the table."""
        return {entry.peer for entry in self.kad.table.entries()}

    @property
    def full(self):
        """The address with the peer id."""
        return Multiaddr(f"{self.address}/p2p/{self.peer}")

    def __repr__(self):
        return f"<{self.address}>"

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def result(self, request):
        """The final event of a command; there is exactly one."""
        (found,) = [one for one in self.results(request) if type(one).__name__ not in STEPS]
        return found

    def results(self, request):
        return [one for one in self.events if getattr(one, "request", None) == request]


STEPS = ("DhtProviderFound", "DhtValueImproved")


class Net:
    """All members and the time."""

    def __init__(self, seed=0, *, limits=None):
        self.limits = limits
        self.now = 1000.0
        self.seed = seed
        self.members = []
        self.by_address = {}
        self.holes = set()
        """Addresses from which nothing ever comes back."""
        self._arriving = deque()
        self._busy = {}

    def add(self, *configs, validators=None, budget=None, store=None, **options):
        """A new node with a Kademlia service per config; a server unless told otherwise."""
        configs = configs or (KadConfig(server=True, walk=SMALL),)
        validators = VALIDATORS if validators is None else validators
        kads = [Kad(one, validators=validators, budget=budget, store=store) for one in configs]
        return self._member(kads, kads, **options)

    def puppet(self, behave, **options):
        """A node that answers requests as the test says, see ``Puppet``."""
        puppet = Puppet(behave)
        member = self._member([], [puppet], **options)
        member.puppet = puppet
        return member

    def _member(self, kads, services, *, address=None, announce=None, key=None, **options):
        number = len(self.members)
        if address is None:
            host = f"127.{number // 62500}.{number // 250 % 250}.{number % 250 + 1}"
            address = f"/ip4/{host}/tcp/4001"
        seeded = Seeded(f"{self.seed}/{number}")
        options.setdefault("limits", self.limits)
        node = Node(
            key or PrivateKey.generate(CRYPTO, seeded),
            crypto=CRYPTO,
            entropy=seeded,
            choice=seeded,
            epoch=EPOCH,
            services=services,
            **options,
        )
        plain = PlaintextSecurity(node.key, CRYPTO)
        node.security = {plain.protocol: plain}
        member = Member(self, node, kads, Multiaddr(address))
        self.members.append(member)
        self.by_address[member.address] = member
        node.listening([member.address] if announce is None else announce, self.now)
        self.touch(member)
        return member

    def servers(self, count, **config):
        """So many servers that know of nobody."""
        config.setdefault("walk", SMALL)
        return [self.add(KadConfig(server=True, **config)) for _ in range(count)]

    def acquaint(self, *members):
        """Put everybody into everybody's tables, as if they had all met before."""
        for one in members:
            for kad in one.kads:
                for other in members:
                    if kad.server or other.kads:
                        introduce(kad, other, self.now)

    def closest(self, key, members=None):
        """Members by their true distance to a key."""
        target = key_of(key)
        members = self.members if members is None else members
        return sorted(members, key=lambda one: key_of(bytes(one.peer)) ^ target)

    def touch(self, member):
        self._busy[member] = None

    def connect(self, a, b):
        a.node.dial(b.peer, [b.address], self.now)
        self.touch(a)
        self.run()

    def join(self, *members):
        """Everybody connects to the first one, and looks around."""
        for member in members[1:]:
            self.connect(member, members[0])
        self.wait(1)
        for member in members:
            for kad in member.kads:
                kad.bootstrap(self.now)
            self.touch(member)
            self.run()

    def call(self, member, command, *args, kad=0, **options):
        """Run a command to its end; returns its final event."""
        request = self.start(member, command, *args, kad=kad, **options)
        return member.result(request)

    def start(self, member, command, *args, kad=0, **options):
        """Begin a command, and let happen what needs no time."""
        request = self.start_only(member, command, *args, kad=kad, **options)
        self.run()
        return request

    def start_only(self, member, command, *args, kad=0, **options):
        """Begin a command; nothing is carried yet."""
        request = getattr(member.kads[kad], command)(*args, now=self.now, **options)
        self.touch(member)
        return request

    def cut(self, a, b):
        """Connections between two members are lost."""
        for conn, (other, there) in list(a.links.items()):
            if other is b:
                self._lost(a, conn, b, there, DialError("the cable was cut"))
        self.run()

    def kill(self, member):
        """A member is gone, and its connections are closed."""
        member.alive = False
        self.by_address.pop(member.address, None)
        for conn, (other, there) in list(member.links.items()):
            self._lost(member, conn, other, there, None)
        self.run()

    def run(self, steps=10**9):
        """Carry what there is until all are quiet; returns how many segments were carried."""
        for step in range(steps):
            while self._busy:
                member = next(iter(self._busy))
                del self._busy[member]
                self._drain(member)
            if not self._arriving:
                return step
            member, conn, data = self._arriving.popleft()
            if member.alive and not member.silent and conn in member.links:
                member.node.receive(conn, data, self.now)
                self.touch(member)
        return steps

    def wait(self, seconds):
        """Let time pass, timer by timer."""
        self.run()
        end = self.now + seconds
        while True:
            dues = [(m.node.next_timeout(), n) for n, m in enumerate(self.members) if m.alive]
            when, number = min((one for one in dues if one[0] is not None), default=(end + 1, 0))
            if when > end:
                break
            self.now = max(self.now, when)
            self.members[number].node.handle_timeout(self.now)
            self.touch(self.members[number])
            self.run()
        self.now = end

    def _drain(self, member):
        node = member.node
        while ready := node.writable():
            for conn in ready:
                data = node.data_to_send(conn, self.now)
                link = member.links.get(conn)
                if data and link is not None and not member.silent:
                    self._arriving.append((*link, data))
        for item in node.poll():
            if isinstance(item, Event):
                member.events.append(item)
            elif isinstance(item, Dial):
                member.dialed.append(item.address)
                self._dial(member, item)
            elif isinstance(item, CloseConnection):
                self.touch(member)
                if item.conn in member.links:
                    self._lost(member, item.conn, *member.links[item.conn], None)
                else:
                    node.disconnected(item.conn, None, self.now)

    def _dial(self, member, dial):
        self.touch(member)
        other = self.by_address.get(dial.address)
        if other is None or other is member:
            if dial.address not in self.holes:
                member.node.dial_failed(dial.conn, DialError("nobody is here"), self.now)
            return
        here, source = dial.conn, Multiaddr(f"{member.address}".replace("/tcp/", "/tcp/5"))
        there = other.node.connected(None, other.address, source, self.now)
        member.links[here] = (other, there)
        other.links[there] = (member, here)
        member.node.connected(here, source, dial.address, self.now)
        self.touch(other)

    def _lost(self, a, conn, b, there, error):
        # What was sent before arrives before.
        del a.links[conn]
        del b.links[there]
        a.node.disconnected(conn, error, self.now)
        if b.alive:
            for segment in [one for one in self._arriving if one[:2] == (b, there)]:
                b.node.receive(there, segment[2], self.now)
            b.node.receive_eof(there, self.now)
            b.node.disconnected(there, None, self.now)
        self.touch(a)
        self.touch(b)
