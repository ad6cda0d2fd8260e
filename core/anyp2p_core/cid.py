"""Content identifiers: a multihash with the codec of what was hashed.

https://github.com/multiformats/cid

    version 0   multihash (sha2-256, 34 bytes)       text: base58btc, starts with "Qm"
    version 1   varint(1) varint(codec) multihash    text: multibase, base32 unless asked for

Content routing compares ``multihash``, so that both versions of a block meet.
"""

from dataclasses import dataclass

from . import multibase, multihash, varint
from .errors import DecodeError, LocalError

RAW = 0x55
DAG_PB = 0x70
LIBP2P_KEY = 0x72

MAX_TEXT = 2048
"""The most characters that are read."""


@dataclass(slots=True, frozen=True)
class CID:
    """``multihash`` is encoded; DecodeError if it is not one or the version cannot hold it."""

    version: int
    codec: int
    multihash: bytes

    def __post_init__(self) -> None:
        if self.version == 0:
            if self.codec != DAG_PB or not _is_v0(self.multihash):
                raise DecodeError("CID version 0 is for dag-pb and sha2-256 only")
        elif self.version != 1:
            raise DecodeError(f"unknown CID version {self.version}")
        elif not 0 <= self.codec <= varint.MAX:
            raise DecodeError(f"{self.codec} is not a codec")
        else:
            multihash.decode(self.multihash)

    @classmethod
    def from_bytes(cls, data: varint.Data) -> "CID":
        """Reads a CID that takes up all of ``data``."""
        data = bytes(data)
        if _is_v0(data):
            return cls(0, DAG_PB, data)
        version, pos = varint.decode(data)
        if version != 1:
            raise DecodeError(f"unknown CID version {version}")
        codec, pos = varint.decode(data, pos)
        return cls(1, codec, data[pos:])

    @classmethod
    def from_text(cls, text: str) -> "CID":
        """Reads a CID in base58btc (version 0) or any multibase (version 1)."""
        if len(text) > MAX_TEXT:
            raise DecodeError(f"a CID of {len(text)} characters; the limit is {MAX_TEXT}")
        if len(text) == 46 and text.startswith("Qm"):
            return cls(0, DAG_PB, multibase.b58decode(text))
        cid = cls.from_bytes(multibase.decode(text))
        if cid.version == 0:
            raise DecodeError("CID version 0 has no multibase prefix")
        return cid

    def __bytes__(self) -> bytes:
        if self.version == 0:
            return self.multihash
        return b"\x01" + varint.encode(self.codec) + self.multihash

    def __str__(self) -> str:
        if self.version == 0:
            return multibase.b58encode(self.multihash)
        return self.with_base(multibase.BASE32)

    def with_base(self, base: str) -> str:
        """The text in another multibase; version 0 has no choice (LocalError)."""
        if self.version == 0:
            raise LocalError("CID version 0 is always base58btc: convert it with to_v1() first")
        return multibase.encode(base, bytes(self))

    def to_v1(self) -> "CID":
        """The same content as version 1."""
        return CID(1, self.codec, self.multihash)


def _is_v0(data: bytes) -> bool:
    return len(data) == 34 and data.startswith(b"\x12\x20")
