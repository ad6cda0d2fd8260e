"""One node on a virtual clock, peers that follow no rules, and a friend who must not suffer.

An ``Attacker`` has a real secure channel: what goes through it is up to the test.
"""

from collections import deque

from node_pair import CRYPTO, LOCAL, REMOTE, make_key, make_node

from anyp2p.providers.entropy import OsEntropy
from anyp2p_core import (
    CloseConnection,
    ConnectionClosed,
    Event,
    PauseReading,
    PingSucceeded,
    ResumeReading,
)
from anyp2p_core.echo import Echo
from anyp2p_core.multistream import Dialer, encode
from anyp2p_core.noise import Noise, NoiseKeys
from anyp2p_core.yamux_frame import (
    ACK,
    DATA,
    FLAGS,
    HEADER_SIZE,
    PING,
    SYN,
    decode,
    encode as encode_frame,
)

HEADER = encode("/multistream/1.0.0")
ECHO = "/echo/1.0.0"


def data_frame(flags, stream_id, payload):
    return encode_frame(DATA | flags, stream_id, len(payload)) + payload


def proposal(stream_id, *protocols, data=b""):
    """A frame that opens a stream and proposes protocols, with data behind them."""
    return data_frame(SYN, stream_id, HEADER + b"".join(map(encode, protocols)) + data)


class Arena:
    """``node`` is attacked. It serves echo, and its application takes streams of /app."""

    def __init__(self, *, friend=True, services=(), **options):
        self.node = make_node(services=[Echo(), *services], **options)
        self.now = 100.0
        self.events = []
        self.actions = []
        self.peers = {}
        self.arriving = deque()
        """Segments on their way to the node, with who sent them."""
        self.friend = None
        self.node.handle("/app", self.now)
        if friend:
            self.friend = Friend(self)
            self.join(self.friend)
            self.wait(11)

    def join(self, peer, remote=REMOTE):
        """Let a peer connect. It is None for a connection that is refused."""
        conn = self.node.connected(None, LOCAL, remote, self.now)
        peer.conn = conn
        self.peers[conn] = peer
        self.run()
        if conn not in self.peers:
            return None
        peer.begin()
        self.run()
        return peer

    def attacker(self, **options):
        return self.join(Attacker(self, **options))

    def run(self):
        """Carry bytes and closings until all is quiet."""
        node = self.node
        while True:
            ready = node.writable()
            for conn in ready:
                self.peers[conn].feed(node.data_to_send(conn, self.now))
            outputs = node.poll()
            for item in outputs:
                if isinstance(item, Event):
                    self.events.append(item)
                else:
                    self.actions.append(item)
                    if isinstance(item, CloseConnection):
                        # Attackers do not close their side only because we have closed ours.
                        if item.conn in self.peers and item.abort:
                            self.peers.pop(item.conn).closed = True
                            node.disconnected(item.conn, None, self.now)
                    elif isinstance(item, PauseReading):
                        self.peers[item.conn].paused = True
                    elif isinstance(item, ResumeReading):
                        self.peers[item.conn].resume()
            if self.friend is not None:
                self.friend.push()
            if self.arriving:
                peer, data = self.arriving.popleft()
                node.receive(peer.conn, data, self.now)
            elif not (ready or outputs):
                return

    def wait(self, seconds):
        """Let time pass, timer by timer."""
        end = self.now + seconds
        while True:
            due = [self.node.next_timeout()]
            if self.friend is not None:
                due.append(self.friend.node.next_timeout())
            when = min((one for one in due if one is not None), default=None)
            if when is None or when > end:
                break
            self.now = max(self.now, when)
            self.node.handle_timeout(self.now)
            if self.friend is not None:
                self.friend.node.handle_timeout(self.now)
            self.run()
        self.now = end

    def of(self, kind):
        return [item for item in (*self.events, *self.actions) if isinstance(item, kind)]

    def why(self, peer):
        """The error of the ``ConnectionClosed`` for a peer."""
        (found,) = [item for item in self.of(ConnectionClosed) if item.conn == peer.conn]
        return found.error

    def survives(self):
        """Whether the friend is connected still and is served."""
        friend = self.friend
        request = friend.node.ping(self.node.peer_id, self.now)
        stream = friend.node.open_stream(self.node.peer_id, [ECHO], self.now)
        friend.node.stream_write(stream, b"still there?")
        friend.node.stream_write_eof(stream)
        self.run()
        answers = [event for event in friend.events if isinstance(event, PingSucceeded)]
        assert answers and answers[-1].request == request
        assert friend.node.stream_read(stream, 100, self.now) == b"still there?"
        assert friend.node.stream_read(stream, 100, self.now) == b""
        friend.node.stream_close(stream, self.now)
        return True

    def leave(self, *peers):
        """These peers drop their connections."""
        for peer in peers:
            if self.peers.pop(peer.conn, None) is not None:
                self.node.disconnected(peer.conn, None, self.now)
        self.run()

    def empty(self):
        """Whether nothing at all is left once everybody has gone."""
        self.leave(*self.peers.values())
        node = self.node
        assert node.connections() == [] == node.connected_peers() == node.writable()
        assert node.unread == 0
        assert len(node.timers) == 0, node.timers.reasons()
        return True


