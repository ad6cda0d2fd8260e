"""A DNS client: questions to recursive servers over datagrams, answers that only they can give.

Specs: https://www.rfc-editor.org/rfc/rfc1035, rfc5452 (forged answers), rfc6761 (special names)

    query -> the same question under way? wait with it
          -> a try: a new id, the next server   --2 s, or an error, three times--> failed
                 an answer with the id, server and question of one of our tries --> records
                 a truncated one: the same by a stream if the owner has it, else what is in it
                 anything else                                                  --> ignored

Each query has a socket of its own with a port that nobody can guess: the owner opens it at the
first ``send`` and closes it at ``done``. Aliases (CNAME) are followed inside of one answer, no
further question is asked for them. Names in /etc/hosts are not known here; of special ones only
localhost is, and IP addresses. A stream is the owner's to offer: see ``Owner.send_by_stream``.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

from .crypto import Entropy
from .errors import DecodeError, LimitReached, RemoteError, TimedOut
from .resolver import Answered, Kind, LookupFailed
from .timers import Timers

TRIES = 3
TRY_TIMEOUT = 2.0
"""Seconds until the next try."""
MAX_PENDING = 64
"""Questions under way; further ones wait."""
MAX_WAITING = 512
"""Questions and callbacks that wait, beyond which a query fails at once."""
MAX_ALIASES = 8
NO_ERROR, NO_SUCH_NAME = 0, 3

Server = tuple[str, int]
"""IP address and port."""


@dataclass(slots=True)
class Record:
    """One resource record of class IN. Names are as ``Codec.canonical`` writes them."""

    name: str
    kind: str
    """A, AAAA, TXT, CNAME or what else came."""
    value: str
    """IP address, joined strings, or name. Empty for other kinds."""


@dataclass(slots=True)
class Answer:
    """What a reply says."""

    id: int
    name: str
    """Of the question, as ``kind``."""
    kind: str
    code: int = NO_ERROR
    records: Sequence[Record] = ()
    truncated: bool = False


class Codec(Protocol):
    """A library that reads and writes DNS messages."""

    def canonical(self, name: str) -> str:
        """A name as it stands in answers: lower case, no final dot. Raises DecodeError."""
        ...

    def encode(self, id: int, name: str, kind: Kind) -> bytes:
        """A query for one canonical name, recursion desired."""
        ...

    def decode(self, data: bytes) -> Answer:
        """A reply with one question. Raises DecodeError, takes linear time."""
        ...


class Owner(Protocol):
    """Who has clock, randomness and sockets."""

    entropy: Entropy
    timers: Timers

    def send(self, query: int, server: Server, data: bytes) -> object:
        """Send a datagram from the socket of a query; what comes there goes to ``receive``."""
        ...

    def send_by_stream(self, query: int, server: Server, data: bytes) -> bool:
        """The same over TCP, or False if it is not offered. The reply goes to ``receive`` as well.

        The two bytes of length before a message are the owner's business.
        """
        ...

    def done(self, query: int) -> object:
        """Close what was opened for a query."""
        ...


class DnsClient:
    """A ``resolver.Resolver`` that asks ``servers``, the first one first."""

    __slots__ = (
        "_active", "_codec", "_next", "_owner", "_queries", "_queue", "_servers", "_waiters",
    )  # fmt: skip

    def __init__(self, owner: Owner, codec: Codec, servers: Sequence[Server]) -> None:
        self._codec = codec
        self._next = 0
        self._owner = owner
        self._active: dict[int, _Query] = {}
        self._queries: dict[tuple[str, str], _Query] = {}
        self._queue: deque[_Query] = deque()
        self._servers = tuple(servers)
        self._waiters = 0

    def __len__(self) -> int:
        """Questions under way or waiting."""
        return len(self._queries)

    def query(self, name: str, kind: Kind, answered: Answered, now: float) -> None:
        """Look a name up; see ``Resolver``."""
        known = _known(name, kind)
        if known is not None:
            answered(known, now)
            return
        try:
            name = self._codec.canonical(name)
        except DecodeError as error:
            answered(error, now)
            return
        if not self._servers:
            answered(LookupFailed("no DNS server is configured"), now)
        elif self._waiters >= MAX_PENDING + MAX_WAITING:
            answered(LimitReached(f"{self._waiters} DNS lookups are under way already"), now)
        else:
            self._start(name, kind, answered, now)

    def receive(
        self, query: int, data: bytes, source: Server, now: float, *, by_stream: bool = False
    ) -> None:
        """Something came to the socket of a query. Whatever is no answer to it is ignored."""
        found = self._active.get(query)
        id = int.from_bytes(data[:2])
        if found is None or (id, source) not in found.tries:
            return
        try:
            answer = self._codec.decode(data)
            records = _select(answer)
        except DecodeError as error:
            found.reason = LookupFailed(f"{found.name}: {error}")
            return  # it may be forged, and the right one still come
        if (answer.id, answer.name, answer.kind) != (id, found.name, found.kind):
            return
        cut = answer.truncated and answer.code == NO_ERROR
        if cut and not by_stream and self._ask_by_stream(found, source, id):
            return
        if answer.code == NO_SUCH_NAME:
            self._finish(found, LookupFailed(f"there is no {found.name}"), now)
        elif answer.code != NO_ERROR:
            found.reason = LookupFailed(f"{found.name}: DNS error {answer.code}")
            self._try(found, now)
        elif cut and not records:
            found.reason = LookupFailed(f"{found.name}: the answer is too long for a datagram")
            self._try(found, now)
        else:
            self._finish(found, records, now)

    def failed(self, query: int, error: Exception, now: float) -> None:
        """Nothing can be sent for a query, or the server refuses it: the next one is asked."""
        found = self._active.get(query)
        if found is not None:
            found.reason = LookupFailed(f"{found.name}: {str(error) or type(error).__name__}")
            self._try(found, now)

    def close(self, now: float) -> None:
        """Give everything up; who waits is told."""
        self._servers = ()  # for those who ask again
        self._queue.clear()
        for found in list(self._queries.values()):
            self._finish(found, LookupFailed(f"{found.name}: the node is closing"), now)

    def _start(self, name: str, kind: Kind, answered: Answered, now: float) -> None:
        self._waiters += 1
        found = self._queries.get((name, kind))
        if found is not None:
            found.waiting.append(answered)
            return
        self._next += 1
        found = self._queries[name, kind] = _Query(self._next, name, kind, answered)
        if len(self._active) < MAX_PENDING:
            self._active[found.number] = found
            self._try(found, now)
        else:
            self._queue.append(found)

    def _try(self, found: "_Query", now: float) -> None:
        """Ask the next server, or give up."""
        owner = self._owner
        owner.timers.cancel(found.timer)
        if len(found.tries) == TRIES:
            self._finish(found, found.reason, now)
            return
        server = self._servers[len(found.tries) % len(self._servers)]
        id = int.from_bytes(owner.entropy(2))
        found.tries.append((id, server))
        found.streams = False
        found.timer = owner.timers.call_at(
            now + TRY_TIMEOUT, "ask the next DNS server", lambda now: self._try(found, now)
        )
        owner.send(found.number, server, self._encode(found, id))

    def _ask_by_stream(self, found: "_Query", server: Server, id: int) -> bool:
        if not found.streams:
            data = self._encode(found, id)
            found.streams = self._owner.send_by_stream(found.number, server, data)
        return found.streams

    def _encode(self, found: "_Query", id: int) -> bytes:
        return self._codec.encode(id, found.name, found.kind)

    def _finish(self, found: "_Query", records: list[str] | Exception, now: float) -> None:
        del self._queries[found.name, found.kind]
        self._waiters -= len(found.waiting)
        self._owner.timers.cancel(found.timer)
        if self._active.pop(found.number, None) is not None:
            self._owner.done(found.number)
        if self._queue:
            following = self._queue.popleft()
            self._active[following.number] = following
            self._try(following, now)
        for answered in found.waiting:
            answered(list(records) if isinstance(records, list) else records, now)


class _Query:
    """One question, shared by everyone who asks it."""

    __slots__ = ("kind", "name", "number", "reason", "streams", "timer", "tries", "waiting")

    def __init__(self, number: int, name: str, kind: Kind, answered: Answered) -> None:
        self.kind: Kind = kind
        self.name = name
        self.number = number
        self.reason: RemoteError = TimedOut(f"{name}: no DNS server answers")
        self.streams = False
        """Whether a stream was opened for the latest try."""
        self.timer = 0
        self.tries: list[tuple[int, Server]] = []
        self.waiting = [answered]


def _known(name: str, kind: Kind) -> list[str] | None:
    """What needs no server, None for the rest."""
    lower = name.lower().removesuffix(".")
    loopback = {"A": ["127.0.0.1"], "AAAA": ["::1"]}
    if lower == "localhost" or lower.endswith(".localhost"):
        return loopback.get(kind, [])
    try:
        ip = ip_address(lower)
    except ValueError:
        return None
    return [str(ip)] if kind == ("A" if ip.version == 4 else "AAAA") else []


def _select(answer: Answer) -> list[str]:
    """The records that belong to the question, by way of its aliases. Raises DecodeError."""
    aliases = {record.name: record.value for record in answer.records if record.kind == "CNAME"}
    name = answer.name
    for _ in range(MAX_ALIASES):
        if name not in aliases:
            break
        name = aliases[name]
    if name in aliases:
        raise DecodeError(f"more than {MAX_ALIASES} aliases, or a loop of them")
    return [
        record.value
        for record in answer.records
        if record.kind == answer.kind and record.name == name
    ]
