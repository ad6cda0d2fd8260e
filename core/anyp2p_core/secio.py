"""/secio/1.0.0: a secure channel that everybody has abandoned, for peers that have nothing else.

Spec: https://github.com/libp2p/specs/blob/master/secio/README.md

WHAT IT IS WORTH: LESS THAN NOISE AND TLS. USE IT TO REACH OLD PEERS, AND FOR NOTHING ELSE.
An observer learns nothing of the data, and who the peer is, is proved. But the MAC of a frame does
not cover its place in the stream. Whoever sits on the path can drop, repeat and reorder frames:
the MAC holds all the same, and garbage is taken for authentic data. He can cut the connection
after any frame unseen, and sees both identities. Nobody looks after the protocol: go, rust and js
peers have all removed it. It is off unless somebody registers it.

    both sides at once    Propose {nonce, public key, exchanges, ciphers, hashes}
    both sides at once    Exchange {ephemeral key, signature of both proposals and that key}
    both sides at once    frame: the other's nonce
    then                  frames

    message               length in four bytes, big-endian; Propose or Exchange
    frame                 length in four bytes, big-endian; AES-CTR ciphertext; its HMAC

Whose preferences win is drawn by lot from keys and nonces. The shared secret is hashed at its full
length, as rust and js peers do. Peers that cut leading zero bytes of it off (go, py) fail to agree
with us whenever there are any: one handshake of 256, and every second one on P-521.
"""

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol, TypeVar

from .channel import Channel
from .crypto import Crypto, Entropy
from .errors import DecodeError, HandshakeError, LocalError, PeerIdMismatch
from .keys import PrivateKey, PublicKey
from .peer_id import PeerId
from .protobuf import BYTES, STRING, Field, Schema
from .varint import Data

T = TypeVar("T")

PROTOCOL = "/secio/1.0.0"
EXCHANGES = ("P-256", "P-384", "P-521")
CIPHERS = ("AES-256", "AES-128")
HASHES = ("SHA256", "SHA512")

MAX_HANDSHAKE = 16 * 1024
"""Longest Propose or Exchange accepted; an RSA key of 8192 bits and its signature need 2 KiB."""
MAX_LIST = 1024
"""Longest list of names in a Propose that is looked at, in characters."""
MAX_FRAME = 1024 * 1024 + 4096
"""Longest frame accepted: js peers put a whole mplex message of 1 MiB into one."""
MAX_PLAINTEXT = 64 * 1024
"""What one of our frames holds. The spec allows 8 MiB; less keeps the peer's buffers small."""


class EphemeralKey(Protocol):
    """One private key on one curve, for one handshake."""

    @property
    def public(self) -> bytes:
        """The uncompressed point: 04, x, y."""
        ...

    def exchange(self, public: bytes, /) -> bytes:
        """The x coordinate of the shared point, with its leading zeros.

        Raises HandshakeError unless ``public`` is an uncompressed point of the curve.
        """
        ...


class SecioCrypto(Protocol):
    """What secio needs beyond ``Crypto``."""

    def ephemeral(self, exchange: str, entropy: Entropy) -> EphemeralKey:
        """A new key on the curve with that name, one of ``EXCHANGES``."""
        ...

    def aes_ctr(self, key: bytes, iv: bytes) -> Callable[[Data], bytes]:
        """XORs pieces of any size with the key stream, in order. 16 or 32 bytes of key."""
        ...


@dataclass(slots=True)
class Propose:
    """The first message."""

    rand: bytes
    public_key: bytes
    exchanges: str
    ciphers: str
    hashes: str


@dataclass(slots=True)
class Exchange:
    """The second message."""

    ephemeral: bytes
    signature: bytes


PROPOSE = Schema(
    Propose,
    Field(1, "rand", BYTES, required=True),
    Field(2, "public_key", BYTES, required=True),
    Field(3, "exchanges", STRING, required=True),
    Field(4, "ciphers", STRING, required=True),
    Field(5, "hashes", STRING, required=True),
)
EXCHANGE = Schema(
    Exchange,
    Field(1, "ephemeral", BYTES, required=True),
    Field(2, "signature", BYTES, required=True),
)


