"""One message of a topic, as it is written, forwarded and signed.

Spec: https://github.com/libp2p/specs/blob/master/pubsub/README.md#the-message

    Message { 1 from, 2 data, 3 seqno, 4 topic, 5 signature, 6 key }

    signed   "libp2p-pubsub:" || Message without signature and key; unknown fields included, last
    raw      what is forwarded: the bytes that came, or their regular spelling

A message is regular if its fields ascend, each at most once, with minimal lengths. Then what is
signed is the start of what came, and nothing has to be encoded again.
"""

from ..errors import DecodeError
from ..peer_id import PeerId
from ..protobuf import read_varint
from ..varint import encode as varint
from .rpc import next_field

SIGN_PREFIX = b"libp2p-pubsub:"


class Message:
    """A message. None: the field was not there.

    ``id`` is empty until it is known.
    """

    __slots__ = ("data", "from_", "id", "key", "raw", "received_from", "seqno", "signature",
                 "topic", "_signed")  # fmt: skip

    def __init__(self) -> None:
        self.from_: bytes | None = None
        self.data: bytes | None = None
        self.seqno: bytes | None = None
        self.topic = b""
        self.signature: bytes | None = None
        self.key: bytes | None = None
        self.raw = b""
        self.id = b""
        self.received_from: PeerId | None = None
        """The peer that sent it to us, None for our own."""
        self._signed = 0

    def __repr__(self) -> str:
        return f"<Message {self.id.hex()} {self.topic!r} of {len(self.raw)} bytes>"

    @property
    def author(self) -> PeerId | None:
        """Who says to have written it; true if there is a signature. None: anonymous."""
        if not self.from_:
            return None
        try:
            return PeerId(self.from_)
        except DecodeError:
            return None

    @property
    def signed(self) -> bytes:
        """What the signature is made of."""
        return SIGN_PREFIX + self.raw[: self._signed]


def parse(raw: bytes) -> Message:
    """The message in ``raw``; DecodeError if it is none."""
    message = Message()
    values: list[bytes | None] = [None] * 7
    regular = True
    last = 0
    signed = len(raw)
    pos, end = 0, len(raw)
    try:
        while pos < end:
            at = pos
            tag = raw[pos]
            size = raw[pos + 1]
            if tag not in _TAGS:
                return _parse_irregular(raw)
            pos += 2
            if size > 0x7F:
                size, pos = read_varint(raw, pos - 1)
                regular = regular and raw[pos - 1] != 0
            if tag <= last:
                regular = False
            if tag >= 0x2A > last:
                signed = at
            last = tag
            start, pos = pos, pos + size
            values[tag >> 3] = raw[start:pos]
    except IndexError:
        raise DecodeError("a message is cut off") from None
    if pos != end:
        raise DecodeError("a message is cut off")
    if not regular:
        return _parse_irregular(raw)
    _, message.from_, message.data, message.seqno, topic, message.signature, message.key = values
    message.topic = topic or b""
    message.raw = raw
    message._signed = signed
    return message


def build(
    from_: bytes | None,
    data: bytes | None,
    seqno: bytes | None,
    topic: bytes,
    unknown: bytes = b"",
) -> Message:
    """A message without signature."""
    message = Message()
    message.from_, message.data, message.seqno, message.topic = from_, data, seqno, topic
    parts: list[bytes] = []
    for tag, value in ((b"\x0a", from_), (b"\x12", data), (b"\x1a", seqno), (b"\x22", topic)):
        if value is not None:
            parts += tag, varint(len(value)), value
    parts.append(unknown)
    message.raw = b"".join(parts)
    message._signed = len(message.raw)
    return message


def sign(message: Message, signature: bytes, key: bytes | None) -> None:
    """Add a signature, and the key unless the author's peer id holds it."""
    message.signature, message.key = signature, key
    message.raw += b"\x2a" + varint(len(signature)) + signature
    if key is not None:
        message.raw += b"\x32" + varint(len(key)) + key


_TAGS = frozenset((0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x32))


def _parse_irregular(raw: bytes) -> Message:
    """Spell a message in the regular way, with unknown fields in front of the signature."""
    values: list[bytes | None] = [None] * 7
    unknown = []
    pos, end = 0, len(raw)
    try:
        while pos < end:
            at = pos
            tag, start, pos = next_field(raw, pos, end)
            if tag in _TAGS:
                values[tag >> 3] = raw[start:pos]
            elif tag >> 3 < 7:
                raise DecodeError(f"field {tag >> 3} of a message has the wrong wire type")
            else:
                unknown.append(raw[at:pos])
    except IndexError:
        raise DecodeError("a message is cut off") from None
    _, from_, data, seqno, topic, signature, key = values
    message = build(from_, data, seqno, topic or b"", b"".join(unknown))
    if signature is not None:
        sign(message, signature, key)
    elif key is not None:
        message.key = key
        message.raw += b"\x32" + varint(len(key)) + key
    return message
