"""A peer that connects like any other and then does on each stream what a test wants."""

from node_pair import CRYPTO, LOCAL, Pair, make_key, make_node

from anyp2p.providers.entropy import OsChoice, OsEntropy
from anyp2p_core import Node

KEYS = [make_key() for _ in range(3)]


class Wire:
    """The stranger's end of a stream. ``reading`` false: it takes bytes and grants no more."""

    def __init__(self, node, connection, protocol):
        self.connection = connection
        self.ended = False
        self.error = None
        self.node = node
        self.protocol = protocol
        self.reading = True
        self.received = bytearray()
        self.reset = None
        self.stream = None

    def take(self, stream, protocol, now):
        self.stream = stream
        stream.on_data = self._on_data
        stream.on_eof = self._on_eof
        stream.on_reset = self._on_reset

    def send(self, data):
        """Bytes that were taken."""
        self.node.touch(self.connection)
        return self.stream.write(data)

    def finish(self, data=b""):
        assert self.send(data) == len(data)
        self.stream.write_eof()

    def abort(self, code=0):
        self.node.touch(self.connection)
        self.stream.reset(code)

    def catch_up(self, now):
        """Grant what was taken without granting."""
        self.reading = True
        self.node.touch(self.connection)
        self.stream.credit(self.stream.unread, now)

    def _on_data(self, data, now):
        self.received += data
        if self.reading:
            self.stream.credit(len(data), now)

    def _on_eof(self, now):
        self.ended = True

    def _on_reset(self, code, now):
        self.reset = code

    def fail(self, error, now):
        self.error = error


class Stranger(Node):
    """``wires``: the streams that the peer opened. ``answers``: what to do with a new one."""

    def __init__(self, key=KEYS[2], **options):
        super().__init__(key, crypto=CRYPTO, entropy=OsEntropy(), choice=OsChoice(), **options)
        self._services.clear()
        self.answers = {}
        self.refused = ()
        self.wires = []

    def supports(self, protocol):
        return protocol not in self.refused

    def on_stream(self, connection, stream, protocol, now):
        wire = Wire(self, connection, protocol)
        wire.take(stream, protocol, now)
        self.wires.append(wire)
        self.answers.get(protocol, lambda wire: None)(wire)

    def open(self, protocol, now):
        (connection,) = self.connections()
        wire = Wire(self, connection, protocol)
        connection.open_stream((protocol,), wire.take, wire.fail, now)
        self.touch(connection)
        return wire

    def of(self, protocol):
        """The streams of a protocol that the peer opened."""
        return [wire for wire in self.wires if wire.protocol == protocol]


def meet(
    answers=None, *, node=None, them=None, dialed=True, cut=None, at=LOCAL, connect=True, **options
):
    """A node, and a stranger that it dialed, or that dialed it: ``pair.node``, ``pair.them``.

    ``at``: the stranger's address.
    """
    node = node or make_node(KEYS[0], **options)
    stranger = them or Stranger()
    stranger.answers.update(answers or {})
    sides = (node, stranger) if dialed else (stranger, node)
    pair = Pair(*sides, cut=cut, connect=False)
    pair.node, pair.them = node, stranger
    pair.ours, pair.theirs = (pair.a, pair.b) if dialed else (pair.b, pair.a)
    if connect:
        pair.connect(**{"address" if dialed else "source": at})
    return pair


def one_by_one(data):
    return [data[i : i + 1] for i in range(len(data))]
