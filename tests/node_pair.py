"""Nodes joined in memory, on a clock that the test turns."""

from dataclasses import dataclass, field

from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsChoice, OsEntropy
from anyp2p_core import (
    Action,
    CloseConnection,
    Dial,
    Event,
    Multiaddr,
    Node,
    PauseReading,
    PrivateKey,
    ResumeReading,
    StreamOpened,
)

CRYPTO = Cryptography()
LOCAL = Multiaddr("/ip4/127.0.0.1/tcp/4001")
REMOTE = Multiaddr("/ip4/127.0.0.1/tcp/50000")


def make_key(**kind):
    return PrivateKey.generate(CRYPTO, OsEntropy(), **kind)


def make_node(key=None, **options):
    options.setdefault("entropy", OsEntropy())
    options.setdefault("choice", OsChoice())
    options.setdefault("crypto", CRYPTO)
    return Node(key or make_key(), **options)


@dataclass
class Side:
    """One node with what it said."""

    node: Node
    conn: int = 0
    events: list[Event] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    """Segments that arrived."""

    def poll(self):
        for item in self.node.poll():
            (self.events if isinstance(item, Event) else self.actions).append(item)

    def of(self, kind):
        """Events and actions of one class, in order."""
        return [item for item in (*self.events, *self.actions) if isinstance(item, kind)]

    def last(self, kind):
        return self.of(kind)[-1]


class Pair:
    """Two nodes and one connection between them, dialed by ``a``.

    ``cut`` turns the bytes of one flush into segments. What a node wants closed is closed, unless
    ``obeys`` is false.
    """

    def __init__(self, a=None, b=None, *, cut=None, connect=True):
        self.obeys = True
        self.now = 100.0
        self.a = Side(a or make_node())
        self.b = Side(b or make_node())
        self.cut = cut or (lambda data: [data])
        self.open = False
        if connect:
            self.connect()

    def connect(self, expected=True, address=LOCAL, source=REMOTE):
        peer = self.b.node.peer_id if expected is True else expected
        self.dial = self.a.node.dial(peer, [address], self.now)
        self.a.poll()
        self.answer(self.a.last(Dial), source)

    def answer(self, dial, source=REMOTE):
        """``b`` is where a ``Dial`` of ``a`` leads to."""
        self.a.conn = self.a.node.connected(dial.conn, source, dial.address, self.now)
        self.b.conn = self.b.node.connected(None, dial.address, source, self.now)
        self.open = True
        self.run()

    @property
    def sides(self):
        return (self.a, self.b), (self.b, self.a)

    def run(self):
        """Carry bytes and closings until both nodes are quiet."""
        busy = True
        while busy:
            busy = False
            for here, there in self.sides:
                while here.conn in here.node.writable():
                    busy = True
                    data = here.node.data_to_send(here.conn, self.now)
                    for segment in self.cut(data) if data else ():
                        there.received.append(segment)
                        there.node.receive(there.conn, segment, self.now)
            for here, there in self.sides:
                seen = len(here.actions)
                here.poll()
                for action in here.actions[seen:] if self.obeys else ():
                    if isinstance(action, CloseConnection) and action.conn == here.conn:
                        self.hang_up(here, there)
                        busy = True

    def opened(self, protocol="/app"):
        """A stream that ``a`` opened: its ids at both ends, ``b`` being an application too."""
        if protocol not in self.b.node.protocols:
            self.b.node.handle(protocol, self.now)
        ours = self.a.node.open_stream(self.b.node.peer_id, [protocol], self.now)
        self.run()
        return ours, self.b.last(StreamOpened).stream

    def hang_up(self, here, there, error=None):
        """``here`` closes its transport, and ``there`` learns it."""
        if self.open:
            self.open = False
            here.node.disconnected(here.conn, error, self.now)
            there.node.receive_eof(there.conn, self.now)
            there.node.disconnected(there.conn, None, self.now)
            here.poll()
            there.poll()

    def wait(self, seconds):
        """Let time pass, timer by timer."""
        end = self.now + seconds
        while True:
            due = [when for side in (self.a, self.b) if (when := side.node.next_timeout())]
            when = min(due, default=None)
            if when is None or when > end:
                break
            self.now = max(self.now, when)
            for side in (self.a, self.b):
                side.node.handle_timeout(self.now)
            self.run()
        self.now = end


__all__ = [
    "CRYPTO",
    "LOCAL",
    "REMOTE",
    "Pair",
    "PauseReading",
    "ResumeReading",
    "Side",
    "make_key",
    "make_node",
]
