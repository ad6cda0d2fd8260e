"""/plaintext/2.0.0: no security at all, for tests and simulations. Off unless asked for by name.

Spec: https://github.com/libp2p/specs/blob/master/plaintext/README.md

    both sides at once    length-prefixed Exchange {peer id, public key}
    then                  the bytes as they are

A peer claims an identity and proves nothing: only the id and the key have to fit each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import varint
from .crypto import Crypto
from .errors import DecodeError, HandshakeError, PeerIdMismatch
from .keys import PrivateKey, PublicKey
from .peer_id import PeerId
from .protobuf import BYTES, Field, Schema

PROTOCOL = "/plaintext/2.0.0"
MAX_EXCHANGE = 16 * 1024


@dataclass(slots=True)
class Exchange:
    """The wire message."""

    id: bytes | None = None
    public_key: bytes | None = None


EXCHANGE = Schema(Exchange, Field(1, "id", BYTES), Field(2, "public_key", BYTES))


def _ignore(data: bytes, now: float) -> None:
    """Until the next layer takes over."""


def _never_ends(now: float) -> None:
    """Plaintext has no word for it."""


def _nothing() -> None:
    """Until the connection listens."""


class Plaintext:
    """One connection without security, behind the interface of a secure channel."""

    peer: PeerId
    public_key: PublicKey
    muxer: str | None = None

    def __init__(
        self,
        *,
        own: bytes,
        crypto: Crypto,
        expected: PeerId | None,
        write: Callable[[bytes], object],
    ) -> None:
        self.on_open: Callable[[], object] = _nothing
        self.on_data: Callable[[bytes, float], object] = _ignore
        self.on_end: Callable[[float], object] = _never_ends
        self._crypto = crypto
        self._expected = expected
        self._open = False
        self._buffer = bytearray()
        write(own)

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the transport."""
        if self._open:
            self.on_data(data, now)
            return
        buffer = self._buffer
        buffer += data
        try:
            head = varint.peek(buffer, 0, MAX_EXCHANGE)
            if head is None or len(buffer) < sum(head):
                return
            size, start = head
            self._check(EXCHANGE.decode(buffer[start : start + size]))
        except DecodeError as error:
            raise HandshakeError(f"the plaintext exchange is malformed: {error}") from None
        rest = bytes(buffer[start + size :])
        buffer.clear()
        self._open = True
        self.on_open()
        if rest:
            self.on_data(rest, now)

    def receive_eof(self) -> None:
        """Raises HandshakeError when the exchange was not complete."""
        if not self._open:
            raise HandshakeError("the connection ended in the middle of the plaintext exchange")

    def finish(self) -> bytes:
        """Plaintext has no last words."""
        return b""

    def seal(self, chunks: list[bytes]) -> bytes:
        """The pieces as they are."""
        return b"".join(chunks)

    def _check(self, exchange: Exchange) -> None:
        if exchange.public_key is None:
            raise HandshakeError("the plaintext exchange has no public key")
        key = PublicKey.decode(exchange.public_key, self._crypto)
        peer = key.peer_id
        if exchange.id != bytes(peer):
            raise HandshakeError("the peer id of the plaintext exchange is not that of its key")
        if self._expected is not None and peer != self._expected:
            raise PeerIdMismatch(f"dialed {self._expected}, but {peer} answered")
        self.peer = peer
        self.public_key = key


class PlaintextSecurity:
    """Offers plaintext. Anyone can claim to be anyone."""

    protocol = PROTOCOL

    def __init__(self, key: PrivateKey, crypto: Crypto) -> None:
        exchange = Exchange(bytes(key.peer_id), key.public.encode())
        self._own = varint.delimited(EXCHANGE.encode(exchange))
        self._crypto = crypto

    def start(
        self,
        *,
        initiator: bool,
        expected: PeerId | None,
        muxers: Sequence[str],
        write: Callable[[bytes], object],
        wall: float,
    ) -> Plaintext:
        return Plaintext(own=self._own, crypto=self._crypto, expected=expected, write=write)
