"""Private networks: only peers that hold the same secret key understand each other.

Spec: https://github.com/libp2p/specs/blob/master/pnet/Private-Networks-PSK-V1.md

    both sides at once    24 random bytes in the clear: the nonce of what this side sends
    then                  every byte of either side, XORed with XSalsa20(key, nonce of the sender)

There is no handshake, no framing and no MAC: whoever changes a byte on the way changes that byte,
and a peer with another key sends what looks like noise. It keeps strangers out; who a peer is, and
that nothing was changed, is the business of the secure channel above.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import shake_128
from hmac import compare_digest
from typing import TYPE_CHECKING, NoReturn, Protocol

from .crypto import Entropy, is_simulated
from .errors import DecodeError, HandshakeError, LocalError
from .layer import Write
from .secret import Secret
from .varint import Data

if TYPE_CHECKING:
    from .route import Route

KEY_SIZE = 32
NONCE_SIZE = 24
MAX_TEXT = 1024
"""Longest key file that is looked at."""
HINT = "it may use another pre-shared key, or none"
"""What to tell of a connection that failed before the peer said anything that makes sense."""


class StreamCipher(Protocol):
    """XORs data with a key stream and moves on in it: pieces of any size, in order."""

    def __call__(self, data: Data, /) -> bytes: ...


class Ciphers(Protocol):
    """A library that has the Salsa20 family, which ``Crypto`` need not have."""

    def salsa20(self, key: bytes, nonce: bytes, /) -> StreamCipher:
        """Salsa20 under a key of 32 bytes and a nonce of 8."""
        ...

    def xsalsa20(self, key: bytes, nonce: bytes, /) -> StreamCipher:
        """XSalsa20 under a key of 32 bytes and a nonce of 24. Both may be the peer's choice."""
        ...


class PreSharedKey:
    """The secret of a private network.

    It is in neither ``repr`` nor any message, and the object is neither copied nor pickled.
    ``simulated`` is True for a key made from seeded entropy, which anybody can make again.
    """

    __slots__ = ("_key", "simulated")

    def __init__(self, key: bytes, *, simulated: bool = False) -> None:
        if len(key) != KEY_SIZE:
            raise LocalError(f"a pre-shared key has {KEY_SIZE} bytes, not {len(key)}")
        self._key = bytes(key)
        self.simulated = simulated

    @classmethod
    def generate(cls, entropy: Entropy) -> "PreSharedKey":
        return cls(entropy(KEY_SIZE), simulated=is_simulated(entropy))

    @classmethod
    def parse(cls, content: str | bytes) -> "PreSharedKey":
        """The key in the content of a ``swarm.key`` file; DecodeError says what is wrong with it.

        Line ends may be those of Windows. After ``/bin/`` come the 32 bytes and nothing else.
        """
        key, problem = _parse(content)
        if problem:
            raise DecodeError(f"not a pre-shared key: {problem}")
        return cls(key)

    def to_text(self) -> str:
        """The content of a ``swarm.key`` file, the secret in the clear: for storage only."""
        return f"{_PATH}\n/base16/\n{self._key.hex()}\n"

    def cipher(self, ciphers: Ciphers, nonce: bytes) -> StreamCipher:
        """The cipher of one direction of one connection."""
        return ciphers.xsalsa20(self._key, nonce)

    def fingerprint(self, ciphers: Ciphers) -> str:
        """32 hex digits that name the key and do not reveal it; the same as go peers print."""
        stream = ciphers.salsa20(self._key, b"finprint")(bytes(64))
        return shake_128(stream).hexdigest(16)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PreSharedKey):
            return NotImplemented
        return compare_digest(self._key, other._key)

    __hash__ = None  # type: ignore[assignment]  # no table is to be keyed by a secret

    def __repr__(self) -> str:
        return "<PreSharedKey>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("pre-shared keys are neither pickled nor copied; to_text() stores one")


