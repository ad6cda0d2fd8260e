"""anyp2p_core.muxed_stream: what is unread and how streams end; the muxer writes it down."""

import pytest

from anyp2p_core.errors import LocalError
from anyp2p_core.limits import Limits
from anyp2p_core.muxed_session import MuxedSession
from anyp2p_core.muxed_stream import MuxedStream, check_code


class Stream(MuxedStream["Session"]):
    """Like mplex: nothing is said of what was consumed."""

    __slots__ = ()


class Told(MuxedStream["Session"]):
    __slots__ = ()

    def _consumed(self, size: int, now: float) -> None:
        self._mux.log.append(("consumed", size, now))

    def _stop(self) -> None:
        super()._stop()
        self._mux.log.append(("stop", self.unread))

    def _send_reset(self, code: int) -> None:
        self._mux.log.append(("reset", code))


class Session(MuxedSession[MuxedStream["Session"]]):
    def __init__(self, kind: type[MuxedStream["Session"]] = Told) -> None:
        super().__init__(Limits())
        self.log: list[object] = []
        self.stream = self.streams[1] = kind(self, self, 1, True)
        self.stream.on_data = lambda data, now: self.log.append(data)
        self.stream.on_eof = lambda now: self.log.append("eof")
        self.stream.on_reset = lambda code, now: self.log.append(("on_reset", code))

    def deliver(self, data: bytes) -> None:
        self.stream.unread += len(data)
        self.unread += len(data)
        self.stream.on_data(data, 2.0)

    def wake(self, stream: object) -> None:
        """The stream never gets a turn."""

    def remove(self, stream: object) -> None:
        raise AssertionError("nothing is queued")


def test_a_new_stream_says_nothing() -> None:
    session = Session()
    stream = Stream(session, session, 2, False)
    stream.on_data(b"x", 0.0)
    stream.on_eof(0.0)
    stream.on_reset(0, 0.0)
    stream.on_writable(0.0)
    assert stream.on_drained is None
    assert not (stream.eof_sent or stream.eof_received or stream.is_reset or stream.shed)
    assert stream.unsent == stream.unread == 0 and not hasattr(stream, "__dict__")


def test_credit() -> None:
    session = Session()
    session.deliver(b"abcde")
    session.stream.credit(3, 4.0)
    assert session.unread == session.stream.unread == 2
    for size in (3, -1):
        with pytest.raises(LocalError, match=f"{size} bytes, but 2 are unread"):
            session.stream.credit(size, 4.0)
    session.stream.credit(2, 5.0)
    assert session.unread == session.stream.unread == 0
    assert session.log == [b"abcde", ("consumed", 3, 4.0), ("consumed", 2, 5.0)]


def test_stop_reading_discards_and_credits() -> None:
    session = Session()
    session.deliver(b"abc")
    session.stream.stop_reading()
    session.stream.stop_reading()
    assert session.unread == session.stream.unread == 0
    session.deliver(b"more")
    assert session.unread == session.stream.unread == 0
    session.stream.credit(99, 3.0)  # nothing is left to give back
    assert session.log == [b"abc", ("stop", 3), ("consumed", 4, 2.0)]
    session.stream._on_end(3.0)
    assert session.log[3:] == ["eof"]


@pytest.mark.parametrize("ended", ["_on_end", "_on_abort"])
def test_nobody_is_told_to_stop_after_the_end(ended: str) -> None:
    session = Session()
    session.deliver(b"abc")
    session.stream._on_end(3.0) if ended == "_on_end" else session.stream._on_abort(0, 3.0)
    del session.log[:]
    assert session.unread == 3
    session.stream.stop_reading()
    assert session.unread == 0 and session.log == []


def test_what_a_finished_stream_holds_can_be_credited() -> None:
    session = Session()
    session.deliver(b"abc")
    session.stream._on_abort(7, 3.0)
    assert not session.streams and session.stream.is_reset
    session.stream.credit(2, 4.0)
    assert session.unread == session.stream.unread == 1
    session.stream.reset()
    assert session.unread == session.stream.unread == 0
    assert session.log == [b"abc", ("on_reset", 7), ("consumed", 2, 4.0)]


def test_reset_ends_both_directions_once() -> None:
    session = Session()
    session.stream.write(b"unsent")
    session.stream._queued = False
    session.deliver(b"abc")
    session.stream.reset(5)
    session.stream.reset(6)
    session.stream.credit(3, 3.0)
    assert session.log == [b"abc", ("reset", 5)]
    assert session.stream.is_reset and not session.streams
    assert session.unread == session.stream.unread == session.stream.unsent == 0


def test_both_ends_finish_a_stream() -> None:
    session = Session()
    session.stream.write_eof()
    session.stream._fin_queued = False  # sent
    session.stream._on_end(1.0)
    session.stream._on_end(2.0)
    assert session.log == ["eof"] and not session.streams
    assert not session.stream.is_reset


def test_an_end_that_waits_keeps_a_stream() -> None:
    for close in (True, False):
        session = Session()
        if close:
            session.stream.write_eof()
        session.stream._on_end(1.0)
        session.stream._on_end(2.0)
        assert session.log == ["eof"] and session.streams


def test_a_muxer_without_flow_control_says_nothing() -> None:
    session = Session(Stream)
    session.deliver(b"abc")
    session.stream.credit(1, 3.0)
    session.stream.stop_reading()
    session.deliver(b"abc")
    assert session.unread == session.stream.unread == 0
    session.stream.reset()
    assert session.log == [b"abc"] and not session.streams


@pytest.mark.parametrize("code", [-1, 2**32])
def test_codes_have_32_bits(code: int) -> None:
    with pytest.raises(LocalError, match="32 bits"):
        Session().stream.reset(code)
    with pytest.raises(LocalError, match="32 bits"):
        check_code(code)
    check_code(2**32 - 1)
    check_code(0)
