"""Peer ids: a short name that proves a public key.

Spec: https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md

    PublicKey message --<= 42 bytes--> identity multihash   12D3KooW... 16Uiu2HA...
                      `---- longer --> sha2-256 multihash   Qm...

Text is base58 of the multihash, or a CIDv1 with the codec libp2p-key in any multibase.
"""

from functools import total_ordering

from . import multibase, multihash
from .cid import CID, LIBP2P_KEY
from .errors import DecodeError

MAX_INLINE = 42
"""The longest PublicKey message that is its own peer id."""
MAX_TEXT = 256
"""The longest text that is looked at."""


@total_ordering
class PeerId:
    """The multihash that names a peer. DecodeError unless it is one that a key can have."""

    __slots__ = ("_raw", "_text")

    def __init__(self, data: bytes) -> None:
        code, digest = multihash.decode(data)
        if code == multihash.IDENTITY:
            if not 0 < len(digest) <= MAX_INLINE:
                raise DecodeError(f"a peer id holds a key of 1 to {MAX_INLINE} bytes")
        elif code != multihash.SHA2_256 or len(digest) != 32:
            raise DecodeError("a peer id is an identity or a sha2-256 multihash")
        self._raw = bytes(data)
        self._text = ""

    @classmethod
    def from_public_key(cls, encoded: bytes) -> "PeerId":
        """The id of the key with this PublicKey message."""
        if len(encoded) <= MAX_INLINE:
            return cls(multihash.encode(multihash.IDENTITY, encoded))
        return cls(multihash.sha2_256(encoded))

    @classmethod
    def parse(cls, text: str) -> "PeerId":
        """The id in either text form."""
        if len(text) > MAX_TEXT:
            raise DecodeError(f"a peer id of more than {MAX_TEXT} characters")
        if text.startswith(("1", "Qm")):
            return cls(multibase.b58decode(text))
        cid = CID.from_text(text)
        if cid.codec != LIBP2P_KEY:
            raise DecodeError(f"a CID with the codec {cid.codec:#x} is no peer id")
        return cls(cid.multihash)

    def to_cid_text(self) -> str:
        """The CIDv1 in base32, for places that need one spelling in lower case."""
        return str(CID(1, LIBP2P_KEY, self._raw))

    def inline_key(self) -> bytes | None:
        """The PublicKey message inside the id, unchecked; None if it holds a hash."""
        return self._raw[2:] if self._raw[0] == multihash.IDENTITY else None

    def __bytes__(self) -> bytes:
        return self._raw

    def __str__(self) -> str:
        if not self._text:
            self._text = multibase.b58encode(self._raw)
        return self._text

    def __repr__(self) -> str:
        return f"<PeerId {self}>"

    def __eq__(self, other: object) -> bool:
        return self._raw == other._raw if isinstance(other, PeerId) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return self._raw < other._raw if isinstance(other, PeerId) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)
