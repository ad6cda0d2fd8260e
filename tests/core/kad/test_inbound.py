"""One stream on which a peer asks: answers in order, deadlines, and nothing is left behind."""

import pytest

from anyp2p_core.errors import RemoteError
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.framing import Held
from anyp2p_core.kad.inbound import Inbound
from anyp2p_core.timers import Timers
from anyp2p_core.varint import delimited


class FakeStream:
    """The muxer's stream, as far as it is used here."""

    def __init__(self, room=10**9):
        self.room = room
        self.written = b""
        self.unsent = 0
        self.credited = 0
        self.is_reset = self.eof = False
        self.on_drained = None

    def write(self, data):
        taken = data[: self.room]
        self.room -= len(taken)
        self.written += taken
        return len(taken)

    def write_eof(self):
        self.eof = True

    def reset(self, code=0):
        self.is_reset = True

    def credit(self, size, now):
        self.credited += size


class Bench:
    def __init__(self, respond=None, held=10_000, **options):
        self.timers = Timers()
        self.call_at, self.cancel = self.timers.call_at, self.timers.cancel
        self.touched = []
        self.touch = self.touched.append
        self.stream = FakeStream(**options)
        self.held = Held(held)
        self.asked = []
        self.over = []
        self.inbound = Inbound(
            self.stream,
            "connection",
            context=self,
            config=KadConfig(),
            held=self.held,
            respond=respond or self.respond,
            over=self.over.append,
            now=0.0,
        )

    def respond(self, request, now):
        self.asked.append(request)
        return delimited(b"re " + request)

    def send(self, data, now=0.0):
        self.stream.on_data(data, now)

    def quiet(self):
        """Whether nothing is left of it."""
        assert self.over == [self.inbound]
        assert len(self.timers) == 0 == self.held.total
        return True


def test_one_request_after_the_other():
    bench = Bench()
    bench.send(delimited(b"a"))
    bench.send(delimited(b"b") + delimited(b"c")[:1])
    bench.send(b"c")
    assert bench.asked == [b"a", b"b", b"c"]
    assert bench.stream.written == b"".join(delimited(b"re " + one) for one in bench.asked)
    assert bench.stream.credited == 6
    bench.stream.on_eof(1.0)
    assert bench.stream.eof and not bench.stream.is_reset and bench.quiet()


def test_some_requests_have_no_answer():
    bench = Bench(lambda request, now: None)
    bench.send(delimited(b"a"))
    assert bench.stream.written == b"" and not bench.over


def test_row_86_idle_for_60_seconds():
    bench = Bench()
    bench.timers.run(59.9)
    bench.send(delimited(b"a"), 59.9)
    bench.timers.run(60.0)
    assert not bench.over and bench.timers.next_timeout() == 119.9
    bench.timers.run(119.9)
    assert bench.stream.is_reset and bench.touched == ["connection"] and bench.quiet()


def test_row_86_dripping_ends_after_10_seconds():
    bench = Bench()
    data = delimited(bytes(100))
    for second in range(10):
        bench.send(data[second : second + 1], float(second))
        bench.timers.run(float(second))
        assert not bench.over
    bench.timers.run(10.0)
    assert bench.stream.is_reset and bench.quiet()


def test_each_request_has_its_own_time():
    bench = Bench()
    data = delimited(b"abcd")
    bench.send(data[:2], 0.0)
    bench.send(data[2:] + data[:2], 9.0)  # the next one begins where the first one ends
    bench.timers.run(10.0)
    assert not bench.over
    bench.send(data[2:], 18.0)
    bench.timers.run(20.0)
    assert not bench.over
    bench.timers.run(78.0)
    assert bench.stream.is_reset and bench.quiet()


def refuse(request, now):
    raise RemoteError("no")


@pytest.mark.parametrize(
    ("options", "data"),
    [
        ({"respond": refuse}, delimited(b"a")),
        ({}, b"\x80\x80\x80\x80\x01"),  # too long
        ({}, b"\x80\x00"),  # no length at all
        ({"held": 3}, delimited(bytes(50))[:10]),
        ({"room": 3}, delimited(b"a")),  # answers are left unread
    ],
)
def test_what_ends_the_stream(options, data):
    bench = Bench(**options)
    bench.send(data)
    assert bench.stream.is_reset and bench.quiet()


def test_after_one_that_is_wrong_no_other_is_answered():
    bench = Bench(refuse)
    bench.send(delimited(b"a") * 100)
    assert bench.stream.written == b"" and bench.quiet()


def test_the_end_in_the_middle_of_a_request():
    bench = Bench()
    bench.send(delimited(b"abc")[:2])
    bench.stream.on_eof(1.0)
    assert bench.stream.is_reset and bench.quiet()


def test_reset_by_the_peer_and_by_us():
    bench = Bench()
    bench.send(delimited(b"abc")[:2])
    bench.stream.on_reset(0, 1.0)
    assert not bench.stream.is_reset and bench.quiet()
    bench.inbound.reset()
    assert bench.quiet()


def test_answers_that_are_not_read_are_not_kept_for_ever_after_the_end():
    bench = Bench()
    bench.send(delimited(b"a"))
    bench.stream.unsent = 4
    bench.stream.on_eof(1.0)
    assert bench.stream.eof and not bench.over
    bench.timers.run(60.0)
    assert bench.stream.is_reset and bench.quiet()
    # But they are sent if they are read.
    bench = Bench()
    bench.send(delimited(b"a"))
    bench.stream.unsent = 4
    bench.stream.on_eof(1.0)
    bench.stream.on_drained(2.0)
    assert not bench.stream.is_reset and bench.quiet()
