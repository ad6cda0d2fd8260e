"""The part of QUIC packets that no key protects, as far as routing needs it.

Spec: https://www.rfc-editor.org/rfc/rfc8999 (all versions), rfc9000 section 17 (version 1)

    long     1ttt....  version 4  length 1, destination  length 1, source  (Initial: token) ...
    short    0.......  destination, 8 bytes because all of ours have 8 ...

    version negotiation   1.......  0000  source and destination swapped  versions, 4 bytes each
"""

from dataclasses import dataclass

VERSION_1 = 1
MIN_INITIAL = 1200
"""Bytes of the smallest datagram that may open a connection."""
LONG = 0x80
MAX_ID = 20
"""Longest connection id of version 1."""
MIN_FIRST_ID = 8
"""Shortest id that a client may give us in its first packet."""

_FIXED = 0x40
_TYPE = 0x30
_INITIAL = 0x00


@dataclass(slots=True)
class LongHeader:
    """What a long header says. ``token`` is that of an Initial packet of version 1."""

    version: int
    destination: bytes
    source: bytes
    initial: bool = False
    token: bytes = b""


def parse_long_header(data: bytes) -> LongHeader | None:
    """The first long header of a datagram; None if it is not one, or is cut off.

    >>> parse_long_header(bytes.fromhex("c00000000108" "0001020304050607" "00" "00"))
    LongHeader(version=1, destination=b'\\x00\\x01\\x02\\x03\\x04\\x05\\x06\\x07', source=b'', \
initial=True, token=b'')
    """
    size = len(data)
    if size < 7 or not data[0] & LONG:
        return None
    version = int.from_bytes(data[1:5])
    pos = 6 + data[5]
    if pos >= size:
        return None
    destination = data[6:pos]
    end = pos + 1 + data[pos]
    if end > size:
        return None
    header = LongHeader(version, destination, data[pos + 1 : end])
    if version != VERSION_1:
        return header
    if len(destination) > MAX_ID or len(header.source) > MAX_ID or not data[0] & _FIXED:
        return None
    if data[0] & _TYPE == _INITIAL:
        header.initial = True
        if end >= size:
            return None
        start = end + (1 << (data[end] >> 6))  # the length is 1, 2, 4 or 8 bytes long
        length = int.from_bytes(data[end:start]) & (1 << (8 * (start - end) - 2)) - 1
        if start + length > size:
            return None
        header.token = data[start : start + length]
    return header


def version_negotiation(header: LongHeader) -> bytes:
    """The answer to a packet of another version: we speak version 1 alone."""
    return b"".join(
        (
            bytes((LONG | _FIXED, 0, 0, 0, 0, len(header.source))),
            header.source,
            bytes((len(header.destination),)),
            header.destination,
            VERSION_1.to_bytes(4),
        )
    )
