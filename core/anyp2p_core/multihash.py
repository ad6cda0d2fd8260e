"""A digest that names its hash function.

https://github.com/multiformats/multihash

    varint(code) varint(length) digest

Digests are compared and stored here, not computed: only sha2-256 has a helper, because peer ids
and certificate hashes need it. A digest may be shorter than its function's output.
"""

from hashlib import sha256
from typing import NamedTuple

from . import varint
from .errors import DecodeError, LocalError

IDENTITY = 0x00
SHA2_256 = 0x12
MAX_DIGEST = 128
"""The longest digest, in bytes: twice the longest hash in use, and go's bound for identity."""


class Multihash(NamedTuple):
    code: int
    digest: bytes


def encode(code: int, digest: varint.Data) -> bytes:
    """The multihash of a digest of at most MAX_DIGEST bytes."""
    if len(digest) > MAX_DIGEST:
        raise LocalError(f"a digest of {len(digest)} bytes; the limit is {MAX_DIGEST}")
    return b"".join((varint.encode(code), varint.encode(len(digest)), digest))


def decode(data: varint.Data) -> Multihash:
    """Reads a multihash that takes up all of ``data``."""
    code, pos = varint.decode(data)
    length, pos = varint.decode(data, pos)
    if length > MAX_DIGEST:
        raise DecodeError(f"a digest of {length} bytes; the limit is {MAX_DIGEST}")
    if len(data) - pos != length:
        raise DecodeError(f"a multihash of {length} bytes with {len(data) - pos} bytes of digest")
    return Multihash(code, bytes(data[pos:]))


def sha2_256(data: varint.Data) -> bytes:
    """The sha2-256 multihash of ``data``."""
    return b"\x12\x20" + sha256(data).digest()
