"""A recorded session, cut, truncated and damaged in every way, against each of its two nodes."""

from random import Random

import pytest
from hostile.session import DIALER, LISTENER, WIRES, One, record

from anyp2p_core import Error, PingSucceeded, StreamOpened

ROLES = pytest.mark.parametrize("role", [DIALER, LISTENER], ids=["dialer", "listener"])


def replay(role, *pieces):
    one = One(role)
    for piece in pieces:
        if not one.closed:
            one.receive(piece)
    return one


def whole(role):
    """What a node makes of its side of the session, uncut."""
    one = replay(role, WIRES[1 - role])
    one.eof()
    one.end(None)
    return one


def finish(one):
    if not one.closed:
        one.eof()
        if not one.closed:
            one.end(None)
    return one


def test_the_session_repeats_and_is_complete():
    assert record() == WIRES
    for role in (DIALER, LISTENER):
        one = whole(role)
        assert one.nothing_left() is None
        kinds = [type(event) for event in one.events]
        assert kinds.count(StreamOpened) == 2 and PingSucceeded in kinds
        first, second = one.read
        assert one.ends == {first: "end", second: "StreamReset"}
        assert one.read == {first: b"all of this arrives" * 10, second: b"broken off"}


@ROLES
def test_promise_1_all_cuts_into_two(role):
    wire, expected = WIRES[1 - role], whole(role).trace()
    for cut in range(1, len(wire)):
        one = finish(replay(role, wire[:cut], wire[cut:]))
        assert one.trace() == expected, cut


@ROLES
def test_promise_1_single_bytes(role):
    wire = WIRES[1 - role]
    one = finish(replay(role, *(wire[n : n + 1] for n in range(len(wire)))))
    assert one.trace() == whole(role).trace()
    assert one.nothing_left() is None


@ROLES
def test_promise_1_random_partitions(role):
    wire, expected = WIRES[1 - role], whole(role).trace()
    random = Random(role)
    for number in range(500):
        count = random.choice((2, 3, 5, 10, 50, 200))
        cuts = sorted(random.sample(range(1, len(wire)), count))
        pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
        assert finish(replay(role, *pieces)).trace() == expected, (number, cuts)


@ROLES
@pytest.mark.parametrize("ending", ["eof", "reset", "silence"])
def test_promise_2_truncated_at_every_byte(role, ending):
    wire, complete = WIRES[1 - role], whole(role)
    for length in range(len(wire)):
        one = replay(role, wire[:length])
        if ending == "eof":
            finish(one)
        elif ending == "reset":
            one.end(ConnectionResetError("reset by peer"))
        else:
            one.silence()
        error = one.nothing_left()
        if ending == "reset":
            assert isinstance(error, ConnectionResetError)
        else:
            assert error is None or isinstance(error, Error), length
            assert error is not None or ending == "eof"
        for stream, data in one.read.items():
            assert complete.read[stream].startswith(data)
            assert one.ends[stream] in ("end", "StreamReset", "ConnectionLost")
            assert one.ends[stream] != "end" or data == complete.read[stream]


def damaged(role, position, change):
    """The session with one byte changed: nothing but typed errors comes of it."""
    wire = bytearray(WIRES[1 - role])
    wire[position] ^= change
    one = finish(replay(role, bytes(wire)))
    error = one.nothing_left()
    assert error is None or isinstance(error, Error), (position, change)
    return one


@ROLES
def test_promise_3_every_bit_of_what_is_not_sealed(role):
    # The first negotiation and the first handshake message of the other side.
    plain = len(b"\x13/multistream/1.0.0\n\x07/noise\n") + 2 + 32
    for position in range(plain):
        for bit in range(8):
            one = damaged(role, position, 1 << bit)
            assert one.read == {}  # nobody was authenticated


@ROLES
def test_promise_3_samples_of_what_is_sealed(role):
    complete = whole(role)
    random = Random(role)
    for _ in range(700):
        one = damaged(role, random.randrange(62, len(WIRES[1 - role])), random.randrange(1, 256))
        for stream, data in one.read.items():
            assert complete.read[stream].startswith(data)
            assert one.ends[stream] != "end" or data == complete.read[stream]


@ROLES
def test_promise_3_pieces_twice_missing_and_exchanged(role):
    complete, wire = whole(role), WIRES[1 - role]
    random = Random(role)
    for _ in range(300):
        a, b, c = sorted(random.sample(range(len(wire) + 1), 3))
        parts = random.choice(
            [
                [wire[:a], wire[b:]],
                [wire[:b], wire[a:]],
                [wire[:a], wire[b:c], wire[a:b], wire[c:]],
                [wire[:a], random.randbytes(b - a), wire[b:]],
            ]
        )
        one = finish(replay(role, b"".join(parts)))
        error = one.nothing_left()
        assert error is None or isinstance(error, Error)
        for stream, data in one.read.items():
            assert complete.read[stream].startswith(data)
            assert one.ends[stream] != "end" or data == complete.read[stream]
