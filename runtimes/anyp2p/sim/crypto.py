"""What simulated nodes use for cryptography: a cheap pretence, or the real thing with a memory.

security="null"    NullCrypto: identities look like Ed25519, signatures are hashes that anybody
                   can make; there are no ciphers
security="noise"   RememberingCrypto: another provider whose verifications are remembered, since
                   in one process many nodes check the same signature of the same key
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import TypeVar

from anyp2p_core.crypto import X25519, Aead, Crypto, Entropy, KeyType, Signer, Verifier
from anyp2p_core.errors import DecodeError, LocalError

K = TypeVar("K")
V = TypeVar("V")

MAX_REMEMBERED = 65536
"""Signatures, and keys."""
MAX_MESSAGE = 4096
"""Longer messages are verified each time."""


class NoCipher(Exception):
    """Never raised: null security has no ciphers."""


class NullCrypto(Crypto):
    """Identities without security and without cost."""

    invalid_tag = NoCipher

    def __init__(self) -> None:
        self._verifiers: dict[bytes, NullVerifier] = {}

    def chacha20poly1305(self, key: bytes) -> Aead:
        raise LocalError("null security has no ciphers: use World(security='noise')")

    def x25519(self, private: bytes) -> X25519:
        raise LocalError("null security has no ciphers: use World(security='noise')")

    def generate(self, kind: KeyType, entropy: Entropy, bits: int = 2048) -> Signer:
        if kind != KeyType.ED25519:
            raise LocalError("null security pretends to have Ed25519 keys, and no others")
        return NullSigner(entropy(32))

    def load_private(self, kind: KeyType, data: bytes) -> Signer:
        signer = NullSigner(data[:32])
        if kind != KeyType.ED25519 or signer.private != data:
            raise DecodeError("not a private key of null security")
        return signer

    def load_public(self, kind: KeyType, data: bytes) -> Verifier:
        if kind != KeyType.ED25519 or len(data) != 32:
            raise DecodeError("not a public key of null security")
        return _remember(self._verifiers, data, lambda: NullVerifier(data))


class NullSigner:
    """A seed, and a hash of it for the public half."""

    __slots__ = ("public", "_seed")

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self.public = blake2b(seed, digest_size=32, person=b"null key").digest()

    @property
    def private(self) -> bytes:
        return self._seed + self.public

    def sign(self, message: bytes) -> bytes:
        return _signature(self.public, message)


class NullVerifier:
    """Knows a signature from noise, and no more."""

    __slots__ = ("_public",)

    def __init__(self, public: bytes) -> None:
        self._public = public

    def verify(self, signature: bytes, message: bytes) -> bool:
        return signature == _signature(self._public, message)


def _signature(public: bytes, message: bytes) -> bytes:
    return blake2b(message, key=public, person=b"null signature").digest()


class RememberingCrypto(Crypto):
    """Another provider. Whether a signature is good depends on nothing else, so ask once."""

    def __init__(self, crypto: Crypto) -> None:
        self.invalid_tag = crypto.invalid_tag
        self._crypto = crypto
        self._verifiers: dict[tuple[KeyType, bytes], Verifier] = {}
        self._answers: dict[tuple[bytes, bytes, bytes], bool] = {}

    def chacha20poly1305(self, key: bytes) -> Aead:
        return self._crypto.chacha20poly1305(key)

    def x25519(self, private: bytes) -> X25519:
        return self._crypto.x25519(private)

    def generate(self, kind: KeyType, entropy: Entropy, bits: int = 2048) -> Signer:
        return self._crypto.generate(kind, entropy, bits)

    def load_private(self, kind: KeyType, data: bytes) -> Signer:
        return self._crypto.load_private(kind, data)

    def load_public(self, kind: KeyType, data: bytes) -> Verifier:
        def load() -> Verifier:
            verifier = self._crypto.load_public(kind, data)
            return _Remembering(verifier, bytes([kind]) + data, self._answers)

        return _remember(self._verifiers, (kind, data), load)


class _Remembering:
    __slots__ = ("_answers", "_key", "_verifier")

    def __init__(
        self, verifier: Verifier, key: bytes, answers: dict[tuple[bytes, bytes, bytes], bool]
    ) -> None:
        self._verifier = verifier
        self._key = key
        self._answers = answers

    def verify(self, signature: bytes, message: bytes) -> bool:
        if len(message) > MAX_MESSAGE:
            return self._verifier.verify(signature, message)
        question = (self._key, signature, message)
        return _remember(self._answers, question, lambda: self._verifier.verify(signature, message))


def _remember(table: dict[K, V], name: K, make: Callable[[], V]) -> V:
    """What the table has under a name, made if need be; the oldest entry makes room."""
    found = table.get(name)
    if found is None:
        found = make()
        if len(table) >= MAX_REMEMBERED:
            del table[next(iter(table))]
        table[name] = found
    return found
