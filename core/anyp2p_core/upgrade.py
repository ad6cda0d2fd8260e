"""A byte stream becomes a connection: the layers joined, from raw bytes to streams.

Specs: https://github.com/libp2p/specs/blob/master/connections/README.md

    dialer                                           listener
      [web TLS and HTTP upgrade]              <->
      [nonce of a private network]            <->
      multistream "/noise", noise message 1    ->
                                               <-    multistream "/noise", noise message 2
      noise message 3                          ->    both authenticated, muxer known (early choice)
      streams, each with multistream inside   <->    streams

Without an early choice a second multistream inside the secure channel agrees on the muxer.

Layers are joined by calls: bytes go up through ``_receive``, which is assigned anew when a layer
takes over; they come down when ``data_to_send`` asks, so that frames are built when the socket can
take them and sealed once per flush.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from .connection import Connection, Owner
from .errors import HandshakeError, MuxerError
from .layer import Layer, Write
from .multistream import Dialer, Listener
from .security import SecureChannel

if TYPE_CHECKING:
    from .multiaddr import Multiaddr
    from .peer_id import PeerId

FLUSH = 65519
"""Plaintext bytes per flush: one full noise message."""

Receive = Callable[[bytes, float], object]


class UpgradedConnection(Connection):
    """A connection over TCP, a Unix socket, or whatever else carries bytes in order."""

    __slots__ = (
        "_carrier", "_farewell", "_greeting", "_inner", "_now", "_out", "_receive", "_secure",
        "_under",
    )  # fmt: skip

    def __init__(
        self,
        conn: int,
        *,
        initiator: bool,
        owner: Owner,
        local: "Multiaddr | None",
        remote: "Multiaddr | None",
        expected: "PeerId | None",
        now: float,
        carrier: Callable[[Write], Layer] | None = None,
    ) -> None:
        """``carrier`` makes what is between the transport and multistream-select, if anything."""
        super().__init__(
            conn, initiator=initiator, owner=owner, local=local, remote=remote, expected=expected
        )
        self._now = now
        self._farewell = b""
        self._under: list[bytes] = []
        self._out: list[bytes] = []
        self._inner: list[bytes] = []
        self._greeting: Dialer | Listener
        self._secure: SecureChannel | None = None
        self._carrier: Layer | None = None
        self._receive: Receive
        if carrier is not None:
            layer = self._carrier = carrier(self._under.append)
            layer.on_end = self._on_end
            self._receive = layer.receive
        names = tuple(owner.security)
        if initiator:
            dialer = self._greeting = Dialer(names, self._out.append)
            if len(names) == 1:  # then the first handshake message may travel with the proposal
                self._start_security(names[0])
            self._hand_over(_Select(dialer, self._security_agreed))
        else:
            listener = self._greeting = Listener(owner.security.__contains__, self._out.append)
            self._hand_over(_Select(listener, self._security_agreed))

    # Inputs.

    def receive(self, data: bytes, now: float) -> None:
        self._now = now
        self._receive(data, now)

    def receive_eof(self) -> None:
        if self._carrier is not None and not self.peer_ended:
            self._carrier.receive_eof()
        if self._secure is not None:
            self._secure.receive_eof()
        if self.muxer is None:
            raise HandshakeError("the peer closed the connection during negotiation")

    @property
    def greeted(self) -> bool:
        return self._greeting.greeted

    # Outputs.

    @property
    def wants_write(self) -> bool:
        if self.finished:
            return bool(self._farewell)
        if self._under:
            return True
        if self._carrier is not None and not self._carrier.open:
            return False
        if self._out or self._inner:
            return True
        return self.muxer is not None and self.muxer.wants_write

    def data_to_send(self, now: float) -> bytes:
        if self.finished:
            data, self._farewell = self._farewell, b""
            return data
        carrier = self._carrier
        if carrier is None:
            return self._plain(now)
        under = self._under
        if carrier.open and (data := self._plain(now)):
            under.append(carrier.seal([data]))
        data = b"".join(under)
        under.clear()  # in place: the layers hold this list's append
        return data

    @property
    def queued_answers(self) -> int:
        return sum(map(len, self._under))

    def take_leave(self) -> None:
        last = self._secure.finish() if self._secure is not None and self.muxer is not None else b""
        if self._carrier is None:
            self._farewell = last
            return
        said = self._under[:]
        if last and self._carrier.open:
            said.append(self._carrier.seal([last]))
        said.append(self._carrier.finish())
        self._farewell = b"".join(said)

    def drop(self) -> None:
        super().drop()
        self._farewell = b""

    def _say_why(self, error: MuxerError, now: float) -> None:
        assert self.muxer is not None
        self.muxer.go_away(error.code)
        self._inner += self.muxer.data_to_send(0, now)  # ``close`` drops what is queued

    def _plain(self, now: float) -> bytes:
        """What goes into the transport, or into the carrier."""
        inner = self._inner
        if self.muxer is None:
            chunks = inner[:]
        elif inner:
            chunks = inner + self.muxer.data_to_send(FLUSH, now)
        else:
            chunks = self.muxer.data_to_send(FLUSH, now)
        inner.clear()
        out = self._out
        if not out:
            return self._secure.seal(chunks) if chunks and self._secure is not None else b""
        if chunks and self._secure is not None:
            out.append(self._secure.seal(chunks))
        data = b"".join(out)
        out.clear()  # in place: the layers hold this list's append
        return data

    # The upgrade.

    def _hand_over(self, receive: Receive) -> None:
        """Who gets the bytes from now on."""
        if self._carrier is None:
            self._receive = receive
        else:
            self._carrier.on_data = receive

    def _on_end(self, now: float) -> None:
        self.peer_ended = True

    def _start_security(self, protocol: str) -> None:
        self.negotiated.security = protocol
        channel = self._secure = self._owner.security[protocol].start(
            initiator=self.initiator,
            expected=self._expected,
            muxers=tuple(self._owner.muxers),
            write=self._out.append,
            wall=self._owner.wall(self._now),
        )
        channel.on_open = self._on_secure
        channel.on_end = self._on_end

    def _security_agreed(self, protocol: str, rest: bytes, now: float) -> None:
        if self._secure is None:
            self._start_security(protocol)
        assert self._secure is not None
        self._hand_over(self._secure.receive)
        if rest:
            self._secure.receive(rest, now)

    def _on_secure(self) -> None:
        channel = self._secure
        assert channel is not None
        self.peer = channel.peer
        self.public_key = channel.public_key
        muxers = self._owner.muxers
        if channel.muxer is not None:
            self.negotiated.early_muxer = True
            self._start_muxer(channel.muxer, b"", self._now)
        elif self.initiator:
            dialer = Dialer(tuple(muxers), self._inner.append)
            channel.on_data = _Select(dialer, self._start_muxer)
        else:
            listener = Listener(muxers.__contains__, self._inner.append)
            channel.on_data = _Select(listener, self._start_muxer)

    def _start_muxer(self, protocol: str, rest: bytes, now: float) -> None:
        assert self._secure is not None
        muxer = self.muxer = self._owner.muxers[protocol](
            initiator=self.initiator, limits=self._owner.limits, on_stream=self._on_stream
        )
        self.negotiated.muxer = protocol
        self._secure.on_data = muxer.receive
        self._owner.on_upgraded(self, now)
        if rest:
            muxer.receive(rest, now)


class _Select:
    """multistream-select as a layer: feeds the negotiation, then whoever comes next, once."""

    __slots__ = ("_negotiation", "_next")

    def __init__(
        self, negotiation: Dialer | Listener, then: Callable[[str, bytes, float], object]
    ) -> None:
        self._negotiation = negotiation
        self._next = then

    def __call__(self, data: bytes, now: float) -> None:
        rest = self._negotiation.receive(data)
        if rest is not None:
            assert self._negotiation.protocol is not None
            self._next(self._negotiation.protocol, rest, now)
