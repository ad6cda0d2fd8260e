import pytest

from anyp2p_core.pubsub.outbox import HIGH, Kind, Outbox

CONTROL, OWN, FORWARD, GOSSIP = Kind


class Pipe:
    """A stream of which the test decides how much it takes."""

    def __init__(self, room=1 << 30):
        self.room = room
        self.taken = []
        self.unsent = 0
        self.on_drained = None

    def write(self, data):
        size = min(len(data), self.room)
        self.room -= size
        self.unsent += size
        if size:
            self.taken.append(bytes(data[:size]))
        return size

    def drain(self, room=None):
        """All was sent."""
        self.unsent = 0
        if room is not None:
            self.room = room
        callback, self.on_drained = self.on_drained, None
        if callback is not None:
            callback(0.0)

    @property
    def bytes(self):
        return b"".join(self.taken)


def make(*, max_bytes=1000, max_count=10, unwanted=(), room=1 << 30):
    pipe = Pipe(room)
    touched = []
    outbox = Outbox(
        pipe,
        max_bytes=max_bytes,
        max_count=max_count,
        touch=lambda: touched.append(1),
        is_unwanted=lambda one: one in unwanted,
    )
    return outbox, pipe, touched


def stuffed(**options):
    """One whose stream is full."""
    outbox, pipe, touched = make(**options)
    assert outbox.send(b"x" * HIGH, FORWARD)
    pipe.taken.clear()
    touched.clear()
    return outbox, pipe, touched


def test_what_the_stream_takes_is_written_at_once():
    outbox, pipe, touched = make()
    data = b"data"
    assert outbox.send(data, GOSSIP) and outbox.send(b"more", CONTROL)
    assert pipe.bytes == b"datamore" and len(touched) == 2 and outbox.count == 0
    assert pipe.on_drained is None


def test_what_waits_goes_out_in_the_order_of_its_importance():
    outbox, pipe, touched = stuffed()
    for kind in (GOSSIP, FORWARD, OWN, CONTROL, FORWARD):
        assert outbox.send(f"{kind.name} ".encode(), kind)
    assert outbox.count == 5 and outbox.size == 35 and not touched
    assert outbox.waiting(FORWARD) == 2 and pipe.taken == []
    pipe.drain()
    assert pipe.bytes == b"CONTROL OWN FORWARD FORWARD GOSSIP "
    assert outbox.count == outbox.size == 0 and touched == [1] and pipe.on_drained is None


def test_a_full_stream_is_not_filled_further():
    outbox, pipe, _ = stuffed(max_bytes=1 << 20)
    for _ in range(3):
        outbox.send(b"y" * HIGH, FORWARD)
    for left in (2, 1, 0):
        pipe.drain()
        assert outbox.count == left and pipe.unsent == HIGH
    pipe.drain()
    assert pipe.unsent == 0


def test_what_the_stream_takes_in_parts():
    outbox, pipe, touched = make(room=3)
    assert outbox.send(b"abcdefgh", OWN)
    assert outbox.send(b"next", CONTROL) and outbox.count == 1
    pipe.drain(room=2)
    assert pipe.bytes == b"abcde"
    pipe.drain(room=100)
    assert pipe.bytes == b"abcdefghnext" and outbox.count == 0 and len(touched) == 3


def test_a_part_that_is_left_of_what_waited():
    outbox, pipe, _ = stuffed()
    outbox.send(b"abcdef", OWN)
    pipe.drain(room=4)
    assert pipe.bytes == b"abcd" and pipe.on_drained is not None
    pipe.drain(room=9)
    assert pipe.bytes == b"abcdef" and pipe.on_drained is None


def test_what_is_not_wanted_any_more_is_left_out():
    unwanted = set()
    outbox, pipe, _ = stuffed(unwanted=unwanted)
    for name in (b"a", b"b", b"c"):
        outbox.send(name, FORWARD, name)
    unwanted.update((b"b", b"c"))
    pipe.drain()
    assert pipe.bytes == b"a" and outbox.count == 0


@pytest.mark.parametrize(
    ("waiting", "new", "left"),
    [
        # The oldest of the least important goes.
        ([(GOSSIP, b"g"), (FORWARD, b"f"), (OWN, b"o")], (CONTROL, b"c"), b"cof"),
        ([(FORWARD, b"f"), (FORWARD, b"F"), (OWN, b"o")], (CONTROL, b"c"), b"coF"),
        ([(FORWARD, b"f"), (FORWARD, b"F"), (OWN, b"o")], (FORWARD, b"n"), b"oFn"),
        ([(OWN, b"o"), (OWN, b"O"), (CONTROL, b"c")], (OWN, b"n"), b"cOn"),
        # What came may be the least important itself.
        ([(OWN, b"o"), (OWN, b"O"), (CONTROL, b"c")], (FORWARD, b"n"), b"coO"),
        ([(FORWARD, b"f"), (FORWARD, b"F"), (OWN, b"o")], (GOSSIP, b"n"), b"ofF"),
        # Control gives way to nothing.
        ([(CONTROL, b"1"), (CONTROL, b"2"), (CONTROL, b"3")], (OWN, b"n"), b"123"),
        ([(CONTROL, b"1"), (CONTROL, b"2"), (CONTROL, b"3")], (CONTROL, b"4"), b"123"),
    ],
)
def test_what_is_dropped_when_it_is_full(waiting, new, left):
    outbox, pipe, _ = stuffed(max_count=3)
    for kind, data in waiting:
        assert outbox.send(data, kind)
    kind, data = new
    assert outbox.send(data, kind) == (data in left)
    assert len(outbox.lost) == 1 and outbox.count == 3
    pipe.drain()
    assert pipe.bytes == left


def test_bytes_are_bounded_too():
    outbox, pipe, _ = stuffed(max_bytes=100)
    for at in range(5):
        outbox.send(bytes([at]) * 40, FORWARD)
        assert outbox.size <= 100
    assert len(outbox.lost) == 3
    assert outbox.send(b"z" * 90, OWN) and outbox.count == 1 and outbox.size == 90
    pipe.drain()
    assert pipe.bytes == b"z" * 90


def test_an_empty_queue_takes_even_what_is_too_long():
    outbox, _, _ = stuffed(max_bytes=100)
    assert outbox.send(b"z" * 500, FORWARD) and outbox.size == 500
    assert outbox.send(b"y" * 300, OWN) and outbox.size == 300 and outbox.count == 1
    assert not outbox.send(b"x", GOSSIP)