class SecioSecurity:
    """Offers secio. Read first what it is worth: the top of this module.

    The three lists are what is offered, best first; LocalError for a name that is not in
    ``EXCHANGES``, ``CIPHERS`` or ``HASHES``.
    """

    protocol = PROTOCOL

    def __init__(
        self,
        key: PrivateKey,
        crypto: Crypto,
        entropy: Entropy,
        secio: SecioCrypto,
        *,
        exchanges: Sequence[str] = EXCHANGES,
        ciphers: Sequence[str] = CIPHERS,
        hashes: Sequence[str] = HASHES,
    ) -> None:
        self._key = key
        self._crypto = crypto
        self._entropy = entropy
        self._secio = secio
        self._offer = (
            _known("exchange", exchanges, EXCHANGES),
            _known("cipher", ciphers, CIPHERS),
            _known("hash", hashes, HASHES),
        )

    def start(
        self,
        *,
        initiator: bool,
        expected: PeerId | None,
        muxers: Sequence[str],
        write: Callable[[bytes], object],
        wall: float,
    ) -> "Secio":
        """Both roles do the same; there is no early choice of a muxer."""
        return Secio(
            key=self._key,
            crypto=self._crypto,
            entropy=self._entropy,
            secio=self._secio,
            offer=self._offer,
            expected=expected,
            write=write,
        )