class Pnet(Secret):
    """One connection of a private network: a ``Layer`` that is open at once.

    The nonce goes out at construction. That the peer's key is another one is not seen here: what
    comes looks like noise to multistream-select.
    """

    __slots__ = (
        "on_data", "on_end", "on_open", "open",
        "_decrypt", "_encrypt", "_head", "_key", "_ciphers", "_nonce",
    )  # fmt: skip

    def __init__(
        self, key: PreSharedKey, *, ciphers: Ciphers, entropy: Entropy, write: Write
    ) -> None:
        self.open = True
        self.on_open: Callable[[float], object] = _ignore
        self.on_data: Callable[[bytes, float], object] = _ignore
        self.on_end: Callable[[float], object] = _ignore
        self._key = key
        self._ciphers = ciphers
        self._nonce = entropy(NONCE_SIZE)
        if len(self._nonce) != NONCE_SIZE:
            raise LocalError(f"entropy gave {len(self._nonce)} bytes instead of {NONCE_SIZE}")
        self._encrypt = key.cipher(ciphers, self._nonce)
        self._decrypt: StreamCipher | None = None
        self._head = b""  # of the peer's nonce, as far as it came
        write(self._nonce)

    def __repr__(self) -> str:
        return f"<Pnet {'without' if self._decrypt is None else 'with'} the peer's nonce>"

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the transport. HandshakeError if the nonce cannot be that of a peer."""
        if self._decrypt is None:
            missing = NONCE_SIZE - len(self._head)
            self._head += data[:missing]
            if len(self._head) < NONCE_SIZE:
                return
            self._decrypt = self._start(self._head)
            data = data[missing:]
        if data:
            self.on_data(self._decrypt(data), now)

    def receive_eof(self) -> None:
        """HandshakeError if the peer's nonce has not come."""
        if self._decrypt is None:
            raise HandshakeError(f"the peer closed the connection before its nonce: {HINT}")

    def seal(self, chunks: list[bytes]) -> bytes:
        """The pieces, encrypted; as many bytes as they have."""
        return self._encrypt(chunks[0] if len(chunks) == 1 else b"".join(chunks))

    def finish(self) -> bytes:
        """Nothing: the end is that of the transport."""
        return b""

    def _start(self, nonce: bytes) -> StreamCipher:
        if compare_digest(nonce, self._nonce):
            # Both directions would have the same key stream, and be read without the key.
            raise HandshakeError("the peer sent our own nonce back: it is a mirror, not a peer")
        if nonce.startswith(_GREETING):
            raise HandshakeError("the peer uses no pre-shared key: it speaks in the clear")
        return self._key.cipher(self._ciphers, nonce)


class PrivateNetwork:
    """Puts every connection of a node behind one key: the ``LayerMaker`` of ``Pnet``."""

    __slots__ = ("_ciphers", "_entropy", "key")

    def __init__(self, key: PreSharedKey, ciphers: Ciphers, entropy: Entropy) -> None:
        self.key = key
        self._ciphers = ciphers
        self._entropy = entropy

    def check(self, route: "Route") -> None:
        """Any route will do."""

    def start(self, *, initiator: bool, route: "Route | None", write: Write) -> Pnet:
        return Pnet(self.key, ciphers=self._ciphers, entropy=self._entropy, write=write)


_PATH = "/key/swarm/psk/1.0.0/"
_ENCODINGS = "/base16/, /base64/ or /bin/"
_GREETING = b"\x13/multistream/1.0.0\n"


def _parse(content: str | bytes) -> tuple[bytes, str]:
    """The key, or what is wrong; not raised in here, so that no traceback shows what came."""
    if len(content) > MAX_TEXT:
        return b"", f"it is longer than {MAX_TEXT} characters"
    raw = content.encode("utf-8", "replace") if isinstance(content, str) else bytes(content)
    path, _, rest = raw.partition(b"\n")
    encoding, _, value = rest.partition(b"\n")
    if path.removesuffix(b"\r") != _PATH.encode():
        return b"", f"the first line of the file must be {_PATH}"
    kind = encoding.removesuffix(b"\r")
    if kind == b"/bin/":
        if isinstance(content, str):
            return b"", "a key in /bin/ is no text: read the file as bytes"
        return value, _wrong_size(value, "/bin/")
    if kind not in (b"/base16/", b"/base64/"):
        return b"", f"the second line of the file must be {_ENCODINGS}"
    digits = value.removesuffix(b"\n").removesuffix(b"\r")
    if not digits:
        return b"", "the third line of the file, the key itself, is missing"
    try:
        if kind == b"/base16/":
            # fromhex would overlook blanks, b16decode would not overlook the case
            text = digits.decode("ascii")
            key = bytes.fromhex(text) if text.isalnum() else b""
        else:
            key = b64decode(digits)  # overlooks what is no digit
            key = key if b64encode(key) == digits else b""
    except ValueError:
        key = b""
    name = kind.decode()
    if not key:
        return b"", f"the third line of the file must be the key in {name}, and the last line"
    return key, _wrong_size(key, name)


def _wrong_size(key: bytes, encoding: str) -> str:
    if len(key) == KEY_SIZE:
        return ""
    return f"there must be {KEY_SIZE} bytes in {encoding}, and there are {len(key)}"


def _ignore(*_: object) -> None:
    """The callbacks' default."""
