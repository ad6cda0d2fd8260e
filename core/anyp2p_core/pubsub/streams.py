"""The streams of pubsub: one that we write on, and one that the peer writes on.

    peer speaks pubsub --open--> opening --agreed--> first RPC: all we subscribed to
       ^                            |                   |
       '---- after 0.1 s, 0.2 s, ... if still connected, at most 4 times
    inbound: RPCs, each at most ``max_rpc``; a second stream of a peer replaces the first

What a peer says of its protocols (identify) tells when to open, and which one; so does a stream
that it opens itself. A peer may close its direction of our stream: nothing comes there anyway.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..connection import Connection
from ..errors import DecodeError, LocalError
from ..muxer import Stream
from ..varint import Delimited
from .outbox import Outbox
from .peers import FLOODSUB, Peer

if TYPE_CHECKING:
    from .service import PubSub


class Inbound:
    """A stream that a peer writes RPCs on."""

    __slots__ = ("pending", "peer", "stream", "_frames", "_streams")

    def __init__(self, streams: "Streams", peer: Peer, stream: Stream, limit: int) -> None:
        self.peer = peer
        self.pending = 0
        """Bytes of an incomplete RPC."""
        self.stream = stream
        self._frames = Delimited(limit)
        self._streams = streams
        stream.on_data = self._on_data
        stream.on_eof = self._on_eof
        stream.on_reset = self._on_reset

    def close(self, now: float) -> None:
        """Abort the stream."""
        self.stream.reset()
        self._over(now)

    def _on_data(self, data: bytes, now: float) -> None:
        self.stream.credit(len(data), now)
        streams = self._streams
        try:
            for rpc in self._frames.receive(data):
                streams.service.on_rpc(self.peer, rpc, now)
                if self.peer.inbound is not self:
                    return
        except DecodeError:
            self.close(now)
            streams.service.on_malformed(self.peer, now)
            return
        pending = self._frames.pending
        if pending != self.pending:
            streams.held += pending - self.pending
            self.pending = pending
            if streams.held > streams.service.config.max_held:
                streams.shed(now)

    def _on_eof(self, now: float) -> None:
        self.stream.write_eof()
        self._over(now)

    def _on_reset(self, code: int, now: float) -> None:
        self._over(now)

    def _over(self, now: float) -> None:
        self._streams.held -= self.pending
        self.pending = 0
        if self.peer.inbound is self:
            self.peer.inbound = None
            self._streams.service.on_unreadable(self.peer, now)


class Streams:
    """All streams of all peers."""

    def __init__(self, service: "PubSub") -> None:
        self.service = service
        self.held = 0
        """Bytes of incomplete RPCs."""

    def accept(self, peer: Peer, stream: Stream, now: float) -> None:
        """A peer opened a stream to write on."""
        if peer.inbound is not None:
            peer.inbound.close(now)
        peer.extensions = None
        peer.inbound = Inbound(self, peer, stream, self.service.config.max_rpc)

    def shed(self, now: float) -> None:
        """Abort the stream that holds most."""
        peers = self.service.all_peers.values()
        inbound = [peer.inbound for peer in peers if peer.inbound is not None]
        victim = max(inbound, key=lambda one: one.pending)
        victim.close(now)
        self.service.touch(victim.peer)

    def open(self, peer: Peer, protocols: Sequence[str], now: float) -> None:
        """Open our stream, unless it is open, or all attempts are used."""
        config = self.service.config
        if peer.outbox is not None or peer.opening:
            return
        if now - peer.opened_at > config.open_forget:
            peer.attempts = 0
        connections = self.service.context.connections(peer.id)
        if not connections or not protocols or peer.attempts >= config.open_attempts:
            return
        connection = connections[0]
        peer.attempts += 1
        peer.opened_at = now
        peer.opening = True

        def on_open(stream: Stream, protocol: str, now: float) -> None:
            self._opened(peer, connection, stream, protocol, now)

        def on_fail(error: Exception, now: float) -> None:
            if peer.opening:
                peer.opening = False
                self._retry(peer, protocols, now)
            else:
                self._lost(peer, protocols, now)

        try:
            connection.open_stream(protocols, on_open, on_fail, now)
        except LocalError:
            peer.opening = False
            self._retry(peer, protocols, now)
        else:
            self.service.context.touch(connection)

    def abandon(self, peer: Peer, now: float) -> None:
        """End our stream: it cannot take what must be said. A new one starts with all of it."""
        outbox = peer.outbox
        if outbox is not None:
            outbox.stream.reset()
            self._lost(peer, (peer.protocol,), now)
            self.service.touch(peer)

    def close(self, peer: Peer) -> None:
        """A peer is gone, and its streams with it."""
        self.service.context.cancel(peer.retry)

    def _opened(
        self, peer: Peer, connection: Connection, stream: Stream, protocol: str, now: float
    ) -> None:
        service = self.service
        context = service.context
        peer.opening = False
        if service.all_peers.get(peer.id) is not peer or peer.outbox is not None:
            stream.reset()
            return
        config = service.config
        peer.protocol = protocol
        peer.version = -1 if protocol == FLOODSUB else int(protocol[11])
        peer.outbound = connection.initiator
        peer.outbox = Outbox(
            stream,
            max_bytes=config.max_queue_bytes,
            max_count=config.max_queue_count,
            touch=lambda: context.touch(connection),
            is_unwanted=peer.is_unwanted,
        )

        def on_reset(code: int, now: float) -> None:
            self._lost(peer, (protocol,), now)

        stream.on_reset = on_reset
        stream.stop_reading()
        service.on_writable(peer, now)

    def _lost(self, peer: Peer, protocols: Sequence[str], now: float) -> None:
        peer.outbox = None
        self.service.on_unwritable(peer, now)
        self._retry(peer, protocols, now)

    def _retry(self, peer: Peer, protocols: Sequence[str], now: float) -> None:
        service = self.service
        config = service.config
        if peer.attempts >= config.open_attempts or service.all_peers.get(peer.id) is not peer:
            return
        delay = min(config.open_delay * 2 ** (peer.attempts - 1), config.max_open_delay)
        delay += service.context.choice.random() * config.open_delay
        service.context.cancel(peer.retry)
        peer.retry = service.context.call_at(
            now + delay, "pubsub stream", lambda now: self.open(peer, protocols, now)
        )
