"""Identity keys: who a peer is.

Spec: https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md

    PublicKey, PrivateKey   { 1: kind, 2: data }, both always written, in this order
          |
       peer id              a hash of the encoded public key, so that encoding is unique

Formats of ``data`` and signatures: crypto.py. What is not unique about a key that a peer sends
(unknown fields, another order) is dropped when it is decoded: the peer id is that of the canonical
form, as with go peers.
"""

from dataclasses import dataclass, field
from typing import NoReturn

from .crypto import Crypto, Entropy, KeyType, Signer, Verifier, is_simulated
from .errors import DecodeError
from .peer_id import PeerId
from .protobuf import BYTES, UINT, Field, Schema


class PublicKey:
    """A valid public key that can verify; ``data`` is the libp2p ``Data`` field.

    Made by ``decode``; the constructor is for keys whose verifier is at hand.
    """

    __slots__ = ("_encoded", "_peer_id", "_verifier", "data", "kind")

    def __init__(self, kind: KeyType, data: bytes, verifier: Verifier) -> None:
        self.kind = kind
        self.data = data
        self._verifier = verifier
        self._encoded = _KEY.encode(_Key(kind, data))
        self._peer_id: PeerId | None = None

    @classmethod
    def decode(cls, data: bytes, crypto: Crypto) -> "PublicKey":
        """The key in a PublicKey message; DecodeError unless the provider accepts it."""
        kind, key = _decode(data)
        return cls(kind, key, crypto.load_public(kind, key))

    @classmethod
    def from_peer_id(cls, peer_id: PeerId, crypto: Crypto) -> "PublicKey | None":
        """The key inside the peer id; None if it holds a hash, DecodeError if it holds no key."""
        inline = peer_id.inline_key()
        if inline is None:
            return None
        key = cls.decode(inline, crypto)
        if key._encoded != inline:
            raise DecodeError("the key inside the peer id is not canonical: it has another id")
        return key

    def encode(self) -> bytes:
        """The PublicKey message: what is hashed into the peer id."""
        return self._encoded

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether the owner of this key signed ``message``. Never raises."""
        return self._verifier.verify(signature, message)

    @property
    def peer_id(self) -> PeerId:
        if self._peer_id is None:
            self._peer_id = PeerId.from_public_key(self._encoded)
        return self._peer_id

    def __eq__(self, other: object) -> bool:
        return self._encoded == other._encoded if isinstance(other, PublicKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._encoded)

    def __repr__(self) -> str:
        return f"<PublicKey {self.kind.name} {self.peer_id}>"


class PrivateKey:
    """A key that can sign; whoever holds it is that peer.

    The secret stays inside the provider's signer: it is not in ``repr``, and the object is neither
    copied nor pickled. Python cannot erase memory, so that nothing here promises to.
    ``simulated`` is True for keys made from seeded entropy, which anybody can make again: neither
    key files nor real transports take them.
    """

    __slots__ = ("_signer", "public", "simulated")

    def __init__(self, signer: Signer, public: PublicKey, *, simulated: bool = False) -> None:
        self._signer = signer
        self.public = public
        self.simulated = simulated

    @classmethod
    def generate(
        cls,
        crypto: Crypto,
        entropy: Entropy,
        kind: KeyType = KeyType.ED25519,
        *,
        bits: int = 2048,
    ) -> "PrivateKey":
        """A new key; ``bits`` is for RSA. LocalError if the provider cannot make it."""
        signer = crypto.generate(kind, entropy, bits)
        return cls._join(kind, signer, crypto, is_simulated(entropy))

    @classmethod
    def decode(cls, data: bytes, crypto: Crypto) -> "PrivateKey":
        """The key in a PrivateKey message; DecodeError unless the provider accepts it."""
        kind, key = _decode(data)
        return cls._join(kind, crypto.load_private(kind, key), crypto, False)

    @classmethod
    def _join(cls, kind: KeyType, signer: Signer, crypto: Crypto, simulated: bool) -> "PrivateKey":
        public = signer.public
        verifier = crypto.load_public(kind, public)
        return cls(signer, PublicKey(kind, public, verifier), simulated=simulated)

    def encode(self) -> bytes:
        """The PrivateKey message, the secret in the clear: for storage, never for a peer.

        LocalError if the provider does not hand the secret out.
        """
        return _KEY.encode(_Key(self.kind, self._signer.private))

    def sign(self, message: bytes) -> bytes:
        """A signature that ``public`` verifies."""
        return self._signer.sign(message)

    @property
    def kind(self) -> KeyType:
        return self.public.kind

    @property
    def peer_id(self) -> PeerId:
        return self.public.peer_id

    def __repr__(self) -> str:
        return f"<PrivateKey {self.kind.name} {self.peer_id}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("private keys are neither pickled nor copied; use encode() to store one")


@dataclass(slots=True)
class _Key:
    """PublicKey and PrivateKey have the same fields."""

    kind: int
    data: bytes = field(repr=False)  # it may be a private key


_KEY = Schema(_Key, Field(1, "kind", UINT, required=True), Field(2, "data", BYTES, required=True))


def _decode(data: bytes) -> tuple[KeyType, bytes]:
    key = _KEY.decode(data)
    try:
        return KeyType(key.kind), key.data
    except ValueError:
        raise DecodeError(f"unknown key type {key.kind}") from None
