"""The RPC of pubsub: what one peer writes to another, one length-prefixed message after the other.

Specs: https://github.com/libp2p/specs/blob/master/pubsub/README.md
       https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/extensions/extensions.proto

    RPC      { 1 SubOpts *, 2 Message *, 3 Control, 6492434 {} }          Message: message.py
    SubOpts  { 1 subscribe, 2 topic }
    Control  { 1 IHAVE { 1 topic, 2 id * } *   2 IWANT { 1 id * } *   3 GRAFT { 1 topic } *
               4 PRUNE { 1 topic, 2 PX { 1 peer, 2 record } *, 3 backoff in seconds } *
               5 IDONTWANT { 1 id * } *        6 extensions { 6492434 test } }

Reading counts and measures before it keeps anything, so that an RPC costs no more than its size:
too many entries are a DecodeError, control above the limits is left out (``truncated``). Topics
and ids stay bytes. What is made here is ready to send.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..errors import DecodeError
from ..protobuf import read_varint
from ..varint import delimited, encode as varint

MAX_SENT_IDS = 8 * 1024
"""Bytes of ids in one RPC of ours: some peers refuse more than 16 KiB of control."""

TEST_EXTENSION = 6492434
OUR_EXTENSIONS = bytes.fromhex("1a0732059091e21801")
"""What the first RPC on a stream carries if we take part in the test extension."""
TEST_EXTENSION_RPC = bytes.fromhex("059291e21800")
"""Sent once, when both sides have said that they take part."""

_MAX_FIELD = 2**29 - 1


@dataclass(slots=True, kw_only=True)
class WireLimits:
    """What one RPC may hold. Sizes are bytes."""

    max_entries: int = 5000
    """Subscriptions, messages and parts of control together; more end the stream."""
    max_subscriptions: int = 100
    """Subscriptions that are looked at; the rest is ignored."""
    max_topic: int = 1024
    """Longer topics are ignored."""
    max_control: int = 64 * 1024
    """Control that is looked at; the rest is ignored, and held against the peer."""
    max_ids: int = 5000
    """Message ids of one kind that are looked at."""
    max_id: int = 256
    """Longer ids are ignored."""
    max_px: int = 16
    """Peers of one PRUNE that are looked at."""


@dataclass(slots=True)
class Prune:
    """A peer left our mesh, or refuses to enter it, for ``backoff`` seconds (None: not said)."""

    topic: bytes
    peers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Binary peer ids, each with its sealed peer record, which may be empty."""
    backoff: int | None = None


class Control:
    """The control part of an RPC."""

    __slots__ = ("extensions", "graft", "idontwant", "ihave", "iwant", "prune", "test_extension")

    def __init__(self) -> None:
        self.ihave: list[tuple[bytes, list[bytes]]] = []
        self.iwant: list[bytes] = []
        self.graft: list[bytes] = []
        self.prune: list[Prune] = []
        self.idontwant: list[bytes] = []
        self.extensions = False
        """The peer says which extensions it knows."""
        self.test_extension = False


class Rpc:
    """One RPC as it was read."""

    __slots__ = ("control", "publish", "subscriptions", "test_extension", "truncated")

    def __init__(self) -> None:
        self.subscriptions: list[tuple[bool, bytes]] = []
        self.publish: list[bytes] = []
        self.control: Control | None = None
        self.test_extension = False
        self.truncated = False
        """There was more control than is looked at."""


def parse(data: bytes, limits: WireLimits) -> Rpc:
    """The RPC in ``data``; DecodeError if it is none, or has too many entries."""
    try:
        return _parse(data, limits)
    except IndexError:
        raise _cut() from None


def subscriptions(changes: Iterable[tuple[bool, bytes]], extensions: bytes = b"") -> bytes:
    """An RPC with subscriptions and, at the start of a stream, our extensions."""
    parts = [
        _field(b"\x0a", (b"\x08\x01" if wanted else b"\x08\x00") + _field(b"\x12", topic))
        for wanted, topic in changes
    ]
    return delimited(b"".join(parts) + extensions)


