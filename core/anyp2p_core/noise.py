"""/noise: prove who we are, learn who the peer is, and seal everything that follows.

Specs: https://github.com/libp2p/specs/blob/master/noise/README.md
       https://noiseprotocol.org/noise.html (revision 34, Noise_XX_25519_ChaChaPoly_SHA256)

    initiator    1: e                        ->
                                             <-    2: e, ee, s, es, payload    responder
                 3: s, se, payload           ->
                 sealed data                <->    sealed data

    payload    the identity key, its signature of s, and the muxers on offer

Every message, sealed ones included, travels behind its length in two bytes, big-endian.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from struct import Struct
from typing import cast

from .channel import Channel
from .crypto import X25519, Aead, Crypto, Entropy
from .errors import DecodeError, HandshakeError, LocalError, PeerIdMismatch
from .keys import PrivateKey, PublicKey
from .peer_id import PeerId
from .protobuf import BYTES, STRING, Field, Schema
from .secret import Secret
from .varint import Data

MAX_PLAINTEXT = 65519
"""What one sealed message holds: a length of 65535 less the tag."""
MAX_PAYLOAD = 16 * 1024
"""Longest handshake payload accepted; an RSA identity of 8192 bits needs 2 KiB."""
MAX_MUXERS = 100
"""Muxers that a peer may offer."""


class NoiseKeys(Secret):
    """A node's static key, signed by its identity: one for all its connections."""

    __slots__ = ("static", "_identity_key", "_payloads", "_signature")

    def __init__(self, identity: PrivateKey, crypto: Crypto, entropy: Entropy) -> None:
        self.static = crypto.x25519(entropy(32))
        self._identity_key = identity.public.encode()
        self._signature = identity.sign(_DOMAIN + self.static.public)
        self._payloads: dict[tuple[str, ...], bytes] = {}

    def payload(self, muxers: tuple[str, ...]) -> bytes:
        """What both roles say about themselves; encoded once per list of muxers."""
        encoded = self._payloads.get(muxers)
        if encoded is None:
            extensions = _Extensions(list(muxers)) if muxers else None
            payload = _Payload(self._identity_key, self._signature, extensions)
            encoded = self._payloads[muxers] = _PAYLOAD.encode(payload)
        return encoded


