"""/ipfs/id/1.0.0 and /ipfs/id/push/1.0.0: who the other side is and what it speaks.

Spec: https://github.com/libp2p/specs/blob/master/identify/README.md

    identify   opener opens the stream    ->
                                          <-  one or two Identify messages, FIN
    push       opener sends its messages, FIN  ->

Several messages on one stream are merged. The first one that we send fits into 4 KiB, which is all
that some peers read; a signed record that does not fit follows in a second one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from . import envelope, varint
from .connection import Connection
from .errors import DecodeError, LocalError, RemoteError, TimedOut
from .events import IdentifyFailed, PeerIdentified
from .keys import PublicKey
from .multiaddr import Multiaddr
from .peer_id import PeerId
from .protobuf import BYTES, STRING, Field, Schema
from .service import Service
from .yamux_stream import Stream

PROTOCOL = "/ipfs/id/1.0.0"
PUSH = "/ipfs/id/push/1.0.0"
PROTOCOL_VERSION = "ipfs/0.1.0"

MAX_MESSAGE = 8 * 1024
MAX_MESSAGES = 10
MAX_TOTAL = 64 * 1024
MAX_FIRST_MESSAGE = 4096
MAX_PROTOCOL_LENGTH = 1024
MAX_TEXT = 128
"""Code points of an agent or protocol version that are kept (draft in the spec)."""
RATE_LIMITED = 0x1003
PUSH_DELAY = 0.5
"""Seconds for which changes are gathered before they are pushed."""


@dataclass(slots=True)
class Message:
    """The wire message."""

    public_key: bytes | None = None
    listen_addrs: list[bytes] = field(default_factory=list)
    protocols: list[str] = field(default_factory=list)
    observed_addr: bytes | None = None
    protocol_version: str | None = None
    agent_version: str | None = None
    signed_peer_record: bytes | None = None


IDENTIFY = Schema(
    Message,
    Field(1, "public_key", BYTES),
    Field(2, "listen_addrs", BYTES, repeated=True, limit=64, overflow="drop"),
    Field(3, "protocols", STRING, repeated=True, limit=256, overflow="drop"),
    Field(4, "observed_addr", BYTES),
    Field(5, "protocol_version", STRING),
    Field(6, "agent_version", STRING),
    Field(8, "signed_peer_record", BYTES),
)


@dataclass(slots=True)
class IdentifyInfo:
    """What a peer said of itself. Texts are safe to print."""

    peer: PeerId
    agent: str = ""
    protocol_version: str = ""
    protocols: tuple[str, ...] = ()
    addresses: tuple[Multiaddr, ...] = ()
    """Where it says it listens; from the signed record if there is a valid one."""
    observed: Multiaddr | None = None
    """The address at which it sees us."""
    public_key: PublicKey | None = None
    signed_record: bool = False


def printable(text: str) -> str:
    """Cut a peer's text to ``MAX_TEXT`` and replace control characters, so that it can be shown.

    >>> printable("good\\x1b[2Jbad")
    'good\\ufffd[2Jbad'
    """
    cut = text[:MAX_TEXT]
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in cut)


def merge(into: Message, part: Message, limits_protocols: int, limits_addresses: int) -> None:
    """Join a further message: lists grow up to the limits, the other fields are replaced."""
    room = limits_addresses - len(into.listen_addrs)
    into.listen_addrs += part.listen_addrs[: max(room, 0)]
    room = limits_protocols - len(into.protocols)
    into.protocols += [p for p in part.protocols if len(p) <= MAX_PROTOCOL_LENGTH][: max(room, 0)]
    if part.public_key is not None:
        into.public_key = part.public_key
    if part.observed_addr is not None:
        into.observed_addr = part.observed_addr
    if part.protocol_version is not None:
        into.protocol_version = part.protocol_version
    if part.agent_version is not None:
        into.agent_version = part.agent_version
    if part.signed_peer_record is not None:
        into.signed_peer_record = part.signed_peer_record


def decode_addresses(encoded: Iterable[bytes]) -> list[Multiaddr]:
    """The addresses that can be read; the others are dropped."""
    addresses = []
    for data in encoded:
        try:
            addresses.append(Multiaddr.from_bytes(data))
        except DecodeError:
            continue
    return addresses


def reachable(addresses: Iterable[Multiaddr], remote: Multiaddr | None) -> list[Multiaddr]:
    """Drop what cannot be dialed from here: loopback and private addresses of a public peer."""
    scope = _scope(remote) if remote is not None else LOOPBACK
    return [address for address in addresses if _scope(address) >= scope]


LOOPBACK, PRIVATE, PUBLIC = range(3)


def _scope(address: Multiaddr) -> int:
    text = address.get("ip4") or address.get("ip6")
    if text is None:
        return PUBLIC
    ip = ip_address(text)
    if ip.is_loopback:
        return LOOPBACK
    return PUBLIC if ip.is_global else PRIVATE


def _keep(before: IdentifyInfo, info: IdentifyInfo, push: Message) -> None:
    """A push may be partial: what it does not carry stays as it was."""
    if push.agent_version is None:
        info.agent = before.agent
    if push.protocol_version is None:
        info.protocol_version = before.protocol_version
    if not push.protocols:
        info.protocols = before.protocols
    if not push.listen_addrs and not info.signed_record:
        info.addresses = before.addresses
        info.signed_record = before.signed_record
    if info.observed is None:
        info.observed = before.observed


class _Reader:
    """Collects the messages of one stream until its end, within size and time."""

    __slots__ = ("connection", "_count", "_frames", "_message", "_pushed", "_service", "_stream",
                 "_timer", "_total")  # fmt: skip

    def __init__(
        self, service: "Identify", connection: Connection, pushed: bool, now: float
    ) -> None:
        self.connection = connection
        self._count = 0
        self._total = 0
        self._frames = varint.Delimited(MAX_MESSAGE)
        self._message = Message()
        self._pushed = pushed
        self._service = service
        self._stream: Stream | None = None
        context = service.context
        deadline = now + context.limits.identify_timeout
        self._timer = context.call_at(deadline, "identify", self._expire)

    def take(self, stream: Stream, protocol: str, now: float) -> None:
        """Read from this stream."""
        self._stream = stream
        stream.on_data = self._on_data
        stream.on_eof = self._on_eof
        stream.on_reset = self._on_reset

    def fail(self, error: Exception, now: float) -> None:
        """Give up; the connection stays."""
        if self._timer:
            self._service.context.cancel(self._timer)
            self._timer = 0
            if self._stream is not None:
                self._stream.reset()
            self._service.failed(self.connection, error, self._pushed)

    def _on_data(self, data: bytes, now: float) -> None:
        assert self._stream is not None
        self._stream.credit(len(data), now)
        limits = self._service.context.limits
        self._total += len(data)
        if self._total > MAX_TOTAL:
            self.fail(RemoteError(f"the identify messages are longer than {MAX_TOTAL} bytes"), now)
            return
        try:
            for frame in self._frames.receive(data):
                self._count += 1
                if self._count > MAX_MESSAGES:
                    raise RemoteError(f"more than {MAX_MESSAGES} identify messages")
                part = IDENTIFY.decode(frame)
                merge(
                    self._message,
                    part,
                    limits.max_protocols_per_peer,
                    limits.max_addresses_per_peer,
                )
        except RemoteError as error:
            self.fail(error, now)

    def _on_eof(self, now: float) -> None:
        assert self._stream is not None
        if not self._timer:
            return
        if not self._count or self._frames.pending:
            self.fail(RemoteError("the identify stream ended in the middle of a message"), now)
            return
        self._service.context.cancel(self._timer)
        self._timer = 0
        self._stream.write_eof()
        self._service.received(self.connection, self._message, self._pushed, now)

    def _on_reset(self, code: int, now: float) -> None:
        self._stream = None
        reason = self.connection.error or RemoteError(f"the peer reset the stream (code {code:#x})")
        self.fail(reason, now)

    def _expire(self, now: float) -> None:
        limit = self._service.context.limits.identify_timeout
        connection = self.connection
        self.fail(TimedOut(f"the peer did not identify itself within {limit:g} s"), now)
        self._service.context.touch(connection)


class Identify(Service):
    """Asks every new connection who it is, answers the same question, and pushes changes."""

    protocols = (PROTOCOL, PUSH)

    def __init__(self) -> None:
        self.infos: dict[int, IdentifyInfo] = {}
        """What the peer of each open connection said."""
        self._pushes: dict[int, tuple[float, int]] = {}
        self._record = b""
        self._record_seq = 0
        self._parts: tuple[bytes, bytes, bytes] | None = None
        self._announced: tuple[Sequence[Multiaddr], Sequence[str]] | None = None
        self._timer = 0

    # Notices from the node.

    def on_connected(self, connection: Connection, now: float) -> None:
        reader = _Reader(self, connection, False, now)
        try:
            connection.open_stream((PROTOCOL,), reader.take, reader.fail, now)
        except LocalError as error:
            reader.fail(error, now)

    def on_disconnected(self, connection: Connection, now: float) -> None:
        self.infos.pop(connection.id, None)
        self._pushes.pop(connection.id, None)

    def on_stream(self, connection: Connection, stream: Stream, protocol: str, now: float) -> None:
        if protocol == PROTOCOL:
            self._send(connection, stream, now)
        elif self._push_allowed(connection, now):
            _Reader(self, connection, True, now).take(stream, protocol, now)
        else:
            stream.reset(RATE_LIMITED)

    def changed(self, now: float) -> None:
        """Our addresses or protocols changed: tell the peers that want to know, a little later."""
        self._parts = None
        if not self._timer and self.context.connections():
            self._timer = self.context.call_at(now + PUSH_DELAY, "push identify", self._push)

    # Results of readers.

    def received(self, connection: Connection, message: Message, pushed: bool, now: float) -> None:
        """A peer said who it is."""
        peer = connection.peer
        assert peer is not None
        info = self._check(connection, peer, message, now)
        before = self.infos.get(connection.id)
        if pushed and before is not None:
            _keep(before, info, message)
        known = self.context.peers.learn(peer)
        known.agent = info.agent
        known.protocols = info.protocols
        known.public_key = connection.public_key
        if info.signed_record:
            self.context.peers.set_addresses(peer, info.addresses, now)
        elif not known.record:
            self.context.peers.add_addresses(peer, info.addresses, now)
        self.infos[connection.id] = info
        self.context.emit(PeerIdentified(connection.id, peer, info, pushed))

    def failed(self, connection: Connection, error: Exception, pushed: bool) -> None:
        """A peer did not say who it is, or said it wrongly."""
        if not pushed:
            assert connection.peer is not None
            self.context.emit(IdentifyFailed(connection.id, connection.peer, error))

    def _check(
        self, connection: Connection, peer: PeerId, message: Message, now: float
    ) -> IdentifyInfo:
        context = self.context
        addresses = decode_addresses(message.listen_addrs)
        signed = False
        if message.signed_peer_record:
            known = context.peers.learn(peer)
            try:
                record = envelope.open_peer_record(message.signed_peer_record, context.crypto)
            except RemoteError:
                record = None  # a bad record is ignored, the rest of the message is used
            if record is not None and record.peer_id == peer and record.seq >= known.record_seq:
                signed = True
                known.record_seq = record.seq
                known.record = message.signed_peer_record
                addresses = record.addresses
        observed = decode_addresses((message.observed_addr,)) if message.observed_addr else []
        return IdentifyInfo(
            peer=peer,
            agent=printable(message.agent_version or ""),
            protocol_version=printable(message.protocol_version or ""),
            protocols=tuple(dict.fromkeys(message.protocols)),
            addresses=tuple(reachable(addresses, connection.remote)),
            observed=observed[0] if observed else None,
            public_key=connection.public_key,
            signed_record=signed,
        )

    # Our own message.

    def _send(self, connection: Connection, stream: Stream, now: float) -> None:
        stream.write(self.encode(connection.remote, now))
        stream.write_eof()
        stream.stop_reading()

    def encode(self, observed: Multiaddr | None, now: float) -> bytes:
        """Our messages, length-prefixed, for a peer that we see at ``observed``."""
        if self._parts is None:
            self._parts = self._make_parts(now)
        head, tail, record = self._parts
        middle = IDENTIFY.encode(Message(observed_addr=bytes(observed))) if observed else b""
        first = head + middle + tail
        if len(first) + len(record) <= MAX_FIRST_MESSAGE:
            return varint.delimited(first + record)
        return varint.delimited(first) + varint.delimited(record)

    def _make_parts(self, now: float) -> tuple[bytes, bytes, bytes]:
        context = self.context
        addresses = list(context.addresses)[:64]
        # A fresh number on every start, so that a restarted node is believed.
        self._record_seq = max(self._record_seq + 1, int(context.wall(now) * 1e9))
        record = envelope.seal_peer_record(context.key, self._record_seq, addresses)
        head = Message(
            public_key=context.key.public.encode(),
            listen_addrs=[bytes(address) for address in addresses],
            protocols=list(context.protocols),
        )
        tail = Message(protocol_version=PROTOCOL_VERSION, agent_version=context.agent)
        encoded_tail = IDENTIFY.encode(tail)
        room = MAX_FIRST_MESSAGE - len(encoded_tail) - 256
        while head.listen_addrs and len(IDENTIFY.encode(head)) > room:
            head.listen_addrs.pop()
        return (
            IDENTIFY.encode(head),
            encoded_tail,
            IDENTIFY.encode(Message(signed_peer_record=record)),
        )

    # Push.

    def _push(self, now: float) -> None:
        self._timer = 0
        for connection in self.context.connections():
            info = self.infos.get(connection.id)
            if info is not None and PUSH in info.protocols:
                self._push_to(connection, now)

    def _push_to(self, connection: Connection, now: float) -> None:
        def on_open(stream: Stream, protocol: str, now: float) -> None:
            self._send(connection, stream, now)

        def on_fail(error: Exception, now: float) -> None:
            """It does not want to know; the next identify tells it."""

        try:
            connection.open_stream((PUSH,), on_open, on_fail, now)
        except LocalError:
            return  # it is closing, or has no room for a stream
        self.context.touch(connection)

    def _push_allowed(self, connection: Connection, now: float) -> bool:
        start, count = self._pushes.get(connection.id, (now, 0))
        if now - start >= 60.0:
            start, count = now, 0
        self._pushes[connection.id] = (start, count + 1)
        return count < self.context.limits.max_pushes_per_minute