class Secio(Channel):
    """One secure channel; our Propose goes out at construction.

    ``on_open()`` is called once, when the peer is authenticated and has shown that it has our
    keys; after it ``on_data(plaintext, now)``, once per frame. Both are to be assigned.
    ``expected`` is the only peer accepted, None for any.
    """

    __slots__ = (
        "_decrypt", "_encrypt", "_entropy", "_ephemeral", "_frame", "_key", "_limit", "_need",
        "_next", "_nonce", "_offer", "_order", "_proposals", "_remote_key", "_remote_nonce",
        "_secio", "_suite",
    )  # fmt: skip

    def __init__(
        self,
        *,
        key: PrivateKey,
        crypto: Crypto,
        entropy: Entropy,
        secio: SecioCrypto,
        offer: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]],
        expected: PeerId | None,
        write: Callable[[bytes], object],
    ) -> None:
        super().__init__(crypto, expected, write)
        self._key = key
        self._entropy = entropy
        self._secio = secio
        self._offer = offer
        # What came of a message in part, its length included, and how long that is to become.
        self._frame = bytearray()
        self._need = _HEADER
        self._limit = MAX_HANDSHAKE
        self._next: Callable[[Data, float], None] = self._on_propose
        self._encrypt: _Sealer | None = None
        self._decrypt: _Sealer | None = None
        self._nonce = entropy(_NONCE)
        exchanges, ciphers, hashes = map(",".join, offer)
        proposal = Propose(self._nonce, key.public.encode(), exchanges, ciphers, hashes)
        self._proposals = PROPOSE.encode(proposal), b""
        self._send(self._proposals[0])

    def __repr__(self) -> str:
        return f"<Secio, {self._state}>"

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the transport.

        Raises HandshakeError or PeerIdMismatch, and then again at every call: a channel on which
        one frame was wrong never yields another. Sealing a last word still works.
        """
        if self._failure is not None:
            self._raise_again()
        view = memoryview(data)
        pos, end = 0, len(data)
        try:
            while pos < end:
                if not self._frame and end - pos >= _HEADER:
                    start = pos + _HEADER
                    stop = start + self._size(view[pos:start])
                    if stop <= end:  # all of it is here: no copy
                        pos = stop
                        self._next(view[start:stop], now)
                        continue
                pos = self._collect(view, pos, now)
        except BaseException as error:
            self._remember(error)
            raise

    def receive_eof(self) -> None:
        """The transport will deliver no more; HandshakeError if that is in the middle of a message.

        The handshake counts as one. An end between two frames is not authenticated.
        """
        if not self.open:
            raise HandshakeError("the connection ended in the middle of the secio handshake")
        if self._frame:
            raise HandshakeError("the connection ended in the middle of a secio frame")

    def seal(self, chunks: list[bytes]) -> bytes:
        """The join of ``chunks`` for the transport, in frames of at most 64 KiB.

        LocalError before the channel is open.
        """
        if not self.open or self._encrypt is None:
            raise LocalError("the secure channel is not open")
        data = b"".join(chunks)
        if len(data) <= MAX_PLAINTEXT:
            return self._encrypt.seal(data) if data else b""
        view = memoryview(data)
        pieces = range(0, len(data), MAX_PLAINTEXT)
        return b"".join(self._encrypt.seal(view[pos : pos + MAX_PLAINTEXT]) for pos in pieces)

    # Messages out of bytes.

    def _size(self, header: Data) -> int:
        size = int.from_bytes(header, "big")
        if size > self._limit:
            what = "frame" if self._decrypt is not None else "handshake message"
            raise HandshakeError(f"a secio {what} of {size} bytes")
        return size

    def _collect(self, view: memoryview, pos: int, now: float) -> int:
        """Add to the message that is here in part; returns where ``view`` goes on."""
        frame = self._frame
        stop = min(pos + self._need - len(frame), len(view))
        frame += view[pos:stop]
        if len(frame) == _HEADER:
            self._need = _HEADER + self._size(frame)
        if len(frame) == self._need:  # a message of no bytes is complete with its header
            self._frame = bytearray()
            self._need = _HEADER
            self._next(memoryview(frame)[_HEADER:], now)
        return stop

    def _send(self, message: bytes) -> None:
        self._write(len(message).to_bytes(_HEADER, "big") + message)

    # The handshake.

    def _on_propose(self, message: Data, now: float) -> None:
        raw = bytes(message)
        theirs = _decoded(PROPOSE.decode, raw)
        if len(theirs.rand) != _NONCE:
            raise HandshakeError(f"a secio nonce of {len(theirs.rand)} bytes instead of {_NONCE}")
        key = _decoded(lambda data: PublicKey.decode(data, self._crypto), theirs.public_key)
        if key == self._key.public:
            raise HandshakeError("the peer has our own key: we talk to ourselves")
        ours = self._key.public.encode()
        our_lot = sha256(theirs.public_key + self._nonce).digest()
        their_lot = sha256(ours + theirs.rand).digest()
        if theirs.rand == self._nonce or our_lot == their_lot:
            raise HandshakeError("the peer repeats our own nonce")
        self._order = order = our_lot > their_lot
        lists = (theirs.exchanges, theirs.ciphers, theirs.hashes)
        names = zip(("exchange", "cipher", "hash"), self._offer, lists, strict=True)
        exchange, cipher, hash_ = (_choose(kind, own, text, order) for kind, own, text in names)
        self._suite = cipher, hash_
        self._proposals = own, _ = self._proposals[0], raw
        self._remote_key = key
        self._remote_nonce = theirs.rand
        self._ephemeral = self._secio.ephemeral(exchange, self._entropy)
        point = self._ephemeral.public
        self._send(EXCHANGE.encode(Exchange(point, self._key.sign(own + raw + point))))
        self._next = self._on_exchange

    def _on_exchange(self, message: Data, now: float) -> None:
        theirs = _decoded(EXCHANGE.decode, bytes(message))
        own, raw = self._proposals
        key = self._remote_key
        peer = key.peer_id
        if not key.verify(theirs.signature, raw + own + theirs.ephemeral):
            raise HandshakeError(f"{peer} did not sign this secio handshake")
        if self._expected is not None and peer != self._expected:
            raise PeerIdMismatch(f"expected {self._expected}, the peer is {peer}")
        secret = self._ephemeral.exchange(theirs.ephemeral)
        first, second = self._stretch(secret)
        self._encrypt, self._decrypt = (first, second) if self._order else (second, first)
        del self._ephemeral
        self._limit = MAX_FRAME
        self._next = self._on_nonce
        self._write(self._encrypt.seal(self._remote_nonce))

    def _on_nonce(self, message: Data, now: float) -> None:
        assert self._decrypt is not None
        if not hmac.compare_digest(self._decrypt.unseal(message), self._nonce):
            raise HandshakeError("the peer's first secio frame does not hold our nonce")
        self.public_key = self._remote_key
        self.peer = self._remote_key.peer_id
        self._next = self._on_frame
        self.open = True
        self.on_open()

    def _on_frame(self, message: Data, now: float) -> None:
        assert self._decrypt is not None
        plaintext = self._decrypt.unseal(message)
        if plaintext:
            self.on_data(plaintext, now)

    def _stretch(self, secret: bytes) -> "tuple[_Sealer, _Sealer]":
        """The ciphers of the side that won the lot, and of the other."""
        cipher, hash_ = self._suite
        name = hash_.lower()
        key_size = _KEY_SIZES[cipher]
        half = _IV + key_size + _MAC_KEY
        stretched = b""
        state = hmac.digest(secret, _SEED, name)
        while len(stretched) < 2 * half:
            stretched += hmac.digest(secret, state + _SEED, name)
            state = hmac.digest(secret, state, name)

        def sealer(at: int) -> _Sealer:
            iv = stretched[at : at + _IV]
            key = stretched[at + _IV : at + _IV + key_size]
            crypt = self._secio.aes_ctr(key, iv)
            return _Sealer(crypt, stretched[at + _IV + key_size : at + half], name)

        return sealer(0), sealer(half)


class _Sealer:
    """One direction: encrypt, then MAC."""

    __slots__ = ("_crypt", "_hash", "_key", "_tag")

    def __init__(self, crypt: Callable[[Data], bytes], key: bytes, hash_: str) -> None:
        self._crypt = crypt
        self._key = key
        self._hash = hash_
        self._tag = len(hmac.digest(key, b"", hash_))

    def seal(self, data: Data) -> bytes:
        """A frame with its length."""
        ciphertext = self._crypt(data)
        tag = hmac.digest(self._key, ciphertext, self._hash)
        return (len(ciphertext) + self._tag).to_bytes(_HEADER, "big") + ciphertext + tag

    def unseal(self, frame: Data) -> bytes:
        """The plaintext; HandshakeError, and nothing decrypted, unless the MAC is right."""
        size = len(frame) - self._tag
        if size < 0:
            raise HandshakeError(f"a secio frame of {len(frame)} bytes has no MAC")
        ciphertext = frame[:size]
        if not hmac.compare_digest(hmac.digest(self._key, ciphertext, self._hash), frame[size:]):
            raise HandshakeError("a secio frame is not authentic")
        return self._crypt(ciphertext)


_HEADER = 4
_NONCE = 16
_IV = 16
_MAC_KEY = 20
_SEED = b"key expansion"
_KEY_SIZES = {"AES-256": 32, "AES-128": 16}


def _known(kind: str, names: Sequence[str], allowed: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in allowed:
            raise LocalError(f"no secio {kind} is called {name!r}: there are {', '.join(allowed)}")
    if not names:
        raise LocalError(f"secio needs at least one {kind}")
    return tuple(names)


def _decoded(decode: Callable[[bytes], T], data: bytes) -> T:
    try:
        return decode(data)
    except DecodeError as error:
        raise HandshakeError(f"the secio handshake is malformed: {error}") from None


def _choose(kind: str, ours: tuple[str, ...], text: str, ours_first: bool) -> str:
    """The first name of the side that won the lot that the other has too."""
    if len(text) > MAX_LIST:
        raise HandshakeError(f"the peer's list of secio {kind}s has {len(text)} characters")
    theirs = text.split(",")
    preferring, other = (ours, theirs) if ours_first else (theirs, ours)
    chosen = next((name for name in preferring if name in other), None)
    if chosen is None:
        raise HandshakeError(f"the peer has no secio {kind} of ours ({', '.join(ours)})")
    return chosen