def publish(messages: Iterable[bytes]) -> bytes:
    """An RPC with encoded messages."""
    return delimited(b"".join([_field(b"\x12", message) for message in messages]))


def ihave(topic: bytes, ids: list[bytes]) -> list[bytes]:
    """RPCs that announce messages of a topic."""
    head = _field(b"\x0a", topic)
    return [_control([_field(b"\x0a", head + part)]) for part in _id_fields(b"\x12", ids)]


def iwant(ids: list[bytes]) -> list[bytes]:
    """RPCs that ask for messages."""
    return [_control([_field(b"\x12", part)]) for part in _id_fields(b"\x0a", ids)]


def idontwant(ids: list[bytes]) -> list[bytes]:
    """RPCs that say which messages need not be sent any more."""
    return [_control([_field(b"\x2a", part)]) for part in _id_fields(b"\x0a", ids)]


def graft_prune(grafts: Iterable[bytes], prunes: Iterable[Prune]) -> bytes:
    """An RPC that enters meshes and leaves others."""
    parts = [_field(b"\x1a", _field(b"\x0a", topic)) for topic in grafts]
    for prune in prunes:
        entry = _field(b"\x0a", prune.topic)
        for peer, record in prune.peers:
            entry += _field(b"\x12", _field(b"\x0a", peer) + _field(b"\x12", record))
        if prune.backoff is not None:
            entry += b"\x18" + varint(prune.backoff)
        parts.append(_field(b"\x22", entry))
    return _control(parts)


def _parse(data: bytes, limits: WireLimits) -> Rpc:
    rpc = Rpc()
    messages = rpc.publish
    entries = None
    left = limits.max_entries
    pos, end = 0, len(data)
    while pos < end:
        tag = data[pos]
        if tag == 0x12:
            # The usual case, spelled out: it is most of what a busy node reads.
            size = data[pos + 1]
            pos += 2
            if size > 0x7F:
                size, pos = read_varint(data, pos - 1)
            start, pos = pos, pos + size
            if pos > end:
                raise _cut()
            left -= 1
            if left < 0:
                raise _too_many(limits)
            messages.append(data[start:pos])
            continue
        tag, start, pos = next_field(data, pos, end)
        if tag in (0x0A, 0x1A):
            if entries is None:
                entries = _Entries(limits)
            entries.left = left
            entries.count()
            if tag == 0x0A:
                _read_subscription(rpc, data, start, pos, limits)
            else:
                _read_control(rpc, data, start, pos, entries)
            left = entries.left
        elif tag == TEST_EXTENSION << 3 | 2:
            rpc.test_extension = True
    return rpc


def _read_subscription(rpc: Rpc, data: bytes, pos: int, end: int, limits: WireLimits) -> None:
    if len(rpc.subscriptions) >= limits.max_subscriptions:
        return
    wanted, topic = False, None
    for tag, start, stop in _fields(data, pos, end):
        if tag == 0x08:
            wanted = start != 0
        elif tag == 0x12:
            topic = data[start:stop]
    if topic is not None and len(topic) <= limits.max_topic:
        rpc.subscriptions.append((wanted, topic))


class _Entries:
    """Counts what is read."""

    __slots__ = ("control", "left", "limits")

    def __init__(self, limits: WireLimits) -> None:
        self.limits = limits
        self.left = 0
        self.control = limits.max_control

    def count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _too_many(self.limits)


