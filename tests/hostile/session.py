"""A session that happens again byte for byte, and one of its nodes fed with what the other said.

Everything that a node does here happens inside of its inputs, so that what arrives next never has
to wait for it: services open streams as soon as there is a connection. Keys, nonces and times
repeat.
"""

from functools import lru_cache

from node_pair import CRYPTO, LOCAL, REMOTE

from anyp2p.sim.keyed import SeededChoice, SeededEntropy, key as seed
from anyp2p_core import (
    CloseConnection,
    ConnectionClosed,
    Dial,
    Event,
    Limits,
    Node,
    PingSucceeded,
    PrivateKey,
    Service,
    StreamDrained,
    StreamOpened,
    StreamReadable,
    StreamWritable,
)
from anyp2p_core.crypto import Crypto
from anyp2p_core.echo import Echo

NOW = 100.0


class Remembering(Crypto):
    """The same answers as the real provider, computed once."""

    invalid_tag = CRYPTO.invalid_tag

    def chacha20poly1305(self, key):
        return CRYPTO.chacha20poly1305(key)

    @lru_cache(maxsize=1000)  # noqa: B019
    def x25519(self, private):
        return _Exchange(CRYPTO.x25519(private))

    @lru_cache(maxsize=1000)  # noqa: B019
    def load_public(self, kind, data):
        return _Verifier(CRYPTO.load_public(kind, data))

    def load_private(self, kind, data):
        return CRYPTO.load_private(kind, data)

    def generate(self, kind, entropy, bits=2048):
        return _Signer(CRYPTO.generate(kind, entropy, bits))


class _Exchange:
    def __init__(self, secret):
        self.public = secret.public
        self.exchange = lru_cache(maxsize=1000)(secret.exchange)


class _Verifier:
    def __init__(self, verifier):
        self.verify = lru_cache(maxsize=1000)(verifier.verify)


class _Signer:
    def __init__(self, signer):
        self.public, self.private = signer.public, signer.private
        self.sign = lru_cache(maxsize=1000)(signer.sign)


class Script(Service):
    """Uses a connection as soon as there is one, in all the ways there are."""

    protocols = ("/script",)

    def on_connected(self, connection, now):
        self.context.ping(connection.peer, now)
        self._say(connection, "/app", b"all of this arrives" * 10, now)
        self._say(connection, "/echo/1.0.0", b"echo", now)
        self._say(connection, "/script", b"for a service", now)
        connection.open_stream(("/none", "/script"), self._ignore, self._ignore, now)
        connection.open_stream(("/refused",), self._ignore, self._ignore, now).write(b"early")

        self._broken = connection.open_stream(("/app",), self._ignore, self._ignore, now)
        self._broken.write(b"broken off")

    def on_event(self, event, now):
        if isinstance(event, PingSucceeded):
            self._broken.reset(77)

    def on_stream(self, connection, stream, protocol, now):
        stream.on_data = lambda data, now: stream.credit(len(data), now)
        stream.on_eof = lambda now: stream.write_eof()

    def _say(self, connection, protocol, data, now):
        def say(stream, protocol, now):
            stream.on_data = lambda data, now: stream.credit(len(data), now)
            stream.write(data)
            stream.write_eof()

        connection.open_stream((protocol,), say, self._ignore, now)

    def _ignore(self, *_):
        pass


REMEMBERED = Remembering()
KEYS = [PrivateKey.generate(REMEMBERED, SeededEntropy(seed(1, "key", n))) for n in (0, 1)]
DIALER, LISTENER = 0, 1
SIZES = (StreamReadable, StreamWritable, StreamDrained)
"""Events whose number depends on how the bytes were cut."""


class One:
    """One of the two nodes, and its application, which reads what it gets and answers."""

    def __init__(self, role, **limits):
        self.events = []
        self.sent = bytearray()
        self.read = {}
        self.ends = {}
        self.closed = False
        self.now = NOW
        self.node = Node(
            KEYS[role],
            crypto=REMEMBERED,
            entropy=SeededEntropy(seed(1, "entropy", role)),
            choice=SeededChoice(seed(1, "choice", role)),
            epoch=1e9,
            services=[Echo(), Script()],
            limits=Limits(**limits),
        )
        self.node.handle("/app", NOW)
        if role == DIALER:
            self.node.dial(KEYS[LISTENER].peer_id, [LOCAL], NOW)
            (dial,) = (item for item in self.node.poll() if isinstance(item, Dial))
            self.conn = self.node.connected(dial.conn, REMOTE, LOCAL, NOW)
        else:
            self.conn = self.node.connected(None, LOCAL, REMOTE, NOW)
        self.turn()

    def receive(self, data):
        self.node.receive(self.conn, data, self.now)
        self.turn()

    def turn(self):
        """Do what a runtime and an application do after each input."""
        node = self.node
        while True:
            ready = node.writable()
            for conn in ready:
                self.sent += node.data_to_send(conn, self.now)
            outputs = node.poll()
            for item in outputs:
                if isinstance(item, StreamOpened):
                    self.read[item.stream] = bytearray()
                if isinstance(item, Event) and type(item) not in SIZES:
                    self.events.append(item)
                elif isinstance(item, CloseConnection) and item.abort and not self.closed:
                    self.end(None)
            for stream in [one for one in self.read if one not in self.ends]:
                self._read(stream)
            if not (ready or outputs):
                return

    def _read(self, stream):
        try:
            while data := self.node.stream_read(stream, 1000, self.now):
                self.read[stream] += data
            if data == b"":
                self.ends[stream] = "end"
                self.node.stream_close(stream, self.now)
        except Exception as error:
            self.ends[stream] = type(error).__name__
            self.node.stream_close(stream, self.now)

    def eof(self):
        self.node.receive_eof(self.conn, self.now)
        self.turn()

    def end(self, error):
        """The transport is gone."""
        self.closed = True
        self.node.disconnected(self.conn, error, self.now)
        self.turn()

    def silence(self):
        """Time passes, and nothing comes."""
        for _ in range(100):
            when = self.node.next_timeout()
            if when is None:
                break
            self.now = when
            self.node.handle_timeout(when)
            self.turn()

    def trace(self):
        """All that was said and read, independent of how the bytes came."""
        return repr((self.events, self.read, self.ends))

    def nothing_left(self):
        """Whether everything is gone; the reason of the end, if there was one."""
        node = self.node
        assert self.closed
        assert node.connections() == [] == node.connected_peers() == node.writable()
        assert node.unread == 0
        self.silence()  # what is not about connections may still be due
        assert len(node.timers) == 0, node.timers.reasons()
        assert self.ends.keys() == self.read.keys()
        (closed,) = (event for event in self.events if isinstance(event, ConnectionClosed))
        return closed.error


def record():
    """What each of the two says in a whole session."""
    dialer, listener = One(DIALER), One(LISTENER)
    said = bytearray(), bytearray()
    while dialer.sent or listener.sent:
        for here, there in ((dialer, listener), (listener, dialer)):
            data = bytes(here.sent)
            here.sent.clear()
            if data:
                said[here is listener].extend(data)
                there.receive(data)
    return bytes(said[0]), bytes(said[1])


WIRES = record()
"""From the dialer, from the listener."""
