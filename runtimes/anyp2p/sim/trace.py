"""What happened in a world, folded into one digest, and where two runs part.

    every event -> digest                                     always
                -> checkpoint every 4096 events               with a Trace
                -> a compact entry, within the trace's window with a Trace

An event is: bytes that a node got (with their time, the node and its connection), an event that a
node reported, a task that ended. Equal digests mean equal runs.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from zlib import crc32

from anyp2p_core.errors import LocalError

CHECKPOINT = 4096
"""Events between two checkpoints of a trace."""
BATCH = 512
"""Pieces that wait to be hashed together."""
NOBODY = 0xFFFF_FFFF
"""The place of what belongs to no machine."""

_pack = Struct("<cdIQI").pack


@dataclass(slots=True)
class Entry:
    """One event. ``number`` is that of a connection, request, stream or task."""

    index: int
    time: float
    kind: str
    place: int
    number: int
    sum: int
    """Of the bytes delivered, or of how a task ended."""

    def __str__(self) -> str:
        where = ""
        if self.place != NOBODY:
            where = f" on machine {self.place & 0xFF_FFFF}"
            if self.place >> 24:
                where += f" (host {self.place >> 24})"
        detail = ""
        if self.kind == "bytes":
            detail = f", {self.sum >> 32} bytes with crc {self.sum & 0xFFFF_FFFF:08x}"
        elif self.sum:
            detail = f" {self.sum:x}"
        return f"event {self.index} at {self.time:.9f} s: {self.kind} {self.number}{where}{detail}"


class Trace:
    """What ``compare`` needs to know of one run. Give it to ``World(trace=...)``.

    Entries cost 29 bytes each and are kept for events ``start`` up to ``start + limit``;
    checkpoints are kept for all. It can be pickled.
    """

    def __init__(self, start: int = 0, limit: int = 1_000_000) -> None:
        self.start = start
        self.limit = limit
        self.count = 0
        """Events of the run so far."""
        self.checkpoints = array("Q")
        self._kind_of: dict[str, int] = {}
        self._times = array("d")
        self._places = array("I")
        self._numbers = array("Q")
        self._kinds = array("B")
        self._sums = array("Q")
        self._tail: list[Entry] = []  # those since the last checkpoint that are not kept
        self._names: list[str] = []

    def __len__(self) -> int:
        """Entries that are kept."""
        return len(self._times)

    def add(self, time: float, kind: str, place: int, number: int, sum_: int) -> None:
        """One more event."""
        if self.start <= self.count < self.start + self.limit:
            known = self._kind_of.get(kind)
            if known is None:
                known = self._kind_of[kind] = len(self._names)
                self._names.append(kind)
            self._times.append(time)
            self._kinds.append(known)
            self._places.append(place)
            self._numbers.append(number)
            self._sums.append(sum_)
        else:
            self._tail.append(Entry(self.count, time, kind, place, number, sum_))
        self.count += 1

    def checkpoint(self, digest: bytes) -> None:
        """All events so far have this digest."""
        self.checkpoints.append(int.from_bytes(digest[:8], "little"))
        self._tail.clear()

    def entry(self, index: int) -> Entry | None:
        """Event number ``index`` of the run; None if it is not kept."""
        place = index - self.start
        if not 0 <= place < len(self._times):
            tail = index - self.count + len(self._tail)
            return self._tail[tail] if 0 <= tail < len(self._tail) else None
        return Entry(
            index,
            self._times[place],
            self._names[self._kinds[place]],
            self._places[place],
            self._numbers[place],
            self._sums[place],
        )


@dataclass(slots=True)
class Divergence:
    """Where two runs part: event ``index`` is the first one that differs.

    When it is not ``exact``, it lies in the ``CHECKPOINT`` events from ``index`` on, outside of the
    traces' windows. ``a`` and ``b`` are None where a run ended before it.
    """

    index: int
    exact: bool
    a: Entry | None
    b: Entry | None

    def __str__(self) -> str:
        if not self.exact:
            return f"the runs part within {CHECKPOINT} events from event {self.index} on"
        ends = "nothing more happened"
        return f"the runs part at event {self.index}:\n  a: {self.a or ends}\n  b: {self.b or ends}"


def compare(a: Trace, b: Trace) -> Divergence | None:
    """Where two runs part; None if they do not."""
    if (a.start, a.limit) != (b.start, b.limit):
        raise LocalError("only traces of the same window can be compared")
    first = _first_checkpoint(a, b)
    begin = first * CHECKPOINT
    end = min(max(a.count, b.count), begin + CHECKPOINT)
    for index in range(begin, end):
        one, other = a.entry(index), b.entry(index)
        if (one is None and index < a.count) or (other is None and index < b.count):
            return Divergence(begin, False, None, None)
        if one != other:
            return Divergence(index, True, one, other)
    return None


def _first_checkpoint(a: Trace, b: Trace) -> int:
    """The first checkpoint that differs or that is not in both."""
    low, high = 0, min(len(a.checkpoints), len(b.checkpoints))
    while low < high:  # each one covers all before it: once different, always different
        middle = (low + high) // 2
        if a.checkpoints[middle] == b.checkpoints[middle]:
            low = middle + 1
        else:
            high = middle
    return low


Scenario = Callable[[Trace], object]


def first_divergence(a: Scenario, b: Scenario, *, attempts: int = 4) -> Divergence | None:
    """Run two scenarios, or one twice, and tell where they part; None if they do not.

    A scenario makes a world with the trace that it is given and runs it. When the runs part beyond
    the first million events they are repeated with a later window.
    """
    start = 0
    divergence: Divergence | None = None
    for _ in range(attempts):
        traces = Trace(start), Trace(start)
        a(traces[0])
        b(traces[1])
        divergence = compare(*traces)
        if divergence is None or divergence.exact:
            break
        start = divergence.index
    return divergence


class Recorder:
    """Folds the events of one world."""

    __slots__ = ("_hash", "_pending", "_trace")

    def __init__(self, trace: Trace | None) -> None:
        self._hash = blake2b(digest_size=16)
        self._pending: list[bytes] = []
        self._trace = trace

    def delivered(self, now: float, place: int, conn: int, data: bytes) -> None:
        """A node got bytes."""
        pending = self._pending
        pending.append(_pack(b"D", now, place, conn, len(data)))
        pending.append(data)
        if len(pending) >= BATCH:
            self._fold()
        if self._trace is not None:
            self._keep(now, "bytes", place, conn, len(data) << 32 | crc32(data))

    def happened(self, now: float, kind: str, place: int, number: int, detail: int = 0) -> None:
        """Something else happened; ``number`` tells with what, ``detail`` how."""
        pending = self._pending
        pending.append(_pack(b"E", now, place, number, detail) + kind.encode())
        if len(pending) >= BATCH:
            self._fold()
        if self._trace is not None:
            self._keep(now, kind, place, number, detail)

    def digest(self) -> str:
        """Of all events so far, in hexadecimal."""
        self._fold()
        return self._hash.hexdigest()

    def _fold(self) -> None:
        self._hash.update(b"".join(self._pending))
        self._pending.clear()

    def _keep(self, now: float, kind: str, place: int, number: int, sum_: int) -> None:
        trace = self._trace
        assert trace is not None
        trace.add(now, kind, place, number, sum_)
        if not trace.count % CHECKPOINT:
            self._fold()
            trace.checkpoint(self._hash.digest())