def _read_control(rpc: Rpc, data: bytes, pos: int, end: int, entries: _Entries) -> None:
    control = rpc.control
    if control is None:
        control = rpc.control = Control()
    limits = entries.limits
    for tag, start, stop in _fields(data, pos, end):
        entries.count()
        if tag & 7 != 2:
            continue
        if stop - start > entries.control:
            rpc.truncated = True
            continue
        entries.control -= stop - start
        if tag == 0x0A:
            topic = b""
            ids: list[bytes] = []
            for inner, at, until in _fields(data, start, stop):
                if inner == 0x0A:
                    topic = data[at:until]
                elif inner == 0x12 and not _add_id(ids, data, at, until, limits):
                    rpc.truncated = True
                    break
            control.ihave.append((topic, ids))
        elif tag in (0x12, 0x2A):
            ids = control.iwant if tag == 0x12 else control.idontwant
            for inner, at, until in _fields(data, start, stop):
                if inner == 0x0A and not _add_id(ids, data, at, until, limits):
                    rpc.truncated = True
                    break
        elif tag == 0x1A:
            topic = b""
            for inner, at, until in _fields(data, start, stop):
                if inner == 0x0A:
                    topic = data[at:until]
            control.graft.append(topic)
        elif tag == 0x22:
            control.prune.append(_read_prune(rpc, data, start, stop, limits))
        elif tag == 0x32:
            control.extensions = True
            for inner, value, _ in _fields(data, start, stop):
                if inner == TEST_EXTENSION << 3:
                    control.test_extension = value != 0


def _add_id(ids: list[bytes], data: bytes, start: int, stop: int, limits: WireLimits) -> bool:
    """Keep an id unless it is too long; False if there are enough already."""
    if len(ids) >= limits.max_ids:
        return False
    if stop - start <= limits.max_id:
        ids.append(data[start:stop])
    return True


def _read_prune(rpc: Rpc, data: bytes, pos: int, end: int, limits: WireLimits) -> Prune:
    prune = Prune(b"")
    for tag, start, stop in _fields(data, pos, end):
        if tag == 0x0A:
            prune.topic = data[start:stop]
        elif tag == 0x18:
            prune.backoff = start
        elif tag == 0x12:
            if len(prune.peers) >= limits.max_px:
                rpc.truncated = True
                continue
            peer = record = b""
            for inner, at, until in _fields(data, start, stop):
                if inner == 0x0A:
                    peer = data[at:until]
                elif inner == 0x12:
                    record = data[at:until]
            prune.peers.append((peer, record))
    return prune


def _fields(data: bytes, pos: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message: tag, where a delimited value starts or the number, the end."""
    while pos < end:
        tag, start, pos = next_field(data, pos, end)
        yield tag, start, pos


def next_field(data: bytes, pos: int, end: int) -> tuple[int, int, int]:
    """The tag at ``pos``, where its value starts or the number, and the position behind it.

    DecodeError if it reaches beyond ``end``; IndexError if even ``data`` ends before.
    """
    tag = data[pos]
    pos += 1
    if tag > 0x7F:
        tag, pos = read_varint(data, pos - 1)
    if not 0 < tag >> 3 <= _MAX_FIELD:
        raise DecodeError(f"{tag >> 3} is not a field number")
    wire = tag & 7
    if wire == 2:
        size, start = read_varint(data, pos)
        stop = start + size
    elif wire == 0:
        start, stop = read_varint(data, pos)
    elif wire == 1:
        start, stop = pos, pos + 8
    elif wire == 5:
        start, stop = pos, pos + 4
    else:
        raise DecodeError(f"groups and wire type {wire} are not accepted")
    if stop > end:
        raise _cut()
    return tag, start, stop


def _field(tag: bytes, value: bytes) -> bytes:
    return tag + varint(len(value)) + value


def _control(parts: Iterable[bytes]) -> bytes:
    return delimited(_field(b"\x1a", b"".join(parts)))


def _id_fields(tag: bytes, ids: list[bytes]) -> Iterator[bytes]:
    """The ids as fields, joined to parts of at most ``MAX_SENT_IDS`` bytes or one id."""
    parts: list[bytes] = []
    size = 0
    for one in ids:
        part = _field(tag, one)
        if parts and size + len(part) > MAX_SENT_IDS:
            yield b"".join(parts)
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    if parts:
        yield b"".join(parts)


def _cut() -> DecodeError:
    return DecodeError("an RPC is cut off")


def _too_many(limits: WireLimits) -> DecodeError:
    return DecodeError(f"an RPC with more than {limits.max_entries} entries")
