"""What Kademlia peers say to each other, and how long it may be.

Spec: https://github.com/libp2p/specs/blob/master/kad-dht/README.md#rpc-messages

    FIND_NODE      key (a peer id, or anything)      ->  closer peers
    GET_VALUE      key                               ->  record, closer peers
    PUT_VALUE      key, record                       ->  the same
    GET_PROVIDERS  key (a multihash)                 ->  providers, closer peers
    ADD_PROVIDER   key, provider = the sender        ->  nothing at all
    PING                                             ->  the same

Every message is length-prefixed; a stream carries any number of requests, one after the other.
Zeros are not written (proto3): a PUT_VALUE has no type. Elements beyond a limit are not read.
"""

from dataclasses import dataclass, field
from enum import IntEnum

from .. import varint
from ..errors import DecodeError, LocalError
from ..protobuf import BYTES, STRING, UINT, Field, Schema

PROTOCOL = "/ipfs/kad/1.0.0"
LAN_PROTOCOL = "/ipfs/lan/kad/1.0.0"

MAX_REQUEST = 1024 * 1024
"""The longest request that is accepted."""
MAX_RESPONSE = 4 * 1024 * 1024
"""The longest answer that is accepted: go peers send providers up to this size."""
MAX_SENT = 16 * 1024
"""The longest message that rust peers accept, hence the longest of ours."""
MAX_KEY = 1024
MAX_PROVIDER_KEY = 80
MAX_VALUE = 64 * 1024
"""The longest value of a record that is looked at."""
MAX_CLOSER = 40
"""Closer peers that are read from one answer: twice as many as anybody has to send."""
MAX_PROVIDERS = 128
"""The same for providers."""
MAX_ADDRESSES = 16
"""Addresses that are read of one peer."""


class Type(IntEnum):
    """What a message asks for, or answers."""

    PUT_VALUE = 0
    GET_VALUE = 1
    ADD_PROVIDER = 2
    GET_PROVIDERS = 3
    FIND_NODE = 4
    PING = 5


class ConnectionType(IntEnum):
    """What the sender knows about its connection to a peer."""

    NOT_CONNECTED = 0
    CONNECTED = 1
    CAN_CONNECT = 2
    CANNOT_CONNECT = 3


@dataclass(slots=True)
class Peer:
    """A peer as it is written: the binary id and the binary addresses."""

    id: bytes = b""
    addresses: list[bytes] = field(default_factory=list)
    connection: int = ConnectionType.NOT_CONNECTED


@dataclass(slots=True)
class Record:
    """A value with its key. Nothing of it is believed unless the namespace's validator agrees."""

    key: bytes = b""
    value: bytes = b""
    time_received: str = ""
    """When the sender got it (RFC 3339); for people, never for deciding."""
    publisher: bytes = b""
    """Written by rust peers only."""
    ttl: int = 0
    """Seconds that are left to it; written by rust peers only."""


@dataclass(slots=True)
class Message:
    """A request or an answer."""

    type: int = Type.PUT_VALUE
    key: bytes = b""
    record: Record | None = None
    closer: list[Peer] = field(default_factory=list)
    providers: list[Peer] = field(default_factory=list)
    cluster_level: int = 0
    """Unused; echoed in answers, as go peers do."""


PEER = Schema(
    Peer,
    Field(1, "id", BYTES, implicit=True),
    Field(2, "addresses", BYTES, repeated=True, limit=MAX_ADDRESSES, overflow="drop"),
    Field(3, "connection", UINT, implicit=True),
)
RECORD = Schema(
    Record,
    Field(1, "key", BYTES, implicit=True),
    Field(2, "value", BYTES, implicit=True),
    Field(5, "time_received", STRING, implicit=True),
    Field(666, "publisher", BYTES, implicit=True),
    Field(777, "ttl", UINT, implicit=True),
)
MESSAGE = Schema(
    Message,
    Field(1, "type", UINT, implicit=True),
    Field(2, "key", BYTES, implicit=True),
    Field(3, "record", RECORD),
    Field(8, "closer", PEER, repeated=True, limit=MAX_CLOSER, overflow="drop"),
    Field(9, "providers", PEER, repeated=True, limit=MAX_PROVIDERS, overflow="drop"),
    Field(10, "cluster_level", UINT, implicit=True),
)

_TYPES = tuple(Type)


def decode(data: bytes) -> Message:
    """Reads a message; DecodeError also for an unknown type and for a key that is too long."""
    message = MESSAGE.decode(data)
    if message.type >= len(_TYPES):
        raise DecodeError(f"{message.type} is not a type of Kademlia message")
    message.type = _TYPES[message.type]
    if len(message.key) > MAX_KEY:
        raise DecodeError(f"a key of {len(message.key)} bytes; the limit is {MAX_KEY}")
    return message


def encode(message: Message) -> bytes:
    """A request with its length; LocalError if peers would not take it."""
    data = MESSAGE.encode(message)
    if len(data) > MAX_SENT:
        raise LocalError(
            f"a Kademlia message of {len(data)} bytes: many peers accept no more than {MAX_SENT}; "
            "store a shorter value, or a link to it"
        )
    return varint.delimited(data)


def encode_answer(message: Message, room: int = MAX_SENT) -> bytes:
    """An answer with its length, within ``room`` bytes if its record leaves any.

    What does not fit is left out: first addresses beyond a peer's share, then closer peers, then
    providers, the last of each first.
    """
    bare = Message(message.type, message.key, message.record, cluster_level=message.cluster_level)
    room -= len(MESSAGE.encode(bare))
    left = len(message.providers) + len(message.closer)
    for peers, kept in ((message.providers, bare.providers), (message.closer, bare.closer)):
        for peer in peers:
            trimmed, size = _trim(peer, room // left)
            if size > room:
                break
            kept.append(trimmed)
            room -= size
            left -= 1
    return varint.delimited(MESSAGE.encode(bare))


def _trim(peer: Peer, share: int) -> tuple[Peer, int]:
    """A peer with as many addresses as its share allows, one at least, and its greatest size."""
    size = len(peer.id) + 12  # with tags, lengths and the connection type
    addresses: list[bytes] = []
    for address in peer.addresses[:MAX_ADDRESSES]:
        more = len(address) + 4
        if addresses and size + more > share:
            break
        addresses.append(address)
        size += more
    return Peer(peer.id, addresses, peer.connection), size
