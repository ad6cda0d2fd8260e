"""Unsigned varints and length-prefixed messages.

https://github.com/multiformats/unsigned-varint

    value    7 bits per byte, least significant first; the top bit says that more follow
    message  varint(length) data

At most 9 bytes (63 bits), and only the shortest spelling of a number is a number. Protobuf's own
varints follow other rules and live in protobuf.py.
"""

from .errors import DecodeError, LocalError

MAX = 2**63 - 1
Data = bytes | bytearray | memoryview
"""What parsers read from; they return bytes."""

_ONE_BYTE = tuple(bytes((n,)) for n in range(0x80))


def encode(n: int) -> bytes:
    """The shortest spelling of ``n``."""
    if 0 <= n < 0x80:
        return _ONE_BYTE[n]
    if not 0 <= n <= MAX:
        raise LocalError(f"{n} does not fit in a varint of 63 bits")
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def decode(data: Data, pos: int = 0) -> tuple[int, int]:
    """The value at ``pos`` and the position behind it; DecodeError if it is not all there."""
    found = peek(data, pos)
    if found is None:
        raise DecodeError("a varint is cut off")
    return found


def peek(data: Data, pos: int = 0, limit: int = MAX) -> tuple[int, int] | None:
    """Like ``decode``, but None while bytes are missing.

    DecodeError as soon as no further byte could make it valid and at most ``limit``.
    """
    end = len(data)
    value = shift = 0
    while pos < end:
        byte = data[pos]
        pos += 1
        if byte < 0x80:
            if byte == 0 and shift:
                raise DecodeError("a varint is longer than it needs to be")
            value |= byte << shift
            if value > limit:
                raise DecodeError(f"{value} where at most {limit} is allowed")
            return value, pos
        value |= (byte & 0x7F) << shift
        shift += 7
        # The last byte is not zero, so that the value will be at least this. MAX has nine bytes.
        if value | 1 << shift > limit:
            raise DecodeError(f"more than {limit}, or a varint of more than 9 bytes")
    return None


def delimited(data: bytes) -> bytes:
    """``data`` behind its length."""
    return encode(len(data)) + data


class Delimited:
    """Cuts a stream into length-prefixed messages of at most ``limit`` bytes.

        prefix --complete--> body --complete--> message, prefix
           `-- longer than limit, not a varint: DecodeError

    A length is judged before any of its bytes are kept. After an error the stream has no
    meaning: messages of the same chunk are dropped and the object must not be used again.
    """

    __slots__ = ("_body", "_limit", "_missing", "_prefix")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._prefix = b""
        self._body = bytearray()
        self._missing = 0  # of the body; 0 while the prefix is incomplete

    @property
    def pending(self) -> int:
        """The bytes of an incomplete message that came so far, its prefix included."""
        return len(self._prefix) + len(self._body)

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that ``data`` completes."""
        messages: list[bytes] = []
        pos = 0
        if self._missing:
            if len(data) < self._missing:
                self._body += data
                self._missing -= len(data)
                return messages
            pos = self._missing
            self._body += data[:pos]
            messages.append(bytes(self._body))
            self._prefix, self._body, self._missing = b"", bytearray(), 0
        elif self._prefix:
            data = self._prefix + data
            self._prefix = b""
        limit, end = self._limit, len(data)
        while pos < end:
            found = peek(data, pos, limit)
            if found is None:
                self._prefix = data[pos:]
                break
            length, start = found
            stop = start + length
            if stop > end:
                self._prefix = data[pos:start]
                self._body += data[start:]
                self._missing = stop - end
                break
            messages.append(data[start:stop])
            pos = stop
        return messages