class Noise(Channel):
    """One secure channel. The initiator writes message 1 at construction.

    ``on_open()`` is called once, when the peer is authenticated and ``peer``, ``public_key`` and
    ``muxer`` are set; after it ``on_data(plaintext, now)``, once per sealed message. Both are to be
    assigned. ``muxer`` is the first of the initiator's ``muxers`` that the responder has as well,
    None if there is none or one side names none: negotiate by multistream then. ``expected`` is
    the only peer accepted, None for any.
    """

    __slots__ = (
        "_decrypt", "_encrypt", "_frame", "_handshake", "_initiator", "_invalid_tag", "_keys",
        "_missing", "_muxers", "_received", "_sent",
    )  # fmt: skip

    def __init__(
        self,
        *,
        initiator: bool,
        keys: NoiseKeys,
        crypto: Crypto,
        entropy: Entropy,
        write: Callable[[bytes], object],
        muxers: Sequence[str] = (),
        expected: PeerId | None = None,
        prologue: bytes = b"",
    ) -> None:
        super().__init__(crypto, expected, write)
        self._initiator = initiator
        self._keys = keys
        self._invalid_tag = crypto.invalid_tag
        self._muxers = tuple(muxers)
        # A frame that came in part: its length, the bytes that came, and how many are missing.
        self._frame = bytearray()
        self._missing = 0
        self._encrypt: _Cipher | None = None
        self._decrypt: _Cipher | None = None
        self._sent = 0
        self._received = 0
        self._handshake: Handshake | None = Handshake(
            initiator, keys.static, crypto, entropy, prologue
        )
        if initiator:
            self._send(self._handshake.write(b""))

    def __repr__(self) -> str:
        role = "initiator" if self._initiator else "responder"
        return f"<Noise {role}, {self._state}>"

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the transport.

        Raises HandshakeError or PeerIdMismatch, and then again at every call: a channel on which
        one message was wrong never yields another. Sealing a last word still works.
        """
        if self._failure is not None:
            self._raise_again()
        pos, end = 0, len(data)
        try:
            if self._missing:
                pos = self._resume(data, now)
            while end - pos > 1:
                size = data[pos] << 8 | data[pos + 1]
                if size < _TAG:
                    raise HandshakeError(f"a noise message of {size} bytes")
                start = pos + 2
                pos = start + size
                if pos > end:
                    self._frame = bytearray(memoryview(data)[start - 2 :])
                    self._missing = pos - end
                    return
                # Below this size a copy costs less than a view.
                self._on_frame(data[start:pos] if size < 4096 else memoryview(data)[start:pos], now)
            if pos < end:
                self._frame = bytearray(data[pos:])
                self._missing = 1
        except BaseException as error:
            self._remember(error)
            raise

    def receive_eof(self) -> None:
        """The transport will deliver no more; HandshakeError if that is in the middle of a message.

        The handshake counts as one. An end between two sealed messages is not authenticated: the
        layers above tell whether something is missing.
        """
        if not self.open:
            raise HandshakeError("the connection ended in the middle of the noise handshake")
        if self._missing:
            raise HandshakeError("the connection ended in the middle of a noise message")

    def seal(self, chunks: list[bytes]) -> bytes:
        """The join of ``chunks`` for the transport, as one message if it is up to 65519 bytes.

        LocalError before the channel is open.
        """
        encrypt = self._encrypt
        if encrypt is None:
            raise LocalError("the secure channel is not open")
        data = b"".join(chunks)
        size = len(data)
        nonce = self._sent
        if size > MAX_PLAINTEXT:
            return self._seal_many(encrypt, memoryview(data))
        if not size:
            return b""
        if nonce == _LAST_NONCE:
            raise LocalError(_EXHAUSTED)
        sealed = encrypt(_pack_nonce(nonce), data, b"")
        self._sent = nonce + 1
        return _pack_length(size + _TAG) + sealed

    def _seal_many(self, encrypt: "_Cipher", data: memoryview) -> bytes:
        size = len(data)
        nonce = self._sent
        if nonce + (size - 1) // MAX_PLAINTEXT >= _LAST_NONCE:
            raise LocalError(_EXHAUSTED)
        parts: list[bytes] = []
        for pos in range(0, size, MAX_PLAINTEXT):
            sealed = encrypt(_pack_nonce(nonce), data[pos : pos + MAX_PLAINTEXT], b"")
            nonce += 1
            parts += (_pack_length(len(sealed)), sealed)
        self._sent = nonce
        return b"".join(parts)

    def _resume(self, data: bytes, now: float) -> int:
        """Complete the frame that earlier chunks began; returns where ``data`` goes on."""
        frame = self._frame
        pos = 0
        if len(frame) == 1 and data:
            frame += data[:1]
            pos = 1
            self._missing = frame[0] << 8 | frame[1]
            if self._missing < _TAG:
                raise HandshakeError(f"a noise message of {self._missing} bytes")
        stop = min(pos + self._missing, len(data))
        frame += memoryview(data)[pos:stop]
        self._missing -= stop - pos
        if not self._missing:
            self._frame = bytearray()
            self._on_frame(memoryview(frame)[2:], now)
        return stop

    def _on_frame(self, frame: Data, now: float) -> None:
        decrypt = self._decrypt
        if decrypt is None:
            self._on_handshake(bytes(frame))
            return
        nonce = self._received
        if nonce == _LAST_NONCE:
            raise HandshakeError(_EXHAUSTED)
        try:
            plaintext = decrypt(_pack_nonce(nonce), frame, b"")
        except self._invalid_tag:
            raise HandshakeError("a sealed message is not authentic") from None
        self._received = nonce + 1
        if plaintext:
            self.on_data(plaintext, now)

    def _on_handshake(self, message: bytes) -> None:
        handshake = self._handshake
        assert handshake is not None
        payload = handshake.read(message)
        if len(payload) > MAX_PAYLOAD:
            raise HandshakeError(f"a noise payload of {len(payload)} bytes")
        if handshake.step == 1:  # what message 1 carries has no meaning: nobody signed it
            self._send(handshake.write(self._keys.payload(self._muxers)))
            return
        key, theirs = self._verify(payload, handshake.remote_static)
        self.public_key = key
        self.peer = key.peer_id
        if self._initiator:
            self.muxer = _first_common(self._muxers, theirs)
            self._send(handshake.write(self._keys.payload(self._muxers)))
        else:
            self.muxer = _first_common(theirs, self._muxers)
        sending, receiving = handshake.split()
        # Views instead of slices spare a copy of every large message.
        self._encrypt = cast("_Cipher", sending.encrypt)
        self._decrypt = cast("_Cipher", receiving.decrypt)
        self._handshake = None
        self.open = True
        self.on_open()

    def _verify(self, data: bytes, static: bytes) -> tuple[PublicKey, Sequence[str]]:
        """The key that vouches for ``static``, and the muxers its owner offers."""
        try:
            payload = _PAYLOAD.decode(data)
            key = PublicKey.decode(payload.identity_key, self._crypto)
        except DecodeError as error:
            raise HandshakeError(f"the peer's identity is malformed: {error}") from error
        if not key.verify(payload.identity_sig, _DOMAIN + static):
            raise HandshakeError(f"{key.peer_id} did not sign the peer's noise key")
        if self._expected is not None and key.peer_id != self._expected:
            raise PeerIdMismatch(f"expected {self._expected}, the peer is {key.peer_id}")
        return key, payload.extensions.stream_muxers if payload.extensions else ()

    def _send(self, message: bytes) -> None:
        self._write(_pack_length(len(message)) + message)


_Cipher = Callable[[bytes, Data, bytes], bytes]


class Handshake(Secret):
    """The XX pattern with any payloads: three messages written or read in turn, then ``split``.

    ``step`` counts the messages so far; ``hash`` covers them all and names the session.
    """

    __slots__ = (
        "hash", "remote_static", "step",
        "_chaining_key", "_cipher", "_crypto", "_entropy", "_ephemeral", "_initiator", "_nonce",
        "_remote_ephemeral", "_static",
    )  # fmt: skip

    def __init__(
        self, initiator: bool, static: X25519, crypto: Crypto, entropy: Entropy, prologue: bytes
    ) -> None:
        self.step = 0
        self.hash = sha256(_NAME + prologue).digest()
        self.remote_static = b""
        self._chaining_key = _NAME
        self._cipher: Aead | None = None
        self._nonce = 0
        self._initiator = initiator
        self._static = static
        self._ephemeral: X25519 | None = None
        self._remote_ephemeral = b""
        self._crypto = crypto
        self._entropy = entropy

    def write(self, payload: bytes) -> bytes:
        """The next message."""
        parts: list[bytes] = []
        for token in _PATTERN[self.step]:
            if token == "e":
                self._ephemeral = self._crypto.x25519(self._entropy(32))
                parts.append(self._ephemeral.public)
                self._mix_hash(self._ephemeral.public)
            elif token == "s":
                parts.append(self._encrypt_and_hash(self._static.public))
            else:
                self._mix_key(self._agree(token))
        parts.append(self._encrypt_and_hash(payload))
        self.step += 1
        return b"".join(parts)

    def read(self, message: bytes) -> bytes:
        """The payload of the peer's next message; HandshakeError if it is not authentic."""
        if len(message) < _SHORTEST[self.step]:
            raise HandshakeError(f"noise message {self.step + 1} of {len(message)} bytes")
        pos = 0
        for token in _PATTERN[self.step]:
            if token == "e":
                pos = 32
                self._remote_ephemeral = message[:pos]
                self._mix_hash(self._remote_ephemeral)
            elif token == "s":
                start, pos = pos, pos + 32 + _TAG
                self.remote_static = self._decrypt_and_hash(message[start:pos])
            else:
                self._mix_key(self._agree(token))
        payload = self._decrypt_and_hash(message[pos:])
        self.step += 1
        return payload

    def split(self) -> tuple[Aead, Aead]:
        """The ciphers for sending and for receiving, with new counters."""
        keys = _hkdf(self._chaining_key, b"")
        ours, theirs = keys if self._initiator else reversed(keys)
        return self._crypto.chacha20poly1305(ours), self._crypto.chacha20poly1305(theirs)

    def _agree(self, token: str) -> bytes:
        """Diffie-Hellman; the token names the initiator's key, then the responder's."""
        ours = 0 if self._initiator else 1
        private = self._ephemeral if token[ours] == "e" else self._static
        public = self._remote_ephemeral if token[1 - ours] == "e" else self.remote_static
        assert private is not None
        return private.exchange(public)

    def _mix_hash(self, data: bytes) -> None:
        self.hash = sha256(self.hash + data).digest()

    def _mix_key(self, secret: bytes) -> None:
        self._chaining_key, key = _hkdf(self._chaining_key, secret)
        self._cipher = self._crypto.chacha20poly1305(key)
        self._nonce = 0

    def _encrypt_and_hash(self, data: bytes) -> bytes:
        if self._cipher is not None:
            data = self._cipher.encrypt(_pack_nonce(self._nonce), data, self.hash)
            self._nonce += 1
        self._mix_hash(data)
        return data

    def _decrypt_and_hash(self, data: bytes) -> bytes:
        plain = data
        if self._cipher is not None:
            try:
                plain = self._cipher.decrypt(_pack_nonce(self._nonce), data, self.hash)
            except self._crypto.invalid_tag:
                raise HandshakeError(f"noise message {self.step + 1} is not authentic") from None
            self._nonce += 1
        self._mix_hash(data)
        return plain


