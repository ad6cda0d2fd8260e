"""Two sessions and two wires under any order of operations, against a model of lists of bytes.

The model knows what each side wrote and consumed of each stream. Checked all the time: no byte is
lost, doubled or out of order, unless the stream is reset; what is unread stays within its bounds,
and nothing is charged that is not unread; ``wants_write`` and ``on_ready`` tell the truth.
"""

from dataclasses import dataclass, field

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from anyp2p_core.errors import LimitReached
from anyp2p_core.limits import Limits
from anyp2p_core.mplex import MAX_STREAM_UNREAD, MAX_UNREAD, Mplex
from anyp2p_core.mplex_frame import decode
from anyp2p_core.mplex_stream import Stream

SOURCE = bytes(i * 89 + (i >> 8) * 7 & 0xFF for i in range(1 << 20)) * 9
"""What every stream writes, from its start on: a byte in the wrong place is noticed."""

SIDES = st.sampled_from([0, 1])
SIZES = st.sampled_from([0, 1, 2, 100, 1000, 32768, 65507, 65508, 131072, 300_000])
CUTS = st.sampled_from([1, 2, 3, 5, 13, 100, 5000, 70_000, 1 << 22])


@dataclass(eq=False)
class End:
    """One side of a stream: what it wrote, got, and has been told."""

    stream: Stream
    written: int = 0
    received: int = 0
    consumed: int = 0
    wrote_eof: bool = False
    discards: bool = False
    waiting: bool = False
    events: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stream.on_data = self.on_data
        self.stream.on_eof = lambda now: self.over("eof")
        self.stream.on_reset = self.on_reset
        self.stream.on_writable = self.on_writable

    def on_data(self, data: bytes, now: float) -> None:
        assert not self.events and not self.discards and type(data) is bytes and data
        assert data == SOURCE[self.received : self.received + len(data)]
        self.received += len(data)

    def on_reset(self, code: int, now: float) -> None:
        assert code == 0
        self.over("reset")

    def over(self, event: str) -> None:
        assert event not in self.events and "reset" not in self.events
        self.events.append(event)

    def on_writable(self, now: float) -> None:
        assert self.waiting and not self.wrote_eof
        self.waiting = False


def whole_frames(data: bytes) -> bool:
    pos = 0
    while pos < len(data):
        found = decode(data, pos)
        assert found is not None
        _, length, pos = found
        pos += length
    return pos == len(data)


