"""What a crypto provider and a source of randomness must offer; no algorithm is in here.

Specs: https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md
       https://www.rfc-editor.org/rfc/rfc7748 (X25519), rfc8439 (ChaCha20-Poly1305)

      keys, envelope, noise ...            the machines know these interfaces alone
               |
        Crypto, Entropy, Choice
               |
      anyp2p.providers.crypto, .entropy    libraries and the operating system

Constant time is the library's business: a provider wraps a library and never does arithmetic on
secrets itself. ``KeyType`` numbers and the ``Data`` formats are those of the libp2p key message:

    kind        public                          private                       signature
    RSA         SubjectPublicKeyInfo DER        PKCS#1 DER                    PKCS#1 v1.5, SHA-256
    ED25519     32 bytes                        seed + public, 64 bytes       RFC 8032, 64 bytes
    SECP256K1   compressed point, 33 bytes      scalar, 32 bytes              DER, SHA-256, low S
    ECDSA       SubjectPublicKeyInfo DER        SEC1 ECPrivateKey DER         DER, SHA-256
"""

from enum import IntEnum
from typing import Protocol, TypeVar

T = TypeVar("T")


class KeyType(IntEnum):
    """The kinds of identity key, numbered as on the wire."""

    RSA = 0
    ED25519 = 1
    SECP256K1 = 2
    ECDSA = 3


class Entropy(Protocol):
    """Secret randomness: keys, nonces, ephemerals.

    A real source declares ``simulated = False``; one that does not is taken for a seeded one.
    """

    def __call__(self, n: int, /) -> bytes:
        """Exactly ``n`` fresh bytes."""
        ...


def is_simulated(entropy: Entropy) -> bool:
    """Whether anybody can make the same keys again: True unless the source says False.

    Such keys are marked, and neither key files nor real transports take them.
    """
    return getattr(entropy, "simulated", True) is not False


class Choice(Protocol):
    """Randomness that needs no secrecy: shuffles, jitter, sampling."""

    def random(self) -> float:
        """A float in [0, 1)."""
        ...

    def below(self, n: int, /) -> int:
        """An integer in [0, n); ``n`` is at least 1."""
        ...

    def shuffle(self, items: list[T], /) -> None:
        """Reorder the list in place."""
        ...

    def sample(self, items: list[T], k: int, /) -> list[T]:
        """``k`` different items in random order; all of them when there are fewer."""
        ...


class Aead(Protocol):
    """ChaCha20-Poly1305 under one key. Nonces are 12 bytes; the caller never repeats one."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """The ciphertext with its 16-byte tag."""
        ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """The plaintext. Raises ``Crypto.invalid_tag``, also if ``data`` is too short for a tag."""
        ...


class X25519(Protocol):
    """One private Diffie-Hellman key."""

    @property
    def public(self) -> bytes:
        """32 bytes."""
        ...

    def exchange(self, public: bytes, /) -> bytes:
        """The 32-byte shared secret.

        Raises HandshakeError on a low-order point, which makes the secret all zero, and on a
        wrong length.
        """
        ...


class Signer(Protocol):
    """A private identity key, or a handle to one that lives elsewhere."""

    @property
    def public(self) -> bytes:
        """The ``Data`` of the public half."""
        ...

    @property
    def private(self) -> bytes:
        """The ``Data`` of the private half. Raises LocalError if the key cannot be exported."""
        ...

    def sign(self, message: bytes, /) -> bytes:
        """The signature in the format of the table above; secp256k1 always with a low S."""
        ...


class Verifier(Protocol):
    """A public identity key."""

    def verify(self, signature: bytes, message: bytes, /) -> bool:
        """Whether the signature is good. A malformed one is False, never an exception.

        DER must be minimal, R and S below the order of the group. A high S is accepted: only
        secp256k1 asks for a low one, and of the signer.
        """
        ...


class Crypto(Protocol):
    """A crypto library as the machines see it."""

    invalid_tag: type[Exception]
    """What ``Aead.decrypt`` raises."""

    def chacha20poly1305(self, key: bytes, /) -> Aead:
        """A cipher under a 32-byte key. The library's own object if it fits: this is hot."""
        ...

    def x25519(self, private: bytes, /) -> X25519:
        """The key of 32 bytes from ``Entropy``."""
        ...

    def generate(self, kind: KeyType, entropy: Entropy, bits: int = 2048) -> Signer:
        """A new identity key, ``bits`` long if RSA; ECDSA means P-256.

        Equal entropy gives equal keys. Where the library draws its own randomness (RSA), simulated
        entropy is refused with LocalError instead.
        """
        ...

    def load_private(self, kind: KeyType, data: bytes, /) -> Signer:
        """The key in the libp2p ``Data`` field. Raises DecodeError.

        The public half is computed anew, and any copy of it inside ``data`` must equal it.
        """
        ...

    def load_public(self, kind: KeyType, data: bytes, /) -> Verifier:
        """The key in the libp2p ``Data`` field. Raises DecodeError.

        ``data`` comes from the peer: its size and encoding are checked before any arithmetic, only
        the one canonical encoding of a key is accepted (the peer id is a hash of it), RSA has 2048
        to 8192 bits and an odd exponent from 3 to 2**32 - 1.
        """
        ...
