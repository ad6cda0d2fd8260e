"""Values under a key: which are valid, which is best, and who is behind.

Spec: https://github.com/libp2p/specs/blob/master/kad-dht/README.md#entry-validation

    key       "/" namespace "/" rest         no validator for the namespace: refused
    search    record of a peer -> for this key? -> valid? -> better than the best so far?
              end -> the best, and who among the closest peers has something else: correct them

A validator says what is valid at a time, and which of several valid values is best.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Protocol

from ..crypto import Crypto
from ..errors import DecodeError, LocalError, RemoteError
from ..keys import PublicKey
from ..peer_id import PeerId
from .messages import MAX_KEY, MAX_VALUE, Record


class Validator(Protocol):
    """Judges the values of one namespace."""

    def validate(self, key: bytes, value: bytes, wall: float, /) -> object:
        """Raise RemoteError if the value is not valid at ``wall``, seconds since 1970."""
        ...

    def select(self, key: bytes, values: Sequence[bytes], /) -> int:
        """The index of the best of these valid values; on a tie the first."""
        ...


class PublicKeyValidator:
    """The namespace "pk": a public key under its peer id, as go and js peers have it."""

    def __init__(self, crypto: Crypto) -> None:
        self._crypto = crypto

    def validate(self, key: bytes, value: bytes, wall: float) -> None:
        """DecodeError unless ``value`` is a public key whose peer id ``key`` names."""
        if split_key(key)[1] != bytes(PublicKey.decode(value, self._crypto).peer_id):
            raise DecodeError("the public key is not that of the peer whom its record's key names")

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        """They are all the same."""
        return 0


class AcceptAll:
    """Any value is valid and as good as any other: for tests and closed networks."""

    def validate(self, key: bytes, value: bytes, wall: float) -> None:
        """Everything is."""

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        """The first."""
        return 0


def split_key(key: bytes) -> tuple[str, bytes]:
    """Namespace and rest of a record's key.

    >>> split_key(b"/pk/abc")
    ('pk', b'abc')
    """
    if len(key) > MAX_KEY:
        raise DecodeError(f"a key of {len(key)} bytes; the limit is {MAX_KEY}")
    end = key.find(b"/", 1)
    if not key.startswith(b"/") or end < 2 or end + 1 == len(key) or not key[1:end].isascii():
        raise DecodeError("the key of a record is /namespace/name")
    return key[1:end].decode(), key[end + 1 :]


class Validators:
    """The validators of all namespaces. What raises anything in here is not valid.

    A validator's bug must not leave a lookup waiting, so every exception of one is a DecodeError.
    """

    __slots__ = ("_by_name",)

    def __init__(self, by_name: Mapping[str, Validator]) -> None:
        for name in by_name:
            if not name or "/" in name or not name.isascii():
                raise LocalError(f"{name!r} is not a namespace")
        self._by_name = dict(by_name)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces that have a validator."""
        return tuple(self._by_name)

    def validate(self, key: bytes, value: bytes, wall: float) -> None:
        """DecodeError unless the namespace is known and its validator agrees."""
        validator = self._find(key)
        if len(value) > MAX_VALUE:
            raise DecodeError(f"a value of {len(value)} bytes; the limit is {MAX_VALUE}")
        try:
            validator.validate(key, value, wall)
        except RemoteError:
            raise
        except Exception as error:
            raise DecodeError(f"the validator of {split_key(key)[0]} failed: {error}") from error

    def is_better(self, key: bytes, value: bytes, than: bytes) -> bool:
        """Whether a valid value is better than another one, and not just as good."""
        if value == than:
            return False
        validator = self._find(key)
        try:
            return validator.select(key, (than, value)) == 1
        except Exception as error:
            raise DecodeError(f"the validator of {split_key(key)[0]} failed: {error}") from error

    def _find(self, key: bytes) -> Validator:
        name = split_key(key)[0]
        validator = self._by_name.get(name)
        if validator is None:
            raise DecodeError(f"no validator for the namespace {name!r}")
        return validator


class Search:
    """The values that peers gave for one key."""

    __slots__ = ("best", "key", "quorum", "rejected", "valid", "_given", "_validators", "_verdicts")

    def __init__(self, key: bytes, validators: Validators, quorum: int = 0) -> None:
        """``quorum``: valid values that are enough; 0 means as many as can be found."""
        self.key = key
        self.quorum = quorum
        self.best: bytes | None = None
        self.valid = 0
        """Peers that gave a valid value."""
        self.rejected = 0
        """Peers that gave an invalid one, or one for another key."""
        self._given: dict[PeerId, bytes] = {}
        self._validators = validators
        self._verdicts: dict[bytes, bool] = {}

    def add(self, peer: PeerId, record: Record, wall: float) -> bool:
        """Take what a peer gave; returns whether it is better than everything before.

        DecodeError when it is for another key or not valid. Equal values are validated once.
        """
        value = record.value
        digest = sha256(value).digest()
        try:
            if record.key != self.key:
                raise DecodeError("the peer gave a record for another key")
            if not self._verdicts.get(digest, True):
                raise DecodeError("the peer gave a value that is known to be invalid")
            if digest not in self._verdicts:
                self._verdicts[digest] = False
                self._validators.validate(self.key, value, wall)
                self._verdicts[digest] = True
            better = self.best is None or self._validators.is_better(self.key, value, self.best)
        except RemoteError:
            self.rejected += 1
            raise
        self.valid += 1
        self._given[peer] = digest
        if better:
            self.best = value
        return better

    @property
    def enough(self) -> bool:
        """Whether the quorum is reached."""
        return 0 < self.quorum <= self.valid

    def holders(self) -> list[PeerId]:
        """Peers that gave the best value, in the order of their answers."""
        best = self._best_digest()
        return [peer for peer, digest in self._given.items() if digest == best]

    def gave(self, peer: PeerId) -> bool:
        """Whether a peer gave a valid value."""
        return peer in self._given

    def behind(self, peers: Iterable[PeerId]) -> list[PeerId]:
        """Which of these peers did not give the best value and should get it."""
        best = self._best_digest()
        return [peer for peer in peers if best and self._given.get(peer) != best]

    def _best_digest(self) -> bytes:
        return b"" if self.best is None else sha256(self.best).digest()