class TwoSessions(RuleBasedStateMachine):
    @initialize(
        max_unsent=st.sampled_from([1000, 256 * 1024, 2 << 20]),
        max_unread=st.sampled_from([400_000, 16 << 20]),
        streams=st.sampled_from([2, 100]),
    )
    def start(self, max_unsent: int, max_unread: int, streams: int) -> None:
        limits = Limits(
            max_unsent=max_unsent,
            max_unread=max_unread,
            max_inbound_streams=streams,
            max_outbound_streams=streams + 1,
            max_resets=1 << 20,
        )
        self.now = 0.0
        self.dead = False
        self.ends: list[dict[int, End]] = [{}, {}]
        self.readied = [False, False]
        self.wires = [bytearray(), bytearray()]  # wires[side] carries what that side sent
        self.muxes = [
            Mplex(
                initiator=side == 0,
                limits=limits,
                on_stream=lambda stream, now, side=side: self.accepted(side, stream),  # type: ignore[misc]
                on_ready=lambda side=side: self.ready(side),  # type: ignore[misc]
            )
            for side in (0, 1)
        ]
        for side in (0, 1):
            self.open(side)
            self.open(side)
            self.flush(side, 1 << 22)

    def ready(self, side: int) -> None:
        self.readied[side] = True

    def accepted(self, side: int, stream: Stream) -> None:
        assert stream.id not in self.ends[side]
        self.ends[side][stream.id] = End(stream)

    def pick(self, side: int, which: int) -> End | None:
        ends = list(self.ends[side].values())
        return ends[which % len(ends)] if ends else None

    @precondition(lambda self: not self.dead)
    @rule(side=SIDES)
    def open(self, side: int) -> None:
        try:
            stream = self.muxes[side].open(self.now)
        except LimitReached:
            assert sum(not end.stream.inbound for end in self.live(side)) >= 3
        else:
            self.accepted(side, stream)

    @rule(side=SIDES, which=st.integers(0, 50), size=SIZES)
    def write(self, side: int, which: int, size: int) -> None:
        end = self.pick(side, which)
        if end and not end.stream.eof_sent and not end.stream.is_reset:
            size = min(size, len(SOURCE) - end.written)
            taken = end.stream.write(memoryview(SOURCE)[end.written : end.written + size])
            assert taken <= size
            end.waiting |= taken < size
            end.written += taken

    @rule(side=SIDES, which=st.integers(0, 50))
    def write_eof(self, side: int, which: int) -> None:
        end = self.pick(side, which)
        if end:
            end.stream.write_eof()
            end.wrote_eof = end.stream.eof_sent

    @rule(side=SIDES, which=st.integers(0, 50), code=st.integers(0, 2**32 - 1))
    def reset(self, side: int, which: int, code: int) -> None:
        end = self.pick(side, which)
        if end and which % 8 == 0:
            end.stream.reset(code)
            end.discards = True

    @rule(side=SIDES, which=st.integers(0, 50), share=st.sampled_from([0.1, 0.5, 1.0]))
    def consume(self, side: int, which: int, share: float) -> None:
        end = self.pick(side, which)
        if end and not end.discards:
            size = int(end.stream.unread * share)
            end.consumed += size
            end.stream.credit(size, self.now)

    @rule(side=SIDES, which=st.integers(0, 50))
    def stop_reading(self, side: int, which: int) -> None:
        end = self.pick(side, which)
        if end and which % 8 == 1:
            end.stream.stop_reading()
            end.discards = True

    @rule(side=SIDES, budget=st.sampled_from([0, 1, 1000, 65519, 1 << 22]))
    def flush(self, side: int, budget: int) -> None:
        mux = self.muxes[side]
        wanted = mux.wants_write
        self.readied[side] = False  # it will say when there is something again
        data = b"".join(mux.data_to_send(budget, self.now))
        self.readied[side] |= mux.wants_write
        assert wanted or not data
        assert data or not (wanted and budget)
        assert whole_frames(data)  # only these are ever handed out
        self.wires[side] += data

    @rule(side=SIDES, cut=CUTS)
    def deliver(self, side: int, cut: int) -> None:
        wire = self.wires[side]
        data = bytes(wire[:cut])
        del wire[:cut]
        self.muxes[1 - side].receive(data, self.now)

    @rule(side=SIDES, which=st.integers(0, 50), turns=st.integers(1, 12), read=st.booleans())
    def move_much(self, side: int, which: int, turns: int, read: bool) -> None:
        """What single steps seldom do: fill one stream, and perhaps empty it."""
        end = self.pick(side, which)
        if end is None:
            return
        for _ in range(turns):
            self.write(side, which, 300_000)
            self.flush(side, 1 << 22)
            self.deliver(side, 1 << 22)
            other = self.ends[1 - side].get(end.stream.id ^ 1)
            if read and other and not other.discards:
                other.consumed += other.stream.unread
                other.stream.credit(other.stream.unread, self.now)

    @rule(seconds=st.sampled_from([0.0, 0.1, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.now >= 20 and not self.dead)
    @rule()
    def lose_the_connection(self) -> None:
        for side in (0, 1):
            live = self.live(side)
            self.muxes[side].close(self.now)
            assert all(end.events[-1] == "reset" for end in live)
            assert not self.muxes[side].wants_write
            self.readied[side] = False
        self.dead = True

    def live(self, side: int) -> list[End]:
        return [self.ends[side][i] for i in self.muxes[side].streams]

    @invariant()
    def tell_the_truth(self) -> None:
        for side, mux in enumerate(getattr(self, "muxes", ())):
            self.readied[side] &= mux.wants_write
            assert self.readied[side] == mux.wants_write
            assert mux.unread == sum(end.stream.unread for end in self.ends[side].values())
            assert mux.unread <= min(MAX_UNREAD, mux.limits.max_unread)
            inbound = sum(stream.inbound for stream in mux.streams.values())
            assert inbound <= mux.limits.max_inbound_streams
            for stream_id, end in self.ends[side].items():
                stream = end.stream
                assert stream.unread <= MAX_STREAM_UNREAD
                if not end.discards and not stream.shed:
                    assert stream.unread == end.received - end.consumed
                if stream_id not in mux.streams:
                    assert stream.is_reset or (stream.eof_received and stream.eof_sent)
                    assert stream.unsent == 0
                assert 0 <= stream.unsent <= mux.limits.max_unsent

    def teardown(self) -> None:
        """Everybody reads: everything arrives, and nothing stays behind."""
        if not hasattr(self, "muxes") or self.dead:
            return
        for _ in range(10_000):
            moved = False
            for side in (0, 1):
                for end in list(self.ends[side].values()):
                    if not end.discards and end.stream.unread:
                        end.consumed += end.stream.unread
                        end.stream.credit(end.stream.unread, self.now)
                wire = self.wires[side]
                if not wire:
                    wire += b"".join(self.muxes[side].data_to_send(1 << 16, self.now))
                moved |= bool(wire)
                self.deliver(side, 1 << 16)
            if not moved:
                break
        assert not moved
        for side in (0, 1):
            assert self.muxes[side].unread == 0
            for stream_id in self.muxes[side].streams:
                assert stream_id ^ 1 in self.muxes[1 - side].streams
            for stream_id, end in self.ends[side].items():
                other = self.ends[1 - side].get(stream_id ^ 1)
                if other is None:
                    assert end.stream.is_reset
                    continue
                if end.stream.is_reset or other.stream.is_reset:
                    assert stream_id not in self.muxes[side].streams
                    continue
                assert end.stream.unsent == 0 and not (end.waiting and not end.wrote_eof)
                if not other.discards:
                    assert other.received == end.written
                assert ("eof" in other.events) == end.wrote_eof


TestTwoSessions = TwoSessions.TestCase
TestTwoSessions.settings = settings(
    deadline=None, max_examples=120, stateful_step_count=60, print_blob=True
)