@dataclass(slots=True, eq=False)
class _Extensions:
    """What one may know before the upgrade is over."""

    stream_muxers: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Payload:
    """What handshake messages 2 and 3 carry."""

    identity_key: bytes
    identity_sig: bytes
    extensions: _Extensions | None = None


_EXTENSIONS = Schema(
    _Extensions, Field(2, "stream_muxers", STRING, repeated=True, limit=MAX_MUXERS)
)
_PAYLOAD = Schema(
    _Payload,
    Field(1, "identity_key", BYTES, required=True),
    Field(2, "identity_sig", BYTES, required=True),
    Field(4, "extensions", _EXTENSIONS),
)

_DOMAIN = b"noise-libp2p-static-key:"
_NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"
_TAG = 16
# Message by message, its parts before the payload.
_PATTERN = (("e",), ("e", "ee", "s", "es"), ("s", "se"))
_SHORTEST = (32, 32 + 48 + _TAG, 48 + _TAG)

_LAST_NONCE = 2**64 - 1  # reserved by Noise
_EXHAUSTED = "the secure channel has used all its nonces: open a new connection"
_pack_nonce = Struct("<4xQ").pack
_pack_length = Struct(">H").pack

_INNER = bytes(n ^ 0x36 for n in range(256))
_OUTER = bytes(n ^ 0x5C for n in range(256))


def _hkdf(chaining_key: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """Two keys of 32 bytes."""
    temporary = _hmac(chaining_key, secret)
    first = _hmac(temporary, b"\x01")
    return first, _hmac(temporary, first + b"\x02")


def _hmac(key: bytes, data: bytes) -> bytes:
    # By hand, for keys of 32 bytes: a third faster than the standard library's.
    key = key.ljust(64, b"\0")
    return sha256(key.translate(_OUTER) + sha256(key.translate(_INNER) + data).digest()).digest()


def _first_common(initiators: Sequence[str], responders: Sequence[str]) -> str | None:
    return next((muxer for muxer in initiators if muxer in responders), None)