class Friend:
    """A node that behaves."""

    def __init__(self, arena):
        self.arena = arena
        self.conn = None
        self.node = make_node()
        self.events = []
        self.paused = self.closed = False

    def begin(self):
        arena = self.arena
        self.node.dial(arena.node.peer_id, [LOCAL], arena.now)
        self.own = self.node.poll()[-1].conn
        self.node.connected(self.own, REMOTE, LOCAL, arena.now)

    def feed(self, data):
        self.node.receive(self.own, data, self.arena.now)

    def resume(self):
        self.paused = False

    def push(self):
        """Send what there is."""
        while self.node.writable() and not self.paused:
            self.arena.arriving.append((self, self.node.data_to_send(self.own, self.arena.now)))
        self.events += self.node.poll()


class Attacker:
    """Dials the node. With ``upgrade`` it authenticates in order; then the test speaks.

    Pings are answered unless ``silent``.
    """

    silent = False

    def __init__(self, arena, *, key=None, upgrade=True, muxers=("/yamux/1.0.0",)):
        self.arena = arena
        self.key = key or make_key()
        self.received = bytearray()
        """What the node sent and is no complete frame yet; before the upgrade, everything."""
        self.raw_received = 0
        self.raw_sent = 0
        self.closed = self.paused = False
        self._frames = []
        self._waiting = []
        self._upgrade = upgrade
        self._muxers = muxers
        self._out = []
        self._noise = None
        self._dialer = None

    def begin(self):
        if not self._upgrade:
            return
        self._dialer = Dialer(("/noise",), self._out.append)
        entropy = OsEntropy()
        self._noise = Noise(
            initiator=True,
            keys=NoiseKeys(self.key, CRYPTO, entropy),
            crypto=CRYPTO,
            entropy=entropy,
            write=self._out.append,
            muxers=self._muxers,
            expected=self.arena.node.peer_id,
        )
        self._noise.on_data = self._on_data
        self._flush()

    def feed(self, data):
        """Bytes from the node."""
        self.raw_received += len(data)
        if self._dialer is not None:
            rest = self._dialer.receive(data)
            if rest is None:
                return
            self._dialer, data = None, rest
        if self._noise is None:
            self.received += data
        else:
            self._noise.receive(data, self.arena.now)
            self._flush()

    def raw(self, data):
        """Bytes on the transport; they wait there while the node does not read."""
        self.raw_sent += len(data)
        if self.paused:
            self._waiting.append(data)
        else:
            self.arena.arriving.append((self, data))

    def resume(self):
        """The node reads again."""
        self.paused = False
        self.arena.arriving.extend((self, data) for data in self._waiting)
        self._waiting.clear()

    def send(self, *frames):
        """Bytes inside the secure channel, and what the node makes of them."""
        self.post(*frames)
        self.arena.run()

    def post(self, *frames):
        """The same, on their way."""
        data = b"".join(frames)
        for pos in range(0, len(data), 65000):
            self.raw(self._noise.seal([data[pos : pos + 65000]]))

    def stall(self):
        """Read nothing any more."""
        self.arena.node.blocked(self.conn, True, self.arena.now)

    def frames(self):
        """The frames that came since the last call: (head, stream id, length, payload)."""
        found, self._frames = self._frames, []
        return found

    def _on_data(self, data, now):
        self.received += data
        data, pos = bytes(self.received), 0
        while len(data) - pos >= HEADER_SIZE:
            head, stream_id, length = decode(data, pos)
            end = pos + HEADER_SIZE + (length if head <= FLAGS else 0)
            if end > len(data):
                break
            self._frames.append((head, stream_id, length, data[pos + HEADER_SIZE : end]))
            if head == PING | SYN and not self.silent:
                self.post(encode_frame(PING | ACK, 0, length))
            pos = end
        del self.received[:pos]

    def _flush(self):
        data = b"".join(self._out)
        self._out.clear()
        if data:
            self.raw(data)
