from types import SimpleNamespace
from typing import cast

from anyp2p_core.yamux_outbox import Outbox
from anyp2p_core.yamux_stream import Stream


class Fake:
    """A stream with some frames of 100 bytes."""

    def __init__(self, name: str, frames: int) -> None:
        self.name = name
        self.frames = frames
        self._queued = False

    def _next_frame(self, out: list[bytes]) -> int:
        out.append(self.name.encode())
        self.frames -= 1
        self._queued = self.frames > 0
        return 100


def make(*frames: int) -> tuple[Outbox, SimpleNamespace, list[Fake]]:
    seen = SimpleNamespace(readied=0)

    def on_ready() -> None:
        seen.readied += 1

    outbox = Outbox(on_ready)
    streams = [Fake("abcdef"[i], n) for i, n in enumerate(frames)]
    for stream in streams:
        outbox.wake(cast("Stream", stream))
    return outbox, seen, streams


def test_streams_take_turns_a_frame_each() -> None:
    outbox, _, _ = make(3, 1, 2)
    assert outbox.take(10_000, 0.0) == [b"a", b"b", b"c", b"a", b"c", b"a"]
    assert not outbox


def test_the_turn_goes_on_where_the_budget_ended() -> None:
    outbox, _, _ = make(3, 3)
    assert outbox.take(250, 0.0) == [b"a", b"b", b"a"]
    assert outbox.take(100, 0.0) == [b"b"]
    assert outbox.take(0, 0.0) == []
    assert outbox.take(101, 0.0) == [b"a", b"b"]
    assert not outbox


def test_control_frames_go_first_and_count() -> None:
    outbox, _, _ = make(9)
    control = [b"control-12-b"] * 20
    for frame in control:
        outbox.add(frame)
    assert outbox.take(240, 0.0) == control
    assert outbox.take(100, 0.0) == [b"a"]


def test_on_ready_tells_when_it_stops_being_empty() -> None:
    outbox, seen, _ = make()
    assert not outbox and seen.readied == 0
    outbox.add(b"x")
    assert outbox and seen.readied == 1
    outbox.add(b"y")
    outbox.wake(cast("Stream", Fake("a", 2)))
    assert seen.readied == 1
    outbox.take(1, 0.0)
    assert outbox  # the stream had no turn yet
    outbox.add(b"z")
    outbox.wake(cast("Stream", Fake("b", 1)))
    assert seen.readied == 1
    outbox.take(10_000, 0.0)
    assert not outbox
    outbox.wake(cast("Stream", Fake("c", 1)))
    assert seen.readied == 2


def test_remove_and_clear() -> None:
    outbox, _, (a, b, c) = make(1, 1, 1)
    outbox.remove(cast("Stream", b))
    assert not b._queued
    assert outbox.take(1, 0.0) == [b"a"]
    outbox.add(b"x")
    outbox.clear()
    assert not outbox and not a._queued and not c._queued
    assert outbox.take(100, 0.0) == []


def test_who_waits_is_told_once_after_its_turn() -> None:
    outbox, _, (a, b) = make(1, 1)
    told: list[tuple[str, float]] = []
    for stream in (a, b):
        stream._notify = lambda now, name=stream.name: told.append((name, now))  # type: ignore[attr-defined]
    outbox.waiting.append(cast("Stream", b))
    assert outbox.take(10_000, 3.0) == [b"a", b"b"]
    assert told == [("b", 3.0)] and outbox.waiting == []
    assert outbox.take(10_000, 4.0) == [] and len(told) == 1
