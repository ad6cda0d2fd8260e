"""What names a message. All peers of a topic need the same function.

    from_and_seqno       from || seqno: go peers' default, and ours
    sha256_of_data       for anonymous messages, js peers' default for those
    Ethereum             SHA256(domain || length of topic, u64le || topic || data)[:20]
    blake2b_of_data      Filecoin

The defaults of go, rust and js peers differ, which shows when they gossip: name one for each topic.
A function must be quick, and pure; if it raises, or returns no id, the message is ignored.
"""

from collections.abc import Callable
from hashlib import blake2b, sha256

from ..errors import DecodeError
from . import snappy
from .message import Message

MessageId = Callable[[Message], bytes]

MAX_ID = 256
"""Bytes of the longest id."""
_VALID_SNAPPY = b"\x01\0\0\0"
_INVALID_SNAPPY = b"\0\0\0\0"


def from_and_seqno(message: Message) -> bytes:
    """Author and number; empty, which is no id, if one of them is not there."""
    if message.from_ is None or message.seqno is None:
        return b""
    return message.from_ + message.seqno


def sha256_of_data(message: Message) -> bytes:
    """The hash of the data alone: equal data is one message, whatever its topic."""
    return sha256(message.data or b"").digest()


def blake2b_of_data(message: Message) -> bytes:
    """blake2b-256 of the data, as in Filecoin."""
    return blake2b(message.data or b"", digest_size=32).digest()


class Ethereum:
    """Ids of the consensus layer since Altair: data counts as it is after decompression."""

    __slots__ = ("_max_size",)

    def __init__(self, max_size: int = 10 * 1024 * 1024) -> None:
        """``max_size``: data that says it is longer counts as not compressed."""
        self._max_size = max_size

    def __call__(self, message: Message) -> bytes:
        data = message.data or b""
        topic = message.topic
        try:
            data, domain = snappy.decompress(data, self._max_size), _VALID_SNAPPY
        except DecodeError:
            domain = _INVALID_SNAPPY
        head = domain + len(topic).to_bytes(8, "little") + topic
        return sha256(head + data).digest()[:20]
