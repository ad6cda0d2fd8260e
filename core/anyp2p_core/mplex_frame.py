"""The frame of mplex: two varints and a payload.

Spec: https://github.com/libp2p/specs/blob/master/mplex/README.md

    +--------------------+-----------------+---------
    | number << 3 | flag | payload's length| payload
    +--------------------+-----------------+---------
        1 to 9 bytes        1 to 3 bytes     bytes

Stream number and flag are handled as one number, the ``head``. Each side numbers the streams it
opens, so that a number means two streams: an even flag is about one that the frame's sender opened.
"""

from . import varint

MAX_PAYLOAD = 1 << 20
"""Of a frame that is received; go, rust, js and nim peers allow as much."""
MAX_NUMBER = 2**60 - 1
MAX_HEADER = 12

FLAGS = 7
NEW_STREAM = 0
"""The payload is a name without a meaning."""
# The others come in pairs: from who accepted the stream, and from who opened it, which is one more.
MESSAGE = 1
CLOSE = 3
"""The sender's direction has ended."""
RESET = 5


def encode(head: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return encode_number(head) + encode_number(len(payload)) + payload


def encode_number(n: int) -> bytes:
    """A varint. Those that frames have most are made faster than ``varint.encode`` makes any."""
    if 0x80 <= n < 0x20_0000:
        if n < 0x4000:
            return bytes((n & 0x7F | 0x80, n >> 7))
        return bytes((n & 0x7F | 0x80, n >> 7 & 0x7F | 0x80, n >> 14))
    return varint.encode(n)


def decode(data: bytes, pos: int = 0) -> tuple[int, int, int] | None:
    """Return ``(head, length, where the payload starts)``, or None while the header is incomplete.

    Raises DecodeError for what is no varint, and for a payload of more than ``MAX_PAYLOAD``.
    """
    start = pos
    try:  # the short way: as many bytes as nearly all headers have
        head = data[pos]
        if head >= 0x80:
            pos += 1
            byte = data[pos]
            head += (byte - 1) << 7
            if byte >= 0x80:
                pos += 1
                byte = data[pos]
                head += (byte - 1) << 14
            if not 0 < byte < 0x80:
                return _decode_long(data, start)
        length = data[pos + 1]
        if length < 0x80:
            return head, length, pos + 2
        byte = data[pos + 2]
        if 0 < byte < 0x80:
            return head, length + ((byte - 1) << 7), pos + 3
        top = data[pos + 3]
        if byte and 0 < top < 0x40:
            return head, length + ((byte - 1) << 7) + ((top - 1) << 14), pos + 4
    except IndexError:
        pass
    return _decode_long(data, start)


def _decode_long(data: bytes, pos: int) -> tuple[int, int, int] | None:
    found = varint.peek(data, pos)
    if found is None:
        return None
    head, pos = found
    found = varint.peek(data, pos, MAX_PAYLOAD)
    return None if found is None else (head, *found)
