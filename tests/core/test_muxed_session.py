"""anyp2p_core.muxed_session: bounds and ends, seen through a muxer that sends nothing."""

import pytest

from anyp2p_core.errors import MuxerError
from anyp2p_core.limits import Limits
from anyp2p_core.muxed_session import MuxedSession
from anyp2p_core.muxed_stream import MuxedStream


class Stream(MuxedStream["Session"]):
    __slots__ = ("told",)

    def __init__(self, mux: "Session", stream_id: int, inbound: bool) -> None:
        super().__init__(mux, mux, stream_id, inbound)
        self.told: list[int] = []
        self.on_reset = self.take_reset

    def take_reset(self, code: int, now: float) -> None:
        assert self.is_reset and self.id not in self._mux.streams
        self.told.append(code)
        self._mux.told.append(self.id)


class Session(MuxedSession[Stream]):
    """Its streams are woken and never get a turn."""

    def __init__(self, **limits: float) -> None:
        super().__init__(Limits(**limits))  # type: ignore[arg-type]
        self.woken: list[Stream] = []
        self.told: list[int] = []

    def add(self, stream_id: int, *, unread: int = 0, inbound: bool = False) -> Stream:
        stream = self.streams[stream_id] = Stream(self, stream_id, inbound)
        if inbound:
            self._inbound += 1
        else:
            self._outbound += 1
        stream.unread = unread
        self.unread += unread
        return stream

    def wake(self, stream: Stream) -> None:
        stream._queued = True
        self.woken.append(stream)

    def remove(self, stream: Stream) -> None:
        stream._queued = False
        self.woken.remove(stream)


def test_close_tells_every_stream_once_in_order() -> None:
    session = Session()
    for stream_id in (5, 1, 3):
        session.add(stream_id).write(b"unsent")
    streams = list(session.streams.values())
    session.close(1.0)
    session.close(2.0)
    assert session.told == [5, 1, 3] and not session.streams and not session.woken
    assert all(stream.told == [0] and not stream.unsent for stream in streams)


def test_finished_streams_are_forgotten() -> None:
    session = Session()
    ours, theirs = session.add(1), session.add(2, inbound=True)
    ours.write(b"unsent")
    theirs.reset()
    assert list(session.streams) == [1] and (session._inbound, session._outbound) == (0, 1)
    ours.reset()
    assert not session.streams and not session.woken
    assert (session._inbound, session._outbound) == (0, 0)
    assert session.told == []  # who resets is not told


def test_the_largest_is_shed() -> None:
    session = Session()
    for stream_id, unread in ((1, 10), (2, 30), (3, 20)):
        session.add(stream_id, unread=unread)
    largest = session._largest()
    assert largest.id == 2
    session._shed(largest, 7, 1.0)
    assert largest.shed and largest.told == [7] and session.unread == 30
    assert list(session.streams) == [1, 3]


def test_resets_are_counted_per_period() -> None:
    session = Session(max_resets=3, resets_period=10.0)
    for now in (0.0, 9.0, 9.9, 10.0, 11.0, 19.9):
        session._count_reset(now)
    with pytest.raises(MuxerError, match="4 streams were reset"):
        session._count_reset(19.95)
    assert "4 streams" in session._failed
